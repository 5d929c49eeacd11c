//! Every connection's way out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::carrier::Carrier;
use super::outlet::Outlet;
use super::transports::Transports;
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::limits::CurrentLimits;

/// Connections that are written to before others may be opened or closed.
const TOGETHER: usize = 64;

/// How often connections are looked at that had not ended when they were told to.
const CLOSE_AGAIN: Duration = Duration::from_millis(500);

/// What all outlets share.
pub(super) struct Shared {
    pub(super) transports: Arc<Transports>,
    pub(super) metrics: Arc<Metrics>,
    limits: CurrentLimits,
    /// Whether more is about to be written, so that what goes to one connection is written in one go.
    is_batching: AtomicBool,
    /// Open outlets for which something waits.
    behind: Mutex<Vec<ConnectionId>>,
    fell_behind: Notify,
}

impl Shared {
    pub(super) fn waiting_max(&self) -> usize {
        self.limits.get().outbound_queue
    }

    pub(super) fn is_batching(&self) -> bool {
        self.is_batching.load(Ordering::Relaxed)
    }

    /// Something waits for `id` that nobody knew of.
    pub(super) fn fell_behind(&self, id: ConnectionId) {
        self.behind().push(id);
        self.fell_behind.notify_one();
    }

    fn behind(&self) -> MutexGuard<'_, Vec<ConnectionId>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every connection's way out.
pub(super) struct Outlets {
    open: RwLock<HashMap<ConnectionId, Arc<Outlet>, RandomState>>,
    shared: Arc<Shared>,
    emptied: Notify,
}

impl Outlets {
    /// At most `outbound_queue` parcels wait for one connection.
    pub(super) fn new(
        transports: Arc<Transports>,
        metrics: Arc<Metrics>,
        limits: CurrentLimits,
    ) -> Self {
        Self {
            open: RwLock::default(),
            shared: Arc::new(Shared {
                transports,
                metrics,
                limits,
                is_batching: AtomicBool::new(false),
                behind: Mutex::default(),
                fell_behind: Notify::new(),
            }),
            emptied: Notify::new(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ConnectionId, Arc<Outlet>, RandomState>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ConnectionId, Arc<Outlet>, RandomState>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    /// Opens a way out, before the client is told that it is connected.
    pub(super) fn open(&self, id: ConnectionId, carrier: Arc<Carrier>) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet::new(id, carrier, self.shared.clone()));
        self.write().insert(id, outlet.clone());
        outlet
    }

    /// Closes a way out and forgets it.
    pub(super) fn close(&self, id: ConnectionId) {
        let (closed, empty) = {
            let mut open = self.write();
            (open.remove(&id), open.is_empty())
        };
        if let Some(outlet) = closed {
            outlet.close();
        }
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Hands those of `ids` that are still open to `each`, which opens and closes none.
    pub(super) fn each_of(&self, ids: &[ConnectionId], each: impl Fn(&Outlet)) {
        // Whoever opens or closes one meanwhile does not wait until thousands are written to.
        for ids in ids.chunks(TOGETHER) {
            let open = self.read();
            let outlets = ids.iter().filter_map(|id| open.get(id));
            // Looked at together first: what is not in the processor's cache is fetched for many at the same time.
            let outlets: Vec<&Arc<Outlet>> = outlets.filter(|outlet| outlet.is_there()).collect();
            outlets.into_iter().for_each(|outlet| each(outlet));
        }
    }

    /// Hands all that are open to `each`.
    pub(super) fn each(&self, each: impl Fn(&Outlet)) {
        let ids: Vec<ConnectionId> = self.read().keys().copied().collect();
        self.each_of(&ids, each);
    }

    /// Counts how long it took to write one thing to all whom it is for.
    pub(super) fn note_fan_out(&self, took: Duration) {
        self.shared.metrics.fan_out.observe(took.as_secs_f64());
    }

    /// From now on what goes to one connection is kept together until the next flush, or is written at once again.
    pub(super) fn batch(&self, is_batching: bool) {
        self.shared
            .is_batching
            .store(is_batching, Ordering::Relaxed);
    }

    /// Resolves when something waits that was not waiting before.
    pub(super) async fn fell_behind(&self) {
        self.shared.fell_behind.notified().await;
    }

    /// Writes what waits, as far as there is room; returns whether some is left.
    pub(super) fn flush(&self) -> bool {
        let behind = std::mem::take(&mut *self.shared.behind());
        if behind.is_empty() {
            return false;
        }
        let mut still_behind = Vec::new();
        {
            let open = self.read();
            let outlets = behind.iter().filter_map(|id| open.get(id));
            still_behind.extend(
                outlets
                    .filter(|outlet| outlet.flush())
                    .map(|outlet| outlet.id),
            );
        }
        let is_behind = !still_behind.is_empty();
        self.shared.behind().extend(still_behind);
        is_behind
    }

    /// Closes every connection at the transport, spread over `spread`, and waits until all are forgotten.
    pub(super) async fn close_all(&self, spread: Duration) {
        let ids: Vec<ConnectionId> = self.read().keys().copied().collect();
        let pause = spread / u32::try_from(ids.len().max(1)).unwrap_or(u32::MAX);
        let begun = tokio::time::Instant::now();
        for (closed, id) in (0..).zip(ids) {
            tokio::time::sleep_until(begun + pause * closed).await;
            self.each_of(&[id], Outlet::close_transport);
        }
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // From here on a notification counts, so that none is missed between the look and the wait.
            emptied.as_mut().enable();
            if self.read().is_empty() {
                return;
            }
            // Whoever was being admitted in the meantime, too.
            self.each(Outlet::close_transport);
            let _ = tokio::time::timeout(CLOSE_AGAIN, emptied).await;
        }
    }
}
