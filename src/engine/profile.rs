//! The last updates about users: stored, published and read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::{Engine, EngineError};
use crate::ids::{Revision, UserId};

/// The kinds of update about a user, each with its own revisions.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    IntoStaticStr,
    EnumString,
    EnumIter,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Kind {
    /// Name, avatar and other fields of the profile.
    Profile,
    /// Game statistics.
    Stats,
    /// The friend list.
    Friends,
    /// The match history.
    Matches,
    /// The ids of the user's friends, as an array. Never delivered; decides who sees what.
    Friendships,
}

/// An update to store and publish.
#[derive(Clone, Debug)]
pub struct Update {
    /// The user concerned.
    pub user: UserId,
    /// The kind of content.
    pub kind: Kind,
    /// The caller's own revision; without one the engine assigns microseconds since 1970.
    pub revision: Option<Revision>,
    /// The public view; `None` if strangers see nothing.
    pub public: Option<Arc<RawValue>>,
    /// The full view, for friends and the user.
    pub full: Arc<RawValue>,
}

/// The result of publishing an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Stored and published.
    Stored {
        /// The update's revision.
        revision: Revision,
        /// Nodes that received it.
        nodes: u64,
    },
    /// Not newer than the stored update; nothing was changed or published.
    Stale {
        /// The stored revision.
        revision: Revision,
    },
    /// The account was deleted; nothing was changed or published.
    AccountDeleted,
}

/// The last update of one kind, in both views.
#[derive(Clone, Debug)]
pub struct Views {
    /// Name of the life of the data to which the revision belongs.
    pub epoch: String,
    /// The update's revision among those of its kind.
    pub revision: Revision,
    /// The public view; `None` if strangers see nothing.
    pub public: Option<Arc<RawValue>>,
    /// The full view, for friends and the user.
    pub full: Arc<RawValue>,
}

/// The stored updates about a user.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Name of this life of the data.
    pub epoch: String,
    /// The last update of each kind, and when it was stored, in ms since 1970 on the engine's clock.
    pub updates: Vec<(Kind, Views, u64)>,
    /// The account was deleted.
    pub deleted: bool,
    /// Connections registered by this time must be closed, in ms since 1970 on the engine's clock.
    pub disconnected_at_ms: u64,
}

impl Engine {
    /// Stores and publishes updates in order, in one round trip. Returns one result each.
    pub async fn publish(&self, updates: Vec<Update>) -> Vec<Result<PublishOutcome, EngineError>> {
        dispatch!(self.publish(updates))
    }

    /// The stored updates about `user`.
    pub async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        dispatch!(self.stored(user))
    }

    /// Deletes the stored updates about the user without a message. Returns whether there were any.
    pub async fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        dispatch!(self.forget_updates(user))
    }
}
