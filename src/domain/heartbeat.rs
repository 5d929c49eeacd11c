//! Renews this node's lease, and begins a new incarnation if the lease is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster_events::{ClusterEvents, EventKind};
use super::lease::Lease;
use super::local_node::LocalNode;
use super::presence::Presence;
use super::recovery::Recovery;
use super::registration::Registrations;
use crate::engine::{Engine, EngineError};
use crate::ids::Incarnation;
use crate::telemetry::{Metrics, warn_seldom};

pub(crate) struct NodeHeartbeat {
    pub(crate) engine: Engine,
    pub(crate) lease: Arc<Lease>,
    pub(crate) node: Arc<LocalNode>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<ClusterEvents>,
}

impl NodeHeartbeat {
    /// Begins the lease. If Redis is only partly reachable, a later heartbeat begins it.
    pub(crate) async fn begin(&self) -> Result<(), EngineError> {
        let info = self.node.info(&self.engine.incarnation());
        match self.engine.begin(&info, self.lease.length()).await {
            Err(error) if self.engine.is_partial(&error).await => {
                tracing::warn!(%error, "could not begin the lease yet; trying again");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Renews the lease and publishes the node's report every heartbeat. In a Redis Cluster the two may be on different
    /// servers, so neither waits for the other.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.run_renewal(), self.run_description());
    }

    async fn run_description(&self) {
        let mut heartbeat = tokio::time::interval(self.lease.heartbeat());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            heartbeat.tick().await;
            if self.lease.is_relinquished() {
                continue;
            }
            let info = self.node.info(&self.engine.incarnation());
            if let Err(error) = self.engine.describe(&info, self.lease.length()).await {
                warn_seldom!(%error, "could not publish the node's report");
            }
        }
    }

    /// Renews the lease every heartbeat, and at once on request.
    async fn run_renewal(&self) {
        let mut heartbeat = tokio::time::interval(self.lease.heartbeat());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {}
                () = self.lease.renewal_requested() => {}
            }
            if let Err(error) = self.beat().await {
                self.lease.failed(&error);
                tracing::warn!(%error, "could not renew the lease; trying again");
            }
        }
    }

    async fn beat(&self) -> Result<(), EngineError> {
        if !self.renew().await? {
            if self.lease.is_relinquished() {
                return Ok(());
            }
            self.metrics.lease_losses.inc();
            self.events.record(EventKind::LeaseLost);
            self.begin_incarnation().await?;
        }
        Ok(())
    }

    /// Renews the lease. Returns `false` if it is lost.
    async fn renew(&self) -> Result<bool, EngineError> {
        let length = self.lease.length();
        let info = self.node.info(&self.engine.incarnation());
        let renewed = self.engine.renew(&info, length).await?;
        if let Some(ends_ms) = renewed {
            self.lease.renewed(Instant::now(), ends_ms);
        }
        Ok(renewed.is_some())
    }

    /// Switches to a new incarnation. Its lease begins before anything is registered under it, so that no node takes it
    /// for dead. The former incarnation's connections are reaped once all are registered again.
    async fn begin_incarnation(&self) -> Result<(), EngineError> {
        // Other nodes may have lost their leases, too.
        self.lease.lost();
        let next = Incarnation::new(self.engine.incarnation().node_id());
        tracing::warn!(incarnation = %next, "the lease was lost; starting a new incarnation");
        self.engine
            .begin(&self.node.info(&next), self.lease.length())
            .await?;
        self.lease.record_held();
        let former = self.engine.set_incarnation(next);
        self.registrations.retire(&former);
        // The data may be lost with the lease.
        let all: Vec<u32> = (0..self.engine.partitions()).collect();
        self.recovery.read_again(&all);
        Ok(())
    }

    /// Waits at most `within` for all releases, then relinquishes the lease. The last node to leave also takes users
    /// offline whose grace period is still running.
    pub(crate) async fn resign(&self, within: Duration) {
        if tokio::time::timeout(within, self.presence.wait_until_released())
            .await
            .is_err()
        {
            tracing::warn!("some connections could not be released in time");
        }
        self.lease.relinquish();
        if let Err(error) = self.engine.resign().await {
            tracing::warn!(%error, "could not relinquish the lease; it expires by itself");
        }
        let leases = self.engine.leases().await;
        if leases.is_ok_and(|leases| leases.is_empty()) {
            self.presence.expire_leaving().await;
        }
    }
}
