//! How many events a connection may send: all together, and of the kinds that cost more than others.

use std::time::{Duration, Instant};

use crate::transport::limits::Limits;
use crate::transport::rate::Bucket;

/// What part of all events may be about the queue of opponents, each of which is a script in Redis and wakes other
/// nodes; and what part may bring a token, each of which is a signature to check.
const SHARE: f64 = 0.1;

/// A connection may be refused so often, as a multiple of the burst and within these bounds, before it is closed.
const PATIENCE: f64 = 10.0;
const PATIENCE_MIN: f64 = 100.0;
const PATIENCE_MAX: f64 = 1000.0;

/// What part of the rate of events may be refused in the long run: who is now and then a little too fast stays.
const PATIENCE_SHARE: f64 = 0.1;

/// Bytes of lists of users that a connection may ask for at once, and per second in the long run: with a million
/// users online one list has 8 MB, and asking for it takes 40 bytes.
const LISTS_BURST: f64 = 8e6;
const LISTS_PER_SECOND: f64 = 1e6;

/// Bytes of a list for each user, about, and for what surrounds them.
const BYTES_PER_USER: f64 = 8.0;
const BYTES_PER_LIST: f64 = 64.0;

/// Kinds of events that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counts among all only.
    Common,
    /// Joins or leaves the queue.
    Matchmaking,
    /// Brings a token.
    Token,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is within the rates.
    Pass,
    /// It is too much.
    Refuse,
    /// It is too much once too often.
    Expel,
}

/// What one connection may still send.
pub(super) struct Rates {
    all: Bucket,
    matchmaking: Bucket,
    token: Bucket,
    patience: Bucket,
}

/// Rate and burst of a bucket.
type Measure = (f64, f64);

impl Rates {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let bucket = |(per_second, burst)| Bucket::new(per_second, burst, now);
        let [all, matchmaking, token, patience] = measures(limits).map(bucket);
        Self {
            all,
            matchmaking,
            token,
            patience,
        }
    }

    /// Judges one event. Those that are refused count too: whoever goes on sending gets nowhere.
    pub(super) fn judge(&mut self, kind: Kind, limits: &Limits, now: Instant) -> Verdict {
        self.adjust(limits);
        let of_its_kind = match kind {
            Kind::Common => true,
            Kind::Matchmaking => self.matchmaking.take(1.0, now),
            Kind::Token => self.token.take(1.0, now),
        };
        if self.all.take(1.0, now) && of_its_kind {
            Verdict::Pass
        } else if self.patience.take(1.0, now) {
            Verdict::Refuse
        } else {
            Verdict::Expel
        }
    }

    /// The limits may have changed since.
    fn adjust(&mut self, limits: &Limits) {
        let buckets = [
            &mut self.all,
            &mut self.matchmaking,
            &mut self.token,
            &mut self.patience,
        ];
        for (bucket, (per_second, burst)) in buckets.into_iter().zip(measures(limits)) {
            bucket.adjust(per_second, burst);
        }
    }
}

/// Of all events, of those about the queue, of those with tokens, and of refusals.
fn measures(limits: &Limits) -> [Measure; 4] {
    let per_second = f64::from(limits.events_per_second);
    let burst = f64::from(limits.events_burst);
    let share = (per_second * SHARE, (burst * SHARE).max(1.0));
    let patience = (burst * PATIENCE).clamp(PATIENCE_MIN, PATIENCE_MAX);
    [
        (per_second, burst),
        share,
        share,
        (per_second * PATIENCE_SHARE, patience),
    ]
}

/// Paces the answers to who is online, which may be much larger than the question.
pub(super) struct ListPace(Bucket);

impl ListPace {
    pub(super) fn new(now: Instant) -> Self {
        Self(Bucket::new(LISTS_PER_SECOND, LISTS_BURST, now))
    }

    /// How long the answer to a question asked at `now` has to wait, with so many users online.
    pub(super) fn wait(&mut self, online: usize, now: Instant) -> Duration {
        let wait = self.0.owe(0.0, now);
        self.0
            .owe(BYTES_PER_LIST + BYTES_PER_USER * online as f64, now);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` events of a kind pass, are refused, and are once too often.
    fn sent(kind: Kind, count: usize, limits: &Limits) -> [usize; 3] {
        let now = Instant::now();
        let mut rates = Rates::new(limits, now);
        let verdicts: Vec<_> = (0..count).map(|_| rates.judge(kind, limits, now)).collect();
        [Verdict::Pass, Verdict::Refuse, Verdict::Expel]
            .map(|verdict| verdicts.iter().filter(|given| **given == verdict).count())
    }

    #[test]
    fn a_burst_passes_the_rest_is_refused_and_then_it_is_enough() {
        assert_eq!(
            sent(Kind::Common, 2500, &Limits::sample()),
            [1000, 1000, 500]
        );
    }

    #[test]
    fn dear_events_have_rates_of_their_own() {
        assert_eq!(
            sent(Kind::Matchmaking, 200, &Limits::sample()),
            [100, 100, 0]
        );
        assert_eq!(sent(Kind::Token, 200, &Limits::sample()), [100, 100, 0]);
        let frugal = Limits {
            events_per_second: 1,
            events_burst: 1,
            ..Limits::sample()
        };
        assert_eq!(sent(Kind::Token, 2, &frugal), [1, 1, 0]);
        assert_eq!(sent(Kind::Common, 200, &frugal), [1, 100, 99]);
    }

    #[test]
    fn whoever_is_refused_now_and_then_stays() {
        let (limits, begin) = (Limits::sample(), Instant::now());
        let mut rates = Rates::new(&limits, begin);
        for second in 0..1000 {
            let now = begin + Duration::from_secs(second);
            for _ in 0..210 {
                assert_ne!(rates.judge(Kind::Common, &limits, now), Verdict::Expel);
            }
        }
    }

    #[test]
    fn small_lists_are_answered_at_once_and_large_ones_when_paid_for() {
        let now = Instant::now();
        let mut pace = ListPace::new(now);
        assert!((0..10_000).all(|_| pace.wait(10, now).is_zero()));
        let mut pace = ListPace::new(now);
        assert_eq!(pace.wait(10_000_000, now), Duration::ZERO);
        assert!(pace.wait(10_000_000, now) > Duration::from_secs(60));
    }
}
