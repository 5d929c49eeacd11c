//! This node's lease, and the reaping of nodes whose lease is over.
//!
//! A lease that is gone ends an incarnation for ever: the node takes a new one and registers its live
//! connections again. It reaps others only once its own lease has been renewed without a gap for a whole
//! lease: after Redis itself stood still everybody's is over, and everybody gets the time to renew. The same holds
//! when Redis's clock was set, and when the list of leases was lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::incidents::Happening;
use super::{Hub, count};
use crate::engine::EngineError;
use crate::ids::Incarnation;
use crate::telemetry::warn_seldom;

/// Connections released by one call of the reaper: few enough that Redis stays responsive.
const REAP_BATCH_MAX: u32 = 200;

/// Pause before a registration that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

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
    proof: Mutex<Proof>,
    doubted: Notify,
    /// One for each partition.
    registrations: Vec<Registrations>,
    tickets_wanted: Notify,
    registered_again: Notify,
    given_back: AtomicBool,
}

/// What a partition needs to know of this node's connections once more.
#[derive(Default)]
struct Registrations {
    wanted: Notify,
    /// This node's own incarnations that are over, and may still owe something.
    former: Mutex<Vec<Incarnation>>,
}

impl Registrations {
    fn former(&self) -> MutexGuard<'_, Vec<Incarnation>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the lease holds, as this node knows.
struct Proof {
    renewed_at: Instant,
    /// Why the last attempt failed; `None` where it did not.
    failure: Option<String>,
}

impl Proof {
    /// Why the lease may be over at `now`, if it may.
    fn failure(&self, now: Instant, lease: Duration) -> Option<String> {
        let since = now.saturating_duration_since(self.renewed_at);
        if since <= lease {
            return None;
        }
        let reason = self.failure.as_deref().unwrap_or("no attempt has ended");
        Some(format!(
            "not renewed for {} s, node.lease is {}: {reason}",
            since.as_secs(),
            humantime::format_duration(lease)
        ))
    }
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
    /// When it ends, in ms on the engine's clock.
    ends_ms: u64,
}

impl Renewed {
    /// The latest that the engine's clock can show now if it goes as this node's does. A node that lives renews
    /// its lease when at most half of it is over, so nobody's ends before a quarter more has passed unseen.
    fn latest_ms(&self, now: Instant, lease: Duration) -> u64 {
        let since = now.saturating_duration_since(self.last) + lease / 4;
        (self.ends_ms + since.as_millis() as u64).saturating_sub(lease.as_millis() as u64)
    }
}

impl Tenure {
    /// The lease was renewed; after a pause of more than a lease, or of the engine's clock, its time starts over.
    fn renew(&mut self, now: Instant, ends_ms: u64, lease: Duration) {
        let renewed_ms = ends_ms.saturating_sub(lease.as_millis() as u64);
        let first = match self.renewed {
            Some(renewed)
                if now.saturating_duration_since(renewed.last) <= lease
                    && renewed_ms <= renewed.latest_ms(now, lease) =>
            {
                renewed.first
            }
            Some(_) | None => now,
        };
        self.renewed = Some(Renewed {
            first,
            last: now,
            ends_ms,
        });
    }

    /// Once everybody had a whole lease to renew, as far as this node can tell: until when, in ms on the engine's
    /// clock, others may be taken for dead.
    fn may_reap_until(&self, now: Instant, lease: Duration) -> Option<u64> {
        let renewed = self.renewed.filter(|renewed| {
            now.saturating_duration_since(renewed.last) <= lease
                && renewed.last.saturating_duration_since(renewed.first) >= lease
        })?;
        Some(renewed.latest_ms(now, lease))
    }
}

impl Lease {
    pub(crate) fn new(options: LeaseOptions, partitions: u32) -> Self {
        Self {
            options,
            tenure: Mutex::default(),
            // The lease begins before anybody asks.
            proof: Mutex::new(Proof {
                renewed_at: Instant::now(),
                failure: None,
            }),
            doubted: Notify::new(),
            registrations: (0..partitions).map(|_| Registrations::default()).collect(),
            tickets_wanted: Notify::new(),
            registered_again: Notify::new(),
            given_back: AtomicBool::new(false),
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

    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the lease may be over, if it was not renewed for as long as it lasts.
    pub(crate) fn failure(&self) -> Option<String> {
        self.proof().failure(Instant::now(), self.options.lease)
    }

    /// The lease begins, or is renewed, now.
    fn holds(&self) {
        *self.proof() = Proof {
            renewed_at: Instant::now(),
            failure: None,
        };
    }

    /// Messages of a server with these partitions may have been missed, so data may be lost, too: everything in them is
    /// registered again, and tickets are asked for again.
    pub(crate) fn register_again(&self, partitions: &[u32]) {
        for partition in partitions {
            if let Some(registrations) = self.registrations.get(*partition as usize) {
                registrations.wanted.notify_one();
            }
        }
        self.tickets_wanted.notify_one();
    }

    /// The list of leases may be lost: the next heartbeat comes at once.
    pub(crate) fn doubt(&self) {
        *self.tenure() = Tenure::default();
        self.doubted.notify_one();
    }

    /// Resolves when the connections of a partition were registered again.
    pub(crate) async fn registered_again(&self) {
        self.registered_again.notified().await;
    }

    /// The lease is about to be given back: that it is gone is no loss.
    pub(crate) fn give_back(&self) {
        self.given_back.store(true, Ordering::Relaxed);
    }

    fn may_reap_until(&self) -> Option<u64> {
        self.tenure()
            .may_reap_until(Instant::now(), self.options.lease)
    }
}

impl Hub {
    /// Renews the lease every heartbeat, for ever, and does what its loss requires.
    pub(crate) async fn keep_lease(&self) {
        let lease = self.lease();
        let mut heartbeat = tokio::time::interval(lease.options.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {}
                () = lease.doubted.notified() => {}
            }
            if let Err(error) = self.beat().await {
                *lease.tenure() = Tenure::default();
                lease.proof().failure = Some(error.to_string());
                tracing::warn!(%error, "could not renew the lease; trying again");
            }
        }
    }

    async fn beat(&self) -> Result<(), EngineError> {
        if !self.renew().await? {
            if self.lease().given_back.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.metrics().lease_losses.inc();
            self.incidents().note(Happening::LeaseLost);
            self.start_over().await?;
        }
        if let Err(error) = self.look_around().await {
            // The lease is renewed all the same.
            warn_seldom!(%error, "could not look which nodes are alive");
        }
        Ok(())
    }

    /// Notes which nodes are alive.
    async fn look_around(&self) -> Result<(), EngineError> {
        let leases = self.engine().leases().await?;
        self.metrics().nodes.set(count(leases.len()));
        let incarnations = leases.iter().map(|(incarnation, _)| incarnation.as_str());
        let own = self.engine().incarnation();
        self.pulses().choose_owners(own.as_str(), incarnations);
        self.incidents().note_leases(leases, self.lease().length());
        Ok(())
    }

    /// Renews the lease; `false` when it is gone.
    async fn renew(&self) -> Result<bool, EngineError> {
        let length = self.lease().length();
        let info = self.node_info(&self.engine().incarnation());
        let renewed = self.engine().renew(&info, length).await?;
        if let Some(ends_ms) = renewed {
            self.lease().tenure().renew(Instant::now(), ends_ms, length);
            self.lease().holds();
        }
        Ok(renewed.is_some())
    }

    /// Registers the connections of each partition again whenever that is wanted, for ever.
    pub(crate) async fn keep_registered(&self) {
        let partitions = (0..).zip(&self.lease().registrations);
        let registered = partitions.map(|(number, of)| self.keep_registered_in(number, of));
        tokio::join!(join_all(registered), self.keep_asking_again());
    }

    /// Puts users of this node back in the queue whenever that is wanted, for ever.
    async fn keep_asking_again(&self) {
        loop {
            self.lease().tickets_wanted.notified().await;
            while let Err(error) = self.matchmaking().ask_again().await {
                tracing::warn!(%error, "could not put users back in the queue; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn keep_registered_in(&self, partition: u32, registrations: &Registrations) {
        loop {
            registrations.wanted.notified().await;
            while let Err(error) = self.register_again(partition, registrations).await {
                tracing::warn!(partition, %error, "could not register connections again; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            self.lease().registered_again.notify_one();
        }
    }

    async fn register_again(
        &self,
        partition: u32,
        registrations: &Registrations,
    ) -> Result<(), EngineError> {
        // Noted first: an incarnation that ends from now on is reaped after the next round.
        let former = registrations.former().clone();
        let connections = self.topics().own_connections(Some(partition));
        self.presence().register_again(&connections).await?;
        if !connections.is_empty() {
            let connections = connections.len();
            tracing::info!(partition, connections, "registered connections again");
        }
        for incarnation in &former {
            self.reap(partition, incarnation.as_str()).await?;
        }
        registrations
            .former()
            .retain(|known| !former.contains(known));
        Ok(())
    }

    /// Takes a new incarnation. Its lease begins before anything is registered with it, so that nobody takes it
    /// for a dead one. What the one before owes is reaped once everything is registered again.
    async fn start_over(&self) -> Result<(), EngineError> {
        // Whoever took this lease away, or lost it, may have done so with those of others.
        *self.lease().tenure() = Tenure::default();
        let next = Incarnation::new(self.engine().incarnation().node_id());
        tracing::warn!(incarnation = %next, "the lease was gone; starting over");
        self.engine()
            .begin(&self.node_info(&next), self.lease().length())
            .await?;
        self.lease().holds();
        let former = self.engine().go_on_as(next);
        for registrations in &self.lease().registrations {
            registrations.former().push(former.clone());
        }
        // The data may be gone with the lease.
        let all: Vec<u32> = (0..self.engine().partitions()).collect();
        self.read_again(&all);
        Ok(())
    }

    /// Releases what dead nodes owe, for ever.
    pub(crate) async fn keep_reaping(&self) {
        let mut interval = tokio::time::interval(self.lease().options.heartbeat);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Some(until_ms) = self.lease().may_reap_until()
                && let Err(error) = self.reap_dead(until_ms).await
            {
                warn_seldom!(%error, "could not reap; trying again");
            }
        }
    }

    async fn reap_dead(&self, until_ms: u64) -> Result<(), EngineError> {
        for incarnation in self.engine().bury(until_ms).await? {
            tracing::info!(%incarnation, "the lease of a node is over");
            self.metrics().reaped_nodes.inc();
            self.incidents().note(Happening::NodeReaped { incarnation });
        }
        let partitions = 0..self.engine().partitions();
        let reaped = join_all(partitions.map(|partition| self.reap_dead_in(partition))).await;
        reaped.into_iter().collect()
    }

    async fn reap_dead_in(&self, partition: u32) -> Result<(), EngineError> {
        for incarnation in self.engine().dead(partition).await? {
            // This node's own lease may have been lost since, and then perhaps those of others.
            if self.lease().may_reap_until().is_none() {
                return Ok(());
            }
            self.reap(partition, &incarnation).await?;
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
            self.incidents().note(Happening::ConnectionsReaped {
                incarnation: incarnation.to_owned(),
                connections: released,
            });
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

    /// Renews so many seconds after the beginning, at which the engine's clock showed 1,000 s; it is ahead by now.
    fn renew(tenure: &mut Tenure, begin: Instant, seconds: u64, ahead_ms: u64) {
        let ends_ms = 1_000_000 + (seconds + LEASE.as_secs()) * 1000 + ahead_ms;
        tenure.renew(after(begin, seconds), ends_ms, LEASE);
    }

    #[test]
    fn a_lease_that_was_not_renewed_in_time_may_be_over() {
        let begin = Instant::now();
        let mut proof = Proof {
            renewed_at: begin,
            failure: None,
        };
        assert_eq!(proof.failure(after(begin, 6), LEASE), None);
        let late = proof.failure(after(begin, 7), LEASE).expect("too late");
        assert!(
            late.starts_with("not renewed for 7 s, node.lease is 6s: "),
            "{late}"
        );
        proof.failure = Some("redis refuses: OOM".to_owned());
        assert_eq!(
            proof.failure(after(begin, 6), LEASE),
            None,
            "it still holds"
        );
        let late = proof.failure(after(begin, 7), LEASE).expect("too late");
        assert!(late.ends_with(": redis refuses: OOM"), "{late}");
    }

    #[test]
    fn a_node_may_reap_after_a_whole_lease() {
        let (begin, mut tenure) = (Instant::now(), Tenure::default());
        assert_eq!(tenure.may_reap_until(begin, LEASE), None);
        for seconds in [0, 2, 4] {
            renew(&mut tenure, begin, seconds, 0);
            let may = tenure.may_reap_until(after(begin, seconds), LEASE);
            assert_eq!(may, None, "{seconds}");
        }
        renew(&mut tenure, begin, 6, 0);
        let may = tenure.may_reap_until(after(begin, 7), LEASE);
        assert_eq!(may, Some(1_007_000 + 1_500), "a quarter of a lease later");
    }

    #[test]
    fn a_step_of_the_engines_clock_starts_the_tenure_over() {
        let (begin, mut tenure) = (Instant::now(), Tenure::default());
        for seconds in [0, 2, 4, 6] {
            renew(&mut tenure, begin, seconds, 0);
        }
        renew(&mut tenure, begin, 8, 2_000);
        assert_eq!(tenure.may_reap_until(after(begin, 8), LEASE), None);
        for seconds in [10, 12, 14] {
            renew(&mut tenure, begin, seconds, 2_000);
        }
        assert!(tenure.may_reap_until(after(begin, 14), LEASE).is_some());
    }

    #[test]
    fn a_pause_starts_the_tenure_over() {
        let (begin, mut tenure) = (Instant::now(), Tenure::default());
        for seconds in [0, 3, 6] {
            renew(&mut tenure, begin, seconds, 0);
        }
        let may = tenure.may_reap_until(after(begin, 13), LEASE);
        assert_eq!(may, None, "its own lease may be over");
        renew(&mut tenure, begin, 13, 0);
        assert_eq!(tenure.may_reap_until(after(begin, 13), LEASE), None);
    }
}
