//! Whether this node can do its work, shown by sending a canary through the channels that carry it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Hub;
use crate::engine::{Engine, EngineError, Examination, KEEPS_EVERYTHING, Refusal};
use crate::telemetry::warn_seldom;

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

impl Check {
    /// Without it the node cannot do its work.
    pub(super) fn vital(name: &'static str, failure: Option<String>) -> Self {
        Self {
            name,
            failure,
            is_vital: true,
        }
    }

    /// Without it the node does less.
    pub(super) fn lesser(name: &'static str, failure: Option<String>) -> Self {
        Self {
            name,
            failure,
            is_vital: false,
        }
    }
}

/// Canaries on their way.
#[derive(Default)]
pub(crate) struct Canaries {
    last: AtomicU64,
    /// The last one was refused, and would be on a new connection, too.
    refused: AtomicBool,
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
                if self.0.canaries.refused.load(Ordering::Relaxed) {
                    continue;
                }
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

/// What the last examination of the engine found.
#[derive(Default)]
pub(crate) struct Examined(Mutex<Examination>);

impl Examined {
    fn last(&self) -> MutexGuard<'_, Examination> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the engine carries out what the hub needs, and keeps what it is given.
    pub(crate) fn checks(&self) -> [Check; 2] {
        let last = self.last();
        [
            Check::vital("commands", last.refused.clone()),
            Check::lesser("eviction", eviction(&last)),
        ]
    }
}

/// What is wrong with the eviction policy, if anything.
fn eviction(examination: &Examination) -> Option<String> {
    let policy = examination.eviction_policy.as_deref()?;
    (policy != KEEPS_EVERYTHING).then(|| {
        format!(
            "maxmemory-policy is {policy}: redis drops presence, profiles and revocations when its memory is full; set \
             maxmemory-policy {KEEPS_EVERYTHING}"
        )
    })
}

impl Hub {
    /// Examines the engine once, and logs what is new.
    pub(crate) async fn examine(&self) -> Result<(), EngineError> {
        let found = self.engine().examine().await?;
        let mut last = self.0.examined.last();
        if found.refused != last.refused {
            match &found.refused {
                Some(reason) => tracing::error!(reason, "commands that the hub needs are refused"),
                None => tracing::info!("all commands that the hub needs are carried out again"),
            }
        }
        if let Some(problem) = eviction(&found).filter(|_| eviction(&last) != eviction(&found)) {
            tracing::warn!("{problem}");
        }
        *last = found;
        Ok(())
    }

    /// Examines the engine once a lease, for ever; every heartbeat while commands are refused.
    pub(crate) async fn keep_examining(&self) {
        loop {
            let is_refused = self.0.examined.last().refused.is_some();
            let pause = match is_refused {
                true => self.lease().heartbeat(),
                false => self.lease().length(),
            };
            tokio::time::sleep(pause).await;
            if let Err(error) = self.examine().await {
                warn_seldom!(%error, "could not examine the engine; trying again");
            }
        }
    }
}

/// Whether a new connection would be refused for the same reason. To a replica it would not: a Sentinel names the new
/// primary. A server with `MISCONF` refuses even the `PING` of a new connection.
fn stays_on_a_new_connection(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::NoPermission(_)
        | Refusal::OutOfMemory
        | Refusal::Misconfigured
        | Refusal::Unauthenticated(_) => true,
        Refusal::ReadOnly | Refusal::Other(_) => false,
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
        let refused = match &sent {
            Ok(Ok(())) => None,
            Ok(Err(EngineError::Refused(refusal))) => Some(refusal.clone()),
            Ok(Err(_)) | Err(_) => engine.refusal(),
        };
        let is_final = refused.as_ref().is_some_and(stays_on_a_new_connection);
        self.refused.store(is_final, Ordering::Relaxed);
        let engine_failure = match (sent, refused) {
            (Ok(Ok(())), _) => None,
            (_, Some(refusal)) => Some(format!("refuses: {refusal}")),
            (Ok(Err(EngineError::Unavailable(_))), None) => Some("cannot be reached".to_owned()),
            (Ok(Err(error)), None) => Some(error.to_string()),
            (Err(_), None) => Some("did not answer within a second".to_owned()),
        };
        let canary_failure = match &engine_failure {
            Some(_) => Some("could not be sent".to_owned()),
            None => match tokio::time::timeout(CANARY_WITHIN, landed).await {
                Ok(_) => None,
                Err(_) => Some("did not come back within a second".to_owned()),
            },
        };
        [
            Check::vital(engine.name(), engine_failure),
            Check::vital(CANARY, canary_failure),
        ]
    }
}
