//! Renews this node's lease, and starts a new incarnation when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::incidents::{Happening, Incidents};
use super::lease::Lease;
use super::local_node::LocalNode;
use super::presence::Presence;
use super::pulse::Pulses;
use super::recovery::Recovery;
use super::registration::Registrations;
use crate::engine::{Engine, EngineError};
use crate::ids::Incarnation;
use crate::telemetry::{Metrics, gauge, warn_seldom};

pub(crate) struct Heartbeat {
    pub(crate) engine: Engine,
    pub(crate) lease: Arc<Lease>,
    pub(crate) node: Arc<LocalNode>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) pulses: Arc<Pulses>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) incidents: Arc<Incidents>,
}

impl Heartbeat {
    /// Begins the lease. While only a part of Redis is reachable, the first heartbeat that can begins it.
    pub(crate) async fn begin(&self) -> Result<(), EngineError> {
        let info = self.node.info(&self.engine.incarnation());
        match self.engine.begin(&info, self.lease.length()).await {
            Err(error) if self.engine.is_partial(&error).await => {
                tracing::warn!(%error, "the lease could not begin yet; trying again");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Renews the lease every heartbeat, and at once when it is in doubt.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut heartbeat = tokio::time::interval(self.lease.heartbeat());
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {}
                () = self.lease.doubted() => {}
            }
            if let Err(error) = self.beat().await {
                self.lease.failed(&error);
                tracing::warn!(%error, "could not renew the lease; trying again");
            }
        }
    }

    async fn beat(&self) -> Result<(), EngineError> {
        if !self.renew().await? {
            if self.lease.is_given_back() {
                return Ok(());
            }
            self.metrics.lease_losses.inc();
            self.incidents.note(Happening::LeaseLost);
            self.start_over().await?;
        }
        if let Err(error) = self.observe_nodes().await {
            // The lease is renewed all the same.
            warn_seldom!(%error, "could not look which nodes are alive");
        }
        Ok(())
    }

    /// Records which nodes are alive, and divides the pulses among them.
    async fn observe_nodes(&self) -> Result<(), EngineError> {
        let leases = self.engine.leases().await?;
        self.metrics.nodes.set(gauge(leases.len()));
        let incarnations = leases.iter().map(|(incarnation, _)| incarnation.as_str());
        let own = self.engine.incarnation();
        self.pulses.choose_owners(own.as_str(), incarnations);
        self.incidents.note_leases(leases, self.lease.length());
        Ok(())
    }

    /// Renews the lease; `false` when it is gone.
    async fn renew(&self) -> Result<bool, EngineError> {
        let length = self.lease.length();
        let info = self.node.info(&self.engine.incarnation());
        let renewed = self.engine.renew(&info, length).await?;
        if let Some(ends_ms) = renewed {
            self.lease.renewed(Instant::now(), ends_ms);
        }
        Ok(renewed.is_some())
    }

    /// Takes a new incarnation. Its lease begins before anything is registered with it, so that no node takes it for
    /// dead. The connections of the incarnation before are reaped once all are registered again.
    async fn start_over(&self) -> Result<(), EngineError> {
        // Other nodes may have lost their leases in the same way.
        self.lease.lost();
        let next = Incarnation::new(self.engine.incarnation().node_id());
        tracing::warn!(incarnation = %next, "the lease was gone; starting over");
        self.engine
            .begin(&self.node.info(&next), self.lease.length())
            .await?;
        self.lease.holds();
        let former = self.engine.go_on_as(next);
        self.registrations.retire(&former);
        // The data may be gone with the lease.
        let all: Vec<u32> = (0..self.engine.partitions()).collect();
        self.recovery.read_again(&all);
        Ok(())
    }

    /// Waits at most `within` until all connections are released, and gives the lease back. The last node to leave
    /// also takes offline the users whose grace still runs.
    pub(crate) async fn resign(&self, within: Duration) {
        if tokio::time::timeout(within, self.presence.wait_until_released())
            .await
            .is_err()
        {
            tracing::warn!("some connections could not be released in time");
        }
        self.lease.give_back();
        if let Err(error) = self.engine.resign().await {
            tracing::warn!(%error, "could not give the lease back; it ends by itself");
        }
        if self
            .engine
            .nodes()
            .await
            .is_ok_and(|nodes| nodes.is_empty())
        {
            self.presence.expire_leaving().await;
        }
    }
}
