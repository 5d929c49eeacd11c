//! The matchmaking operations of an engine: one queue for all nodes, and pending matches.
//!
//! A user has at most one ticket. A match stays pending until every node that must show it has confirmed it; until then
//! it is handed out repeatedly, to whichever node asks.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, EngineError};
use crate::ids::{MatchId, UserId};

/// The pairing rules.
#[derive(Clone, Copy, Debug)]
pub struct PairingRules {
    /// Rating difference accepted immediately.
    pub rating_window: u32,
    /// How much each second of waiting widens the window.
    pub widen_per_second: u32,
    /// Age from which a ticket that finds no opponent expires.
    pub max_wait: Duration,
}

/// The result of joining the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// The user has a new ticket.
    Queued {
        /// When the user joined, in ms since 1970 on the engine's clock.
        since_ms: u64,
    },
    /// The user has had a ticket.
    AlreadyQueued {
        /// When the user joined, in ms since 1970 on the engine's clock.
        since_ms: u64,
    },
    /// A match is pending that is about to be announced to the user.
    Matched,
}

impl Enqueued {
    /// Whether the call has issued the ticket.
    pub(crate) fn is_new(self) -> bool {
        matches!(self, Self::Queued { .. })
    }
}

/// The result of scanning a batch of tickets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Matches made.
    pub matches: u64,
    /// Users in the queue.
    pub queue_len: u64,
    /// More tickets are due for scanning.
    pub more: bool,
    /// Scanned users who remain queued.
    pub waiting: Vec<Unmatched>,
}

/// A scanned user who remains queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// The queued user.
    pub user: UserId,
    /// The ticket's version.
    pub version: u64,
    /// Time since the user joined.
    pub waited: Duration,
}

/// A match that not every node has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingMatch {
    /// The match's id.
    pub id: MatchId,
    /// The two players.
    pub users: [UserId; 2],
}

/// Announcements that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Matches to announce.
    pub matches: Vec<PendingMatch>,
    /// Users whose ticket expired.
    pub expired: Vec<UserId>,
    /// The engine's clock, in ms since 1970.
    pub now_ms: u64,
}

/// The result of beginning to notify the players of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// These players have not been notified on every node.
    Users(Vec<UserId>),
    /// A player left before any player was notified.
    Cancelled,
    /// The match no longer exists.
    Over,
}

/// Figures about the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Users in the queue.
    pub queue_len: u64,
    /// How long the first in the queue has waited, in ms.
    pub oldest_wait_ms: u64,
    /// Matches that not every node has confirmed.
    pub pending: u64,
    /// Matches made in the last minute.
    pub matches_per_minute: u64,
}

/// A user's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The queued user.
    pub user: UserId,
    /// The rating used for pairing.
    pub rating: i64,
    /// When the user joined, in ms since 1970 on the engine's clock.
    pub joined_at_ms: u64,
    /// Incremented whenever the user joins again.
    pub version: u64,
}

impl Engine {
    /// Adds `user` to the queue; idempotent.
    pub async fn enqueue(&self, user: UserId, rating: i64) -> Result<Enqueued, EngineError> {
        dispatch!(self.enqueue(user, rating))
    }

    /// Adds `user` to the queue again if the engine has lost the ticket, with the original time.
    pub async fn restore(
        &self,
        user: UserId,
        rating: i64,
        joined_at_ms: u64,
    ) -> Result<Enqueued, EngineError> {
        dispatch!(self.restore(user, rating, joined_at_ms))
    }

    /// Removes `user` from the queue, or from a match that is not announced yet; idempotent. Returns whether there was
    /// anything to cancel.
    pub async fn cancel(&self, user: UserId) -> Result<bool, EngineError> {
        dispatch!(self.cancel(user))
    }

    /// Removes the ticket of `user` if it still has this version.
    pub async fn drop_ticket(&self, user: UserId, version: u64) -> Result<(), EngineError> {
        dispatch!(self.drop_ticket(user, version))
    }

    /// Removes the ticket of `user` if it still has this version; [`Self::due`] hands out the user.
    pub async fn expire_ticket(&self, user: UserId, version: u64) -> Result<(), EngineError> {
        dispatch!(self.expire_ticket(user, version))
    }

    /// Scans at most `batch_max` tickets and makes matches; unmatched tickets are scanned again after `rest`.
    pub async fn pair(
        &self,
        rules: PairingRules,
        batch_max: u32,
        rest: Duration,
    ) -> Result<Paired, EngineError> {
        dispatch!(self.pair(rules, batch_max, rest))
    }

    /// Hands out at most `batch_max` due matches, and as many expired tickets, and to no other node within `keep`.
    pub async fn due(&self, batch_max: u32, keep: Duration) -> Result<Due, EngineError> {
        dispatch!(self.due(batch_max, keep))
    }

    /// Begins to notify the players of a match, whose connections are on the nodes with these incarnations.
    pub async fn begin_notify(
        &self,
        id: &MatchId,
        nodes: &[(UserId, String)],
    ) -> Result<NotifyOutcome, EngineError> {
        dispatch!(self.begin_notify(id, nodes))
    }

    /// Publishes a match, with the opponent as JSON, on the user's topic.
    pub async fn publish_match(
        &self,
        user: UserId,
        id: &MatchId,
        opponent: Arc<serde_json::value::RawValue>,
    ) -> Result<(), EngineError> {
        dispatch!(self.publish_match(user, id, opponent))
    }

    /// Confirms that this node has shown a match to the connections of `user`. Returns whether the match is complete.
    pub async fn confirm(&self, id: &MatchId, user: UserId) -> Result<bool, EngineError> {
        dispatch!(self.confirm(id, user))
    }

    /// Cancels a match; the players in `online` go to the front of the queue. Returns how many did.
    pub async fn requeue(&self, id: &MatchId, online: &[UserId]) -> Result<u64, EngineError> {
        dispatch!(self.requeue(id, online))
    }

    /// Publishes on the user's topic that the ticket, issued before `before_ms`, expired. Returns the number of nodes
    /// that received it.
    pub async fn publish_timeout(&self, user: UserId, before_ms: u64) -> Result<u64, EngineError> {
        dispatch!(self.publish_timeout(user, before_ms))
    }

    /// Ends the announcement that the ticket of `user` expired.
    pub async fn end_timeout(&self, user: UserId) -> Result<(), EngineError> {
        dispatch!(self.end_timeout(user))
    }

    /// Publishes on the user's topic that the user left the queue.
    pub async fn publish_left(&self, user: UserId) -> Result<(), EngineError> {
        dispatch!(self.publish_left(user))
    }

    /// The tickets of those `users` who are queued.
    pub async fn tickets(&self, users: &[UserId]) -> Result<Vec<Ticket>, EngineError> {
        dispatch!(self.tickets(users))
    }

    /// The first `count` tickets of the queue.
    pub async fn first_tickets(&self, count: u32) -> Result<Vec<Ticket>, EngineError> {
        dispatch!(self.first_tickets(count))
    }

    /// Figures about the queue.
    pub async fn queue_stats(&self) -> Result<QueueStats, EngineError> {
        dispatch!(self.queue_stats())
    }
}
