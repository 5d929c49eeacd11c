//! Observes which nodes are alive, and releases the connections of dead ones.
//!
//! A node reaps others only once its own lease has been renewed without a gap for a whole lease: after an outage of
//! Redis every lease is over, and every node gets time to renew. It reaps in the partitions that it owns: what one
//! node can do costs Redis less than what all do at once.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::cluster_events::{ClusterEvents, EventKind};
use super::lease::Lease;
use super::ownership::{Ownership, Role};
use super::presence::Presence;
use crate::engine::{Engine, EngineError};
use crate::telemetry::{Metrics, gauge, warn_seldom};

/// Connections released per script call: few enough that Redis stays responsive.
const REAP_BATCH_MAX: u32 = 200;

/// A dead incarnation that has connections registered in the partition.
type DeadNode = (u32, String);

pub(crate) struct Reaper {
    engine: Engine,
    presence: Arc<Presence>,
    ownership: Arc<Ownership>,
    lease: Arc<Lease>,
    metrics: Arc<Metrics>,
    events: Arc<ClusterEvents>,
    /// Those of this node's partitions, as last observed.
    dead: watch::Sender<Vec<DeadNode>>,
}

impl Reaper {
    pub(crate) fn new(
        engine: Engine,
        presence: Arc<Presence>,
        ownership: Arc<Ownership>,
        lease: Arc<Lease>,
        metrics: Arc<Metrics>,
        events: Arc<ClusterEvents>,
    ) -> Self {
        Self {
            engine,
            presence,
            ownership,
            lease,
            metrics,
            events,
            dead: watch::Sender::default(),
        }
    }

    /// Observes every heartbeat, however long reaping takes.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.run_observation(), self.run_reaping());
    }

    async fn run_observation(&self) {
        let mut heartbeat = tokio::time::interval(self.lease.heartbeat());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            heartbeat.tick().await;
            match self.observe().await {
                Ok(dead) => {
                    self.dead.send_replace(dead);
                }
                Err(error) => warn_seldom!(%error, "could not read which nodes are alive"),
            }
        }
    }

    /// Assigns partitions to the living nodes. Returns the dead ones that this node's partitions know.
    async fn observe(&self) -> Result<Vec<DeadNode>, EngineError> {
        let registered = self.engine.registered_nodes(&self.ownership.owned()).await;
        // Read afterwards, so that a node that has just begun is seen with its lease.
        let leases = self.engine.leases().await?;
        self.metrics.nodes.set(gauge(leases.len()));
        self.events
            .observe_leases(leases.clone(), self.lease.length());
        let own = self.engine.incarnation();
        let Some((_, own_ends_ms)) = leases.iter().find(|(name, _)| name == own.as_str()) else {
            // The list may be lost, and all other leases with it.
            return Ok(Vec::new());
        };
        let renewed_ms = own_ends_ms.saturating_sub(self.lease.length().as_millis() as u64);
        let alive = leases.iter().filter(|(_, ends_ms)| *ends_ms > renewed_ms);
        let alive = alive.map(|(incarnation, _)| incarnation.as_str());
        self.ownership.choose(own.as_str(), alive);

        let Some(until_ms) = self.lease.may_reap_until() else {
            return Ok(Vec::new());
        };
        let mut living: HashSet<&str> = leases.iter().map(|(name, _)| name.as_str()).collect();
        let mut removed = Vec::new();
        if leases.iter().any(|(_, ends_ms)| *ends_ms < until_ms) {
            removed = self.engine.expire_leases(until_ms).await?;
        }
        for incarnation in removed {
            tracing::info!(%incarnation, "the lease of a node is over");
            living.remove(incarnation.as_str());
            self.metrics.reaped_nodes.inc();
            self.events.record(EventKind::NodeReaped { incarnation });
        }
        // This node may have lost its own lease since, and then perhaps others lost theirs.
        if self.lease.may_reap_until().is_none() {
            return Ok(Vec::new());
        }
        let registered = registered.into_iter();
        Ok(registered
            .filter(|(_, incarnation)| !living.contains(incarnation.as_str()))
            .collect())
    }

    async fn run_reaping(&self) {
        let mut observed = self.dead.subscribe();
        let mut before = HashSet::new();
        while observed.changed().await.is_ok() {
            let dead: HashSet<DeadNode> = observed.borrow_and_update().iter().cloned().collect();
            // The second owner leaves the first one time.
            let reaped = dead
                .iter()
                .filter(|one| self.ownership.role(one.0) == Role::First || before.contains(*one))
                .map(|(partition, incarnation)| self.reap(*partition, incarnation));
            let outcomes = join_all(reaped).await;
            if let Some(error) = outcomes.into_iter().find_map(Result::err) {
                warn_seldom!(%error, "could not reap dead nodes; trying again");
            }
            before = dead;
        }
    }

    /// Releases everything that an incarnation registered in a partition.
    pub(crate) async fn reap(&self, partition: u32, incarnation: &str) -> Result<(), EngineError> {
        let grace = self.presence.offline_grace();
        let mut released = 0;
        loop {
            let reaped = self
                .engine
                .reap(partition, incarnation, REAP_BATCH_MAX, grace)
                .await?;
            released += reaped.released;
            self.metrics.reaped_connections.inc_by(reaped.released);
            self.presence.expect_departures(partition, grace);
            if reaped.left == 0 {
                break;
            }
        }
        if released > 0 {
            tracing::info!(
                incarnation,
                released,
                "released the connections of a dead node"
            );
            self.events.record(EventKind::ConnectionsReaped {
                incarnation: incarnation.to_owned(),
                connections: released,
            });
        }
        Ok(())
    }
}
