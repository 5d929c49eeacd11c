//! The wall clock, for timestamps that people and tokens use. Durations are measured by `Instant`, order by Redis's
//! clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    since_epoch().as_micros() as u64
}

/// Time since 1970. An earlier clock is broken and counts as 1970, when no token has expired.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
