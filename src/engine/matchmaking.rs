//! What matchmaking asks of an engine: one queue for all nodes, and matches that are not over yet.
//!
//! A user has at most one ticket. A match that was found stays until every node has taken it that it is to be shown on;
//! until then it is given out again and again, to whichever node asks.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, EngineError};
use crate::ids::{MatchId, UserId};

/// How pairs are made.
#[derive(Clone, Copy, Debug)]
pub struct PairingRules {
    /// Difference in rating that is fine at once.
    pub rating_window: u32,
    /// By how much each second of waiting widens it.
    pub widen_per_second: u32,
    /// How long a ticket lives.
    pub max_wait: Duration,
}

/// The outcome of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The user waited already, or is about to be told of a match.
    pub already: bool,
    /// Since when the user waits, in ms since 1970 on the engine's clock; 0 for who is about to be told of a match.
    pub since_ms: u64,
}

/// Which ticket is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketSelector {
    /// Whatever there is, also a match that nobody has been told about.
    Any,
    /// A ticket that nobody has asked for again since.
    Version(u64),
}

/// What looking at a batch of tickets came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Matches made.
    pub matches: u64,
    /// Tickets that ran out.
    pub expired: u64,
    /// Users who wait.
    pub queue_len: u64,
    /// Another call finds more to look at.
    pub more: bool,
    /// Those looked at who wait on, with the version of the ticket.
    pub waiting: Vec<(UserId, u64)>,
}

/// A match that is not over: not every node has taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingMatch {
    /// The match.
    pub id: MatchId,
    /// Its players.
    pub users: [UserId; 2],
}

/// Who is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Of a match.
    pub matches: Vec<PendingMatch>,
    /// That their ticket ran out.
    pub expired: Vec<UserId>,
    /// What the engine's clock shows, in ms since 1970.
    pub now_ms: u64,
}

/// The outcome of beginning to notify the players of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notify {
    /// These players have not been notified on every node.
    Users(Vec<UserId>),
    /// A player withdrew before any player was notified.
    Withdrawn,
    /// There is no such match any more.
    Over,
}

/// How the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Users who wait.
    pub queue_len: u64,
    /// For how long the first one has, in ms.
    pub oldest_wait_ms: u64,
    /// Matches that not every node has taken.
    pub pending: u64,
    /// Matches made in the last minute.
    pub matches_per_minute: u64,
}

/// One user who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The user who waits.
    pub user: UserId,
    /// How good the user is.
    pub rating: i64,
    /// Since when the user waits, in ms since 1970 on the engine's clock.
    pub joined_at_ms: u64,
    /// Goes up whenever the user says that it is wanted.
    pub version: u64,
}

impl Engine {
    /// Puts `user` in the queue; idempotent. `joined_at_ms` is when the user joined first, where the engine may have
    /// lost the ticket.
    pub async fn enqueue(
        &self,
        user: UserId,
        rating: i64,
        joined_at_ms: Option<u64>,
    ) -> Result<Enqueued, EngineError> {
        dispatch!(self.enqueue(user, rating, joined_at_ms))
    }

    /// Takes `user` out of the queue; idempotent. Returns whether the user was in it.
    pub async fn cancel(&self, user: UserId, meant: TicketSelector) -> Result<bool, EngineError> {
        dispatch!(self.cancel(user, meant))
    }

    /// Looks at `batch_max` tickets and makes matches; those who found nobody are looked at again after `rest`.
    pub async fn pair(
        &self,
        rules: PairingRules,
        batch_max: u32,
        rest: Duration,
    ) -> Result<Paired, EngineError> {
        dispatch!(self.pair(rules, batch_max, rest))
    }

    /// Gives out at most `batch_max` matches and users to tell, which nobody else is given for as long as `keep`.
    pub async fn due(&self, batch_max: u32, keep: Duration) -> Result<Due, EngineError> {
        dispatch!(self.due(batch_max, keep))
    }

    /// Begins to tell the players of a match, who have connections on the nodes with these incarnations.
    pub async fn begin_notify(
        &self,
        id: &MatchId,
        nodes: &[(UserId, String)],
    ) -> Result<Notify, EngineError> {
        dispatch!(self.begin_notify(id, nodes))
    }

    /// Tells the nodes of `user` about a match, with the opponent as JSON.
    pub async fn publish_match(
        &self,
        user: UserId,
        id: &MatchId,
        opponent: Arc<serde_json::value::RawValue>,
    ) -> Result<(), EngineError> {
        dispatch!(self.publish_match(user, id, opponent))
    }

    /// This node has shown a match to the connections of `user`. Returns whether the match is over.
    pub async fn confirm(&self, id: &MatchId, user: UserId) -> Result<bool, EngineError> {
        dispatch!(self.confirm(id, user))
    }

    /// Ends a match that does not take place; the players in `there` go to the front of the queue. Returns how many.
    pub async fn requeue(&self, id: &MatchId, there: &[UserId]) -> Result<u64, EngineError> {
        dispatch!(self.requeue(id, there))
    }

    /// Tells the nodes of `user` that the ticket, which is from before `before_ms`, ran out. Returns how many nodes
    /// were listening.
    pub async fn publish_timeout(&self, user: UserId, before_ms: u64) -> Result<u64, EngineError> {
        dispatch!(self.publish_timeout(user, before_ms))
    }

    /// Nobody is told any more that the ticket of `user` ran out.
    pub async fn end_timeout(&self, user: UserId) -> Result<(), EngineError> {
        dispatch!(self.end_timeout(user))
    }

    /// Tells the nodes of `user` that the user has left the queue.
    pub async fn publish_left(&self, user: UserId) -> Result<(), EngineError> {
        dispatch!(self.publish_left(user))
    }

    /// The tickets of those among `users` who wait.
    pub async fn tickets(&self, users: &[UserId]) -> Result<Vec<Ticket>, EngineError> {
        dispatch!(self.tickets(users))
    }

    /// The first `count` tickets of the queue.
    pub async fn first_tickets(&self, count: u32) -> Result<Vec<Ticket>, EngineError> {
        dispatch!(self.first_tickets(count))
    }

    /// How the queue is.
    pub async fn queue_status(&self) -> Result<QueueStatus, EngineError> {
        dispatch!(self.queue_status())
    }
}
