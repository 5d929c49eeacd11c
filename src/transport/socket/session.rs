//! The life of one connection: works off its events one after the other, and watches its token expire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use super::Sockets;
use super::carrier::Place;
use super::inbox::{End, Incoming};
use super::outlet::Outlet;
use super::packet::Packets;
use super::reply::Question;
use crate::clock::now_ms;
use crate::domain::connection::{Connection, WatchError};
use crate::domain::matchmaking::JoinError;
use crate::domain::token::Identity;
use crate::domain::token_status::TokenStatus;
use crate::ids::UserId;
use crate::transport::protocol::{
    Done, ErrorCode, KickCode, QueueStatus, Queued, Request, TokenExpiring, TokenRefreshed,
    server_event,
};

/// How long before its end a client is told that its token expires.
const EXPIRY_NOTICE_MS: u64 = 30_000;

/// How long a client that is about to be closed has to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// A token that lives longer is looked at again after this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

/// What a client is told when the engine cannot be reached.
const UNREACHABLE: &str = "the hub cannot do this at the moment; try again";

struct Session {
    sockets: Arc<Sockets>,
    connection: Connection,
    outlet: Arc<Outlet>,
    expiry: Option<Expiry>,
    place: Place,
}

/// What is left to say about a token.
#[derive(Clone, Copy)]
struct Expiry {
    expires_at_ms: u64,
    announced: bool,
}

/// Runs until the client is gone, which `end` tells, then forgets the connection.
pub(super) async fn run(
    sockets: Arc<Sockets>,
    connection: Connection,
    identity: Option<Identity>,
    outlet: Arc<Outlet>,
    place: Place,
    incoming: mpsc::Receiver<Incoming>,
    end: &End,
) {
    let id = connection.id();
    let mut session = Session {
        expiry: identity.map(|identity| Expiry::of(&identity, sockets.tokens.leeway(), now_ms())),
        sockets,
        connection,
        outlet,
        place,
    };
    let outlet = session.outlet.clone();
    // What the client still wanted is void: nobody is left to see it.
    let is_leaving = tokio::select! {
        biased;
        () = end.told() => false,
        () = outlet.leaving() => true,
        () = session.work(incoming) => false,
    };
    // Whoever is about to be closed is here no longer, however long the client takes to read why.
    session.connection.close();
    if is_leaving {
        let _ = tokio::time::timeout(FAREWELL, end.told()).await;
        outlet.close_transport();
    }
    tracing::debug!(connection = %id, "closed a connection");
    session.sockets.metrics.count_ended(end.because());
    session.sockets.outlets.close(id);
}

/// A request that waits until then.
type Held = (Instant, Incoming);

/// Resolves when what is held is due. Nothing is lost where this is dropped before.
async fn due(held: &mut Option<Held>) -> Incoming {
    if let Some((until, _)) = held {
        tokio::time::sleep_until((*until).into()).await;
    }
    match held.take() {
        Some((_, incoming)) => incoming,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Works off events until there can be no more: the client was gone before it was told that it is connected.
    async fn work(&mut self, mut incoming: mpsc::Receiver<Incoming>) {
        let mut held = None;
        loop {
            let wait = self
                .expiry
                .map_or(LONGEST_SLEEP, |expiry| expiry.next_in(now_ms()));
            tokio::select! {
                request = incoming.recv(), if held.is_none() => match request {
                    Some(request) => match self.hold(&request.0) {
                        Some(until) => held = Some((until, request)),
                        None => self.handle(request).await,
                    }
                    None => return,
                },
                request = due(&mut held), if held.is_some() => self.handle(request).await,
                () = tokio::time::sleep(wait) => self.look_at_token(now_ms()),
            }
        }
    }

    /// Until when a request has to wait, and all after it, because the answers would be too much.
    fn hold(&mut self, request: &Request) -> Option<Instant> {
        let Request::OnlineUsers = request else {
            return None;
        };
        let now = Instant::now();
        let online = self.sockets.hub.online_count();
        let wait = self.place.allowance().lists.wait(online, now);
        (!wait.is_zero()).then(|| now + wait)
    }

    /// Answers go out in the order of the events, and never before what was delivered earlier.
    ///
    /// What this takes is taken from the heap for each request, and not kept by every connection at all times.
    async fn handle(&mut self, incoming: Incoming) {
        Box::pin(self.answer_to(incoming)).await;
    }

    async fn answer_to(&mut self, incoming: Incoming) {
        let (request, question) = *incoming;
        match request {
            Request::OnlineUsers => {
                self.outlet.ask(question);
                self.connection.answer_online_users().await;
            }
            Request::Watch(target) => self.watch(target, question).await,
            Request::Unwatch(target) => {
                self.connection.unwatch(target);
                self.answer(question, &Done { ok: true }).await;
            }
            Request::RefreshToken(token) => self.refresh_token(&token, question).await,
            Request::JoinMatchmaking => self.join_matchmaking(question).await,
            Request::LeaveMatchmaking => self.leave_matchmaking(question).await,
        }
    }

    async fn watch(&mut self, target: UserId, question: Question) {
        self.outlet.ask(question);
        let Err(error) = self.connection.watch(target).await else {
            return;
        };
        if let Some(question) = self.outlet.take_back() {
            match error {
                WatchError::TooMany(_) => {
                    self.refuse(question, ErrorCode::TooManyWatches, error.to_string())
                }
                WatchError::Engine(error) => {
                    tracing::debug!(connection = %self.connection.id(), %error, "could not watch");
                    self.refuse(question, ErrorCode::Unavailable, UNREACHABLE);
                }
            }
        }
    }

    async fn refresh_token(&mut self, token: &str, question: Question) {
        let Some(user) = self.connection.user() else {
            let message = "a guest has no token to refresh; sign in by connecting with one";
            return self.refuse(question, ErrorCode::NotSignedIn, message);
        };
        match self.accept(user, token).await {
            Ok(identity) => {
                self.expiry = Some(Expiry::of(
                    &identity,
                    self.sockets.tokens.leeway(),
                    now_ms(),
                ));
                let expires_at = identity.expires_at;
                self.answer(
                    question,
                    &TokenRefreshed {
                        ok: true,
                        expires_at,
                    },
                )
                .await;
            }
            Err((code, message)) => self.refuse(question, code, message),
        }
    }

    /// Who the token speaks for, if that is `user` and the token is accepted; why not, else.
    async fn accept(
        &self,
        user: UserId,
        token: &str,
    ) -> Result<Identity, (ErrorCode, &'static str)> {
        let invalid = |message| Err((ErrorCode::InvalidToken, message));
        let connection = self.connection.id();
        let identity = match self.sockets.tokens.verify(token) {
            Ok(identity) if identity.user == user => identity,
            Ok(_) => return invalid("the token is another user's"),
            Err(error) => {
                tracing::debug!(%connection, %error, "refused a token");
                return invalid("the token is not valid, or has expired");
            }
        };
        match self.sockets.hub.token_status(&identity).await {
            Ok(TokenStatus::Accepted) => Ok(identity),
            Ok(TokenStatus::Revoked) => invalid("the token was revoked; sign in again"),
            Ok(TokenStatus::AccountDeleted) => invalid("the account was deleted"),
            Err(error) => {
                tracing::debug!(%connection, %error, "could not ask whether a token is accepted");
                Err((ErrorCode::Unavailable, UNREACHABLE))
            }
        }
    }

    async fn join_matchmaking(&self, question: Question) {
        match self.connection.join_matchmaking().await {
            // Told of no match before the answer is on its way.
            Ok(joined) => {
                let status = QueueStatus::of(joined.already);
                self.answer(question, &Queued { ok: true, status }).await;
                drop(joined);
            }
            Err(error) => self.refuse_matchmaking(question, &error),
        }
    }

    async fn leave_matchmaking(&self, question: Question) {
        match self.connection.leave_matchmaking().await {
            Ok(()) => self.answer(question, &Done { ok: true }).await,
            Err(error) => self.refuse_matchmaking(question, &error),
        }
    }

    fn refuse_matchmaking(&self, question: Question, error: &JoinError) {
        match error {
            JoinError::NotSignedIn => {
                self.refuse(question, ErrorCode::NotSignedIn, error.to_string())
            }
            JoinError::NotOnline | JoinError::Engine(_) => {
                tracing::debug!(connection = %self.connection.id(), %error, "could not reach the queue");
                self.refuse(question, ErrorCode::Unavailable, UNREACHABLE);
            }
        }
    }

    async fn answer(&self, question: Question, answer: &impl Serialize) {
        self.outlet.ask(question.prepared(answer));
        self.connection.take_turn().await;
    }

    fn refuse(&self, question: Question, code: ErrorCode, message: impl Into<String>) {
        self.sockets.metrics.refused_events.inc();
        question.refuse(&self.outlet, code, message);
    }

    fn look_at_token(&mut self, now_ms: u64) {
        let Some(expiry) = &mut self.expiry else {
            return;
        };
        if expiry.next_in(now_ms) > Duration::ZERO {
            return;
        }
        let expires_at = expiry.expires_at_ms;
        if expiry.announced {
            self.expiry = None;
            return self.outlet.kick(KickCode::TokenExpired);
        }
        expiry.announced = true;
        let expiring = TokenExpiring { expires_at };
        if let Some(packets) = Packets::new(server_event::TOKEN_EXPIRING, &expiring) {
            self.outlet.emit(&packets);
        }
    }
}

impl Expiry {
    /// A token that was accepted although it had just expired lives out the leeway that it was given.
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

    /// How long until there is something to say.
    fn next_in(self, now_ms: u64) -> Duration {
        let notice_ms = if self.announced { 0 } else { EXPIRY_NOTICE_MS };
        let due_ms = self.expires_at_ms.saturating_sub(notice_ms);
        Duration::from_millis(due_ms.saturating_sub(now_ms)).min(LONGEST_SLEEP)
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
