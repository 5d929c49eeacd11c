//! The last updates about users: stored, published and read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Engine, EngineError};
use crate::ids::{Revision, UserId};

/// The kinds of update about a user; each has revisions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Name, avatar and whatever else a back end calls the profile.
    Profile,
    /// Game statistics.
    Stats,
    /// The friend list.
    Friends,
    /// The match history.
    Matches,
    /// The ids of the user's friends, as an array. Nobody is told; it decides who sees what.
    Friendships,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Profile,
        Self::Stats,
        Self::Friends,
        Self::Matches,
        Self::Friendships,
    ];

    /// The name used in keys and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Stats => "stats",
            Self::Friends => "friends",
            Self::Matches => "matches",
            Self::Friendships => "friendships",
        }
    }
}

/// An update to store and publish.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whom it is about.
    pub user: UserId,
    /// What it is about.
    pub kind: Kind,
    /// The caller's own revision; without one the engine assigns microseconds.
    pub revision: Option<Revision>,
    /// What everybody may see, if anything.
    pub public: Option<Arc<RawValue>>,
    /// What friends and the user may see.
    pub full: Arc<RawValue>,
}

/// The outcome of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Stored, and published to `nodes` nodes that were listening.
    Stored {
        /// The revision it has now.
        revision: Revision,
        /// Nodes that were listening.
        nodes: u64,
    },
    /// Not newer than what is stored; nothing was changed or published.
    Stale {
        /// The revision that is stored.
        revision: Revision,
    },
    /// The account was deleted; nothing was changed or published.
    AccountDeleted,
}

/// The last update of one kind, in both views.
#[derive(Clone, Debug)]
pub struct Views {
    /// Name of the life of the data in which the revision counts.
    pub epoch: String,
    /// Orders it among the updates of its kind.
    pub revision: Revision,
    /// What everybody may see, if anything.
    pub public: Option<Arc<RawValue>>,
    /// What friends and the user may see.
    pub full: Arc<RawValue>,
}

/// What the engine keeps about a user's updates.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Name of this life of the data.
    pub epoch: String,
    /// The last update of each kind, and when it was stored, in ms since 1970 on the engine's clock.
    pub updates: Vec<(Kind, Views, u64)>,
    /// The account was deleted.
    pub deleted: bool,
    /// Connections that counted at this time, in ms since 1970 on the engine's clock, are to be closed.
    pub disconnected_at_ms: u64,
}

impl Engine {
    /// Stores and publishes updates, in order and in one round trip; one result for each.
    pub async fn publish(&self, updates: Vec<Update>) -> Vec<Result<Published, EngineError>> {
        dispatch!(self.publish(updates))
    }

    /// What is kept about the updates of `user`.
    pub async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        dispatch!(self.stored(user))
    }

    /// Forgets the last updates about the user; nobody is told. Returns whether there were any.
    pub async fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        dispatch!(self.forget_updates(user))
    }
}
