//! How many events a connection may send: all together, and of the classes that cost more than others.

use std::time::{Duration, Instant};

use crate::transport::limits::Limits;
use crate::transport::rate::Bucket;

/// The share of all events that may be about the queue of opponents, each of which is a script in Redis and wakes other
/// nodes; and the share that may bring a token, each of which is a signature to check.
const SHARE: f64 = 0.1;

/// How many events of a connection are rejected before it is disconnected: a multiple of the burst, within these bounds.
const STRIKES: f64 = 10.0;
const STRIKES_MIN: f64 = 100.0;
const STRIKES_MAX: f64 = 1000.0;

/// The share of the rate of events that may be rejected in the long run: a client that is a little too fast now and then
/// stays.
const STRIKES_SHARE: f64 = 0.1;

/// Bytes of online lists that a connection may ask for at once, and per second in the long run: with a million users
/// online one list has 8 MB, and asking for it takes 40 bytes.
const SNAPSHOTS_BURST: f64 = 8e6;
const SNAPSHOTS_PER_SECOND: f64 = 1e6;

/// Estimated bytes of a list: for each user, and for what surrounds them.
const BYTES_PER_USER: f64 = 8.0;
const BYTES_PER_SNAPSHOT: f64 = 64.0;

/// Classes of events with rates of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventClass {
    /// Counts towards the rate of all events only.
    Common,
    /// Joins or leaves the queue.
    Matchmaking,
    /// Brings a token.
    Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    /// The event is over the rate.
    Reject,
    /// The event is over the rate, and too many were before it.
    Disconnect,
}

/// The token buckets of one connection.
pub(super) struct EventRates {
    all: Bucket,
    matchmaking: Bucket,
    token: Bucket,
    strikes: Bucket,
}

impl EventRates {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let bucket = |(per_second, burst)| Bucket::new(per_second, burst, now);
        let [all, matchmaking, token, strikes] = rates_of(limits).map(bucket);
        Self {
            all,
            matchmaking,
            token,
            strikes,
        }
    }

    /// Decides about one event. Rejected events count too, so a client that goes on sending gets nowhere.
    pub(super) fn check(&mut self, class: EventClass, limits: &Limits, now: Instant) -> Decision {
        self.adjust(limits);
        let is_in_class = match class {
            EventClass::Common => true,
            EventClass::Matchmaking => self.matchmaking.take(1.0, now),
            EventClass::Token => self.token.take(1.0, now),
        };
        if self.all.take(1.0, now) && is_in_class {
            Decision::Allow
        } else if self.strikes.take(1.0, now) {
            Decision::Reject
        } else {
            Decision::Disconnect
        }
    }

    /// Follows limits that have changed since.
    fn adjust(&mut self, limits: &Limits) {
        let buckets = [
            &mut self.all,
            &mut self.matchmaking,
            &mut self.token,
            &mut self.strikes,
        ];
        for (bucket, (per_second, burst)) in buckets.into_iter().zip(rates_of(limits)) {
            bucket.adjust(per_second, burst);
        }
    }
}

/// Rate per second and burst of all events, of those about the queue, of those with tokens, and of rejections.
fn rates_of(limits: &Limits) -> [(f64, f64); 4] {
    let per_second = f64::from(limits.events_per_second);
    let burst = f64::from(limits.events_burst);
    let share = (per_second * SHARE, (burst * SHARE).max(1.0));
    let strikes = (burst * STRIKES).clamp(STRIKES_MIN, STRIKES_MAX);
    [
        (per_second, burst),
        share,
        share,
        (per_second * STRIKES_SHARE, strikes),
    ]
}

/// Paces the lists of online users, which may be much larger than the request for one.
pub(super) struct SnapshotPacer(Bucket);

impl SnapshotPacer {
    pub(super) fn new(now: Instant) -> Self {
        Self(Bucket::new(SNAPSHOTS_PER_SECOND, SNAPSHOTS_BURST, now))
    }

    /// How long the answer to a request at `now` has to wait, with `online` users.
    pub(super) fn delay(&mut self, online: usize, now: Instant) -> Duration {
        let delay = self.0.owe(0.0, now);
        self.0
            .owe(BYTES_PER_SNAPSHOT + BYTES_PER_USER * online as f64, now);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` events are allowed, rejected, and disconnect.
    fn sent(class: EventClass, count: usize, limits: &Limits) -> [usize; 3] {
        let now = Instant::now();
        let mut rates = EventRates::new(limits, now);
        let decisions: Vec<_> = (0..count)
            .map(|_| rates.check(class, limits, now))
            .collect();
        [Decision::Allow, Decision::Reject, Decision::Disconnect]
            .map(|decision| decisions.iter().filter(|given| **given == decision).count())
    }

    #[test]
    fn a_burst_is_allowed_the_rest_rejected_and_then_the_client_disconnected() {
        assert_eq!(
            sent(EventClass::Common, 2500, &Limits::sample()),
            [1000, 1000, 500]
        );
    }

    #[test]
    fn expensive_events_have_rates_of_their_own() {
        assert_eq!(
            sent(EventClass::Matchmaking, 200, &Limits::sample()),
            [100, 100, 0]
        );
        assert_eq!(
            sent(EventClass::Token, 200, &Limits::sample()),
            [100, 100, 0]
        );
        let frugal = Limits {
            events_per_second: 1,
            events_burst: 1,
            ..Limits::sample()
        };
        assert_eq!(sent(EventClass::Token, 2, &frugal), [1, 1, 0]);
        assert_eq!(sent(EventClass::Common, 200, &frugal), [1, 100, 99]);
    }

    #[test]
    fn a_client_that_is_rejected_now_and_then_stays() {
        let (limits, begin) = (Limits::sample(), Instant::now());
        let mut rates = EventRates::new(&limits, begin);
        for second in 0..1000 {
            let now = begin + Duration::from_secs(second);
            for _ in 0..210 {
                assert_ne!(
                    rates.check(EventClass::Common, &limits, now),
                    Decision::Disconnect
                );
            }
        }
    }

    #[test]
    fn small_lists_are_not_delayed_and_large_ones_are() {
        let now = Instant::now();
        let mut pacer = SnapshotPacer::new(now);
        assert!((0..10_000).all(|_| pacer.delay(10, now).is_zero()));
        let mut pacer = SnapshotPacer::new(now);
        assert_eq!(pacer.delay(10_000_000, now), Duration::ZERO);
        assert!(pacer.delay(10_000_000, now) > Duration::from_secs(60));
    }
}
