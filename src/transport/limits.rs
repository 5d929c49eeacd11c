//! Limits of clients and connections. A reload replaces them while the node runs, so read each value where it is used.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

/// One set of limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections of this node: as configured, or fewer if its open files do not suffice.
    pub connections: usize,
    /// TCP connections of the public listener.
    pub tcp_public: usize,
    /// TCP connections of the internal listener.
    pub tcp_internal: usize,
    /// Connections of one address; 0 sets no limit.
    pub connections_per_address: usize,
    /// Time limit for the first request of a TCP connection, and for a session to join a namespace.
    pub handshake: Duration,
    /// Sustained inbound rate of a TCP connection, in bytes per second.
    pub inbound_rate: usize,
    /// Inbound burst of a TCP connection, in bytes.
    pub inbound_burst: usize,
    /// Sustained rate of events from one connection.
    pub events_per_second: u32,
    /// Burst of events from one connection.
    pub events_burst: u32,
    /// Packets waiting for one connection.
    pub outbound_queue: usize,
    /// How long a write may make no progress.
    pub stalled_write: Duration,
    /// Size of the body of an HTTP request, in bytes.
    pub http_body: usize,
}

/// The present limits. Clones share them.
#[derive(Clone, Debug)]
pub struct CurrentLimits(Arc<ArcSwap<Limits>>);

impl CurrentLimits {
    /// Starts with `limits`.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(limits)))
    }

    /// The limits as of now; do not keep the guard across an await.
    pub fn get(&self) -> Guard<Arc<Limits>> {
        self.0.load()
    }

    /// Replaces all limits at once.
    pub fn set(&self, limits: Limits) {
        self.0.store(Arc::new(limits));
    }
}

#[cfg(test)]
impl Limits {
    /// Defaults for tests.
    pub(crate) fn sample() -> Self {
        Self {
            connections: 1,
            tcp_public: 1,
            tcp_internal: 1,
            connections_per_address: 0,
            handshake: Duration::from_secs(10),
            inbound_rate: 1,
            inbound_burst: 1,
            events_per_second: 200,
            events_burst: 1000,
            outbound_queue: 1,
            stalled_write: Duration::from_secs(5),
            http_body: 1,
        }
    }
}
