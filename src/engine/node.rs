//! Nodes: what each reports, and what they ask each other.

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError};
use crate::ids::{ConnectionId, UserId};

/// What a node tells the others about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// The node's name.
    pub id: String,
    /// Its present life.
    pub incarnation: String,
    /// Version of the hub it runs.
    pub version: String,
    /// When it started, in ms since 1970.
    pub started_at: u64,
    /// Open connections.
    pub connections: u64,
    /// Open connections without an account.
    pub guests: u64,
    /// Users with an open connection.
    pub users: u64,
    /// Topics the node listens to.
    pub topics: u64,
    /// Partitions of which the node hears nothing.
    pub not_heard: Vec<u32>,
}

/// A node that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveNode {
    /// What it told about itself.
    pub info: NodeInfo,
    /// End of its lease, in ms since 1970 on the engine's clock.
    pub lease_ends_at_ms: u64,
}

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRequest {
    /// Which connections it holds; see [`Engine::answer`].
    Connections {
        /// Where the answer is expected.
        reply: String,
    },
    /// How many of its connections watch a user; see [`Engine::reply_watchers`].
    Watchers {
        /// The watched user.
        user: UserId,
        /// The incarnation that asks.
        asker: String,
        /// The number of the asker's survey.
        survey: u64,
    },
}

impl Engine {
    /// Every node whose lease is not over.
    pub async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        dispatch!(self.nodes())
    }

    /// Sends a canary through the channels that carry everything else; see [`Message::Canary`].
    pub async fn send_canary(&self, nonce: u64) -> Result<(), EngineError> {
        dispatch!(self.send_canary(nonce))
    }

    /// Has the node's own channel subscribed again: messages may have been missed.
    pub fn forget_own_channel(&self) {
        if let Self::Redis(redis) = self {
            redis.forget_own_channel();
        }
    }

    /// Has connections opened anew that look open, because nothing arrives over them.
    pub async fn reconnect(&self) {
        if let Self::Redis(redis) = self {
            redis.reconnect().await;
        }
    }

    /// Asks every node that listens to the topic of `user` how many of its connections watch the user; see
    /// [`Message::Watchers`]. Returns how many those are.
    pub async fn request_watchers(&self, user: UserId, survey: u64) -> Result<u64, EngineError> {
        dispatch!(self.request_watchers(user, survey))
    }

    /// Answers the survey of `asker`.
    pub async fn reply_watchers(
        &self,
        asker: &str,
        survey: u64,
        watchers: u64,
    ) -> Result<(), EngineError> {
        dispatch!(self.reply_watchers(asker, survey, watchers))
    }

    /// Answers a question under `reply`: these are the connections that the node holds; see
    /// [`NodeRequest::Connections`].
    pub async fn answer(
        &self,
        reply: &str,
        held: &[(UserId, ConnectionId)],
    ) -> Result<(), EngineError> {
        dispatch!(self.answer(reply, held))
    }
}
