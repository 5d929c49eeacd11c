//! What clients are told about others: counted, timed, and checked for what is missing, twice, or out of order.

use std::time::Instant;

use super::Users;
use super::counters::{COUNTS, Count, Latencies, Tally};
use super::dedup::Seen;
use crate::socket_io::packet::Reader;

/// What the clients of a thread share: it is read and written by one of them at a time.
pub(super) struct Common<'a> {
    pub(super) tally: &'a Tally,
    pub(super) users: Users,
    pub(super) reader: Reader,
    /// What is to be written; empty between two clients.
    pub(super) out: Vec<u8>,
    pub(super) counts: [u64; COUNTS],
    pub(super) findings: Findings,
}

/// What a thread has found out since it was last asked.
pub(super) struct Findings {
    pub(super) opening: Latencies,
    pub(super) answering: Latencies,
    /// From the request to the receipt, by the node that the client is on.
    pub(super) updates: Vec<Latencies>,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    /// Of all answers about who is online, how many ids the shortest had.
    pub(super) ids_min: Option<u64>,
}

impl Findings {
    /// Nothing, about so many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            opening: Latencies::new(),
            answering: Latencies::new(),
            updates: (0..nodes).map(|_| Latencies::new()).collect(),
            duplicates: 0,
            out_of_order: 0,
            ids_min: None,
        }
    }
}

impl Common<'_> {
    /// Counts one.
    pub(super) fn count(&mut self, what: Count) {
        self.counts[what as usize] += 1;
    }
}

/// What one client has been told.
#[derive(Default)]
pub(super) struct Told {
    updates: Seen,
    last_revision: u64,
    statuses: Seen,
}

impl Told {
    /// How many different updates.
    pub(super) fn updates(&self) -> u64 {
        self.updates.len()
    }

    /// How many different comings and goings.
    pub(super) fn statuses(&self) -> u64 {
        self.statuses.len()
    }

    /// An update has arrived at a client of `node`, with its number and its revision.
    pub(super) fn update(
        &mut self,
        (number, revision): (usize, u64),
        node: usize,
        now: Instant,
        common: &mut Common<'_>,
    ) {
        // Another run's, which was still under way.
        if !common.tally.expects(number) {
            return;
        }
        common.count(Count::Updates);
        if let Some(latency) = common.tally.since_sent(number, now)
            && let Some(latencies) = common.findings.updates.get_mut(node)
        {
            latencies.record(latency);
        }
        if !self.updates.insert(number) {
            common.findings.duplicates += 1;
        } else if revision < self.last_revision {
            common.findings.out_of_order += 1;
        }
        self.last_revision = self.last_revision.max(revision);
    }

    /// Somebody has come or gone.
    pub(super) fn status(&mut self, user: u64, online: bool, guest: bool, common: &mut Common<'_>) {
        // Others' coming and going costs the nodes the same, but says nothing about this run.
        common.count(Count::Statuses);
        if guest {
            common.count(Count::Observed);
        }
        if let Some(place) = common.users.place(user)
            && !self.statuses.insert(place * 2 + usize::from(online))
        {
            common.findings.duplicates += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(tally: &Tally) -> Common<'_> {
        Common {
            tally,
            users: Users {
                first: 100,
                count: 5,
            },
            reader: Reader::new(),
            out: Vec::new(),
            counts: [0; COUNTS],
            findings: Findings::new(1),
        }
    }

    #[test]
    fn updates_that_come_twice_or_late_are_noticed() {
        let tally = Tally::new(4);
        let mut common = common(&tally);
        let mut told = Told::default();
        // The fifth is not of this run.
        for update in [(0, 10), (2, 12), (1, 11), (2, 12), (5, 15)] {
            told.update(update, 0, Instant::now(), &mut common);
        }
        assert_eq!(told.updates(), 3);
        assert_eq!(common.findings.duplicates, 1);
        assert_eq!(common.findings.out_of_order, 1);
        assert_eq!(common.counts[Count::Updates as usize], 4);
    }

    #[test]
    fn coming_and_going_are_two_things() {
        let tally = Tally::new(0);
        let mut common = common(&tally);
        let mut told = Told::default();
        // The last one is a stranger.
        for (user, online) in [
            (100, true),
            (100, false),
            (104, true),
            (100, true),
            (7, true),
        ] {
            told.status(user, online, true, &mut common);
        }
        assert_eq!(told.statuses(), 3);
        assert_eq!(common.findings.duplicates, 1);
        assert_eq!(common.counts[Count::Observed as usize], 5);
    }
}
