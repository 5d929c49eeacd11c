//! Sessions that are open and have joined no namespace yet. The library of the polling transport reports a session only
//! when it joins one, and closes it if it does not in time; until then the session takes memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Counts sessions by the second in which they were opened.
pub(crate) struct PendingSessions {
    timeout: Duration,
    slots: Mutex<VecDeque<OpenedInSecond>>,
}

/// One second.
struct OpenedInSecond {
    begun: Instant,
    pending: usize,
}

impl PendingSessions {
    /// A session may take `timeout` to join a namespace.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            slots: Mutex::default(),
        }
    }

    /// A session was opened.
    pub(crate) fn opened(&self, now: Instant) {
        let mut slots = self.slots.lock();
        match slots.back_mut() {
            Some(last) if is_in(last, now) => last.pending += 1,
            _ => slots.push_back(OpenedInSecond {
                begun: now,
                pending: 1,
            }),
        }
    }

    /// A session that was opened at `opened` has joined a namespace.
    pub(crate) fn joined(&self, opened: Instant) {
        let mut slots = self.slots.lock();
        let slot = slots.iter_mut().rev().find(|slot| is_in(slot, opened));
        if let Some(slot) = slot {
            slot.pending = slot.pending.saturating_sub(1);
        }
    }

    /// How many sessions may still join.
    pub(crate) fn count(&self, now: Instant) -> usize {
        let mut slots = self.slots.lock();
        let is_over = |slot: &OpenedInSecond| {
            // A session that was counted at the end of the second has the whole timeout, too.
            now.saturating_duration_since(slot.begun) > self.timeout + Duration::from_secs(1)
        };
        while slots.front().is_some_and(is_over) {
            slots.pop_front();
        }
        slots.iter().map(|slot| slot.pending).sum()
    }
}

fn is_in(slot: &OpenedInSecond, at: Instant) -> bool {
    at.checked_duration_since(slot.begun)
        .is_some_and(|since| since < Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_pending_until_it_joins_or_its_time_is_over() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let sessions = PendingSessions::new(Duration::from_secs(10));
        for ms in [0, 900, 1_000, 5_000] {
            sessions.opened(at(ms));
        }
        assert_eq!(sessions.count(at(5_000)), 4);
        sessions.joined(at(900));
        sessions.joined(at(5_000));
        assert_eq!(sessions.count(at(5_001)), 2);
        assert_eq!(sessions.count(at(11_500)), 1);
        assert_eq!(sessions.count(at(20_000)), 0);
        sessions.joined(at(0));
        assert_eq!(sessions.count(at(20_000)), 0);
    }

    #[test]
    fn it_remembers_a_few_seconds_only() {
        let begin = Instant::now();
        let sessions = PendingSessions::new(Duration::from_secs(10));
        for second in 0..1000 {
            let now = begin + Duration::from_secs(second);
            sessions.opened(now);
            assert!(sessions.count(now) <= 12);
        }
        assert!(sessions.slots.lock().len() <= 12);
    }
}
