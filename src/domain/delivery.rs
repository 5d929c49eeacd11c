//! Deliveries to connections of this node, in the order in which they have to arrive.
//!
//! One bounded stream carries everything whose order matters. A service that changes what a connection knows (who is
//! online, the last update about a user) sends the delivery while it still holds the lock on that state. So an answer
//! never contradicts the events before and after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::visibility::View;
use crate::engine::{Kind, Views};
use crate::ids::{ConnectionId, MatchId, UserId};

/// Deliveries that wait for the fan-out. When the stream is full, its producers wait, up to the reader of the engine's
/// messages, whose buffer then begins to fill.
const DELIVERIES_MAX: usize = 1024;

/// Connections, as they were when the delivery was made.
pub(crate) type Recipients = Arc<Vec<ConnectionId>>;

/// The watchers of a user, by what they may see. The user's own connections are not among them.
#[derive(Clone, Debug, Default)]
pub struct Watchers {
    /// Connections that may see everything.
    pub friends: Recipients,
    /// Connections that may see the public fields.
    pub strangers: Recipients,
}

/// The last update of each kind.
pub(crate) type LastUpdates = BTreeMap<Kind, Views>;

/// One thing to send.
#[derive(Debug)]
pub enum Delivery {
    /// Users came online or went offline.
    StatusChanges(Vec<StatusChange>),
    /// A user was updated.
    Update {
        /// The updated user.
        user: UserId,
        /// The part of the user that has changed.
        kind: Kind,
        /// The full and the public view.
        views: Views,
        /// The user's own connections.
        own: Recipients,
        /// The watchers of the user.
        watchers: Watchers,
    },
    /// Watchers may see everything from now on, and get the kinds that were hidden from them.
    Disclosure {
        /// The updated user.
        user: UserId,
        /// The last updates of the kinds of which strangers see nothing.
        last: LastUpdates,
        /// The watchers who may see more now.
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
    /// A back end closes the user's connections.
    Disconnect {
        /// The user's own connections.
        own: Recipients,
    },
    /// An account was deleted.
    AccountDeleted {
        /// The deleted account.
        user: UserId,
        /// The user's own connections.
        own: Recipients,
        /// The watchers of the user.
        watchers: Watchers,
    },
    /// An opponent was found for a user.
    MatchFound {
        /// The match.
        id: MatchId,
        /// The opponent, as JSON.
        opponent: Arc<RawValue>,
        /// The user's own connections that do not know of the match yet.
        own: Recipients,
    },
    /// A user has waited for an opponent for as long as allowed.
    MatchTimeout {
        /// The user's own connections.
        own: Recipients,
    },
    /// An answer that was known at once.
    Reply {
        /// The address of the answer.
        to: ReplyTo,
        /// The acknowledgement, as JSON.
        body: Arc<RawValue>,
    },
    /// The answer to "who is online".
    OnlineUsers {
        /// The address of the answer.
        to: ReplyTo,
        /// The ids, ascending, as a JSON array.
        users: Arc<RawValue>,
    },
    /// The answer to a request to watch a user: the connection watches from here on.
    Watching {
        /// The address of the answer.
        to: ReplyTo,
        /// How much of the user the connection may see.
        view: View,
        /// The last updates about the user.
        last: LastUpdates,
    },
}

/// The address of an answer. It travels down with a request and comes back in a [`Delivery`], so the answer takes its
/// place among the deliveries before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The connection that asked.
    pub connection: ConnectionId,
    /// The id of the acknowledgement that its client waits for, if it does.
    pub ack: Option<i64>,
}

/// A user came online or went offline.
#[derive(Debug)]
pub struct StatusChange {
    /// The user whose status has changed.
    pub user: UserId,
    /// Whether the user is online now.
    pub online: bool,
    /// The connections that get the change; `None` for all.
    pub only_to: Option<Watchers>,
}

/// The receiving end of the stream. There is one reader.
pub(crate) type DeliveryStream = mpsc::Receiver<Delivery>;

/// The sending end of the stream.
#[derive(Clone)]
pub(crate) struct Deliveries(mpsc::Sender<Delivery>);

/// A reserved slot of the stream. Reserve it before you lock the state, and fill it while you hold the lock.
pub(crate) struct Slot<'a>(Option<mpsc::Permit<'a, Delivery>>);

impl Deliveries {
    pub(crate) fn new() -> (Self, DeliveryStream) {
        let (sender, stream) = mpsc::channel(DELIVERIES_MAX);
        (Self(sender), stream)
    }

    /// Waits for a slot of the stream.
    pub(crate) async fn reserve(&self) -> Slot<'_> {
        // The reader ends with the node, and then no connection is left.
        Slot(self.0.reserve().await.ok())
    }
}

impl Slot<'_> {
    pub(crate) fn send(self, delivery: Delivery) {
        if let Some(permit) = self.0 {
            permit.send(delivery);
        }
    }
}
