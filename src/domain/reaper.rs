//! Releases the connections of dead nodes.
//!
//! A node reaps others only once its own lease has been renewed without a gap for a whole lease: after an outage of
//! Redis every lease is over, and every node gets time to renew.

use std::sync::Arc;

use futures_util::future::join_all;

use super::cluster_events::{ClusterEvents, EventKind};
use super::lease::Lease;
use super::presence::Presence;
use crate::engine::{Engine, EngineError};
use crate::telemetry::{Metrics, warn_seldom};

/// Connections released per script call: few enough that Redis stays responsive.
const REAP_BATCH_MAX: u32 = 200;

pub(crate) struct Reaper {
    pub(crate) engine: Engine,
    pub(crate) presence: Arc<Presence>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<ClusterEvents>,
}

impl Reaper {
    /// Looks for dead nodes every heartbeat, and reaps them.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.lease.heartbeat());
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Some(until_ms) = self.lease.may_reap_until()
                && let Err(error) = self.reap_dead(until_ms).await
            {
                warn_seldom!(%error, "could not reap dead nodes; trying again");
            }
        }
    }

    async fn reap_dead(&self, until_ms: u64) -> Result<(), EngineError> {
        for incarnation in self.engine.expire_leases(until_ms).await? {
            tracing::info!(%incarnation, "the lease of a node is over");
            self.metrics.reaped_nodes.inc();
            self.events.record(EventKind::NodeReaped { incarnation });
        }
        let dead = self.engine.dead_nodes().await?;
        // This node may have lost its own lease since, and then perhaps others lost theirs.
        if self.lease.may_reap_until().is_none() {
            return Ok(());
        }
        let reaped = dead
            .iter()
            .map(|(partition, incarnation)| self.reap(*partition, incarnation));
        join_all(reaped).await.into_iter().collect()
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
