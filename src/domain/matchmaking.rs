//! Matchmaking: one queue for all nodes, processed by its owners and by the node on which somebody has just joined.
//!
//! Making a match and notifying its players are two steps, because the queue does not know who is online. A pending
//! match is handed out for notification until every node of both players has shown it, or until a player turns out to
//! be offline; then the other one returns to the front of the queue. So a node may die at any point, and the others
//! continue.

mod notify;
mod rating;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use self::rating::{RATING_DEFAULT, rating};
use super::ownership::Ownership;
use super::presence::Presence;
use super::topic::Topics;
pub(crate) use crate::engine::matchmaking::QueueStats;
use crate::engine::matchmaking::{Enqueued, PairingRules};
use crate::engine::{Engine, EngineError, Kind, TopicMessage};
use crate::ids::{MatchId, UserId};
use crate::telemetry::Metrics;

/// Ratings range from `-RATING_MAX` to `RATING_MAX`.
pub(crate) const RATING_MAX: i64 = 1_000_000;

/// Queued confirmations. One that does not fit is not lost: the match is published again.
const CONFIRMATIONS_MAX: usize = 1024;

/// Matches held back per user until the join is acknowledged. Any beyond that are published again.
const HELD_BACK_MAX: usize = 8;

/// Queued batches of users who went offline.
const OFFLINE_BATCHES_MAX: usize = 64;

/// Tickets enqueued again concurrently.
const REENQUEUE_BATCH_MAX: usize = 256;

/// Why a user could not join the queue.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The connection is a guest's.
    #[error("only a user can wait for an opponent; sign in by connecting with a token")]
    NotSignedIn,
    /// The user is offline.
    #[error("the user is not online")]
    NotOnline,
    /// The engine cannot be reached.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

pub(crate) struct Matchmaking {
    engine: Engine,
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    ownership: Arc<Ownership>,
    metrics: Arc<Metrics>,
    rules: PairingRules,
    /// Whether statistics provide ratings.
    rated: bool,
    waiting: Mutex<HashMap<UserId, LocalTicket>>,
    wanted: Notify,
    confirmations: mpsc::Sender<(MatchId, UserId)>,
    held_back: mpsc::Sender<(UserId, TopicMessage)>,
}

/// The inputs of the matchmaking loops.
pub(crate) struct Streams {
    /// Matches that this node has shown to a user.
    shown: mpsc::Receiver<(MatchId, UserId)>,
    /// Topic messages that were held back, in order.
    held_back: mpsc::Receiver<(UserId, TopicMessage)>,
}

/// Queues users who went offline for [`Matchmaking::run_queue_cleanup`].
#[derive(Clone)]
pub(crate) struct OfflineUsers(mpsc::Sender<Vec<UserId>>);

impl OfflineUsers {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Vec<UserId>>) {
        let (sender, receiver) = mpsc::channel(OFFLINE_BATCHES_MAX);
        (Self(sender), receiver)
    }

    pub(crate) fn send(&self, users: Vec<UserId>) {
        if !users.is_empty() {
            // If there is no room, the next node to scan the queue drops these users.
            let _ = self.0.try_send(users);
        }
    }
}

/// A ticket requested on this node. The engine has it too, but may lose it.
struct LocalTicket {
    /// Connections whose join is not acknowledged yet.
    joining: usize,
    /// Rating, and when the user joined in ms; `None` until the engine has answered.
    ticket: Option<(i64, u64)>,
    /// Matches found in the meantime.
    held_back: Vec<TopicMessage>,
}

/// Holds match announcements back until the join is acknowledged, that is, until this is dropped.
pub struct Joined {
    matchmaking: Arc<Matchmaking>,
    user: UserId,
    /// The user was already queued.
    pub already: bool,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut waiting = self.matchmaking.waiting.lock();
        if let Some(entry) = waiting.get_mut(&self.user) {
            entry.joining = entry.joining.saturating_sub(1);
            if entry.joining > 0 {
                return;
            }
            for message in entry.held_back.drain(..) {
                // If there is no room, the match is published again.
                let _ = self.matchmaking.held_back.try_send((self.user, message));
            }
            if entry.ticket.is_none() {
                waiting.remove(&self.user);
            }
        }
    }
}

impl Matchmaking {
    /// Also returns the streams for [`Self::run_match_tasks`].
    pub(crate) fn new(
        engine: Engine,
        topics: Arc<Topics>,
        presence: Arc<Presence>,
        ownership: Arc<Ownership>,
        metrics: Arc<Metrics>,
        rules: PairingRules,
        rated: bool,
    ) -> (Arc<Self>, Streams) {
        let (confirmations, shown) = mpsc::channel(CONFIRMATIONS_MAX);
        let (late, held_back) = mpsc::channel(CONFIRMATIONS_MAX);
        let matchmaking = Self {
            engine,
            topics,
            presence,
            ownership,
            metrics,
            rules,
            rated,
            waiting: Mutex::default(),
            wanted: Notify::new(),
            confirmations,
            held_back: late,
        };
        let streams = Streams { shown, held_back };
        (Arc::new(matchmaking), streams)
    }

    /// Adds a user of this node to the queue.
    pub(crate) async fn join_here(self: &Arc<Self>, user: UserId) -> Result<Joined, EngineError> {
        let mut joined = {
            // Recorded first: a match may be found before the engine's answer arrives.
            let mut waiting = self.waiting.lock();
            let entry = waiting.entry(user).or_insert_with(|| LocalTicket {
                joining: 0,
                ticket: None,
                held_back: Vec::new(),
            });
            entry.joining += 1;
            Joined {
                matchmaking: Arc::clone(self),
                user,
                already: false,
            }
        };
        let rating = self.rating_of(user).await?;
        let enqueued = self.enqueue(user, rating).await?;
        joined.already = !enqueued.is_new();
        let since_ms = match enqueued {
            Enqueued::Queued { since_ms } | Enqueued::AlreadyQueued { since_ms } => since_ms,
            Enqueued::Matched => return Ok(joined),
        };
        if let Some(entry) = self.waiting.lock().get_mut(&user) {
            entry.ticket = Some((rating, since_ms));
        }
        Ok(joined)
    }

    async fn enqueue(&self, user: UserId, rating: i64) -> Result<Enqueued, EngineError> {
        let enqueued = self.engine.enqueue(user, rating).await?;
        if enqueued.is_new() {
            self.metrics.matchmaking_joins.inc();
        }
        self.wanted.notify_one();
        Ok(enqueued)
    }

    pub(crate) async fn join(&self, user: UserId, rating: Option<i64>) -> Result<bool, JoinError> {
        let (online, _) = self.engine.connections_of(user).await?;
        if !online {
            return Err(JoinError::NotOnline);
        }
        let rating = match rating {
            Some(rating) => rating.clamp(-RATING_MAX, RATING_MAX),
            None => self.rating_of(user).await?,
        };
        let enqueued = self.enqueue(user, rating).await?;
        Ok(!enqueued.is_new())
    }

    pub(crate) async fn leave(&self, user: UserId) -> Result<bool, EngineError> {
        self.forget(user);
        let left = self.engine.cancel(user).await?;
        // Another node may still hold a ticket of the user.
        self.engine.publish_left(user).await?;
        if left {
            self.wanted.notify_one();
        }
        Ok(left)
    }

    /// Drops the local ticket of `user`.
    pub(crate) fn forget(&self, user: UserId) {
        let mut waiting = self.waiting.lock();
        if let Some(entry) = waiting.get_mut(&user) {
            entry.ticket = None;
            if entry.joining == 0 {
                waiting.remove(&user);
            }
        }
    }

    /// Handles a matchmaking message on a user's topic.
    pub(crate) async fn receive(&self, user: UserId, message: TopicMessage) {
        let Some(message) = self.hold_back(user, message) else {
            return;
        };
        let (found, expired) = match &message {
            TopicMessage::MatchFound { id, .. } => (Some(id.clone()), false),
            TopicMessage::MatchTimeout { .. } => (None, true),
            // No connection is notified; the node drops its local ticket.
            TopicMessage::MatchLeft => return self.forget(user),
            TopicMessage::Update(..)
            | TopicMessage::Event { .. }
            | TopicMessage::Disconnect { .. }
            | TopicMessage::AccountDeleted => (None, false),
        };
        let delivered = self.topics.receive(user, message).await;
        if expired || (found.is_some() && delivered.is_new) {
            self.forget(user);
        }
        if let Some(id) = found.filter(|_| delivered.has_own) {
            self.confirm(user, id);
        }
    }

    /// Returns the message if it may be delivered now; otherwise holds it back or drops it.
    fn hold_back(&self, user: UserId, message: TopicMessage) -> Option<TopicMessage> {
        let mut waiting = self.waiting.lock();
        let Some(entry) = waiting.get_mut(&user) else {
            return Some(message);
        };
        match &message {
            // The acknowledgement of the join comes first.
            TopicMessage::MatchFound { .. } if entry.joining > 0 => {
                if entry.held_back.len() < HELD_BACK_MAX {
                    entry.held_back.push(message);
                }
                None
            }
            // The message refers to an earlier ticket than the current one.
            TopicMessage::MatchTimeout { before_ms }
                if entry
                    .ticket
                    .is_some_and(|(_, since_ms)| since_ms > *before_ms) =>
            {
                None
            }
            TopicMessage::MatchFound { .. }
            | TopicMessage::MatchTimeout { .. }
            | TopicMessage::MatchLeft
            | TopicMessage::Update(..)
            | TopicMessage::Event { .. }
            | TopicMessage::Disconnect { .. }
            | TopicMessage::AccountDeleted => Some(message),
        }
    }

    /// Queues a confirmation that every connection of the user on this node was notified of the match.
    fn confirm(&self, user: UserId, id: MatchId) {
        // If there is no room, the match is published again.
        let _ = self.confirmations.try_send((id, user));
    }

    /// Enqueues this node's tickets again: the engine may have lost them.
    pub(crate) async fn reenqueue(&self) -> Result<(), EngineError> {
        let tickets: Vec<(UserId, (i64, u64))> = self
            .waiting
            .lock()
            .iter()
            .filter_map(|(user, entry)| Some((*user, entry.ticket?)))
            .collect();
        for batch in tickets.chunks(REENQUEUE_BATCH_MAX) {
            let enqueued = batch
                .iter()
                .map(|(user, (rating, since_ms))| self.reenqueue_one(*user, *rating, *since_ms));
            try_join_all(enqueued).await?;
        }
        Ok(())
    }

    async fn reenqueue_one(
        &self,
        user: UserId,
        rating: i64,
        since_ms: u64,
    ) -> Result<(), EngineError> {
        self.engine.restore(user, rating, since_ms).await?;
        // A user who left or was matched in the meantime did so before the ticket was enqueued again.
        let still_waits = self.waiting.lock().contains_key(&user);
        if !still_waits {
            self.engine.cancel(user).await?;
        }
        Ok(())
    }

    /// The user's rating from the stored statistics, which exist if Postgres is configured.
    async fn rating_of(&self, user: UserId) -> Result<i64, EngineError> {
        if !self.rated {
            return Ok(RATING_DEFAULT);
        }
        let stored = self.engine.stored(user).await?;
        let mut updates = stored.updates.iter();
        let stats = updates.find(|(kind, ..)| *kind == Kind::Stats);
        let record = stats.and_then(|(_, views, _)| serde_json::from_str(views.full.get()).ok());
        Ok(record.map_or(RATING_DEFAULT, rating))
    }
}
