//! Registering the connections of users, and the resulting transitions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError};
use crate::ids::{ConnectionId, UserConnection, UserId};

/// The limits that a new connection must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Maximum number of the user's connections.
    pub connections_max: u64,
    /// When the token was issued, in ms since 1970; `None` if it has no `iat`.
    pub issued_at_ms: Option<u64>,
}

/// The result of registering a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The connection is registered.
    Registered {
        /// The user's connections on all nodes.
        refcount: u64,
        /// The partition's last transition: the user is online as of it.
        revision: u64,
        /// When the connection was first registered, in ms since 1970 on the engine's clock.
        since_ms: u64,
    },
    /// The account was deleted; nothing was changed.
    AccountDeleted,
    /// The user's tokens were revoked, and this one is not newer; nothing was changed.
    TokenRevoked,
    /// The user has as many connections as allowed; nothing was changed.
    TooManyConnections,
}

/// The result of taking users offline whose grace period is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Users taken offline by this call.
    pub offline: Vec<UserId>,
    /// Whether more users may be due.
    pub more: bool,
}

/// The position of a partition's transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Name of this life of the data; changes when the engine loses it.
    pub epoch: String,
    /// Number of the last transition.
    pub revision: u64,
}

/// Users coming online and going offline, as published by the script that moved them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Name of this life of the data; changes when the engine loses it.
    pub epoch: String,
    /// Number of this transition; transitions are numbered consecutively.
    #[serde(rename = "rev")]
    pub revision: u64,
    /// Users who came online.
    pub online: Vec<UserId>,
    /// Users who went offline.
    pub offline: Vec<UserId>,
}

/// The position of a partition's transitions, published every heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Name of this life of the data; changes when the engine loses it.
    pub epoch: String,
    /// Number of the last transition.
    #[serde(rename = "rev")]
    pub revision: u64,
}

/// A registered connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredConnection {
    /// Incarnation of the owning node.
    pub incarnation: String,
    /// Number of the connection on that node.
    pub connection: String,
    /// When it was registered, in ms since 1970.
    pub connected_at_ms: u64,
}

impl Engine {
    /// Registers a connection of `user` if it passes `admission`; idempotent.
    pub async fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        dispatch!(self.register(user, connection, admission))
    }

    /// Registers connections again that were admitted before, all of users of one partition; idempotent. Those of
    /// deleted accounts are left out.
    pub async fn register_again(&self, connections: &[UserConnection]) -> Result<(), EngineError> {
        dispatch!(self.register_again(connections))
    }

    /// Releases connections, all of users of one partition; idempotent. After the last one a user goes offline once
    /// `grace` is over. Returns how many users are about to go offline for that.
    pub async fn release(
        &self,
        connections: &[UserConnection],
        grace: Duration,
    ) -> Result<u64, EngineError> {
        dispatch!(self.release(connections, grace))
    }

    /// Takes at most `batch_max` users of the partition offline whose grace period is over, or will be within `ahead`;
    /// none within `restart_grace` after a restart of the engine.
    pub async fn expire(
        &self,
        partition: u32,
        batch_max: u32,
        ahead: Duration,
        restart_grace: Duration,
    ) -> Result<Expired, EngineError> {
        dispatch!(self.expire(partition, batch_max, ahead, restart_grace))
    }

    /// Where the transitions of the partition stand.
    pub async fn position(&self, partition: u32) -> Result<Position, EngineError> {
        dispatch!(self.position(partition))
    }

    /// The online users of the partition; those who come or go during the call may be included or not.
    pub async fn online(&self, partition: u32) -> Result<Vec<UserId>, EngineError> {
        dispatch!(self.online(partition))
    }

    /// Whether `user` is online, and the connections of the user on all nodes.
    pub async fn connections_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        dispatch!(self.connections_of(user))
    }

    /// Subscribes to the partition's transitions and pulses. Returns once confirmed.
    pub async fn subscribe_presence(&self, partition: u32) -> Result<(), EngineError> {
        dispatch!(self.subscribe_presence(partition))
    }

    /// Publishes a pulse of the partition; see [`EngineMessage::Pulse`](super::EngineMessage::Pulse). If the engine was
    /// restarted since the last one, nobody is taken offline within `restart_grace`.
    pub async fn pulse(&self, partition: u32, restart_grace: Duration) -> Result<(), EngineError> {
        dispatch!(self.pulse(partition, restart_grace))
    }

    /// Recovers a partition whose pulse has not arrived for `silence`: finds its server again and interrupts the
    /// partition.
    pub async fn recover(&self, partition: u32, silence: Duration) {
        if let Self::Redis(redis) = self {
            redis.recover(partition, silence).await;
        }
    }
}
