//! Leases of nodes, and reaping the connections of those whose lease is over.

use std::time::Duration;

use super::{Engine, EngineError, NodeInfo};
use crate::ids::{ConnectionId, Incarnation, UserId};

/// What a call of the reaper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Connections released by this call.
    pub released: u64,
    /// Connections that the incarnation still owes.
    pub left: u64,
}

impl Engine {
    /// Begins the lease of the incarnation in `info`, and tells the others about the node.
    pub async fn begin(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        dispatch!(self.begin(info, lease))
    }

    /// Renews the lease of the present incarnation. Returns when it ends, in ms on the engine's clock, or `None` when it
    /// is gone: other nodes release, or will release, the connections that the incarnation registered.
    pub async fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        dispatch!(self.renew(info, lease))
    }

    /// Describes the node to others, until the lease that was renewed last ends.
    pub async fn describe(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        dispatch!(self.describe(info, lease))
    }

    /// Goes on as `next`, whose lease has begun. Returns the incarnation before.
    pub fn set_incarnation(&self, next: Incarnation) -> Incarnation {
        match self {
            Self::Memory(memory) => memory.incarnation(),
            Self::Redis(redis) => redis.set_incarnation(next),
        }
    }

    /// Gives the lease back: the node is no longer alive.
    pub async fn resign(&self) -> Result<(), EngineError> {
        dispatch!(self.resign())
    }

    /// The incarnations that have a lease, and when it ends, in ms on the engine's clock; also where it is over and
    /// nobody has taken it away yet.
    pub async fn leases(&self) -> Result<Vec<(String, u64)>, EngineError> {
        dispatch!(self.leases())
    }

    /// What the engine's clock shows, in ms since 1970: Redis's, or this process's.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn now_ms(&self) -> Result<u64, EngineError> {
        dispatch!(self.now_ms())
    }

    /// Takes away leases that are over, unless the engine's clock shows more than `until_ms` by then: it was set, or
    /// the engine stood still. Returns their incarnations.
    pub async fn expire_leases(&self, until_ms: u64) -> Result<Vec<String>, EngineError> {
        dispatch!(self.expire_leases(until_ms))
    }

    /// Incarnations that have registered connections in a partition and have no lease, with the partition; none while this
    /// node has no lease itself.
    pub async fn dead_nodes(&self) -> Result<Vec<(u32, String)>, EngineError> {
        dispatch!(self.dead_nodes())
    }

    /// Releases at most `batch_max` connections of a dead incarnation.
    pub async fn reap(
        &self,
        partition: u32,
        incarnation: &str,
        batch_max: u32,
        grace: Duration,
    ) -> Result<Reaped, EngineError> {
        dispatch!(self.reap(partition, incarnation, batch_max, grace))
    }

    /// The connections that the present incarnation has registered in the partition.
    pub async fn registrations(
        &self,
        partition: u32,
    ) -> Result<Vec<(UserId, ConnectionId)>, EngineError> {
        dispatch!(self.registrations(partition))
    }
}
