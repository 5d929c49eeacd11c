//! The outbound side of every connection of this node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::engine_session::EngineSession;
use super::outbound::{Outbound, Pace};
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::limits::CurrentLimits;
use crate::transport::rate::Bucket;

/// Connections that are sent to before others may be opened or closed.
const LOCK_BATCH_MAX: usize = 64;

/// How often connections are closed again that had not ended after the first time.
const CLOSE_AGAIN: Duration = Duration::from_millis(500);

/// How long the fan-out may wait for all clients that lag behind together: at once, and as a share of the time in the long
/// run. The bound protects everybody else from clients that keep reading slowly.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_SHARE: f64 = 0.1;

/// The pause in which clients that lag behind read on.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);

/// The state that the outbound sides of all connections share.
pub(super) struct OutboundContext {
    pub(super) metrics: Arc<Metrics>,
    limits: CurrentLimits,
    /// Connections for which packets wait. Each is in the list once.
    backlogged: Mutex<Vec<ConnectionId>>,
    is_backlogged: Notify,
}

impl OutboundContext {
    pub(super) fn queue_max(&self) -> usize {
        self.limits.get().outbound_queue
    }

    /// Packets wait for `id`, which is not in the list.
    pub(super) fn mark_backlogged(&self, id: ConnectionId) {
        self.backlogged.lock().push(id);
        self.is_backlogged.notify_one();
    }
}

pub(crate) struct OutboundTable {
    connections: RwLock<HashMap<ConnectionId, Arc<Outbound>, RandomState>>,
    context: Arc<OutboundContext>,
    /// Seconds for which the fan-out may wait for clients that lag behind.
    patience: Mutex<Bucket>,
    emptied: Notify,
}

impl OutboundTable {
    pub(super) fn new(metrics: Arc<Metrics>, limits: CurrentLimits) -> Self {
        Self {
            connections: RwLock::default(),
            context: Arc::new(OutboundContext {
                metrics,
                limits,
                backlogged: Mutex::default(),
                is_backlogged: Notify::new(),
            }),
            patience: Mutex::new(Bucket::new(
                PATIENCE_SHARE,
                PATIENCE.as_secs_f64(),
                Instant::now(),
            )),
            emptied: Notify::new(),
        }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.read().len()
    }

    /// Opens the outbound side of a connection, before its client learns that it is connected.
    pub(super) fn open(&self, id: ConnectionId, session: Arc<EngineSession>) -> Arc<Outbound> {
        let outbound = Arc::new(Outbound::new(id, session, self.context.clone()));
        self.connections.write().insert(id, outbound.clone());
        outbound
    }

    /// Closes the outbound side of a connection and forgets it.
    pub(super) fn close(&self, id: ConnectionId) {
        let (closed, is_empty) = {
            let mut connections = self.connections.write();
            (connections.remove(&id), connections.is_empty())
        };
        if let Some(outbound) = closed {
            outbound.close();
        }
        if is_empty {
            self.emptied.notify_waiters();
        }
    }

    /// Calls `each` for those of `ids` that are open. It must open and close none.
    pub(super) fn for_each_of(&self, ids: &[ConnectionId], each: impl Fn(&Outbound)) {
        for ids in ids.chunks(LOCK_BATCH_MAX) {
            let connections = self.connections.read();
            // Looked up together first, so that the processor fetches many of them at the same time.
            let found: Vec<&Arc<Outbound>> = ids
                .iter()
                .filter_map(|id| connections.get(id))
                .filter(|outbound| outbound.is_open())
                .collect();
            found.into_iter().for_each(|outbound| each(outbound));
        }
    }

    /// Calls `each` for all that are open.
    pub(super) fn for_each(&self, each: impl Fn(&Outbound)) {
        let ids: Vec<ConnectionId> = self.connections.read().keys().copied().collect();
        self.for_each_of(&ids, each);
    }

    /// Resolves when packets begin to wait for a connection.
    pub(super) async fn backlogged(&self) {
        self.context.is_backlogged.notified().await;
    }

    /// Waits, after a flush that found `pace`, while a client that reads lags behind, so that a burst costs it nothing; a
    /// client that does not read is not waited for. Returns whether to flush again after `BACKLOG_PAUSE`.
    pub(super) async fn settle(&self, mut pace: Pace) -> bool {
        while pace == Pace::LagsBehind && self.may_wait() {
            tokio::time::sleep(BACKLOG_PAUSE).await;
            pace = self.flush();
        }
        pace != Pace::KeepsUp
    }

    fn may_wait(&self) -> bool {
        let cost = BACKLOG_PAUSE.as_secs_f64();
        self.patience.lock().take(cost, Instant::now())
    }

    /// Waits for `next`, at most for `BACKLOG_PAUSE`.
    pub(super) async fn pause<T>(&self, next: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(BACKLOG_PAUSE, next).await.ok()
    }

    /// Writes what waits, as far as there is room. Returns the slowest pace.
    pub(super) fn flush(&self) -> Pace {
        let backlogged = std::mem::take(&mut *self.context.backlogged.lock());
        let mut slowest = Pace::KeepsUp;
        if backlogged.is_empty() {
            return slowest;
        }
        let mut left = Vec::new();
        {
            let connections = self.connections.read();
            for outbound in backlogged.iter().filter_map(|id| connections.get(id)) {
                let pace = outbound.flush();
                slowest = slowest.max(pace);
                if pace != Pace::KeepsUp {
                    left.push(outbound.id);
                }
            }
        }
        self.context.backlogged.lock().extend(left);
        slowest
    }

    /// Closes every connection at the transport, spread over `spread`, and waits until all are forgotten.
    pub(crate) async fn close_all(&self, spread: Duration) {
        let ids: Vec<ConnectionId> = self.connections.read().keys().copied().collect();
        let pause = spread / u32::try_from(ids.len().max(1)).unwrap_or(u32::MAX);
        let begun = tokio::time::Instant::now();
        for (closed, id) in (0..).zip(ids) {
            tokio::time::sleep_until(begun + pause * closed).await;
            self.for_each_of(&[id], Outbound::close_transport);
        }
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Notifications count from here on, so none is missed between the check and the wait.
            emptied.as_mut().enable();
            if self.connections.read().is_empty() {
                return;
            }
            // Connections that were being admitted meanwhile are closed, too.
            self.for_each(Outbound::close_transport);
            let _ = tokio::time::timeout(CLOSE_AGAIN, emptied).await;
        }
    }
}
