//! Matchmaking: one queue for all nodes, worked off by whichever node comes next.
//!
//! Making a match and telling its players are two steps, because the queue does not know who is online. A match that was
//! made is given out to be told until every node of both players has shown it, or one of them turns out to be gone: then
//! the other goes back to the front. So a node may die at any point, and the others go on from there.

mod notify;
mod rating;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use self::rating::{RATING_DEFAULT, rating};
use super::presence::Presence;
use super::topic::Topics;
pub use crate::engine::matchmaking::QueueStatus;
use crate::engine::matchmaking::{Enqueued, PairingRules, TicketSelector};
use crate::engine::{Engine, EngineError, Kind, TopicMessage};
use crate::ids::{MatchId, UserId};
use crate::telemetry::Metrics;

/// Ratings are from minus this to this.
pub const RATING_MAX: i64 = 1_000_000;

/// Confirmations that wait. One that finds no room is not lost: the match is told again.
const CONFIRMATIONS_MAX: usize = 1024;

/// Matches of one user that wait until joining is answered. One beyond is told again.
const HELD_BACK_MAX: usize = 8;

/// Batches of users who went offline that wait.
const OFFLINE_BATCHES_MAX: usize = 64;

/// Tickets asked for again together.
const ASK_AGAIN_BATCH_MAX: usize = 256;

/// Why somebody does not wait for an opponent.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A guest cannot.
    #[error("only a user can wait for an opponent; sign in by connecting with a token")]
    NotSignedIn,
    /// Only who is online can.
    #[error("the user is not online")]
    NotOnline,
    /// The engine cannot be reached.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Matchmaking on this node.
pub(crate) struct Matchmaking {
    engine: Engine,
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    metrics: Arc<Metrics>,
    rules: PairingRules,
    /// Whether ratings are to be had from statistics.
    rated: bool,
    waiting: Mutex<HashMap<UserId, Waiting>>,
    wanted: Notify,
    confirmations: mpsc::Sender<(MatchId, UserId)>,
    held_back: mpsc::Sender<(UserId, TopicMessage)>,
}

/// What the loops of matchmaking work off.
pub(crate) struct Streams {
    /// Matches that this node has shown, and to which user.
    shown: mpsc::Receiver<(MatchId, UserId)>,
    /// Messages on users' topics that had to wait, in order.
    held_back: mpsc::Receiver<(UserId, TopicMessage)>,
}

/// Takes users who went offline, for [`Matchmaking::run_queue_cleanup`].
#[derive(Clone)]
pub(crate) struct OfflineUsers(mpsc::Sender<Vec<UserId>>);

impl OfflineUsers {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Vec<UserId>>) {
        let (sender, receiver) = mpsc::channel(OFFLINE_BATCHES_MAX);
        (Self(sender), receiver)
    }

    /// Queues users to be taken out of the matchmaking queue.
    pub(crate) fn send(&self, users: Vec<UserId>) {
        if !users.is_empty() {
            // A batch without room is left to the node that looks at the queue next.
            let _ = self.0.try_send(users);
        }
    }
}

/// What a user on this node asked for. The engine has it, too, but may lose it.
struct Waiting {
    /// Connections that are about to be answered.
    joining: usize,
    /// Rating, and since when the user waits; absent while the engine has not answered.
    ticket: Option<(i64, u64)>,
    /// Matches that were found meanwhile.
    held_back: Vec<TopicMessage>,
}

/// A user is about to be told that the user waits. Until this is dropped nothing is told of a match.
pub struct Joined {
    matchmaking: Arc<Matchmaking>,
    user: UserId,
    /// The user waited already.
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
                // Where there is no room the match is told again.
                let _ = self.matchmaking.held_back.try_send((self.user, message));
            }
            if entry.ticket.is_none() {
                waiting.remove(&self.user);
            }
        }
    }
}

impl Matchmaking {
    /// Returns it with the streams for [`Self::run_match_tasks`].
    pub(crate) fn new(
        engine: Engine,
        topics: Arc<Topics>,
        presence: Arc<Presence>,
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

    /// Puts a user of this node in the queue.
    pub(crate) async fn join_here(self: &Arc<Self>, user: UserId) -> Result<Joined, EngineError> {
        let mut joined = {
            // Remembered first: a match may be found before the engine's answer is here.
            let mut waiting = self.waiting.lock();
            let entry = waiting.entry(user).or_insert_with(|| Waiting {
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
        joined.already = enqueued.already;
        if enqueued.since_ms > 0
            && let Some(entry) = self.waiting.lock().get_mut(&user)
        {
            entry.ticket = Some((rating, enqueued.since_ms));
        }
        Ok(joined)
    }

    async fn enqueue(&self, user: UserId, rating: i64) -> Result<Enqueued, EngineError> {
        let enqueued = self.engine.enqueue(user, rating, None).await?;
        if !enqueued.already {
            self.metrics.matchmaking_joins.inc();
        }
        self.wanted.notify_one();
        Ok(enqueued)
    }

    /// Puts a user in the queue, for a back end. Returns whether the user waited already.
    pub(crate) async fn join(&self, user: UserId, rating: Option<i64>) -> Result<bool, JoinError> {
        let (online, _) = self.engine.connections_of(user).await?;
        if !online {
            return Err(JoinError::NotOnline);
        }
        let rating = match rating {
            Some(rating) => rating.clamp(-RATING_MAX, RATING_MAX),
            None => self.rating_of(user).await?,
        };
        Ok(self.enqueue(user, rating).await?.already)
    }

    /// Takes a user out of the queue. Returns whether the user was in it.
    pub(crate) async fn leave(&self, user: UserId) -> Result<bool, EngineError> {
        self.forget(user);
        let left = self.engine.cancel(user, TicketSelector::Any).await?;
        // Another node may remember that the user asked it.
        self.engine.publish_left(user).await?;
        if left {
            self.wanted.notify_one();
        }
        Ok(left)
    }

    /// Nobody on this node waits for an opponent of `user` any more.
    pub(crate) fn forget(&self, user: UserId) {
        let mut waiting = self.waiting.lock();
        if let Some(entry) = waiting.get_mut(&user) {
            entry.ticket = None;
            if entry.joining == 0 {
                waiting.remove(&user);
            }
        }
    }

    /// Handles a message about a match on a user's topic.
    pub(crate) async fn receive(&self, user: UserId, message: TopicMessage) {
        let Some(message) = self.let_through(user, message) else {
            return;
        };
        let (found, expired) = match &message {
            TopicMessage::MatchFound { id, .. } => (Some(id.clone()), false),
            TopicMessage::MatchTimeout { .. } => (None, true),
            // Connections are not told; the node forgets that the user waits.
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

    /// What of a message on a user's topic is to be heard now.
    fn let_through(&self, user: UserId, message: TopicMessage) -> Option<TopicMessage> {
        let mut waiting = self.waiting.lock();
        let Some(entry) = waiting.get_mut(&user) else {
            return Some(message);
        };
        match &message {
            // The answer to joining comes first.
            TopicMessage::MatchFound { .. } if entry.joining > 0 => {
                if entry.held_back.len() < HELD_BACK_MAX {
                    entry.held_back.push(message);
                }
                None
            }
            // It is about an earlier ticket than the one that the user has by now.
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

    /// Every connection of the user's own on this node was told of a match, now or before.
    fn confirm(&self, user: UserId, id: MatchId) {
        // Where there is no room the match is told again.
        let _ = self.confirmations.try_send((id, user));
    }

    /// Asks again for whoever waits here: the engine may have lost it.
    pub(crate) async fn ask_again(&self) -> Result<(), EngineError> {
        let tickets: Vec<(UserId, i64, u64)> = {
            let waiting = self.waiting.lock();
            let with_ticket = waiting
                .iter()
                .filter_map(|(user, entry)| Some((*user, entry.ticket?)));
            with_ticket
                .map(|(user, (rating, since_ms))| (user, rating, since_ms))
                .collect()
        };
        for batch in tickets.chunks(ASK_AGAIN_BATCH_MAX) {
            let asked = batch
                .iter()
                .map(|(user, rating, since_ms)| self.ask_again_for(*user, *rating, *since_ms));
            try_join_all(asked).await?;
        }
        Ok(())
    }

    async fn ask_again_for(
        &self,
        user: UserId,
        rating: i64,
        since_ms: u64,
    ) -> Result<(), EngineError> {
        self.engine.enqueue(user, rating, Some(since_ms)).await?;
        // Whoever left meanwhile, or was told of a match, left before the ticket was asked for again.
        let still_waits = self.waiting.lock().contains_key(&user);
        if !still_waits {
            self.engine.cancel(user, TicketSelector::Any).await?;
        }
        Ok(())
    }

    /// How good a user is, by the statistics that are known: with Postgres they say who won how often.
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
