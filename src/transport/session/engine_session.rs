//! One Engine.IO session: what its connections have in common, and what a client may send over it, however often it
//! leaves a namespace and joins it again.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::rates::{EventRates, SnapshotPacer};
use crate::telemetry::Transport;
use crate::transport::limits::Limits;
use crate::transport::protocol::Namespace;
use crate::transport::rate::Bucket;

/// CONNECT packets that a session may send at once, and per second in the long run. There are two namespaces, and a
/// client that signs in joins again; each CONNECT may cost a signature check and a script in Redis.
const CONNECTS_BURST: f64 = 100.0;
const CONNECTS_PER_SECOND: f64 = 10.0;

pub(crate) struct EngineSession {
    /// The transport that the session began with.
    pub(crate) transport: Transport,
    /// The client's address, as far as trusted proxies report it.
    pub(crate) address: IpAddr,
    pub(crate) opened: Instant,
    has_joined: AtomicBool,
    has_ended: AtomicBool,
    connections: AtomicUsize,
    connects: Mutex<Bucket>,
    /// Made when a connection needs it: most sessions use one namespace.
    quotas: [OnceLock<Box<Mutex<Quota>>>; Namespace::ALL.len()],
}

/// The events that a client may still send in one namespace, and the lists that it may ask for.
pub(crate) struct Quota {
    pub(super) events: EventRates,
    pub(super) snapshots: SnapshotPacer,
}

impl EngineSession {
    pub(crate) fn new(transport: Transport, address: IpAddr, now: Instant) -> Self {
        Self {
            transport,
            address,
            opened: now,
            has_joined: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            connects: Mutex::new(Bucket::new(CONNECTS_PER_SECOND, CONNECTS_BURST, now)),
            quotas: Default::default(),
        }
    }

    /// Notes that the session has ended.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::end`] was called. A session that began by polling does not call it.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Whether it has ever joined a namespace.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
    }

    /// Takes one CONNECT from the rate; `false` if the session sends too many.
    pub(super) fn may_connect(&self, now: Instant) -> bool {
        self.connects.lock().take(1.0, now)
    }

    /// Counts a connection that begins. Returns whether it is the first one ever.
    pub(super) fn join(&self) -> bool {
        self.connections.fetch_add(1, Ordering::AcqRel);
        !self.has_joined.swap(true, Ordering::AcqRel)
    }

    /// Takes a connection that has ended from the count.
    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no connection is left.
    pub(super) fn is_idle(&self) -> bool {
        self.connections.load(Ordering::Acquire) == 0
    }
}

/// One namespace of a session: at most one connection at a time.
#[derive(Clone)]
pub(crate) struct NamespaceHandle {
    pub(crate) session: Arc<EngineSession>,
    pub(crate) namespace: Namespace,
}

impl NamespaceHandle {
    pub(super) fn quota(&self, limits: &Limits) -> MutexGuard<'_, Quota> {
        let quota = self.session.quotas[self.namespace.index()].get_or_init(|| {
            let now = Instant::now();
            Box::new(Mutex::new(Quota {
                events: EventRates::new(limits, now),
                snapshots: SnapshotPacer::new(now),
            }))
        });
        quota.lock()
    }
}
