//! Nodes: the report of each, and requests between them.

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError};
use crate::ids::{UserConnection, UserId};

/// A node's report about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// The configured node id.
    pub id: String,
    /// The current incarnation.
    pub incarnation: String,
    /// Version of the hub.
    pub version: String,
    /// When the node started, in ms since 1970.
    pub started_at: u64,
    /// Open connections.
    pub connections: u64,
    /// Open connections of guests.
    pub guests: u64,
    /// Users with an open connection.
    pub users: u64,
    /// Topics to which the node is subscribed.
    pub topics: u64,
    /// Partitions from which the node receives nothing.
    pub not_heard: Vec<u32>,
}

/// A node with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveNode {
    /// The node's report.
    pub info: NodeInfo,
    /// End of the lease, in ms since 1970 on the engine's clock.
    pub lease_ends_at_ms: u64,
}

/// A request to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRequest {
    /// Which connections the node holds; see [`Engine::reply_connections`].
    Connections {
        /// Name of the reply list.
        reply: String,
    },
    /// How many of the node's connections watch a user; see [`Engine::reply_watchers`].
    Watchers {
        /// The watched user.
        user: UserId,
        /// The requesting incarnation.
        asker: String,
        /// The requester's id of the count.
        count_id: u64,
    },
}

impl Engine {
    /// The nodes with a lease.
    pub async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        dispatch!(self.nodes())
    }

    /// Sends a canary through the channels that carry all messages; see
    /// [`EngineMessage::Canary`](super::EngineMessage::Canary).
    pub async fn send_canary(&self, nonce: u64) -> Result<(), EngineError> {
        dispatch!(self.send_canary(nonce))
    }

    /// Makes the next canary subscribe the node's own channel again: the subscription may be lost.
    pub fn forget_own_channel(&self) {
        if let Self::Redis(redis) = self {
            redis.forget_own_channel();
        }
    }

    /// Reconnects: the connections look open, but nothing arrives on them.
    pub async fn reconnect(&self) {
        if let Self::Redis(redis) = self {
            redis.reconnect().await;
        }
    }

    /// Asks every node subscribed to the topic of `user` how many of its connections watch the user; see
    /// [`EngineMessage::WatcherCount`](super::EngineMessage::WatcherCount). Returns the number of nodes asked.
    pub async fn request_watchers(&self, user: UserId, count_id: u64) -> Result<u64, EngineError> {
        dispatch!(self.request_watchers(user, count_id))
    }

    /// Replies to [`NodeRequest::Watchers`].
    pub async fn reply_watchers(
        &self,
        asker: &str,
        count_id: u64,
        watchers: u64,
    ) -> Result<(), EngineError> {
        dispatch!(self.reply_watchers(asker, count_id, watchers))
    }

    /// Replies to [`NodeRequest::Connections`] with the connections that this node holds.
    pub async fn reply_connections(
        &self,
        reply: &str,
        held: &[UserConnection],
    ) -> Result<(), EngineError> {
        dispatch!(self.reply_connections(reply, held))
    }
}
