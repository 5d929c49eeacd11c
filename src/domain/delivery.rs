//! What is to be told to connections of this node, in the order in which it has to reach them.
//!
//! One bounded stream carries everything whose order matters: whoever changes what a connection knows (who
//! is online, the last update about a user) puts the delivery into the stream while still holding the lock
//! on that state. So an answer never contradicts the events before and after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::visibility::View;
use crate::engine::{Kind, Views};
use crate::ids::{ConnectionId, MatchId, UserId};

/// Deliveries waiting to be written. When it is full, whoever produces waits, up to the reader of the
/// engine's messages, whose buffer then begins to fill.
const DELIVERIES_MAX: usize = 1024;

/// Connections, as they were when the delivery was made.
pub type Recipients = Arc<Vec<ConnectionId>>;

/// Who watches a user, by what they may see of the user. None of them is one of the user's own connections.
#[derive(Clone, Debug, Default)]
pub struct Watchers {
    /// They may see everything.
    pub friends: Recipients,
    /// They may see the public fields.
    pub strangers: Recipients,
}

/// The last update of each kind.
pub type LastUpdates = BTreeMap<Kind, Views>;

/// One thing to tell.
#[derive(Debug)]
pub enum Delivery {
    /// Users came online or went offline.
    StatusChanges(Vec<StatusChange>),
    /// A user was updated.
    Update {
        /// Whom it is about.
        user: UserId,
        /// What it is about.
        kind: Kind,
        /// Both views.
        views: Views,
        /// The user's own connections.
        own: Recipients,
        /// Who watches the user.
        watchers: Watchers,
    },
    /// Watchers may see everything from now on, and get what they had not been shown.
    Disclosure {
        /// Whom it is about.
        user: UserId,
        /// The last updates of kinds of which strangers see nothing.
        last: LastUpdates,
        /// Who may see more.
        to: Recipients,
    },
    /// An event that a back end sends to the user's own connections.
    Event {
        /// The event's name.
        event: String,
        /// Its payload.
        data: Arc<RawValue>,
        /// The user's own connections.
        own: Recipients,
    },
    /// A back end wants the user's connections closed.
    Disconnect {
        /// The user's own connections.
        own: Recipients,
    },
    /// An account is gone.
    AccountDeleted {
        /// The deleted account.
        user: UserId,
        /// The user's own connections.
        own: Recipients,
        /// Who watches the user.
        watchers: Watchers,
    },
    /// An opponent was found for a user.
    MatchFound {
        /// The match.
        id: MatchId,
        /// Against whom, as JSON.
        opponent: Arc<RawValue>,
        /// The user's own connections that were not told yet.
        own: Recipients,
    },
    /// A user has waited for an opponent for as long as allowed.
    MatchTimeout {
        /// The user's own connections.
        own: Recipients,
    },
    /// It is the turn of the oldest open question of `to`, whose answer is known already.
    Turn {
        /// Who asked.
        to: ConnectionId,
    },
    /// Answers the oldest open question of `to`: who is online, as a JSON array.
    OnlineUsers {
        /// Who asked.
        to: ConnectionId,
        /// The ids, ascending.
        users: Arc<RawValue>,
    },
    /// Answers the oldest open question of `to`: it watches the user from here on.
    Watching {
        /// Who asked.
        to: ConnectionId,
        /// How much of the user it may see.
        view: View,
        /// What is known about the user.
        last: LastUpdates,
    },
}

/// A user came online or went offline.
#[derive(Debug)]
pub struct StatusChange {
    /// The user who came or went.
    pub user: UserId,
    /// Whether the user is online now.
    pub online: bool,
    /// Whom to tell; everybody where absent.
    pub only_to: Option<Watchers>,
}

/// The stream, for the one reader it has.
pub type DeliveryStream = mpsc::Receiver<Delivery>;

/// Puts deliveries into the stream.
#[derive(Clone)]
pub(crate) struct Deliveries(mpsc::Sender<Delivery>);

/// A reserved slot of the stream. Reserve it before you lock the state, and fill it under the lock.
pub(crate) struct Slot<'a>(Option<mpsc::Permit<'a, Delivery>>);

impl Deliveries {
    pub(crate) fn new() -> (Self, DeliveryStream) {
        let (sender, stream) = mpsc::channel(DELIVERIES_MAX);
        (Self(sender), stream)
    }

    /// Waits for a slot of the stream.
    pub(crate) async fn place(&self) -> Slot<'_> {
        // The reader ends with the node; then no connection is left either.
        Slot(self.0.reserve().await.ok())
    }
}

impl Slot<'_> {
    pub(crate) fn put(self, delivery: Delivery) {
        if let Some(permit) = self.0 {
            permit.send(delivery);
        }
    }
}
