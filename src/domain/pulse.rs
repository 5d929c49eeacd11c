//! Detects partitions from which nothing arrives, whatever the cause.
//!
//! Two nodes own each partition and publish its pulse every heartbeat. Every node listens to the pulses of all
//! partitions. After three missed pulses, or one that shows missed transitions, the node recovers that partition alone:
//! it subscribes to its messages and reads its state again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::presence::Presence;
use super::recovery::Recovery;
use crate::engine::{Engine, Pulse};
use crate::telemetry::{Metrics, warn_seldom};

/// Nodes that publish the pulse of a partition: one may be dead while its lease still runs.
const OWNERS: usize = 2;

/// Consecutive pulses that may be missing.
const MISSED_MAX: u32 = 3;

/// A partition that stays silent is recovered at growing intervals, up to this many heartbeats: reading everything
/// again is work for a Redis that already has trouble.
const MISSED_LIMIT_MAX: u32 = 24;

pub(crate) struct Pulses {
    engine: Engine,
    presence: Arc<Presence>,
    recovery: Arc<Recovery>,
    metrics: Arc<Metrics>,
    heartbeat: Duration,
    table: PulseTable,
}

/// When the last pulse of each partition arrived, and whether this node publishes it.
struct PulseTable {
    partitions: Vec<PartitionPulse>,
    /// The nodes among which owners were last chosen, this one first.
    nodes: Mutex<Vec<String>>,
}

struct PartitionPulse {
    last_pulse: Mutex<LastPulse>,
    owned: AtomicBool,
}

struct LastPulse {
    at: Instant,
    /// Heartbeats without a pulse after which the partition is recovered.
    missed_max: u32,
}

impl PulseTable {
    /// All partitions start as just heard, and as owned until the other nodes are known.
    fn new(partitions: u32) -> Self {
        let partition = |_| PartitionPulse {
            last_pulse: Mutex::new(LastPulse {
                at: Instant::now(),
                missed_max: MISSED_MAX,
            }),
            owned: AtomicBool::new(true),
        };
        Self {
            partitions: (0..partitions).map(partition).collect(),
            nodes: Mutex::default(),
        }
    }

    fn record(&self, partition: u32) {
        if let Some(partition) = self.partitions.get(partition as usize) {
            *partition.last_pulse.lock() = LastPulse {
                at: Instant::now(),
                missed_max: MISSED_MAX,
            };
        }
    }

    fn silent(&self, heartbeat: Duration) -> Vec<u32> {
        let now = Instant::now();
        let is_silent = |partition: &PartitionPulse| {
            let last = partition.last_pulse.lock();
            last.missed_max > MISSED_MAX
                || now.saturating_duration_since(last.at) > heartbeat * (MISSED_MAX + 1)
        };
        let partitions = (0..).zip(&self.partitions);
        let silent = partitions.filter(|(_, partition)| is_silent(partition));
        silent.map(|(number, _)| number).collect()
    }

    fn choose_owners<'a>(&self, incarnation: &'a str, alive: impl Iterator<Item = &'a str>) {
        let mut others: Vec<&str> = alive.filter(|other| *other != incarnation).collect();
        others.sort_unstable();
        {
            let mut nodes = self.nodes.lock();
            let now = std::iter::once(incarnation).chain(others.iter().copied());
            if now.clone().eq(nodes.iter().map(String::as_str)) {
                return;
            }
            *nodes = now.map(str::to_owned).collect();
        }
        for (number, partition) in (0..).zip(&self.partitions) {
            let owned = is_owner(incarnation, &others, number);
            partition.owned.store(owned, Ordering::Relaxed);
        }
    }
}

/// Rendezvous hashing: every node computes the same owners, and a node that joins or leaves moves only its own
/// partitions.
fn is_owner(incarnation: &str, others: &[&str], partition: u32) -> bool {
    let own = weight(incarnation, partition);
    let heavier = others.iter().filter(|other| weight(other, partition) > own);
    heavier.take(OWNERS).count() < OWNERS
}

/// Must be the same in every version, since nodes of different versions run together.
fn weight(incarnation: &str, partition: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(partition.to_be_bytes());
    hash.update(incarnation);
    hash.finalize().into()
}

impl Pulses {
    pub(crate) fn new(
        engine: Engine,
        presence: Arc<Presence>,
        recovery: Arc<Recovery>,
        metrics: Arc<Metrics>,
        heartbeat: Duration,
    ) -> Self {
        let table = PulseTable::new(engine.partitions());
        Self {
            engine,
            presence,
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

    pub(crate) fn choose_owners<'a>(
        &self,
        incarnation: &'a str,
        alive: impl Iterator<Item = &'a str>,
    ) {
        self.table.choose_owners(incarnation, alive);
    }

    /// Publishes the pulses of this node's partitions every heartbeat.
    pub(crate) async fn run(self: Arc<Self>) {
        let partitions = (0..).zip(&self.table.partitions);
        join_all(partitions.map(|(number, partition)| self.run_partition(number, partition))).await;
    }

    async fn run_partition(&self, number: u32, partition: &PartitionPulse) {
        let mut heartbeat = tokio::time::interval(self.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            heartbeat.tick().await;
            if !partition.owned.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.engine.pulse(number).await {
                warn_seldom!(partition = number, %error, "could not publish a pulse");
            }
        }
    }

    /// Recovers partitions that are silent.
    pub(crate) async fn run_watch(self: Arc<Self>) {
        let partitions = (0..).zip(&self.table.partitions);
        join_all(partitions.map(|(number, partition)| self.run_watch_of(number, partition))).await;
    }

    async fn run_watch_of(&self, number: u32, partition: &PartitionPulse) {
        loop {
            let wait = {
                let last = partition.last_pulse.lock();
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
                let mut last = partition.last_pulse.lock();
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
    fn two_nodes_own_each_partition() {
        let names: Vec<String> = (0..9).map(|number| format!("n{number}.x")).collect();
        let mut owned = vec![0; names.len()];
        for partition in 0..300 {
            let mut owners = 0;
            for (place, name) in names.iter().enumerate() {
                let others = names.iter().filter(|other| *other != name);
                let others: Vec<&str> = others.map(String::as_str).collect();
                if is_owner(name, &others, partition) {
                    owners += 1;
                    owned[place] += 1;
                }
            }
            assert_eq!(owners, OWNERS);
        }
        assert!(owned.iter().all(|count| *count > 30), "{owned:?}");
    }

    #[test]
    fn a_node_alone_owns_everything() {
        assert!(is_owner("a.1", &[], 7));
        assert!(is_owner("a.1", &["b.1"], 7));
    }

    #[test]
    fn a_partition_is_silent_until_a_pulse_arrives() {
        let pulses = PulseTable::new(2);
        let heartbeat = Duration::from_secs(1);
        assert!(pulses.silent(heartbeat).is_empty());
        pulses.partitions[1].last_pulse.lock().missed_max *= 2;
        assert_eq!(pulses.silent(heartbeat), [1]);
        pulses.record(1);
        assert!(pulses.silent(heartbeat).is_empty());
    }
}
