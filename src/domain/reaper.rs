//! Releases the connections of dead nodes.
//!
//! A node reaps others only once its own lease has been renewed without a gap for a whole lease: after an outage of
//! Redis every lease is over, and every node gets the time to renew.

use std::sync::Arc;

use futures_util::future::join_all;

use super::incidents::{Happening, Incidents};
use super::lease::Lease;
use super::presence::Presence;
use crate::engine::{Engine, EngineError};
use crate::telemetry::{Metrics, warn_seldom};

/// Connections released by one call of the script: few enough that Redis stays responsive.
const REAP_BATCH_MAX: u32 = 200;

pub(crate) struct Reaper {
    pub(crate) engine: Engine,
    pub(crate) presence: Arc<Presence>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) incidents: Arc<Incidents>,
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
                warn_seldom!(%error, "could not reap; trying again");
            }
        }
    }

    async fn reap_dead(&self, until_ms: u64) -> Result<(), EngineError> {
        for incarnation in self.engine.bury(until_ms).await? {
            tracing::info!(%incarnation, "the lease of a node is over");
            self.metrics.reaped_nodes.inc();
            self.incidents.note(Happening::NodeReaped { incarnation });
        }
        let partitions = 0..self.engine.partitions();
        let reaped = join_all(partitions.map(|partition| self.reap_dead_in(partition))).await;
        reaped.into_iter().collect()
    }

    async fn reap_dead_in(&self, partition: u32) -> Result<(), EngineError> {
        for incarnation in self.engine.dead(partition).await? {
            // This node may have lost its own lease since, and then perhaps others lost theirs.
            if self.lease.may_reap_until().is_none() {
                return Ok(());
            }
            self.reap(partition, &incarnation).await?;
        }
        Ok(())
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
            tracing::info!(incarnation, released, "released what a dead node owed");
            self.incidents.note(Happening::ConnectionsReaped {
                incarnation: incarnation.to_owned(),
                connections: released,
            });
        }
        Ok(())
    }
}
