//! This node's lease, and the reaping of nodes whose lease is over.
//!
//! A lease that is gone ends an incarnation for ever: the node takes a new one and registers its live
//! connections again. It reaps others only once its own lease has been renewed without a gap for a whole
//! lease: after Redis itself stood still everybody's is over, and everybody gets the time to renew.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Hub;
use crate::engine::EngineError;
use crate::ids::Incarnation;

/// Connections released by one call of the reaper: few enough that Redis stays responsive.
const REAP_BATCH_MAX: u32 = 200;

/// The rules, as configured.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOptions {
    /// How long a node counts as alive after its last sign of life.
    pub lease: Duration,
    /// How often a node gives one.
    pub heartbeat: Duration,
}

/// How this node's lease stands.
pub(crate) struct Lease {
    options: LeaseOptions,
    tenure: Mutex<Tenure>,
    doubted: Notify,
}

/// For how long the lease has been renewed without a gap.
#[derive(Clone, Copy, Debug, Default)]
struct Tenure {
    renewed: Option<Renewed>,
}

#[derive(Clone, Copy, Debug)]
struct Renewed {
    first: Instant,
    last: Instant,
}

impl Tenure {
    /// The lease was renewed; after a pause of more than a lease its time starts over.
    fn renew(&mut self, now: Instant, lease: Duration) {
        let first = match self.renewed {
            Some(renewed) if now.saturating_duration_since(renewed.last) <= lease => renewed.first,
            Some(_) | None => now,
        };
        self.renewed = Some(Renewed { first, last: now });
    }

    /// Whether everybody had a whole lease to renew, as far as this node can tell.
    fn is_whole(&self, now: Instant, lease: Duration) -> bool {
        self.renewed.is_some_and(|renewed| {
            now.saturating_duration_since(renewed.last) <= lease
                && renewed.last.saturating_duration_since(renewed.first) >= lease
        })
    }
}

impl Lease {
    pub(crate) fn new(options: LeaseOptions) -> Self {
        Self {
            options,
            tenure: Mutex::default(),
            doubted: Notify::new(),
        }
    }

    pub(crate) fn length(&self) -> Duration {
        self.options.lease
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.options.heartbeat
    }

    fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages may have been missed, so data may be lost, too: the next heartbeat comes at once, and
    /// registers everything again.
    pub(crate) fn doubt(&self) {
        *self.tenure() = Tenure::default();
        self.doubted.notify_one();
    }

    fn may_reap(&self) -> bool {
        self.tenure().is_whole(Instant::now(), self.options.lease)
    }
}

impl Hub {
    /// Renews the lease every heartbeat, for ever, and does what its loss requires.
    pub(crate) async fn keep_lease(&self) {
        let lease = self.lease();
        let mut heartbeat = tokio::time::interval(lease.options.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut register_again = false;
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {}
                () = lease.doubted.notified() => register_again = true,
            }
            if let Err(error) = self.beat(&mut register_again).await {
                *lease.tenure() = Tenure::default();
                tracing::warn!(%error, "could not renew the lease; trying again");
            }
        }
    }

    async fn beat(&self, register_again: &mut bool) -> Result<(), EngineError> {
        let lease = self.lease();
        let mut dead = None;
        let info = self.node_info(&self.engine().incarnation());
        if !self.engine().renew(&info, lease.options.lease).await? {
            self.metrics().lease_losses.inc();
            *register_again = true;
            dead = Some(self.start_over().await?);
        }
        if *register_again {
            let connections = self.topics().own_connections();
            self.presence().register_again(&connections).await?;
            tracing::info!(connections = connections.len(), "registered again");
            *register_again = false;
        }
        lease.tenure().renew(Instant::now(), lease.options.lease);
        if let Some(dead) = dead {
            self.reap_everywhere(dead.as_str()).await?;
        }
        Ok(())
    }

    /// Takes a new incarnation. Its lease begins before anything is registered with it, so that nobody takes it
    /// for a dead one. Returns the incarnation that is dead.
    async fn start_over(&self) -> Result<Incarnation, EngineError> {
        let next = Incarnation::new(self.engine().incarnation().node_id());
        tracing::warn!(incarnation = %next, "the lease was gone; starting over");
        self.engine()
            .begin(&self.node_info(&next), self.lease().length())
            .await?;
        let dead = self.engine().go_on_as(next);
        // The data may be gone with the lease.
        self.presence().interrupted();
        self.topics().interrupted();
        Ok(dead)
    }

    /// Releases what dead nodes owe, for ever.
    pub(crate) async fn keep_reaping(&self) {
        let mut interval = tokio::time::interval(self.lease().options.heartbeat);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if self.lease().may_reap()
                && let Err(error) = self.reap_dead().await
            {
                tracing::debug!(%error, "could not reap; trying again");
            }
        }
    }

    async fn reap_dead(&self) -> Result<(), EngineError> {
        for incarnation in self.engine().bury().await? {
            tracing::info!(%incarnation, "the lease of a node is over");
        }
        for partition in 0..self.engine().partitions() {
            for incarnation in self.engine().dead(partition).await? {
                self.reap(partition, &incarnation).await?;
            }
        }
        Ok(())
    }

    async fn reap_everywhere(&self, incarnation: &str) -> Result<(), EngineError> {
        for partition in 0..self.engine().partitions() {
            self.reap(partition, incarnation).await?;
        }
        Ok(())
    }

    async fn reap(&self, partition: u32, incarnation: &str) -> Result<(), EngineError> {
        let grace = self.presence().offline_grace();
        let mut released = 0;
        loop {
            let reaped = self
                .engine()
                .reap(partition, incarnation, REAP_BATCH_MAX, grace)
                .await?;
            released += reaped.released;
            self.metrics().reaped_connections.inc_by(reaped.released);
            if reaped.left == 0 {
                break;
            }
        }
        if released > 0 {
            tracing::info!(incarnation, released, "released what a dead node owed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(6);

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_may_reap_after_a_whole_lease() {
        let (begin, mut tenure) = (Instant::now(), Tenure::default());
        assert!(!tenure.is_whole(begin, LEASE));
        for seconds in [0, 2, 4] {
            tenure.renew(after(begin, seconds), LEASE);
            assert!(!tenure.is_whole(after(begin, seconds), LEASE), "{seconds}");
        }
        tenure.renew(after(begin, 6), LEASE);
        assert!(tenure.is_whole(after(begin, 6), LEASE));
    }

    #[test]
    fn a_pause_starts_the_tenure_over() {
        let (begin, mut tenure) = (Instant::now(), Tenure::default());
        for seconds in [0, 3, 6] {
            tenure.renew(after(begin, seconds), LEASE);
        }
        assert!(
            !tenure.is_whole(after(begin, 13), LEASE),
            "its own lease may be over"
        );
        tenure.renew(after(begin, 13), LEASE);
        assert!(!tenure.is_whole(after(begin, 13), LEASE));
    }
}
