//! Counts and times the events that clients receive, and checks them for duplicates and order.

use std::time::Instant;

use super::Users;
use super::counters::{COUNTS, Count, Counters};
use super::dedup::Dedup;
use super::histogram::Latencies;
use crate::socket_io::packet::Reader;

/// State shared by the clients of a thread.
pub(super) struct Context<'a> {
    pub(super) counters: &'a Counters,
    pub(super) users: Users,
    pub(super) reader: Reader,
    /// Write buffer; empty between two clients.
    pub(super) out: Vec<u8>,
    pub(super) counts: [u64; COUNTS],
    pub(super) results: ThreadResults,
}

/// The measurements of a thread since the last report.
pub(super) struct ThreadResults {
    pub(super) opening: Latencies,
    pub(super) acks: Latencies,
    /// From the request to the receipt, by node of the client.
    pub(super) updates: Vec<Latencies>,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    /// Ids in the shortest answer to `get-online-users`.
    pub(super) ids_min: Option<u64>,
}

impl ThreadResults {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            opening: Latencies::new(),
            acks: Latencies::new(),
            updates: (0..nodes).map(|_| Latencies::new()).collect(),
            duplicates: 0,
            out_of_order: 0,
            ids_min: None,
        }
    }
}

impl Context<'_> {
    pub(super) fn count(&mut self, what: Count) {
        self.counts[what as usize] += 1;
    }
}

#[derive(Default)]
pub(super) struct Received {
    updates: Dedup,
    last_revision: u64,
    statuses: Dedup,
}

impl Received {
    /// Distinct updates.
    pub(super) fn updates(&self) -> u64 {
        self.updates.len()
    }

    /// Distinct status events about users of the run.
    pub(super) fn statuses(&self) -> u64 {
        self.statuses.len()
    }

    pub(super) fn update(
        &mut self,
        (number, revision): (usize, u64),
        node: usize,
        now: Instant,
        context: &mut Context<'_>,
    ) {
        // A late update of another run.
        if !context.counters.expects(number) {
            return;
        }
        context.count(Count::Updates);
        if let Some(latency) = context.counters.since_sent(number, now)
            && let Some(latencies) = context.results.updates.get_mut(node)
        {
            latencies.record(latency);
        }
        if !self.updates.insert(number) {
            context.results.duplicates += 1;
        } else if revision < self.last_revision {
            context.results.out_of_order += 1;
        }
        self.last_revision = self.last_revision.max(revision);
    }

    pub(super) fn status(
        &mut self,
        user: u64,
        online: bool,
        guest: bool,
        context: &mut Context<'_>,
    ) {
        // Other users cost the nodes the same, so they count as events, but not as results.
        context.count(Count::Statuses);
        if guest {
            context.count(Count::Observed);
        }
        if let Some(place) = context.users.place(user)
            && !self.statuses.insert(place * 2 + usize::from(online))
        {
            context.results.duplicates += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(counters: &Counters) -> Context<'_> {
        Context {
            counters,
            users: Users {
                first: 100,
                count: 5,
            },
            reader: Reader::new(),
            out: Vec::new(),
            counts: [0; COUNTS],
            results: ThreadResults::new(1),
        }
    }

    #[test]
    fn updates_that_come_twice_or_late_are_noticed() {
        let counters = Counters::new(4);
        let mut context = context(&counters);
        let mut received = Received::default();
        // The fifth is of another run.
        for update in [(0, 10), (2, 12), (1, 11), (2, 12), (5, 15)] {
            received.update(update, 0, Instant::now(), &mut context);
        }
        assert_eq!(received.updates(), 3);
        assert_eq!(context.results.duplicates, 1);
        assert_eq!(context.results.out_of_order, 1);
        assert_eq!(context.counts[Count::Updates as usize], 4);
    }

    #[test]
    fn coming_and_going_are_two_things() {
        let counters = Counters::new(0);
        let mut context = context(&counters);
        let mut received = Received::default();
        // The last one is not of this run.
        for (user, online) in [
            (100, true),
            (100, false),
            (104, true),
            (100, true),
            (7, true),
        ] {
            received.status(user, online, true, &mut context);
        }
        assert_eq!(received.statuses(), 3);
        assert_eq!(context.results.duplicates, 1);
        assert_eq!(context.counts[Count::Observed as usize], 5);
    }
}
