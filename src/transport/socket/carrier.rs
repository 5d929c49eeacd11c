//! What carries connections: one Engine.IO session, as the hub sees it. It is made with the request that opens the
//! session, whose parts the library keeps, and so reaches every connection over it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use socketioxide::adapter::LocalAdapter;
use socketioxide::socket::Socket;

use super::rates::{ListPace, Rates};
use crate::transport::limits::Limits;
use crate::transport::listener::{Link, NAMESPACES_LEN, Namespace, Peer};
use crate::transport::rate::Bucket;

/// How often a session may ask to join a namespace at once, and per second in the long run: there are two
/// namespaces, and whoever signs in joins anew. Each time a token may have to be checked, and Redis asked.
const JOINS_BURST: f64 = 100.0;
const JOINS_PER_SECOND: f64 = 10.0;

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
    /// What may be sent in each namespace, however often it is left and joined again.
    allowances: [Mutex<Allowance>; NAMESPACES_LEN],
}

/// What one connection may still send, and ask for.
pub(super) struct Allowance {
    pub(super) events: Rates,
    pub(super) lists: ListPace,
}

impl Carrier {
    pub(super) fn new(opened_by: Peer, address: IpAddr, limits: &Limits, now: Instant) -> Self {
        let allowance = |_| {
            Mutex::new(Allowance {
                events: Rates::new(limits, now),
                lists: ListPace::new(now),
            })
        };
        Self {
            opened_by,
            address,
            opened: now,
            is_websocket: AtomicBool::new(false),
            has_joined: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            joins: Mutex::new(Bucket::new(JOINS_PER_SECOND, JOINS_BURST, now)),
            allowances: std::array::from_fn(allowance),
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

    /// Where frames of its own can be written to, if anywhere, for a namespace that is about to be joined. One that began
    /// with polling may have packets in the library's queue which they would overtake.
    pub(super) fn link(&self, namespace: Namespace) -> Option<Link> {
        self.is_websocket().then(|| self.opened_by.link(namespace))
    }

    /// Whether `opened_by` carries it, as a WebSocket, from its beginning to its end.
    pub(super) fn is_websocket(&self) -> bool {
        self.is_websocket.load(Ordering::Acquire)
    }

    /// What may be sent in a namespace.
    pub(super) fn allowance(&self, namespace: Namespace) -> MutexGuard<'_, Allowance> {
        let allowance = &self.allowances[namespace];
        allowance.lock().unwrap_or_else(PoisonError::into_inner)
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

/// One namespace of a session: where a connection lives.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) carrier: Arc<Carrier>,
    pub(super) namespace: Namespace,
}

impl Place {
    /// What may be sent here.
    pub(super) fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.carrier.allowance(self.namespace)
    }
}
