//! Whether this node can do its work, shown by sending a canary through the channels that carry it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Hub;
use crate::engine::Engine;

/// How long a canary may take. Readiness is asked about every few seconds, so late is as good as lost.
const CANARY_WITHIN: Duration = Duration::from_secs(1);

/// The name of the check that a canary comes back.
const CANARY: &str = "canary";

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
    /// Whether a vital check failed when the node last checked itself.
    unready: AtomicBool,
    /// When the last check ended that was made because that one failed.
    rechecked: tokio::sync::Mutex<Option<Instant>>,
    flying: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Hub {
    /// Whether this node can do its work; every check is named. Without Postgres it can do most of it.
    pub async fn readiness(&self) -> Vec<Check> {
        let checks = self.checks().await;
        self.note_readiness(&checks);
        checks
    }

    /// Whether the node can do its work. That costs nothing while the last check, at most about a heartbeat ago, says
    /// that it can. Otherwise it is checked again: that check may have been a canary that was late, or have been made
    /// just before Redis was back.
    pub async fn is_ready(&self) -> bool {
        let canaries = &self.0.canaries;
        let is_ready = || !canaries.unready.load(Ordering::Relaxed);
        if is_ready() {
            return true;
        }
        let asked = Instant::now();
        let mut rechecked = canaries.rechecked.lock().await;
        // One check answers all who have asked meanwhile.
        if rechecked.is_none_or(|at| at < asked) {
            self.readiness().await;
            *rechecked = Some(Instant::now());
        }
        is_ready()
    }

    fn note_readiness(&self, checks: &[Check]) {
        let failed = vital_failure(checks);
        let unready = &self.0.canaries.unready;
        let was_unready = unready.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(reason) if !was_unready => {
                tracing::warn!(%reason, "the node is not ready");
            }
            None if was_unready => tracing::info!("the node is ready"),
            Some(_) | None => {}
        }
    }

    /// Checks this node every heartbeat, for ever, with a canary. When two in a row do not come back, connections are opened
    /// anew: they may look open and carry nothing.
    pub(crate) async fn keep_hearing(&self) {
        let mut lost = 0;
        loop {
            tokio::time::sleep(self.lease().heartbeat()).await;
            let sent_at = Instant::now();
            let checks = self.readiness().await;
            let of_canary = [self.engine().name(), CANARY];
            let mut of_canary = checks
                .iter()
                .filter(|check| of_canary.contains(&check.name));
            let came_back = of_canary.all(|check| check.failure.is_none());
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

/// The first failure of a check without which the node cannot do its work.
fn vital_failure(checks: &[Check]) -> Option<String> {
    let mut vital = checks.iter().filter(|check| check.is_vital);
    vital.find_map(|Check { name, failure, .. }| {
        failure.as_ref().map(|failure| format!("{name}: {failure}"))
    })
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
                name: CANARY,
                failure: canary_failure,
                is_vital: true,
            },
        ]
    }
}
