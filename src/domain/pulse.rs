//! Detects partitions from which nothing arrives, whatever the cause.
//!
//! The first owner of each partition publishes its pulse every heartbeat; the second one does when it hears none. Every
//! node listens to the pulses of all partitions. After three missed pulses, or one that shows missed transitions, the
//! node recovers that partition alone: it subscribes to its messages and reads its state again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::ownership::{Ownership, Role};
use super::presence::Presence;
use super::recovery::Recovery;
use crate::engine::{Engine, Pulse};
use crate::telemetry::{Metrics, warn_seldom};

/// Consecutive pulses that may be missing.
const MISSED_MAX: u32 = 3;

/// A partition that stays silent is recovered at growing intervals, up to this many heartbeats: reading everything
/// again is work for a Redis that already has trouble.
const MISSED_LIMIT_MAX: u32 = 24;

pub(crate) struct Pulses {
    engine: Engine,
    presence: Arc<Presence>,
    ownership: Arc<Ownership>,
    recovery: Arc<Recovery>,
    metrics: Arc<Metrics>,
    heartbeat: Duration,
    table: PulseTable,
}

/// When the last pulse of each partition arrived.
struct PulseTable {
    partitions: Vec<Mutex<LastPulse>>,
}

struct LastPulse {
    at: Instant,
    /// Heartbeats without a pulse after which the partition is recovered.
    missed_max: u32,
}

impl PulseTable {
    /// All partitions start as just heard.
    fn new(partitions: u32) -> Self {
        let just_heard = |_| {
            Mutex::new(LastPulse {
                at: Instant::now(),
                missed_max: MISSED_MAX,
            })
        };
        Self {
            partitions: (0..partitions).map(just_heard).collect(),
        }
    }

    fn record(&self, partition: u32) {
        if let Some(partition) = self.partitions.get(partition as usize) {
            *partition.lock() = LastPulse {
                at: Instant::now(),
                missed_max: MISSED_MAX,
            };
        }
    }

    fn silent(&self, heartbeat: Duration) -> Vec<u32> {
        let now = Instant::now();
        let is_silent = |partition: &Mutex<LastPulse>| {
            let last = partition.lock();
            last.missed_max > MISSED_MAX
                || now.saturating_duration_since(last.at) > heartbeat * (MISSED_MAX + 1)
        };
        let partitions = (0..).zip(&self.partitions);
        let silent = partitions.filter(|(_, partition)| is_silent(partition));
        silent.map(|(number, _)| number).collect()
    }
}

impl Pulses {
    pub(crate) fn new(
        engine: Engine,
        presence: Arc<Presence>,
        ownership: Arc<Ownership>,
        recovery: Arc<Recovery>,
        metrics: Arc<Metrics>,
        heartbeat: Duration,
    ) -> Self {
        let table = PulseTable::new(engine.partitions());
        Self {
            engine,
            presence,
            ownership,
            recovery,
            metrics,
            heartbeat,
            table,
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.engine.partitions()
    }

    pub(crate) fn silent(&self) -> Vec<u32> {
        self.table.silent(self.heartbeat)
    }

    /// Publishes the pulses of this node's partitions every heartbeat.
    pub(crate) async fn run(self: Arc<Self>) {
        let partitions = (0..).zip(&self.table.partitions);
        join_all(partitions.map(|(number, partition)| self.run_partition(number, partition))).await;
    }

    async fn run_partition(&self, number: u32, partition: &Mutex<LastPulse>) {
        let mut heartbeat = tokio::time::interval(self.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            heartbeat.tick().await;
            let is_due = match self.ownership.role(number) {
                Role::First => true,
                // The pulse of the first owner comes once a heartbeat, a little early or late.
                Role::Second => partition.lock().at.elapsed() > self.heartbeat * 3 / 2,
                Role::Other => false,
            };
            if !is_due {
                continue;
            }
            let restart_grace = self.presence.resync_grace();
            if let Err(error) = self.engine.pulse(number, restart_grace).await {
                warn_seldom!(partition = number, %error, "could not publish a pulse");
            }
        }
    }

    /// Recovers partitions that are silent.
    pub(crate) async fn run_watch(self: Arc<Self>) {
        let partitions = (0..).zip(&self.table.partitions);
        join_all(partitions.map(|(number, partition)| self.run_watch_of(number, partition))).await;
    }

    async fn run_watch_of(&self, number: u32, partition: &Mutex<LastPulse>) {
        loop {
            let wait = {
                let last = partition.lock();
                (self.heartbeat * last.missed_max).saturating_sub(last.at.elapsed())
            };
            if !wait.is_zero() {
                // A pulse may arrive meanwhile, and shorten the wait.
                tokio::time::sleep(wait.min(self.heartbeat)).await;
                continue;
            }
            // Without any message for this long, the connection is considered broken.
            let silence = self.heartbeat * 3 / 2;
            {
                let mut last = partition.lock();
                last.at = Instant::now();
                last.missed_max = (last.missed_max * 2).min(MISSED_LIMIT_MAX);
            }
            tracing::warn!(
                partition = number,
                "no pulse of a partition arrives; subscribing and reading again"
            );
            self.metrics.silences.inc();
            self.engine.recover(number, silence).await;
        }
    }

    /// Records a pulse. A pulse ahead of the replica shows that this node missed transitions.
    pub(crate) fn receive(&self, partition: u32, pulse: &Pulse) {
        self.table.record(partition);
        if self.presence.is_behind(partition, pulse) {
            tracing::warn!(
                partition,
                "a pulse shows that messages were missed; reading again"
            );
            self.recovery.interrupted(&[partition], false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_silent_until_a_pulse_arrives() {
        let pulses = PulseTable::new(2);
        let heartbeat = Duration::from_secs(1);
        assert!(pulses.silent(heartbeat).is_empty());
        pulses.partitions[1].lock().missed_max *= 2;
        assert_eq!(pulses.silent(heartbeat), [1]);
        pulses.record(1);
        assert!(pulses.silent(heartbeat).is_empty());
    }
}
