//! The metrics that exist.

use std::time::Duration;

use vigie::internals::Metrics;

/// The page `/metrics` once each family has something to show.
pub(crate) fn page() -> String {
    let metrics = Metrics::new();
    metrics.script_times("lease/renew").observe(0.001);
    metrics.count_kicked("kicked");
    metrics.count_request("GET", "/metrics", 200, Duration::from_millis(1));
    metrics.encode().expect("metrics are text")
}
