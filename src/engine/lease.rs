//! Leases of nodes, and reaping the connections of nodes whose lease is over.

use std::time::Duration;

use super::{Engine, EngineError, NodeInfo};
use crate::ids::{Incarnation, UserConnection};

/// The result of one reap call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Connections released by this call.
    pub released: u64,
    /// Connections of the incarnation still registered.
    pub left: u64,
}

impl Engine {
    /// Begins the lease of the incarnation in `info`, and publishes the node's report.
    pub async fn begin(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        dispatch!(self.begin(info, lease))
    }

    /// Renews the lease of the current incarnation. Returns when it ends, in ms on the engine's clock, or `None` if it
    /// is lost: other nodes release, or will release, the incarnation's connections.
    pub async fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        dispatch!(self.renew(info, lease))
    }

    /// Publishes the node's report, valid until the current lease ends.
    pub async fn describe(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        dispatch!(self.describe(info, lease))
    }

    /// Switches to `next`, whose lease has begun. Returns the former incarnation.
    pub fn set_incarnation(&self, next: Incarnation) -> Incarnation {
        match self {
            Self::Memory(memory) => memory.incarnation(),
            Self::Redis(redis) => redis.set_incarnation(next),
        }
    }

    /// Relinquishes the lease: the node is no longer alive.
    pub async fn resign(&self) -> Result<(), EngineError> {
        dispatch!(self.resign())
    }

    /// The incarnations that hold a lease, and when it ends, in ms on the engine's clock; including expired leases that
    /// no node has removed yet.
    pub async fn leases(&self) -> Result<Vec<(String, u64)>, EngineError> {
        dispatch!(self.leases())
    }

    /// The engine's clock, in ms since 1970: Redis's, or this process's.
    pub async fn now_ms(&self) -> Result<u64, EngineError> {
        dispatch!(self.now_ms())
    }

    /// Removes expired leases, unless the engine's clock is past `until_ms` by then: it was set, or the engine was
    /// suspended. Returns their incarnations.
    pub async fn expire_leases(&self, until_ms: u64) -> Result<Vec<String>, EngineError> {
        dispatch!(self.expire_leases(until_ms))
    }

    /// Incarnations that have connections registered in any of these partitions, each with the partition. A partition
    /// that cannot be reached is left out.
    pub async fn registered_nodes(&self, partitions: &[u32]) -> Vec<(u32, String)> {
        dispatch!(self.registered_nodes(partitions))
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

    /// The current incarnation's registered connections in the partition.
    pub async fn registrations(&self, partition: u32) -> Result<Vec<UserConnection>, EngineError> {
        dispatch!(self.registrations(partition))
    }
}
