//! What happened of late that operators want to know of, as this node saw it. It is kept in this process alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::now_ms;

/// Incidents kept; the oldest are forgotten first. A page shows no more.
const KEPT_MAX: usize = 50;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When this node noticed, in ms since 1970 on its own clock.
    pub at_ms: u64,
    /// What.
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A node has a lease that had none.
    NodeCame {
        /// Its incarnation.
        incarnation: String,
    },
    /// A node gave its lease back.
    NodeLeft {
        /// Its incarnation.
        incarnation: String,
    },
    /// A node did not renew its lease until that was over.
    NodeDied {
        /// Its incarnation.
        incarnation: String,
    },
    /// This node was the one that took the lease of a dead one away.
    NodeReaped {
        /// Its incarnation.
        incarnation: String,
    },
    /// This node released what a dead one owed.
    ConnectionsReaped {
        /// The dead one's incarnation.
        incarnation: String,
        /// How many connections.
        connections: u64,
    },
    /// This node's own lease was gone.
    LeaseLost,
    /// The numbers of transitions did not follow each other.
    PresenceGap {
        /// In which partition.
        partition: u32,
    },
    /// Messages may have been missed.
    Interrupted,
}

/// The last incidents.
#[derive(Default)]
pub(crate) struct Incidents(Mutex<State>);

#[derive(Default)]
struct State {
    last: VecDeque<Incident>,
    /// Incarnations that had a lease when this node looked last, and whether they had renewed it of late; none before
    /// the first look.
    alive: Option<BTreeMap<String, bool>>,
}

impl Incidents {
    /// Notes that something happened just now. Where this node's own lease was gone, so may be those of all others, with
    /// Redis's data: then the next look tells nothing.
    pub(crate) fn note(&self, what: Happening) {
        let mut state = self.0.lock();
        if what == Happening::LeaseLost {
            state.alive = None;
        }
        state.note(now_ms(), what);
    }

    /// Notes who came and who left since the last look. A lease is `length` long, and this node's own was renewed just
    /// now. The first look tells nothing, nor the first after this node's lease was gone.
    pub(crate) fn note_leases(&self, leases: Vec<(String, u64)>, length: Duration) {
        self.0.lock().note_leases(now_ms(), leases, length);
    }

    /// The last incidents, the newest first.
    pub(crate) fn last(&self) -> Vec<Incident> {
        self.0.lock().last.iter().rev().cloned().collect()
    }
}

impl State {
    fn note(&mut self, at_ms: u64, what: Happening) {
        if self.last.len() == KEPT_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Incident { at_ms, what });
    }

    fn note_leases(&mut self, at_ms: u64, leases: Vec<(String, u64)>, length: Duration) {
        // Whoever lives renews its lease before half of it is over.
        let newest_ms = leases.iter().map(|(_, ends_ms)| *ends_ms).max();
        let due_ms = newest_ms
            .unwrap_or(0)
            .saturating_sub(length.as_millis() as u64 / 2);
        let renewed = |(incarnation, ends_ms)| (incarnation, ends_ms > due_ms);
        let alive: BTreeMap<String, bool> = leases.into_iter().map(renewed).collect();
        let Some(before) = self.alive.replace(alive.clone()) else {
            return;
        };
        let incarnations = before
            .iter()
            .map(|(name, renewed)| (name.clone(), *renewed));
        for (incarnation, renewed) in incarnations.filter(|(name, _)| !alive.contains_key(name)) {
            let gone = if renewed {
                Happening::NodeLeft { incarnation }
            } else {
                Happening::NodeDied { incarnation }
            };
            self.note(at_ms, gone);
        }
        for incarnation in alive.into_keys().filter(|name| !before.contains_key(name)) {
            self.note(at_ms, Happening::NodeCame { incarnation });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_are_kept() {
        let incidents = Incidents::default();
        for partition in 0..1000 {
            incidents.note(Happening::PresenceGap { partition });
        }
        let last = incidents.last();
        assert_eq!(last.len(), KEPT_MAX);
        assert_eq!(last[0].what, Happening::PresenceGap { partition: 999 });
    }

    #[test]
    fn nodes_that_come_leave_and_die_are_told_apart() {
        let incidents = Incidents::default();
        let look = |leases: &[(&str, u64)]| {
            let leases = leases
                .iter()
                .map(|(name, ends_s)| ((*name).to_owned(), ends_s * 1000));
            incidents.note_leases(leases.collect(), Duration::from_secs(6));
            let told: Vec<_> = incidents.last().into_iter().map(|last| last.what).collect();
            told
        };
        let incarnation = |name: &str| name.to_owned();
        assert_eq!(look(&[("a.1", 106), ("b.1", 105)]), [], "they were there");
        assert_eq!(look(&[("a.1", 108), ("b.1", 107), ("c.1", 108)]).len(), 1);
        // One gives its lease back, the other gives no sign of life until its lease is over.
        assert_eq!(look(&[("a.1", 110), ("c.1", 108)]).len(), 2);
        look(&[("a.1", 112), ("c.1", 108)]);
        let told = look(&[("a.1", 114)]);
        assert_eq!(
            told,
            [
                Happening::NodeDied {
                    incarnation: incarnation("c.1")
                },
                Happening::NodeLeft {
                    incarnation: incarnation("b.1")
                },
                Happening::NodeCame {
                    incarnation: incarnation("c.1")
                },
            ]
        );
    }
}
