//! The state of this node's lease: until when it holds, and since when it has been renewed without a gap.
//!
//! A node reaps others only once its own lease has been renewed without a gap for a whole lease; likewise after Redis's
//! clock was set, and after the list of leases was lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::EngineError;

/// `node.lease` and `node.heartbeat`.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOptions {
    /// How long a node counts as alive after its last renewal.
    pub lease: Duration,
    /// Interval between renewals.
    pub heartbeat: Duration,
}

pub(crate) struct Lease {
    options: LeaseOptions,
    tenure: Mutex<Tenure>,
    proof: Mutex<Proof>,
    renewal_requested: Notify,
    relinquished: AtomicBool,
}

/// Evidence that the lease holds.
struct Proof {
    renewed_at: Instant,
    /// Why the last renewal failed, if it did.
    failure: Option<String>,
}

impl Proof {
    /// Why the lease may have expired at `now`, if it may have.
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

/// How long the lease has been renewed without a gap.
#[derive(Clone, Copy, Debug, Default)]
struct Tenure {
    renewed: Option<Renewed>,
}

#[derive(Clone, Copy, Debug)]
struct Renewed {
    first: Instant,
    last: Instant,
    /// When the lease ends, in ms on the engine's clock.
    ends_ms: u64,
}

impl Renewed {
    /// The latest plausible time of the engine's clock if it runs at the speed of this node's. A live node renews its
    /// lease before half of it is over, so no lease ends before another quarter has passed unseen.
    fn latest_ms(&self, now: Instant, lease: Duration) -> u64 {
        let since = now.saturating_duration_since(self.last) + lease / 4;
        (self.ends_ms + since.as_millis() as u64).saturating_sub(lease.as_millis() as u64)
    }
}

impl Tenure {
    /// Records a renewal. After a gap of more than a lease, or a step of the engine's clock, the tenure starts over.
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

    /// The time, in ms on the engine's clock, before which an expired lease counts as that of a dead node. `None` until
    /// every node has had a whole lease to renew, as far as this node can tell.
    fn may_reap_until(&self, now: Instant, lease: Duration) -> Option<u64> {
        let renewed = self.renewed.filter(|renewed| {
            now.saturating_duration_since(renewed.last) <= lease
                && renewed.last.saturating_duration_since(renewed.first) >= lease
        })?;
        Some(renewed.latest_ms(now, lease))
    }
}

impl Lease {
    pub(crate) fn new(options: LeaseOptions) -> Self {
        Self {
            options,
            tenure: Mutex::default(),
            // The lease begins before this is queried.
            proof: Mutex::new(Proof {
                renewed_at: Instant::now(),
                failure: None,
            }),
            renewal_requested: Notify::new(),
            relinquished: AtomicBool::new(false),
        }
    }

    pub(crate) fn length(&self) -> Duration {
        self.options.lease
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.options.heartbeat
    }

    /// Why the lease may have expired, if it was not renewed in time.
    pub(crate) fn failure(&self) -> Option<String> {
        let proof = self.proof.lock();
        proof.failure(Instant::now(), self.options.lease)
    }

    /// Records that the lease has just begun or been renewed.
    pub(crate) fn record_held(&self) {
        *self.proof.lock() = Proof {
            renewed_at: Instant::now(),
            failure: None,
        };
    }

    /// Records a renewal; the lease ends at `ends_ms` on the engine's clock.
    pub(crate) fn renewed(&self, now: Instant, ends_ms: u64) {
        self.tenure.lock().renew(now, ends_ms, self.options.lease);
        self.record_held();
    }

    /// Records that a renewal failed.
    pub(crate) fn failed(&self, error: &EngineError) {
        self.lost();
        self.proof.lock().failure = Some(error.to_string());
    }

    /// Starts the tenure over: other nodes may have lost their leases as this one did.
    pub(crate) fn lost(&self) {
        *self.tenure.lock() = Tenure::default();
    }

    /// Requests an immediate renewal, because the list of leases may be lost.
    pub(crate) fn request_renewal(&self) {
        self.lost();
        self.renewal_requested.notify_one();
    }

    /// Resolves when an immediate renewal is requested.
    pub(crate) async fn renewal_requested(&self) {
        self.renewal_requested.notified().await;
    }

    /// Records that the lease is about to be relinquished, so its end is not a loss.
    pub(crate) fn relinquish(&self) {
        self.relinquished.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_relinquished(&self) -> bool {
        self.relinquished.load(Ordering::Relaxed)
    }

    /// The time, in ms on the engine's clock, before which an expired lease counts as that of a dead node; `None` while
    /// this node may not reap.
    pub(crate) fn may_reap_until(&self) -> Option<u64> {
        let tenure = self.tenure.lock();
        tenure.may_reap_until(Instant::now(), self.options.lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(6);

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    /// Renews `seconds` after `begin`, when the engine's clock showed 1,000 s; that clock is `ahead_ms` ahead.
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
