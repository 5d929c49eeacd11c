//! A token bucket: so many events at once, so many per second in the long run.

use std::time::Instant;

/// Filled at a steady rate up to a burst; each event takes one token.
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            tokens: f64::from(burst),
            filled_at: now,
        }
    }

    /// Whether one more event may pass at `now`.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let filled = now.saturating_duration_since(self.filled_at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + filled).min(self.burst);
        self.filled_at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_counts() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(10, 3, begin);
        let passed = |bucket: &mut Bucket, at| (0..5).filter(|_| bucket.take(at)).count();
        assert_eq!(passed(&mut bucket, begin), 3);
        assert_eq!(passed(&mut bucket, begin + Duration::from_millis(200)), 2);
        assert_eq!(passed(&mut bucket, begin + Duration::from_secs(60)), 3);
    }
}
