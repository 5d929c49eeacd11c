//! The topics of users, to which nodes subscribe.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Engine, EngineError, Kind, Views};
use crate::ids::{MatchId, UserId};

/// A message on a user's topic.
#[derive(Clone, Debug)]
pub enum TopicMessage {
    /// A stored update.
    Update(Kind, Views),
    /// An event for the user's own connections.
    Event {
        /// The event's name.
        event: String,
        /// Its payload.
        data: Arc<RawValue>,
    },
    /// Connections of the user must be closed.
    Disconnect {
        /// Only those registered by this time, in ms since 1970 on the engine's clock; all if `None`.
        before_ms: Option<u64>,
    },
    /// The account was deleted.
    AccountDeleted,
    /// An opponent was found for the user.
    MatchFound {
        /// The match.
        id: MatchId,
        /// The opponent, as JSON.
        opponent: Arc<RawValue>,
    },
    /// The user's ticket expired.
    MatchTimeout {
        /// The ticket was issued before this time, in ms since 1970 on the engine's clock.
        before_ms: u64,
    },
    /// The user left the queue.
    MatchLeft,
}

impl Engine {
    /// Subscribes to the topics of `users`. Returns once all are confirmed; after an error any of them may be.
    pub async fn subscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        dispatch!(self.subscribe(users))
    }

    /// Unsubscribes from the topics of `users`.
    pub async fn unsubscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        dispatch!(self.unsubscribe(users))
    }

    /// Sends an event to the user's own connections. Returns the number of nodes that received it, or `None` for a
    /// deleted account.
    pub async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<Option<u64>, EngineError> {
        dispatch!(self.send_event(user, event, data))
    }
}
