//! Whether this node can do its work, shown by sending a canary through the channels that carry it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Hub;
use crate::engine::Engine;

/// How long a canary may take. Readiness is asked about every few seconds, so late is as good as lost.
const CANARY_WITHIN: Duration = Duration::from_secs(1);

/// Canaries lost in a row before connections are opened anew.
const CANARIES_LOST_MAX: u32 = 2;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// What is wrong, if anything.
    pub failure: Option<String>,
    /// Without it the node cannot do its work; otherwise it only does less.
    pub is_vital: bool,
}

/// Canaries on their way.
#[derive(Default)]
pub(crate) struct Canaries {
    last: AtomicU64,
    flying: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Hub {
    /// Sends a canary every heartbeat, for ever. When two in a row do not come back, connections are opened
    /// anew: they may look open and carry nothing.
    pub(crate) async fn keep_hearing(&self) {
        let mut lost = 0;
        loop {
            tokio::time::sleep(self.lease().heartbeat()).await;
            let sent_at = Instant::now();
            let checks = self.0.canaries.check(self.engine()).await;
            let came_back = checks.iter().all(|check| check.failure.is_none());
            // One that did not is at least as late as it was waited for.
            let least = if came_back {
                Duration::ZERO
            } else {
                CANARY_WITHIN
            };
            let lag = sent_at.elapsed().max(least).as_secs_f64();
            self.metrics().canary_lag_seconds.set(lag);
            if came_back {
                lost = 0;
                continue;
            }
            lost += 1;
            if lost == CANARIES_LOST_MAX {
                lost = 0;
                tracing::warn!("canaries do not come back; opening connections anew");
                self.engine().reconnect().await;
            }
        }
    }
}

/// A canary on its way, forgotten when whoever asked has an answer, or leaves before.
struct Flight<'a> {
    canaries: &'a Canaries,
    nonce: u64,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.canaries.flying().remove(&self.nonce);
    }
}

impl Canaries {
    fn flying(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A canary came back.
    pub(crate) fn landed(&self, nonce: u64) {
        if let Some(sender) = self.flying().remove(&nonce) {
            // Whoever sent it may have given up.
            let _ = sender.send(());
        }
    }

    /// Asks the engine, and whether what it publishes arrives.
    pub(crate) async fn check(&self, engine: &Engine) -> [Check; 2] {
        let nonce = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, landed) = oneshot::channel();
        self.flying().insert(nonce, sender);
        let _flight = Flight {
            canaries: self,
            nonce,
        };
        let sent = tokio::time::timeout(CANARY_WITHIN, engine.send_canary(nonce)).await;
        let engine_failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not send a canary");
                Some("cannot be reached".to_owned())
            }
            Err(_) => Some("did not answer within a second".to_owned()),
        };
        let canary_failure = match &engine_failure {
            Some(_) => Some("could not be sent".to_owned()),
            None => match tokio::time::timeout(CANARY_WITHIN, landed).await {
                Ok(_) => None,
                Err(_) => Some("did not come back within a second".to_owned()),
            },
        };
        [
            Check {
                name: engine.name(),
                failure: engine_failure,
                is_vital: true,
            },
            Check {
                name: "canary",
                failure: canary_failure,
                is_vital: true,
            },
        ]
    }
}
