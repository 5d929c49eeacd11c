//! The stream of messages from an engine to the domain, in the order of events.

use tokio::sync::mpsc;

use super::{NodeRequest, Pulse, TopicMessage, Transition};
use crate::ids::UserId;

/// Messages that wait for the domain before the engine's own, lossy buffer begins to fill.
pub(crate) const MESSAGES_MAX: usize = 1024;

/// The stream of what happened, for the one reader it has.
pub type Messages = mpsc::Receiver<Message>;

/// What happened, as the engine tells it.
#[derive(Clone, Debug)]
pub enum Message {
    /// Users went online or offline.
    Presence {
        /// The partition they belong to.
        partition: u32,
        /// The users who moved.
        transition: Transition,
    },
    /// Something on a topic to which this node subscribed.
    Topic {
        /// The owner of the topic.
        user: UserId,
        /// The message itself.
        message: TopicMessage,
    },
    /// The canary came back.
    Canary {
        /// What was sent with it.
        nonce: u64,
    },
    /// Somebody asks this node something.
    Request(NodeRequest),
    /// A node answers a survey of this one; see [`Engine::request_watchers`].
    Watchers {
        /// The survey's number.
        survey: u64,
        /// How many of that node's connections watch whom it is about.
        watchers: u64,
    },
    /// Where the transitions of a partition stand.
    Pulse {
        /// The partition.
        partition: u32,
        /// Its position.
        pulse: Pulse,
    },
    /// Messages of a server may have been missed, and its data may be lost: everything built from them has to be built
    /// again.
    Interrupted {
        /// Its partitions.
        partitions: Vec<u32>,
        /// Whether it has the list of leases.
        leases: bool,
    },
}
