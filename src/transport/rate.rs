//! A token bucket: a burst, and a sustained rate.

use std::time::{Duration, Instant};

/// Holds up to `burst` tokens and gains `per_second` tokens each second.
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled_at: now,
        }
    }

    /// Changes rate and burst. Spent tokens stay spent: a larger burst adds the difference, a smaller one caps the rest.
    pub(super) fn adjust(&mut self, per_second: f64, burst: f64) {
        self.tokens = (self.tokens + (burst - self.burst).max(0.0)).min(burst);
        (self.per_second, self.burst) = (per_second, burst);
    }

    /// Takes `cost` tokens if there are enough; otherwise takes none and returns `false`.
    pub(super) fn take(&mut self, cost: f64, now: Instant) -> bool {
        self.fill(now);
        let enough = self.tokens >= cost;
        if enough {
            self.tokens -= cost;
        }
        enough
    }

    /// Takes `cost` tokens even if there are fewer. Returns how long the bucket needs to cover the debt.
    pub(super) fn owe(&mut self, cost: f64, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= cost;
        Duration::try_from_secs_f64((-self.tokens).max(0.0) / self.per_second)
            .unwrap_or(Duration::MAX)
    }

    fn fill(&mut self, now: Instant) {
        let filled = now.saturating_duration_since(self.filled_at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + filled).min(self.burst);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_counts() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(10.0, 3.0, begin);
        let passed = |bucket: &mut Bucket, at| (0..5).filter(|_| bucket.take(1.0, at)).count();
        assert_eq!(passed(&mut bucket, begin), 3);
        assert_eq!(passed(&mut bucket, begin + Duration::from_millis(200)), 2);
        assert_eq!(passed(&mut bucket, begin + Duration::from_secs(60)), 3);
    }

    #[test]
    fn what_is_too_large_takes_nothing() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(1.0, 10.0, begin);
        assert!(!bucket.take(11.0, begin));
        assert!(bucket.take(10.0, begin));
    }

    #[test]
    fn debts_are_paid_at_the_rate() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(10.0, 100.0, begin);
        assert_eq!(bucket.owe(100.0, begin), Duration::ZERO);
        assert_eq!(bucket.owe(50.0, begin), Duration::from_secs(5));
        let later = begin + Duration::from_secs(5);
        assert_eq!(bucket.owe(0.0, later), Duration::ZERO);
    }

    #[test]
    fn another_burst_keeps_what_was_taken() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(1.0, 10.0, begin);
        assert!(bucket.take(4.0, begin));
        bucket.adjust(1.0, 5.0);
        assert!(bucket.take(5.0, begin) && !bucket.take(1.0, begin));
        bucket.adjust(1.0, 20.0);
        assert!(bucket.take(15.0, begin) && !bucket.take(1.0, begin));
    }
}
