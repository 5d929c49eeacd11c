//! What the other side may use. The values can change while the node runs; whoever needs one asks for it then.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

/// The limits, as configured.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Socket.IO connections of this node: as configured, or as many as its open files allow.
    pub connections: usize,
    /// TCP connections of the public listener.
    pub tcp_public: usize,
    /// TCP connections of the internal listener.
    pub tcp_internal: usize,
    /// Connections of one address; 0 sets no limit.
    pub connections_per_address: usize,
    /// How long a TCP connection may take to its first request, and a session to join a namespace.
    pub handshake: Duration,
    /// Bytes per second that a TCP connection may send, in the long run.
    pub inbound_rate: usize,
    /// Bytes that it may send at once.
    pub inbound_burst: usize,
    /// Events per second of one connection.
    pub events_per_second: u32,
    /// Events of one connection in a burst.
    pub events_burst: u32,
    /// Packets waiting for one connection.
    pub outbound_queue: usize,
    /// How long a write may not move.
    pub stalled_write: Duration,
    /// Bytes of the body of an HTTP request.
    pub http_body: usize,
}

/// The limits as they are now. Cloning is cheap: clones share everything.
#[derive(Clone, Debug)]
pub struct CurrentLimits(Arc<ArcSwap<Limits>>);

impl CurrentLimits {
    /// Begins with `limits`.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(limits)))
    }

    /// What holds now.
    pub fn get(&self) -> Guard<Arc<Limits>> {
        self.0.load()
    }

    /// Has `limits` hold from now on.
    pub fn set(&self, limits: Limits) {
        self.0.store(Arc::new(limits));
    }
}

#[cfg(test)]
impl Limits {
    /// Limits of which each test changes what it is about.
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
