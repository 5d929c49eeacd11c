//! What happens in the demo, as it itself sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of what is, and of what has happened.
#[derive(Default)]
pub(super) struct Tally {
    /// Connections that are open.
    pub(super) connections: Gauge,
    /// Visitors who are guests.
    pub(super) guests: Gauge,
    /// Visitors who are signed in.
    pub(super) users: Gauge,
    /// Those of them who wait for an opponent.
    pub(super) waiting: Gauge,
    /// Visits begun.
    pub(super) visits: Counter,
    /// Updates posted.
    pub(super) posted: Counter,
    /// Updates received.
    pub(super) received: Counter,
    /// Times at which a visitor was told of an opponent.
    pub(super) matched: Counter,
    /// Pages loaded anew.
    pub(super) reloads: Counter,
    /// Connections dropped without a goodbye.
    pub(super) drops: Counter,
    /// Connections that the hub closed.
    pub(super) closed: Counter,
    /// Whatever was refused, or failed.
    pub(super) failed: Counter,
}

/// How many there are now.
#[derive(Default)]
pub(super) struct Gauge(Arc<AtomicU64>);

/// One of them; not any more when dropped.
pub(super) struct Counted(Arc<AtomicU64>);

/// How many there were.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Gauge {
    /// One more.
    pub(super) fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.0.clone())
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counter {
    /// One more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Who is there, and what has happened; what matters most fits into a narrow terminal.
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

    /// What has happened in the end.
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
    fn who_has_left_is_not_counted() {
        let tally = Tally::default();
        let (ada, bob) = (tally.users.enter(), tally.users.enter());
        drop(ada);
        tally.visits.add();
        assert!(
            tally.line().starts_with("1 users, 0 guests"),
            "{}",
            tally.line()
        );
        drop(bob);
        assert!(tally.line().starts_with("0 users"), "{}", tally.line());
        assert!(tally.summary().starts_with("1 visits, 0 updates"));
    }
}
