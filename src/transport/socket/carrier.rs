//! What carries connections: one Engine.IO session, as the hub sees it. It is made with the request that opens the
//! session, whose parts the library keeps, and so reaches every connection over it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use socketioxide::adapter::LocalAdapter;
use socketioxide::socket::Socket;

use crate::transport::listener::Peer;
use crate::transport::rate::Bucket;

/// How often a session may ask to join a namespace at once, and per second in the long run: there are two
/// namespaces, and whoever signs in joins anew. Each time a token may have to be checked, and Redis asked.
const JOINS_BURST: f64 = 30.0;
const JOINS_PER_SECOND: f64 = 2.0;

/// One Engine.IO session.
pub(super) struct Carrier {
    /// Who sent the request that opened it.
    pub(super) opened_by: Peer,
    /// Where that request came from, as far as proxies that are trusted know.
    pub(super) address: IpAddr,
    /// When that was.
    pub(super) opened: Instant,
    has_joined: AtomicBool,
    connections: AtomicUsize,
    joins: Mutex<Bucket>,
}

impl Carrier {
    pub(super) fn new(opened_by: Peer, address: IpAddr, now: Instant) -> Self {
        Self {
            opened_by,
            address,
            opened: now,
            has_joined: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            joins: Mutex::new(Bucket::new(JOINS_PER_SECOND, JOINS_BURST, now)),
        }
    }

    /// What carries `socket`.
    pub(super) fn of(socket: &Socket<LocalAdapter>) -> Option<Arc<Self>> {
        socket.req_parts().extensions.get::<Arc<Self>>().cloned()
    }

    /// Whether it may ask to join a namespace once more at `now`.
    pub(super) fn may_join(&self, now: Instant) -> bool {
        let mut joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
        joins.take(1.0, now)
    }

    /// A connection over it begins. Returns whether it is the first one ever.
    pub(super) fn join(&self) -> bool {
        self.connections.fetch_add(1, Ordering::AcqRel);
        !self.has_joined.swap(true, Ordering::AcqRel)
    }

    /// A connection over it has ended.
    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether it carries nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.connections.load(Ordering::Acquire) == 0
    }
}
