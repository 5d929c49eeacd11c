//! The task of one connection: works off its events one after the other, and watches its token expire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use super::SessionContext;
use super::ack::refusal;
use super::address_limit::AddressPermit;
use super::encoded_events::{EncodedEvents, encode};
use super::engine_session::NamespaceHandle;
use super::inbound::{DisconnectSignal, QueuedEvent};
use super::outbound::Outbound;
use super::sink::{Flush, Outgoing};
use crate::clock::now_ms;
use crate::domain::connection::{Connection, WatchError};
use crate::domain::delivery::ReplyTo;
use crate::domain::matchmaking::JoinError;
use crate::domain::token::Identity;
use crate::domain::token_status::TokenStatus;
use crate::ids::UserId;
use crate::transport::protocol::{
    Done, ErrorCode, KickCode, QueueStatus, Queued, Request, TokenExpiring, TokenRefreshed,
    server_event,
};

/// How long before its token expires a client is warned.
const EXPIRY_NOTICE_MS: u64 = 30_000;

/// How long a client has to read why its transport is about to be closed.
const KICK_GRACE: Duration = Duration::from_secs(1);

/// The longest pause between two checks of a token.
const TOKEN_CHECK_MAX: Duration = Duration::from_secs(24 * 3600);

const UNREACHABLE: &str = "the hub cannot do this at the moment; try again";

/// One connection, from its admission to its end.
pub(super) struct ConnectionTask {
    pub(super) context: Arc<SessionContext>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) disconnected: Arc<DisconnectSignal>,
    /// `None` once the connection does not count any more.
    pub(super) dispatcher: Option<Dispatcher>,
    /// Counts for the address until the task ends.
    pub(super) permit: Option<AddressPermit>,
}

impl ConnectionTask {
    /// Works off events until the connection has ended.
    pub(super) async fn run(mut self) {
        // Events that are still queued at the end have no effect: nobody is left to see it.
        let is_closing = tokio::select! {
            biased;
            () = self.disconnected.wait() => false,
            () = self.outbound.closing() => true,
            () = run(&mut self.dispatcher) => false,
        };
        // The user goes offline now, however long the client takes to read why.
        self.dispatcher = None;
        if is_closing {
            let _ = tokio::time::timeout(KICK_GRACE, self.disconnected.wait()).await;
            self.outbound.close_transport();
        }
        let id = self.outbound.id;
        tracing::debug!(connection = %id, "closed a connection");
        self.context
            .metrics
            .count_ended(self.disconnected.because());
        self.context.outbound.close(id);
        drop(self.permit);
    }
}

async fn run(dispatcher: &mut Option<Dispatcher>) {
    if let Some(dispatcher) = dispatcher {
        dispatcher.run().await;
    }
}

/// Works off the events of a connection.
pub(super) struct Dispatcher {
    context: Arc<SessionContext>,
    connection: Connection,
    outbound: Arc<Outbound>,
    handle: NamespaceHandle,
    events: mpsc::Receiver<Box<QueuedEvent>>,
    /// An event whose answer has to wait, and all after it, until then.
    delayed: Option<(Instant, Box<QueuedEvent>)>,
    expiry: Option<Expiry>,
}

/// The next step in the life of a token.
#[derive(Clone, Copy)]
struct Expiry {
    expires_at_ms: u64,
    announced: bool,
}

impl Dispatcher {
    pub(super) fn new(
        context: Arc<SessionContext>,
        connection: Connection,
        identity: Option<Identity>,
        outbound: Arc<Outbound>,
        handle: NamespaceHandle,
        events: mpsc::Receiver<Box<QueuedEvent>>,
    ) -> Self {
        let leeway = context.tokens.leeway();
        Self {
            expiry: identity.map(|identity| Expiry::of(&identity, leeway, now_ms())),
            context,
            connection,
            outbound,
            handle,
            events,
            delayed: None,
        }
    }

    /// Works off events until the client is gone before it knew that it was connected.
    async fn run(&mut self) {
        loop {
            let now = Instant::now();
            let check = self.expiry.map(|expiry| now + expiry.next_in(now_ms()));
            let due = self.delayed.as_ref().map(|(until, _)| *until);
            let wake = [check, due].into_iter().flatten().min();
            tokio::select! {
                event = self.events.recv(), if due.is_none() => match event {
                    Some(event) => match self.delay(&event.request) {
                        Some(until) => self.delayed = Some((until, event)),
                        None => self.dispatch(event).await,
                    }
                    None => return,
                },
                () = sleep_until(wake) => {
                    self.check_token(now_ms());
                    let now = Instant::now();
                    if let Some((_, event)) = self.delayed.take_if(|(until, _)| *until <= now) {
                        self.dispatch(event).await;
                    }
                }
            }
        }
    }

    /// Until when a request has to wait, because the answers would be too much.
    fn delay(&self, request: &Request) -> Option<Instant> {
        if *request != Request::OnlineUsers {
            return None;
        }
        let now = Instant::now();
        let online = self.context.hub.online_count();
        let limits = self.context.limits.get();
        let delay = self.handle.quota(&limits).snapshots.delay(online, now);
        (!delay.is_zero()).then(|| now + delay)
    }

    /// Answers leave in the order of the events, and never before what was delivered earlier.
    ///
    /// The future is boxed, so that a connection reserves no memory for it while it is idle.
    async fn dispatch(&mut self, event: Box<QueuedEvent>) {
        Box::pin(self.handle(*event)).await;
    }

    async fn handle(&mut self, event: QueuedEvent) {
        let to = ReplyTo {
            connection: self.connection.id(),
            ack: event.ack,
        };
        let outcome = match event.request {
            Request::OnlineUsers => {
                self.connection.answer_online_users(to).await;
                Ok(())
            }
            Request::Watch(target) => self.watch(target, to).await,
            Request::Unwatch(target) => {
                self.connection.unwatch(target);
                self.reply(to, &Done { ok: true }).await;
                Ok(())
            }
            Request::RefreshToken(token) => self.refresh_token(&token, to).await,
            Request::JoinMatchmaking => self.join_matchmaking(to).await,
            Request::LeaveMatchmaking => self.leave_matchmaking(to).await,
        };
        if let Err((code, message)) = outcome {
            self.context.metrics.refused_events.inc();
            if let Some(refusal) = refusal(&event.name, event.ack, code, &message) {
                self.outbound.send(&refusal, Flush::Now);
            }
        }
    }

    async fn watch(&mut self, target: UserId, to: ReplyTo) -> Result<(), Rejection> {
        self.connection
            .watch(target, to)
            .await
            .map_err(|error| match error {
                WatchError::TooMany(_) => (ErrorCode::TooManyWatches, error.to_string()),
                WatchError::Engine(error) => self.unreachable(&error, "could not watch"),
            })
    }

    async fn refresh_token(&mut self, token: &str, to: ReplyTo) -> Result<(), Rejection> {
        let Some(user) = self.connection.user() else {
            let message = "a guest has no token to refresh; sign in by connecting with one";
            return Err((ErrorCode::NotSignedIn, message.to_owned()));
        };
        let identity = self.verify(user, token).await?;
        let leeway = self.context.tokens.leeway();
        self.expiry = Some(Expiry::of(&identity, leeway, now_ms()));
        let expires_at = identity.expires_at;
        let ok = true;
        self.reply(to, &TokenRefreshed { ok, expires_at }).await;
        Ok(())
    }

    /// The identity of a token, if it is a valid one of `user` and the hub accepts it.
    async fn verify(&self, user: UserId, token: &str) -> Result<Identity, Rejection> {
        let invalid = |message: &str| Err((ErrorCode::InvalidToken, message.to_owned()));
        let identity = match self.context.tokens.verify(token) {
            Ok(identity) if identity.user == user => identity,
            Ok(_) => return invalid("the token is another user's"),
            Err(error) => {
                tracing::debug!(connection = %self.connection.id(), %error, "refused a token");
                return invalid("the token is not valid, or has expired");
            }
        };
        match self.context.hub.token_status(&identity).await {
            Ok(TokenStatus::Accepted) => Ok(identity),
            Ok(TokenStatus::Revoked) => invalid("the token was revoked; sign in again"),
            Ok(TokenStatus::AccountDeleted) => invalid("the account was deleted"),
            Err(error) => Err(self.unreachable(&error, "could not check a token")),
        }
    }

    async fn join_matchmaking(&self, to: ReplyTo) -> Result<(), Rejection> {
        let joined = self.connection.join_matchmaking().await;
        let joined = joined.map_err(|error| self.join_rejection(&error))?;
        let status = QueueStatus::of(joined.already);
        self.reply(to, &Queued { ok: true, status }).await;
        // No match is announced before the answer is on its way.
        drop(joined);
        Ok(())
    }

    async fn leave_matchmaking(&self, to: ReplyTo) -> Result<(), Rejection> {
        let left = self.connection.leave_matchmaking().await;
        left.map_err(|error| self.join_rejection(&error))?;
        self.reply(to, &Done { ok: true }).await;
        Ok(())
    }

    fn join_rejection(&self, error: &JoinError) -> Rejection {
        match error {
            JoinError::NotSignedIn => (ErrorCode::NotSignedIn, error.to_string()),
            JoinError::NotOnline | JoinError::Engine(_) => {
                self.unreachable(error, "could not reach the queue")
            }
        }
    }

    /// The rejection of an event that may succeed later. The log has the reason.
    fn unreachable(&self, error: &dyn std::fmt::Display, failed: &str) -> Rejection {
        tracing::debug!(connection = %self.connection.id(), %error, "{failed}");
        (ErrorCode::Unavailable, UNREACHABLE.to_owned())
    }

    /// Acknowledges an event, after everything that was delivered before.
    async fn reply(&self, to: ReplyTo, body: &impl Serialize) {
        if let Some(body) = encode(body) {
            self.connection.reply(to, body).await;
        }
    }

    fn check_token(&mut self, now_ms: u64) {
        let Some(expiry) = &mut self.expiry else {
            return;
        };
        if expiry.next_in(now_ms) > Duration::ZERO {
            return;
        }
        let expires_at = expiry.expires_at_ms;
        if expiry.announced {
            self.expiry = None;
            return self.outbound.kick(KickCode::TokenExpired);
        }
        expiry.announced = true;
        let expiring = TokenExpiring { expires_at };
        if let Some(events) = EncodedEvents::new(server_event::TOKEN_EXPIRING, &expiring) {
            self.outbound.send(&Outgoing::Events(events), Flush::Now);
        }
    }
}

/// Sleeps until `deadline`, if there is one. A timer takes memory only while it runs: an idle guest has none.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => Box::pin(tokio::time::sleep_until(deadline.into())).await,
        None => std::future::pending().await,
    }
}

/// The code and the message of a refusal.
type Rejection = (ErrorCode, String);

impl Expiry {
    /// A token that was accepted although it had just expired lives for as long as the leeway.
    fn of(identity: &Identity, leeway: Duration, now_ms: u64) -> Self {
        let leeway_ms = if identity.expires_at <= now_ms {
            leeway.as_millis() as u64
        } else {
            0
        };
        Self {
            expires_at_ms: identity.expires_at + leeway_ms,
            announced: false,
        }
    }

    /// The time until the next step.
    fn next_in(self, now_ms: u64) -> Duration {
        let notice_ms = if self.announced { 0 } else { EXPIRY_NOTICE_MS };
        let due_ms = self.expires_at_ms.saturating_sub(notice_ms);
        Duration::from_millis(due_ms.saturating_sub(now_ms)).min(TOKEN_CHECK_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_its_leeway_lives_it_out() {
        let user = UserId::try_from(1).expect("a valid id");
        let acts_at_ms = |expires_at| {
            Expiry::of(
                &Identity {
                    user,
                    expires_at,
                    issued_at: None,
                },
                Duration::from_secs(5),
                1_000_000,
            )
            .expires_at_ms
        };
        assert_eq!(acts_at_ms(1_000_001), 1_000_001);
        assert_eq!(acts_at_ms(999_000), 1_004_000);
    }

    #[test]
    fn a_token_is_announced_before_it_expires() {
        let mut expiry = Expiry {
            expires_at_ms: 100_000,
            announced: false,
        };
        assert_eq!(expiry.next_in(10_000), Duration::from_secs(60));
        assert_eq!(
            expiry.next_in(90_000),
            Duration::ZERO,
            "at once where less than the notice is left"
        );
        expiry.announced = true;
        assert_eq!(expiry.next_in(90_000), Duration::from_secs(10));
        assert_eq!(expiry.next_in(200_000), Duration::ZERO);
    }
}
