//! Latencies, as a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency recorded, in µs: longer than any run.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Latencies in µs, to three digits.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Self(histogram.expect("the bounds are in order, and three digits are few"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.clamp(1, LATENCY_MAX_US));
    }

    pub(super) fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        added.expect("all of them have the same bounds");
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// The quantile from 0 to 1, in µs.
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_add_up() {
        let (mut some, mut more) = (Latencies::new(), Latencies::new());
        some.record(Duration::from_micros(10));
        more.record(Duration::from_micros(30));
        more.record(Duration::from_secs(10_000));
        some.add(&more);
        assert_eq!(some.len(), 3);
        assert_eq!(some.quantile_us(0.5), 30);
        assert!(some.quantile_us(1.0) >= LATENCY_MAX_US);
    }
}
