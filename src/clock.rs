//! The wall clock, for what people and tokens date. Durations are measured by `Instant`, order by Redis's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    since_epoch().as_micros() as u64
}

/// A clock before 1970 is a broken clock; it counts as 1970, when no token has expired.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
