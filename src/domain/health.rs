//! Whether this node can do its work, tested by sending a canary through the channels that carry it.

mod canary;
mod examination;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::canary::{CANARY, CANARY_WITHIN, Canaries};
use self::examination::Examined;
use super::account::Accounts;
use super::lease::Lease;
use super::local_node::LocalNode;
use super::presence::Presence;
use crate::engine::{Engine, EngineError};
use crate::telemetry::{Metrics, warn_seldom};

/// Consecutive lost canaries after which the node reconnects.
const CANARIES_LOST_MAX: u32 = 2;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The name of the check.
    pub name: &'static str,
    /// The reason for a failure; `None` if the check passed.
    pub failure: Option<String>,
    /// Whether the node cannot work while this check fails; otherwise it works with restrictions.
    pub is_vital: bool,
}

impl Check {
    pub(super) fn vital(name: &'static str, failure: Option<String>) -> Self {
        Self {
            name,
            failure,
            is_vital: true,
        }
    }

    pub(super) fn lesser(name: &'static str, failure: Option<String>) -> Self {
        Self {
            name,
            failure,
            is_vital: false,
        }
    }
}

pub(crate) struct Health {
    engine: Engine,
    accounts: Arc<Accounts>,
    presence: Arc<Presence>,
    lease: Arc<Lease>,
    node: Arc<LocalNode>,
    metrics: Arc<Metrics>,
    canaries: Canaries,
    examined: Examined,
    /// Whether a vital check failed in the last round.
    unready: AtomicBool,
    /// When the last recheck after a failure ended.
    rechecked: tokio::sync::Mutex<Option<Instant>>,
}

impl Health {
    pub(crate) fn new(
        engine: Engine,
        accounts: Arc<Accounts>,
        presence: Arc<Presence>,
        lease: Arc<Lease>,
        node: Arc<LocalNode>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            engine,
            accounts,
            presence,
            lease,
            node,
            metrics,
            canaries: Canaries::default(),
            examined: Examined::default(),
            unready: AtomicBool::default(),
            rechecked: tokio::sync::Mutex::default(),
        }
    }

    /// Examines the engine before the node starts. An unreachable part of Redis is examined later.
    pub(crate) async fn begin(&self) -> Result<(), EngineError> {
        match self.examined.examine(&self.engine).await {
            Err(error) if self.engine.is_partial(&error).await => {
                tracing::warn!(%error, "some of redis could not be examined yet");
                Ok(())
            }
            outcome => outcome,
        }
    }

    pub(crate) fn canary_returned(&self, nonce: u64) {
        self.canaries.landed(nonce);
    }

    pub(crate) async fn readiness(&self) -> Vec<Check> {
        let checks = self.checks().await;
        self.record(&checks);
        checks
    }

    /// Whether the node can do its work. Free while the last round of checks, at most one heartbeat old, passed;
    /// otherwise the node checks again, because the canary may have been late or Redis may just be back.
    pub(crate) async fn is_ready(&self) -> bool {
        let is_ready = || !self.unready.load(Ordering::Relaxed);
        if is_ready() {
            return true;
        }
        let called_at = Instant::now();
        let mut rechecked = self.rechecked.lock().await;
        // One recheck answers all waiting callers.
        if rechecked.is_none_or(|at| at < called_at) {
            self.readiness().await;
            *rechecked = Some(Instant::now());
        }
        is_ready()
    }

    async fn checks(&self) -> Vec<Check> {
        let silent = self.node.silent_partitions();
        let all_silent = silent.len() >= self.engine.partitions() as usize;
        let silent: Vec<String> = silent.iter().map(u32::to_string).collect();
        let draining = self.presence.is_draining();
        let mut checks = self.canaries.check(&self.engine).await.to_vec();
        checks.push(Check::vital("lease", self.lease.failure()));
        if checks.iter().any(|check| check.failure.is_some())
            && self.engine.is_partly_available().await
        {
            // The node still serves users whose partitions are on other servers.
            checks.iter_mut().for_each(|check| check.is_vital = false);
        }
        checks.extend([
            Check {
                name: "partitions",
                failure: (!silent.is_empty()).then(|| format!("not heard: {}", silent.join(", "))),
                // The node still serves users of other partitions.
                is_vital: all_silent,
            },
            Check::vital(
                "draining",
                draining.then(|| "the node is stopping".to_owned()),
            ),
        ]);
        if matches!(self.engine, Engine::Redis(_)) {
            checks.extend(self.examined.checks());
        }
        checks.extend(self.accounts.check());
        checks
    }

    fn record(&self, checks: &[Check]) {
        let failed = vital_failure(checks);
        let was_unready = self.unready.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(reason) if !was_unready => {
                tracing::warn!(%reason, "the node is not ready");
            }
            None if was_unready => tracing::info!("the node is ready"),
            Some(_) | None => {}
        }
    }

    /// Runs all checks every heartbeat. After two lost canaries in a row the engine reconnects: connections may look
    /// open but carry nothing.
    pub(crate) async fn run_canary(self: Arc<Self>) {
        let mut lost = 0;
        loop {
            tokio::time::sleep(self.lease.heartbeat()).await;
            let sent_at = Instant::now();
            let checks = self.readiness().await;
            let engine = self.engine.name();
            let came_back = checks
                .iter()
                .filter(|check| check.name == engine || check.name == CANARY)
                .all(|check| check.failure.is_none());
            // A lost canary is at least as late as its timeout.
            let least = if came_back {
                Duration::ZERO
            } else {
                CANARY_WITHIN
            };
            let lag = sent_at.elapsed().max(least).as_secs_f64();
            self.metrics.canary_lag_seconds.set(lag);
            if came_back {
                lost = 0;
                continue;
            }
            lost += 1;
            if lost == CANARIES_LOST_MAX {
                lost = 0;
                if self.canaries.is_refused() {
                    continue;
                }
                tracing::warn!("canaries do not come back; reconnecting");
                self.engine.reconnect().await;
            }
        }
    }

    /// Examines the engine once per lease; every heartbeat while it refuses commands.
    pub(crate) async fn run_examination(self: Arc<Self>) {
        loop {
            let pause = if self.examined.is_refused() {
                self.lease.heartbeat()
            } else {
                self.lease.length()
            };
            tokio::time::sleep(pause).await;
            if let Err(error) = self.examined.examine(&self.engine).await {
                warn_seldom!(%error, "could not examine the engine; trying again");
            }
        }
    }
}

/// The first failure of a vital check.
fn vital_failure(checks: &[Check]) -> Option<String> {
    let mut vital = checks.iter().filter(|check| check.is_vital);
    vital.find_map(|Check { name, failure, .. }| {
        failure.as_ref().map(|failure| format!("{name}: {failure}"))
    })
}
