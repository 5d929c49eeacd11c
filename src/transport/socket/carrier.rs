//! What carries connections: one Engine.IO session, as the hub sees it. It is made with the request that opens the
//! session, whose parts the library keeps, and so reaches every connection over it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use socketioxide::adapter::LocalAdapter;
use socketioxide::socket::Socket;

use super::rates::{ListPace, Rates};
use super::{NAMESPACES, Namespace};
use crate::transport::limits::Limits;
use crate::transport::listener::{Peer, TcpConn};
use crate::transport::rate::Bucket;
use crate::transport::websocket::writer::FrameWriter;

/// How often a session may ask to join a namespace at once, and per second in the long run: there are two
/// namespaces, and whoever signs in joins anew. Each time a token may have to be checked, and Redis asked.
const JOINS_BURST: f64 = 100.0;
const JOINS_PER_SECOND: f64 = 10.0;

/// Writes the frames of a session that began as a WebSocket.
pub(super) type Writer = FrameWriter<Arc<TcpConn>>;

/// One Engine.IO session.
pub(super) struct Carrier {
    /// Who sent the request that opened it.
    pub(super) opened_by: Peer,
    /// Where that request came from, as far as proxies that are trusted know.
    pub(super) address: IpAddr,
    /// When that was.
    pub(super) opened: Instant,
    /// Writes frames to the session where it began as a WebSocket.
    writer: Option<Arc<Writer>>,
    has_joined: AtomicBool,
    has_ended: AtomicBool,
    connections: AtomicUsize,
    joins: Mutex<Bucket>,
    /// What may be sent in each namespace, however often it is left and joined again.
    allowances: [Mutex<Allowance>; NAMESPACES.len()],
}

/// What one connection may still send, and ask for.
pub(super) struct Allowance {
    pub(super) events: Rates,
    pub(super) lists: ListPace,
}

impl Carrier {
    pub(super) fn new(
        opened_by: Peer,
        writer: Option<Arc<Writer>>,
        address: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Self {
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
            writer,
            has_joined: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            joins: Mutex::new(Bucket::new(JOINS_PER_SECOND, JOINS_BURST, now)),
            allowances: std::array::from_fn(allowance),
        }
    }

    /// What carries `socket`.
    pub(super) fn of(socket: &Socket<LocalAdapter>) -> Option<Arc<Self>> {
        socket.req_parts().extensions.get::<Arc<Self>>().cloned()
    }

    /// Whether it began as a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.writer.is_some()
    }

    /// Closes the WebSocket with which it began, if it did.
    pub(super) fn close_websocket(&self) {
        if let Some(writer) = &self.writer {
            writer.abort();
        }
    }

    /// The session has ended.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended, as far as can be told at a glance.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Whether it has ever joined a namespace.
    pub(super) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
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
