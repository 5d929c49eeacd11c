//! Counters of the demo, from its own point of view.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct DemoCounters {
    /// Connections that are open.
    pub(super) connections: Gauge,
    /// Guests.
    pub(super) guests: Gauge,
    /// Signed-in users.
    pub(super) users: Gauge,
    /// Users waiting for an opponent.
    pub(super) waiting: Gauge,
    pub(super) visits: Counter,
    pub(super) posted: Counter,
    pub(super) received: Counter,
    /// Matches found, counted once per user.
    pub(super) matched: Counter,
    /// Page reloads.
    pub(super) reloads: Counter,
    /// Connections dropped without DISCONNECT.
    pub(super) drops: Counter,
    /// Connections that the hub closed.
    pub(super) closed: Counter,
    /// Refusals and failures.
    pub(super) failed: Counter,
}

#[derive(Default)]
pub(super) struct Gauge(Arc<AtomicU64>);

/// Counts in its gauge until dropped.
pub(super) struct GaugeGuard(Arc<AtomicU64>);

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Gauge {
    pub(super) fn enter(&self) -> GaugeGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        GaugeGuard(self.0.clone())
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl DemoCounters {
    /// A line of progress; the most important first, for narrow terminals.
    pub(super) fn line(&self) -> String {
        format!(
            "{} users, {} guests, {} connections, {} waiting; {} posted, {} received, {} matched, {} reloads, {} drops, \
             {} closed, {} failed",
            self.users.get(),
            self.guests.get(),
            self.connections.get(),
            self.waiting.get(),
            self.posted.get(),
            self.received.get(),
            self.matched.get(),
            self.reloads.get(),
            self.drops.get(),
            self.closed.get(),
            self.failed.get()
        )
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{} visits, {} updates posted, {} received, {} matched, {} reloads, {} drops, {} closed by the hub, {} failures",
            self.visits.get(),
            self.posted.get(),
            self.received.get(),
            self.matched.get(),
            self.reloads.get(),
            self.drops.get(),
            self.closed.get(),
            self.failed.get()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_who_left_are_not_counted() {
        let counters = DemoCounters::default();
        let (ada, bob) = (counters.users.enter(), counters.users.enter());
        drop(ada);
        counters.visits.add();
        assert!(
            counters.line().starts_with("1 users, 0 guests"),
            "{}",
            counters.line()
        );
        drop(bob);
        assert!(
            counters.line().starts_with("0 users"),
            "{}",
            counters.line()
        );
        assert!(counters.summary().starts_with("1 visits, 0 updates"));
    }
}
