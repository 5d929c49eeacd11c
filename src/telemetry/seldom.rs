//! Rate-limited warnings about retries: at most one a minute.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shortest time between two warnings from one place.
const INTERVAL: Duration = Duration::from_secs(60);

/// The last warning of one place in the code.
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether the place may warn now. If so, it may not warn again for a minute.
    pub(crate) fn may_warn(&self) -> bool {
        self.may_warn_at(Instant::now())
    }

    fn may_warn_at(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// `tracing::warn!` at most once a minute for each place that uses it, otherwise `tracing::debug!`. For failures that a
/// loop repeats.
macro_rules! warn_seldom {
    ($($event:tt)*) => {{
        static SELDOM: $crate::telemetry::Seldom = $crate::telemetry::Seldom::new();
        if SELDOM.may_warn() {
            ::tracing::warn!($($event)*);
        } else {
            ::tracing::debug!($($event)*);
        }
    }};
}
pub(crate) use warn_seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_warns_once_a_minute() {
        let (place, begin) = (Seldom::new(), Instant::now());
        let at = |seconds| place.may_warn_at(begin + Duration::from_secs(seconds));
        assert_eq!(
            [0, 1, 59, 60, 61, 119, 120].map(at),
            [true, false, false, true, false, false, true]
        );
    }
}
