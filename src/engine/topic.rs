//! The topics of users: one for each, which nodes subscribe to.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Engine, EngineError, Kind, Views};
use crate::ids::{MatchId, UserId};

/// A message on a user's topic.
#[derive(Clone, Debug)]
pub enum TopicMessage {
    /// An update, already stored.
    Update(Kind, Views),
    /// An event for the user's own connections.
    Event {
        /// The event's name.
        event: String,
        /// Its payload.
        data: Arc<RawValue>,
    },
    /// Connections of the user are to be closed.
    Disconnect {
        /// Those that counted at this time, in ms since 1970 on the engine's clock; all where absent.
        before_ms: Option<u64>,
    },
    /// The account is gone.
    AccountDeleted,
    /// An opponent was found for the user.
    MatchFound {
        /// The match.
        id: MatchId,
        /// Against whom, as JSON.
        opponent: Arc<RawValue>,
    },
    /// The user has waited for an opponent for as long as allowed.
    MatchTimeout {
        /// The ticket is from before this time, in ms since 1970 on the engine's clock.
        before_ms: u64,
    },
    /// The user waits for no opponent any more, because somebody said so.
    MatchLeft,
}

impl Engine {
    /// Listens to the topics of `users`. Returns once all are confirmed; after an error, any may be.
    pub async fn subscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        dispatch!(self.subscribe(users))
    }

    /// Stops listening to the topics of `users`.
    pub async fn unsubscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        dispatch!(self.unsubscribe(users))
    }

    /// Sends an event to the user's own connections. Returns how many nodes were listening, or `None` for
    /// a deleted account.
    pub async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<Option<u64>, EngineError> {
        dispatch!(self.send_event(user, event, data))
    }
}
