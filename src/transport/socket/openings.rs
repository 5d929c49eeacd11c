//! How many sessions were opened a moment ago that have joined no namespace yet. The library tells of no session
//! before it joins one, and closes it if it does not within the time for that; until then it takes memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counts sessions by the second in which they were opened.
pub(super) struct Openings {
    within: Duration,
    seconds: Mutex<VecDeque<Second>>,
}

struct Second {
    begun: Instant,
    waiting: usize,
}

impl Openings {
    /// A session may take `within` to join a namespace.
    pub(super) fn new(within: Duration) -> Self {
        Self {
            within,
            seconds: Mutex::default(),
        }
    }

    fn seconds(&self) -> MutexGuard<'_, VecDeque<Second>> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session was opened.
    pub(super) fn opened(&self, now: Instant) {
        let mut seconds = self.seconds();
        match seconds.back_mut() {
            Some(last) if is_in(last, now) => last.waiting += 1,
            _ => seconds.push_back(Second {
                begun: now,
                waiting: 1,
            }),
        }
    }

    /// A session that was opened at `opened` has joined a namespace.
    pub(super) fn joined(&self, opened: Instant) {
        let mut seconds = self.seconds();
        let second = seconds
            .iter_mut()
            .rev()
            .find(|second| is_in(second, opened));
        if let Some(second) = second {
            second.waiting = second.waiting.saturating_sub(1);
        }
    }

    /// How many may still join.
    pub(super) fn waiting(&self, now: Instant) -> usize {
        let mut seconds = self.seconds();
        let is_over = |second: &Second| {
            // Whoever was counted at the end of the second has the whole time, too.
            now.saturating_duration_since(second.begun) > self.within + Duration::from_secs(1)
        };
        while seconds.front().is_some_and(is_over) {
            seconds.pop_front();
        }
        seconds.iter().map(|second| second.waiting).sum()
    }
}

fn is_in(second: &Second, at: Instant) -> bool {
    at.checked_duration_since(second.begun)
        .is_some_and(|since| since < Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_waits_until_it_joins_or_its_time_is_over() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let openings = Openings::new(Duration::from_secs(10));
        for ms in [0, 900, 1_000, 5_000] {
            openings.opened(at(ms));
        }
        assert_eq!(openings.waiting(at(5_000)), 4);
        openings.joined(at(900));
        openings.joined(at(5_000));
        assert_eq!(openings.waiting(at(5_001)), 2);
        assert_eq!(openings.waiting(at(11_500)), 1);
        assert_eq!(openings.waiting(at(20_000)), 0);
        openings.joined(at(0));
        assert_eq!(openings.waiting(at(20_000)), 0);
    }

    #[test]
    fn it_remembers_a_few_seconds_only() {
        let begin = Instant::now();
        let openings = Openings::new(Duration::from_secs(10));
        for second in 0..1000 {
            let now = begin + Duration::from_secs(second);
            openings.opened(now);
            assert!(openings.waiting(now) <= 12);
        }
        assert!(openings.seconds().len() <= 12);
    }
}
