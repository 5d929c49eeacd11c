//! Recent cluster events for operators, as this node observed them. They live in this process only.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::now_ms;

/// Events kept; the oldest are dropped first. The admin page shows no more.
const KEPT_MAX: usize = 50;

/// An event in the life of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// When this node noticed it, in ms since 1970 on its own clock.
    pub at_ms: u64,
    /// The kind of the event.
    pub kind: EventKind,
}

/// The kinds of cluster event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A node's lease appeared.
    NodeJoined {
        /// The node's incarnation.
        incarnation: String,
    },
    /// A node relinquished its lease.
    NodeLeft {
        /// The node's incarnation.
        incarnation: String,
    },
    /// A node let its lease expire.
    NodeDied {
        /// The node's incarnation.
        incarnation: String,
    },
    /// This node removed the expired lease of a dead node.
    NodeReaped {
        /// The node's incarnation.
        incarnation: String,
    },
    /// This node released the connections of a dead node.
    ConnectionsReaped {
        /// The dead node's incarnation.
        incarnation: String,
        /// Connections released.
        connections: u64,
    },
    /// This node lost its lease.
    LeaseLost,
    /// Transitions of a partition were missed: their revisions were not consecutive.
    PresenceGap {
        /// The partition concerned.
        partition: u32,
    },
    /// Messages may have been missed.
    Interrupted,
}

#[derive(Default)]
pub(crate) struct ClusterEvents(Mutex<EventLog>);

#[derive(Default)]
struct EventLog {
    last: VecDeque<ClusterEvent>,
    /// Incarnations with a lease at the last observation, and whether each had renewed it recently; `None` before the
    /// first one.
    alive: Option<BTreeMap<String, bool>>,
}

impl ClusterEvents {
    /// Records an event. If this node lost its own lease, Redis may have lost all leases, so the next observation
    /// reports no difference.
    pub(crate) fn record(&self, kind: EventKind) {
        let mut state = self.0.lock();
        if kind == EventKind::LeaseLost {
            state.alive = None;
        }
        state.record(now_ms(), kind);
    }

    /// Records the nodes that joined or left since the last observation. A lease lasts `length`, and this node has just
    /// renewed its own. The first observation reports nothing, nor does the first after this node lost its lease.
    pub(crate) fn observe_leases(&self, leases: Vec<(String, u64)>, length: Duration) {
        self.0.lock().observe_leases(now_ms(), leases, length);
    }

    /// The events, newest first.
    pub(crate) fn recent(&self) -> Vec<ClusterEvent> {
        self.0.lock().last.iter().rev().cloned().collect()
    }
}

impl EventLog {
    fn record(&mut self, at_ms: u64, kind: EventKind) {
        if self.last.len() == KEPT_MAX {
            self.last.pop_front();
        }
        self.last.push_back(ClusterEvent { at_ms, kind });
    }

    fn observe_leases(&mut self, at_ms: u64, leases: Vec<(String, u64)>, length: Duration) {
        // A live node renews its lease before half of it is over.
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
                EventKind::NodeLeft { incarnation }
            } else {
                EventKind::NodeDied { incarnation }
            };
            self.record(at_ms, gone);
        }
        for incarnation in alive.into_keys().filter(|name| !before.contains_key(name)) {
            self.record(at_ms, EventKind::NodeJoined { incarnation });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_events_are_kept() {
        let events = ClusterEvents::default();
        for partition in 0..1000 {
            events.record(EventKind::PresenceGap { partition });
        }
        let last = events.recent();
        assert_eq!(last.len(), KEPT_MAX);
        assert_eq!(last[0].kind, EventKind::PresenceGap { partition: 999 });
    }

    #[test]
    fn joining_leaving_and_dying_are_distinguished() {
        let events = ClusterEvents::default();
        let observe = |leases: &[(&str, u64)]| {
            let leases = leases
                .iter()
                .map(|(name, ends_s)| ((*name).to_owned(), ends_s * 1000));
            events.observe_leases(leases.collect(), Duration::from_secs(6));
            let kinds: Vec<_> = events.recent().into_iter().map(|last| last.kind).collect();
            kinds
        };
        let incarnation = |name: &str| name.to_owned();
        assert_eq!(
            observe(&[("a.1", 106), ("b.1", 105)]),
            [],
            "they were there"
        );
        assert_eq!(
            observe(&[("a.1", 108), ("b.1", 107), ("c.1", 108)]).len(),
            1
        );
        // One relinquishes its lease, the other stays silent until its lease is over.
        assert_eq!(observe(&[("a.1", 110), ("c.1", 108)]).len(), 2);
        observe(&[("a.1", 112), ("c.1", 108)]);
        let observed = observe(&[("a.1", 114)]);
        assert_eq!(
            observed,
            [
                EventKind::NodeDied {
                    incarnation: incarnation("c.1")
                },
                EventKind::NodeLeft {
                    incarnation: incarnation("b.1")
                },
                EventKind::NodeJoined {
                    incarnation: incarnation("c.1")
                },
            ]
        );
    }
}
