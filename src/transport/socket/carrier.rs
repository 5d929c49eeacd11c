//! What carries connections: one Engine.IO session, as the hub sees it. It is made with the request that opens the
//! session, whose parts the library keeps, and so reaches every connection over it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use socketioxide::adapter::LocalAdapter;
use socketioxide::socket::Socket;

use crate::transport::listener::{Namespace, Peer};
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
    /// Whether the hub may write frames to `opened_by`: it carries the session, as a WebSocket, from the beginning.
    is_websocket: AtomicBool,
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
            is_websocket: AtomicBool::new(false),
            has_joined: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            joins: Mutex::new(Bucket::new(JOINS_PER_SECOND, JOINS_BURST, now)),
        }
    }

    /// What carries `socket`.
    pub(super) fn of(socket: &Socket<LocalAdapter>) -> Option<Arc<Self>> {
        socket.req_parts().extensions.get::<Arc<Self>>().cloned()
    }

    /// The request that opened it was answered with a WebSocket.
    pub(super) fn upgraded(&self) {
        self.is_websocket.store(true, Ordering::Release);
    }

    /// Where frames of its own can be written to, if anywhere. One that began with polling may have packets in the
    /// library's queue which they would overtake.
    pub(super) fn link(&self, namespace: Namespace) -> Option<Link> {
        self.is_websocket.load(Ordering::Acquire).then(|| Link {
            peer: self.opened_by.clone(),
            namespace,
        })
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

/// The way to write frames to one namespace of a session.
#[derive(Clone)]
pub(super) struct Link {
    peer: Peer,
    pub(super) namespace: Namespace,
}

impl Link {
    /// The namespace is about to be connected: nothing is written before that was told.
    pub(super) fn expect(&self) {
        self.peer.expect(self.namespace);
    }

    /// Writes a frame, at once or with others. Returns how many wait.
    pub(super) fn send(&self, frame: &Bytes, at_once: bool) -> usize {
        self.peer.send(self.namespace, frame, at_once)
    }

    /// Writes what waits, as far as there is room. Returns how many wait still.
    pub(super) fn flush(&self) -> usize {
        self.peer.flush()
    }
}
