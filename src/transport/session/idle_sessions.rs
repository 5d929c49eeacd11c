//! Sessions whose last connection has ended and whose client keeps them open. They are closed after a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::engine_session::EngineSession;
use super::sink::Sink;
use crate::telemetry::{ClosedBecause, Metrics};

/// How often idle sessions are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Idle sessions by their `sid`.
#[derive(Default)]
pub(crate) struct IdleSessions(Mutex<HashMap<String, Idle>>);

struct Idle {
    since: Instant,
    session: Arc<EngineSession>,
    /// The sink of the last connection, which closes the transport.
    sink: Arc<dyn Sink>,
}

impl IdleSessions {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// A connection over the session begins. Returns whether it is the first one ever.
    pub(super) fn join(&self, sid: &str, session: &EngineSession) -> bool {
        let is_first = session.join();
        self.0.lock().remove(sid);
        is_first
    }

    /// The connection with `sink` has ended; its session stays open.
    pub(super) fn leave(&self, session: &Arc<EngineSession>, sink: Arc<dyn Sink>) {
        session.leave();
        if session.is_idle() {
            let idle = Idle {
                since: Instant::now(),
                session: session.clone(),
                sink,
            };
            self.0.lock().insert(idle.sink.sid(), idle);
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&self, sid: &str) {
        self.0.lock().remove(sid);
    }

    /// Closes sessions that have been idle for `limit`. Runs until it is dropped.
    pub(crate) async fn run(&self, limit: impl Fn() -> Duration, metrics: &Metrics) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            for sink in self.take_overdue(Instant::now(), limit()) {
                if !sink.has_ended() {
                    metrics.count_closed(ClosedBecause::Idle);
                    sink.close();
                }
            }
        }
    }

    fn take_overdue(&self, now: Instant, limit: Duration) -> Vec<Arc<dyn Sink>> {
        let mut sessions = self.0.lock();
        // A connection may have begun between the check in `leave` and its entry.
        sessions.retain(|_, idle| idle.session.is_idle());
        sessions
            .extract_if(|_, idle| now.saturating_duration_since(idle.since) >= limit)
            .map(|(_, idle)| idle.sink)
            .collect()
    }
}
