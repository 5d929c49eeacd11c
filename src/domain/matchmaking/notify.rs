//! Makes matches and notifies their players: the owners of the queue do so for all players, every second, and any other
//! node after somebody joined there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Matchmaking, Streams};
use crate::engine::matchmaking::{NotifyOutcome, Paired, PendingMatch, Unmatched};
use crate::engine::{EngineError, Kind, TopicMessage, Views};
use crate::ids::{MatchId, UserId};
use crate::telemetry::warn_seldom;

/// Tickets scanned per script call: a few milliseconds of Redis's time at most.
const PAIR_BATCH_MAX: u32 = 100;

/// Matches and expired tickets announced together.
const NOTIFY_BATCH_MAX: u32 = 64;

/// How often an owner of the queue looks for matches to make and to announce.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long unmatched tickets rest before the next scan.
const REST: Duration = Duration::from_secs(1);

/// How long a match stays with the node that announces it before any node announces it again. Nodes confirm within
/// milliseconds unless the connection or its node has just closed.
const RENOTIFY_AFTER: Duration = Duration::from_millis(500);

/// A node that took this long was suspended: others have announced or cancelled the match since.
const LATE_AFTER: Duration = Duration::from_secs(2);

const CONFIRM_BATCH_MAX: usize = 64;

const RETRY_DELAY: Duration = Duration::from_millis(200);

impl Matchmaking {
    /// Makes matches and announces them.
    pub(crate) async fn run_matching(self: Arc<Self>) {
        loop {
            let pause = match self.match_all().await {
                Ok(true) => Some(RENOTIFY_AFTER),
                Ok(false) => self.ownership.owns_queue().then_some(INTERVAL),
                Err(error) => {
                    warn_seldom!(%error, "could not look for matches; trying again");
                    Some(RETRY_DELAY)
                }
            };
            let next_round = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    // The owners go on.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next_round => {}
                () = self.wanted.notified() => {}
                () = self.ownership.queue_changed() => {}
            }
        }
    }

    /// Returns whether any player was notified, who may need to be notified again.
    async fn match_all(&self) -> Result<bool, EngineError> {
        let mut notified = false;
        loop {
            // Matches that were made are announced nevertheless.
            let paired = match self.pair().await {
                Ok(paired) => paired,
                Err(error) => {
                    self.notify_due().await?;
                    return Err(error);
                }
            };
            let max_wait = self.rules.max_wait;
            let (expired, waiting): (Vec<Unmatched>, Vec<Unmatched>) = paired
                .waiting
                .into_iter()
                .partition(|unmatched| unmatched.waited >= max_wait);
            let expired = expired
                .iter()
                .map(|ticket| self.engine.expire_ticket(ticket.user, ticket.version));
            if let Err(error) = try_join_all(expired).await {
                tracing::debug!(%error, "could not expire tickets; trying again");
            }
            // Ask the engine only about users who look offline to this node: that is almost free.
            let unseen = waiting
                .iter()
                .filter(|ticket| !self.presence.may_be_online(ticket.user))
                .map(|ticket| (ticket.user, ticket.version));
            if let Err(error) = self.drop_if_offline(unseen).await {
                tracing::debug!(%error, "could not see who is offline; trying again");
            }
            notified |= self.notify_due().await?;
            if !paired.more {
                return Ok(notified);
            }
        }
    }

    /// Confirms delivered matches, and handles messages that were held back.
    pub(crate) async fn run_match_tasks(self: Arc<Self>, streams: Streams) {
        tokio::join!(
            self.run_confirmations(streams.shown),
            self.run_held_back(streams.held_back)
        );
    }

    /// Removes users who went offline from the queue.
    pub(crate) async fn run_queue_cleanup(
        self: Arc<Self>,
        mut offline: mpsc::Receiver<Vec<UserId>>,
    ) {
        while let Some(users) = offline.recv().await {
            if let Err(error) = self.drop_offline(&users).await {
                warn_seldom!(%error, "could not remove offline users from the queue; the next scan does");
            }
        }
    }

    async fn run_held_back(&self, mut held_back: mpsc::Receiver<(UserId, TopicMessage)>) {
        while let Some((user, message)) = held_back.recv().await {
            self.receive(user, message).await;
        }
    }

    async fn run_confirmations(&self, mut shown: mpsc::Receiver<(MatchId, UserId)>) {
        let mut batch = Vec::new();
        while shown.recv_many(&mut batch, CONFIRM_BATCH_MAX).await > 0 {
            let confirmed = batch
                .iter()
                .map(|(id, user)| self.engine.confirm(id, *user));
            for error in join_all(confirmed)
                .await
                .into_iter()
                .filter_map(Result::err)
            {
                warn_seldom!(%error, "could not confirm a match; it is announced again");
            }
            batch.clear();
        }
    }

    async fn pair(&self) -> Result<Paired, EngineError> {
        let paired = self.engine.pair(self.rules, PAIR_BATCH_MAX, REST).await?;
        self.metrics.matches_made.inc_by(paired.matches);
        let queue_len = i64::try_from(paired.queue_len).unwrap_or(i64::MAX);
        self.metrics.matchmaking_queue.set(queue_len);
        Ok(paired)
    }

    /// Notifies all players that are due. Returns whether there were any.
    async fn notify_due(&self) -> Result<bool, EngineError> {
        let mut notified = false;
        loop {
            let due = self.engine.due(NOTIFY_BATCH_MAX, RENOTIFY_AFTER).await?;
            let longest = due.matches.len().max(due.expired.len());
            notified |= longest > 0;
            // A failed notification delays no other.
            let asked_at = Instant::now();
            let matches = due
                .matches
                .iter()
                .map(|pending| self.notify_players(pending, asked_at));
            let notified_players = join_all(matches).await;
            let max_wait_ms = self.rules.max_wait.as_millis() as u64;
            let before_ms = due.now_ms.saturating_sub(max_wait_ms);
            let timeouts = due
                .expired
                .iter()
                .map(|user| self.publish_timeout(*user, before_ms));
            let published_timeouts = join_all(timeouts).await;
            notified_players
                .into_iter()
                .chain(published_timeouts)
                .collect::<Result<(), _>>()?;
            if longest < NOTIFY_BATCH_MAX as usize {
                return Ok(notified);
            }
        }
    }

    /// A user between two connections is notified later, if the user returns.
    async fn publish_timeout(&self, user: UserId, before_ms: u64) -> Result<(), EngineError> {
        let (online, connections) = self.engine.connections_of(user).await?;
        if online && connections.is_empty() {
            return Ok(());
        }
        if online && self.engine.publish_timeout(user, before_ms).await? == 0 {
            return Ok(());
        }
        self.metrics.match_timeouts.inc();
        self.engine.end_timeout(user).await
    }

    /// Notifies both players if both are connected.
    async fn notify_players(
        &self,
        pending: &PendingMatch,
        asked_at: Instant,
    ) -> Result<(), EngineError> {
        let [a, b] = pending.users;
        let (of_a, of_b) =
            tokio::try_join!(self.engine.connections_of(a), self.engine.connections_of(b))?;
        let both = [(a, of_a), (b, of_b)];
        let online = both.iter().filter(|(_, (online, _))| *online);
        let online_users: Vec<UserId> = online.map(|(user, _)| *user).collect();
        let is_late = || asked_at.elapsed() >= LATE_AFTER;
        if is_late() {
            return Ok(());
        }
        if online_users.len() < both.len() {
            return self.cancel_match(&pending.id, &online_users).await;
        }
        // A player without a connection may return before the grace period ends.
        if both
            .iter()
            .any(|(_, (_, connections))| connections.is_empty())
        {
            return Ok(());
        }
        let mut nodes: Vec<(UserId, String)> = Vec::new();
        for (user, (_, connections)) in both {
            nodes.extend(connections.into_iter().map(|own| (user, own.incarnation)));
        }
        nodes.sort();
        nodes.dedup();
        match self.engine.begin_notify(&pending.id, &nodes).await? {
            NotifyOutcome::Users(_) if is_late() => Ok(()),
            NotifyOutcome::Users(users) => {
                let notified = users.into_iter().map(|user| {
                    let other = if user == a { b } else { a };
                    self.notify_one(&pending.id, user, other)
                });
                try_join_all(notified).await.map(|_| ())
            }
            NotifyOutcome::Cancelled => self.cancel_match(&pending.id, &[a, b]).await,
            NotifyOutcome::Over => Ok(()),
        }
    }

    async fn notify_one(
        &self,
        id: &MatchId,
        user: UserId,
        opponent: UserId,
    ) -> Result<(), EngineError> {
        let opponent = self.opponent_json(opponent).await?;
        self.engine.publish_match(user, id, opponent).await
    }

    async fn cancel_match(&self, id: &MatchId, online: &[UserId]) -> Result<(), EngineError> {
        let sent_back = self.engine.requeue(id, online).await?;
        self.metrics.matchmaking_requeued.inc_by(sent_back);
        if sent_back > 0 {
            self.wanted.notify_one();
        }
        Ok(())
    }

    /// The public fields of `user`, as shown to the opponent.
    async fn opponent_json(&self, user: UserId) -> Result<Arc<RawValue>, EngineError> {
        let stored = self.engine.stored(user).await?;
        let mut updates = stored.updates.iter();
        let profile = updates.find(|(kind, ..)| *kind == Kind::Profile);
        let shown = profile.and_then(|(_, views, _)| public_profile(views));
        let PublicProfile { username, avatar } = shown.unwrap_or_default();
        let opponent = json!({ "userId": user, "username": username, "avatar": avatar });
        serde_json::value::to_raw_value(&opponent)
            .map(Arc::from)
            .map_err(|error| EngineError::Answer(error.to_string()))
    }

    /// Removes offline users from the queue, unless their ticket was renewed since.
    async fn drop_offline(&self, users: &[UserId]) -> Result<(), EngineError> {
        let tickets = self.engine.tickets(users).await?;
        let versions = tickets.iter().map(|ticket| (ticket.user, ticket.version));
        self.drop_if_offline(versions).await
    }

    async fn drop_if_offline(
        &self,
        tickets: impl Iterator<Item = (UserId, u64)>,
    ) -> Result<(), EngineError> {
        let dropped = tickets.map(async |(user, version)| {
            let (online, _) = self.engine.connections_of(user).await?;
            if !online {
                self.engine.drop_ticket(user, version).await?;
            }
            Ok(())
        });
        join_all(dropped).await.into_iter().collect()
    }
}

/// The public fields of a profile that an opponent sees.
#[derive(Default)]
struct PublicProfile {
    username: Option<String>,
    avatar: Option<String>,
}

fn public_profile(views: &Views) -> Option<PublicProfile> {
    let public = views.public.as_ref()?;
    let fields: HashMap<String, serde_json::Value> = serde_json::from_str(public.get()).ok()?;
    let text = |name: &str| Some(fields.get(name)?.as_str()?.to_owned());
    Some(PublicProfile {
        username: text("username"),
        avatar: text("avatar"),
    })
}
