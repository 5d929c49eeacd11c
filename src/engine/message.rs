//! The stream of messages from an engine to the domain, in order.

use tokio::sync::mpsc;

use super::{NodeRequest, Pulse, TopicMessage, Transition};
use crate::ids::UserId;

/// Capacity of the stream; beyond it the engine's own, lossy buffer fills.
pub(crate) const MESSAGES_MAX: usize = 1024;

/// The stream's receiving end.
pub(crate) type Messages = mpsc::Receiver<EngineMessage>;

/// A message from the engine.
#[derive(Clone, Debug)]
pub enum EngineMessage {
    /// Users came online or went offline.
    Presence {
        /// The users' partition.
        partition: u32,
        /// The users who came and went.
        transition: Transition,
    },
    /// A message on a subscribed topic.
    Topic {
        /// The topic's user.
        user: UserId,
        /// The message.
        message: TopicMessage,
    },
    /// A canary came back; see [`Engine::send_canary`](super::Engine::send_canary).
    Canary {
        /// The number sent with it.
        nonce: u64,
    },
    /// A request from another process.
    Request(NodeRequest),
    /// A node's reply to [`Engine::request_watchers`](super::Engine::request_watchers).
    WatcherCount {
        /// The id of the count.
        count_id: u64,
        /// Watching connections on that node.
        watchers: u64,
    },
    /// The position of a partition's transitions, repeated every heartbeat.
    Pulse {
        /// The partition.
        partition: u32,
        /// Epoch and revision.
        pulse: Pulse,
    },
    /// Messages of a server may have been missed, and its data may be lost: everything derived from them must be read
    /// again.
    Interrupted {
        /// The server's partitions.
        partitions: Vec<u32>,
        /// Whether the server holds the list of leases.
        leases: bool,
    },
}
