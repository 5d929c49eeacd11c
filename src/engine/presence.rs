//! Counting the connections of users, and the transitions that follow from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError};
use crate::ids::{ConnectionId, SAFE_INTEGER_MAX, UserId};

/// What decides whether a connection may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Most connections that the user may have.
    pub connections_max: u64,
    /// When its token was issued, in ms since 1970; `None` where nobody can say.
    pub issued_at_ms: Option<u64>,
}

impl Admission {
    /// It was admitted once: limits and revocations are for newcomers.
    pub const ADMITTED: Self = Self {
        connections_max: SAFE_INTEGER_MAX,
        issued_at_ms: Some(SAFE_INTEGER_MAX),
    };
}

/// The outcome of registering a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The connection counts.
    Registered {
        /// Connections the user now has, on all nodes.
        refcount: u64,
        /// Number of the partition's last transition: the user is online from it on at the latest.
        revision: u64,
        /// Since when the connection counts, in ms since 1970 on the engine's clock.
        since_ms: u64,
    },
    /// The account was deleted; nothing was changed.
    AccountDeleted,
    /// The user's tokens were revoked, and this one is not from after that; nothing was changed.
    TokenRevoked,
    /// The user has as many connections as allowed; nothing was changed.
    TooManyConnections,
}

/// The outcome of taking offline whose grace is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Users taken offline by this call.
    pub offline: Vec<UserId>,
    /// When the next one is due, counted from now.
    pub next_due: Option<Duration>,
}

/// Where the transitions of a partition stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Name of this life of the data.
    pub epoch: String,
    /// Number of the last transition.
    pub revision: u64,
}

/// Users going online and offline, as published by the script that moved them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Name of this life of the data.
    pub epoch: String,
    /// Number of this transition; the one before has one less.
    #[serde(rename = "rev")]
    pub revision: u64,
    /// Users who came online.
    pub online: Vec<UserId>,
    /// Users who went offline.
    pub offline: Vec<UserId>,
}

/// Where the transitions of a partition stand, said again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Name of this life of the data.
    pub epoch: String,
    /// Number of the last transition.
    #[serde(rename = "rev")]
    pub revision: u64,
}

/// One registered connection, as the engine keeps it.
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
    /// Counts a connection of `user`, if it may count; idempotent.
    pub async fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        dispatch!(self.register(user, connection, admission))
    }

    /// Stops counting a connection of `user`; idempotent. After the last one the user goes offline when
    /// `grace` is over. Returns how many connections the user has left.
    pub async fn release(
        &self,
        user: UserId,
        connection: ConnectionId,
        grace: Duration,
    ) -> Result<u64, EngineError> {
        dispatch!(self.release(user, connection, grace))
    }

    /// Takes offline at most `batch_max` users of the partition whose grace is over, or will be within `ahead`;
    /// nobody for as long as `patience` after the engine was restarted.
    pub async fn expire(
        &self,
        partition: u32,
        batch_max: u32,
        ahead: Duration,
        patience: Duration,
    ) -> Result<Expired, EngineError> {
        dispatch!(self.expire(partition, batch_max, ahead, patience))
    }

    /// Where the transitions of the partition stand.
    pub async fn position(&self, partition: u32) -> Result<Position, EngineError> {
        dispatch!(self.position(partition))
    }

    /// The online users of the partition; whoever comes or goes meanwhile may be in it or not.
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

    /// Listens to the partition's transitions and pulses. Returns once confirmed.
    pub async fn subscribe_presence(&self, partition: u32) -> Result<(), EngineError> {
        dispatch!(self.subscribe_presence(partition))
    }

    /// Publishes a pulse of the partition to every node that listens to it; see [`Message::Pulse`].
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn pulse(&self, partition: u32) -> Result<(), EngineError> {
        dispatch!(self.pulse(partition))
    }

    /// No pulse of the partition has arrived for `silence`: has its messages looked for, which interrupts it.
    pub async fn recover(&self, partition: u32, silence: Duration) {
        if let Self::Redis(redis) = self {
            redis.recover(partition, silence).await;
        }
    }
}
