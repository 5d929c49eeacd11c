//! This node's copy of who is online: a snapshot plus the transitions after it.
//!
//! Pure state. It never asks the engine; it says when a snapshot is needed (`presence` gets it).

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::engine::{Position, Pulse, Transition};
use crate::ids::UserId;

/// Transitions kept while a snapshot is being read. More than that, and the snapshot is read again.
const PENDING_MAX: usize = 10_000;

/// Who is online, of all partitions.
pub struct Replica {
    partitions: Vec<Partition>,
    online: BTreeSet<UserId>,
    /// The ids as a JSON array, until the next change.
    encoded: Option<Arc<RawValue>>,
}

/// Who came and who went, each user at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Users who came online, ascending.
    pub online: Vec<UserId>,
    /// Users who went offline, ascending.
    pub offline: Vec<UserId>,
}

/// What became of a transition.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is part of the replica now; this is what changed.
    Changed(Change),
    /// It waits for the snapshot that is being read.
    Waiting,
    /// It does not follow the one before: a snapshot is needed.
    Gap,
}

#[derive(Default)]
struct Partition {
    /// The last transition applied; none before the first snapshot.
    position: Option<Position>,
    /// Set while a snapshot is needed; holds the transitions that arrived meanwhile.
    pending: Option<VecDeque<Transition>>,
    /// Grows whenever a snapshot that was begun earlier no longer counts.
    round: u64,
    /// Set when history itself may have changed: what the next snapshot lacks is unconfirmed, not gone.
    suspicious: bool,
    /// Users who are shown although the last snapshot lacked them: their nodes may be about to register them
    /// again.
    unconfirmed: HashSet<UserId>,
    /// Who waits for a revision to be applied.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl Change {
    /// Whether nobody came or went.
    pub fn is_empty(&self) -> bool {
        self.online.is_empty() && self.offline.is_empty()
    }
}

impl Replica {
    /// A replica that waits for a snapshot of each partition.
    pub fn new(partitions: u32) -> Self {
        let waiting_for_snapshot = || Partition {
            pending: Some(VecDeque::new()),
            ..Partition::default()
        };
        Self {
            partitions: (0..partitions).map(|_| waiting_for_snapshot()).collect(),
            online: BTreeSet::new(),
            encoded: None,
        }
    }

    /// How many users are online.
    pub fn count(&self) -> usize {
        self.online.len()
    }

    /// Whether `user` is online.
    pub fn contains(&self, user: UserId) -> bool {
        self.online.contains(&user)
    }

    /// At most `limit` online users above `after`, ascending.
    pub fn page(&self, after: Option<UserId>, limit: usize) -> Vec<UserId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.online
            .range((from, Unbounded))
            .take(limit)
            .copied()
            .collect()
    }

    /// Every online user, ascending, as a JSON array.
    pub fn encoded(&mut self) -> Arc<RawValue> {
        let online = &self.online;
        self.encoded.get_or_insert_with(|| encode(online)).clone()
    }

    /// Whether the partition follows its transitions.
    pub fn is_complete(&self, partition: u32) -> bool {
        let state = self.partitions.get(partition as usize);
        state.is_some_and(|state| state.pending.is_none())
    }

    /// Whether transitions of the partition were missed, as its pulse shows; `false` while a snapshot is being read.
    pub fn is_behind(&self, partition: u32, pulse: &Pulse) -> bool {
        let state = self.partitions.get(partition as usize);
        let state = state.filter(|state| state.pending.is_none());
        let position = state.and_then(|state| state.position.as_ref());
        position.is_some_and(|position| {
            position.epoch != pulse.epoch || position.revision < pulse.revision
        })
    }

    /// Resolves when `revision` of the partition is part of the replica; `None` where it already is. Revision 0
    /// is part of every snapshot.
    pub fn wait_for(&mut self, partition: u32, revision: u64) -> Option<oneshot::Receiver<()>> {
        let partition = self.partitions.get_mut(partition as usize)?;
        let reached = partition
            .position
            .as_ref()
            .is_some_and(|position| position.revision >= revision);
        if reached && partition.pending.is_none() {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        partition.waiting.entry(revision).or_default().push(sender);
        Some(receiver)
    }

    /// Messages may have been missed, or the engine may have lost data: the partition needs a snapshot that is begun
    /// from now on. Users whom it lacks are shown until [`Self::settle`].
    pub fn expect_snapshot(&mut self, partition: u32) {
        if let Some(partition) = self.partitions.get_mut(partition as usize) {
            partition.suspicious = true;
            partition.expect_snapshot(VecDeque::new());
        }
    }

    /// The round to name in [`Self::restore`] if the partition needs a snapshot.
    pub fn expected_snapshot(&self, partition: u32) -> Option<u64> {
        let state = self.partitions.get(partition as usize)?;
        state.pending.as_ref().map(|_| state.round)
    }

    /// Takes in what the engine announced.
    pub fn apply(&mut self, partition: u32, transition: Transition) -> Applied {
        let Some(state) = self.partitions.get_mut(partition as usize) else {
            return Applied::Waiting;
        };
        if let Some(pending) = &mut state.pending {
            if pending.len() >= PENDING_MAX {
                state.expect_snapshot(VecDeque::new());
                return Applied::Gap;
            }
            pending.push_back(transition);
            return Applied::Waiting;
        }
        let follows = state.position.as_ref().is_some_and(|position| {
            position.epoch == transition.epoch && position.revision + 1 == transition.revision
        });
        if !follows {
            state.expect_snapshot(VecDeque::from([transition]));
            return Applied::Gap;
        }
        for user in transition.online.iter().chain(&transition.offline) {
            state.unconfirmed.remove(user);
        }
        state.reach(Position {
            epoch: transition.epoch,
            revision: transition.revision,
        });
        let change = Change {
            online: insert_all(&mut self.online, transition.online),
            offline: remove_all(&mut self.online, transition.offline),
        };
        self.forget_encoded(&change);
        Applied::Changed(change)
    }

    /// How many users of the partition are shown whom its last snapshot lacked.
    pub fn unconfirmed_count(&self, partition: u32) -> usize {
        let state = self.partitions.get(partition as usize);
        state.map_or(0, |state| state.unconfirmed.len())
    }

    /// Everybody who is connected has had the time to be registered again: those of the partition who are still
    /// unconfirmed are gone.
    pub fn expire_unconfirmed(&mut self, partition: u32) -> Change {
        let state = self.partitions.get_mut(partition as usize);
        let unconfirmed: Vec<UserId> =
            state.map_or_else(Vec::new, |state| state.unconfirmed.drain().collect());
        let change = Change {
            online: Vec::new(),
            offline: remove_all(&mut self.online, unconfirmed),
        };
        self.forget_encoded(&change);
        change
    }

    /// Replaces the partition by a snapshot of `round` that was begun at `position`, followed by the
    /// transitions that arrived meanwhile. `None` when it no longer counts, or those do not follow it: it is
    /// to be read again.
    pub fn restore(
        &mut self,
        partition: u32,
        round: u64,
        position: Position,
        snapshot: Vec<UserId>,
    ) -> Option<Change> {
        let count = self.partitions.len() as u64;
        let state = self.partitions.get_mut(partition as usize)?;
        if state.round != round {
            return None;
        }
        let pending = state.pending.take()?;
        let Some((reached, members)) = follow(position, snapshot, pending) else {
            state.expect_snapshot(VecDeque::new());
            return None;
        };
        let before = state.position.as_ref();
        let suspicious =
            state.suspicious || before.is_some_and(|before| before.epoch != reached.epoch);
        state.suspicious = false;
        // Revisions of another epoch cannot be compared, so whoever waits for one is let go.
        state.reach(Position {
            revision: u64::MAX,
            ..reached.clone()
        });
        state.position = Some(reached);

        let here = |user: &&UserId| user.get() % count == u64::from(partition);
        let missing = self
            .online
            .iter()
            .filter(here)
            .filter(|user| !members.contains(user))
            .copied();
        let (unconfirmed, gone): (Vec<_>, Vec<_>) =
            missing.partition(|user| suspicious || state.unconfirmed.contains(user));
        state.unconfirmed = unconfirmed.into_iter().collect();
        let change = Change {
            offline: remove_all(&mut self.online, gone),
            online: insert_all(&mut self.online, members),
        };
        self.forget_encoded(&change);
        Some(change)
    }

    fn forget_encoded(&mut self, change: &Change) {
        if !change.is_empty() {
            self.encoded = None;
        }
    }
}

impl Partition {
    fn expect_snapshot(&mut self, pending: VecDeque<Transition>) {
        self.pending = Some(pending);
        self.round += 1;
    }

    fn reach(&mut self, position: Position) {
        let later = self.waiting.split_off(&position.revision.saturating_add(1));
        for waiter in std::mem::replace(&mut self.waiting, later)
            .into_values()
            .flatten()
        {
            // Whoever waited may have given up.
            let _ = waiter.send(());
        }
        self.position = Some(position);
    }
}

/// Applies to a snapshot begun at `position` what arrived since; `None` where that does not follow it.
fn follow(
    mut position: Position,
    snapshot: Vec<UserId>,
    pending: VecDeque<Transition>,
) -> Option<(Position, HashSet<UserId>)> {
    let mut members: HashSet<UserId> = snapshot.into_iter().collect();
    for transition in pending {
        if transition.epoch != position.epoch || transition.revision > position.revision + 1 {
            return None;
        }
        if transition.revision <= position.revision {
            continue;
        }
        position.revision = transition.revision;
        members.extend(transition.online);
        for user in transition.offline {
            members.remove(&user);
        }
    }
    Some((position, members))
}

/// Returns those that were not there yet, ascending.
fn insert_all(
    online: &mut BTreeSet<UserId>,
    users: impl IntoIterator<Item = UserId>,
) -> Vec<UserId> {
    let mut inserted: Vec<_> = users
        .into_iter()
        .filter(|user| online.insert(*user))
        .collect();
    inserted.sort_unstable();
    inserted
}

/// Returns those that were there, ascending.
fn remove_all(online: &mut BTreeSet<UserId>, users: Vec<UserId>) -> Vec<UserId> {
    let mut removed: Vec<_> = users
        .into_iter()
        .filter(|user| online.remove(user))
        .collect();
    removed.sort_unstable();
    removed
}

fn encode(online: &BTreeSet<UserId>) -> Arc<RawValue> {
    use std::fmt::Write as _;
    let mut json = String::with_capacity(2 + online.len() * 8);
    json.push('[');
    for (index, user) in online.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(json, "{comma}{user}");
    }
    json.push(']');
    RawValue::from_string(json).map_or_else(|_| Arc::from(RawValue::NULL.to_owned()), Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(ids: &[u64]) -> Vec<UserId> {
        ids.iter()
            .map(|id| UserId::try_from(*id).expect("a valid id"))
            .collect()
    }

    fn transition(revision: u64, online: &[u64], offline: &[u64]) -> Transition {
        Transition {
            epoch: "a".to_owned(),
            revision,
            online: users(online),
            offline: users(offline),
        }
    }

    fn position(epoch: &str, revision: u64) -> Position {
        Position {
            epoch: epoch.to_owned(),
            revision,
        }
    }

    fn replica(revision: u64, online: &[u64]) -> Replica {
        let mut replica = Replica::new(1);
        restore(&mut replica, position("a", revision), &users(online)).expect("a snapshot fits");
        replica
    }

    fn restore(replica: &mut Replica, position: Position, snapshot: &[UserId]) -> Option<Change> {
        let round = replica.expected_snapshot(0).expect("a snapshot is needed");
        replica.restore(0, round, position, snapshot.to_vec())
    }

    fn change(online: &[u64], offline: &[u64]) -> Change {
        Change {
            online: users(online),
            offline: users(offline),
        }
    }

    #[test]
    fn transitions_follow_the_snapshot() {
        let mut replica = replica(7, &[3, 1]);
        assert_eq!(
            replica.apply(0, transition(8, &[2], &[])),
            Applied::Changed(change(&[2], &[]))
        );
        assert_eq!(
            replica.apply(0, transition(9, &[], &[1])),
            Applied::Changed(change(&[], &[1]))
        );
        assert_eq!(replica.encoded().get(), "[2,3]");
    }

    #[test]
    fn what_arrived_during_the_snapshot_is_applied_once() {
        let mut replica = Replica::new(1);
        assert_eq!(replica.apply(0, transition(7, &[5], &[])), Applied::Waiting);
        assert_eq!(replica.apply(0, transition(8, &[6], &[])), Applied::Waiting);
        assert_eq!(replica.apply(0, transition(9, &[], &[5])), Applied::Waiting);
        let restored = restore(&mut replica, position("a", 7), &users(&[5, 6]));
        assert_eq!(restored, Some(change(&[6], &[])));
        assert!(replica.is_complete(0));
    }

    #[test]
    fn a_gap_asks_for_a_snapshot_which_tells_only_the_difference() {
        let mut replica = replica(1, &[1, 2]);
        assert_eq!(replica.apply(0, transition(3, &[4], &[])), Applied::Gap);
        assert_eq!(replica.apply(0, transition(4, &[], &[2])), Applied::Waiting);
        assert_eq!(
            replica.encoded().get(),
            "[1,2]",
            "the last known state is shown meanwhile"
        );
        let restored = restore(&mut replica, position("a", 3), &users(&[1, 2, 3, 4]));
        assert_eq!(restored, Some(change(&[3, 4], &[2])));
    }

    #[test]
    fn a_snapshot_older_than_a_gap_is_read_again() {
        let mut replica = Replica::new(1);
        assert_eq!(replica.apply(0, transition(9, &[9], &[])), Applied::Waiting);
        assert_eq!(restore(&mut replica, position("a", 7), &[]), None);
        assert!(!replica.is_complete(0));
        assert_eq!(
            restore(&mut replica, position("a", 9), &users(&[9])),
            Some(change(&[9], &[]))
        );
    }

    fn in_epoch_b(transition: Transition) -> Transition {
        Transition {
            epoch: "b".to_owned(),
            ..transition
        }
    }

    #[test]
    fn another_epoch_leaves_time_to_register_again() {
        let mut replica = replica(100, &[1, 2, 3]);
        assert_eq!(
            replica.apply(0, in_epoch_b(transition(1, &[2], &[]))),
            Applied::Gap
        );
        let restored = restore(&mut replica, position("b", 1), &users(&[2, 9]));
        assert_eq!(restored, Some(change(&[9], &[])));
        assert_eq!(replica.encoded().get(), "[1,2,3,9]");
        // One registers again in silence, one does not.
        let again = replica.apply(0, in_epoch_b(transition(2, &[1], &[])));
        assert_eq!(again, Applied::Changed(change(&[], &[])));
        assert_ne!(replica.unconfirmed_count(0), 0);
        assert_eq!(replica.expire_unconfirmed(0), change(&[], &[3]));
        assert_eq!(replica.unconfirmed_count(0), 0);
    }

    #[test]
    fn after_an_interruption_whoever_is_missing_is_doubtful() {
        let mut replica = replica(7, &[1, 2]);
        replica.expect_snapshot(0);
        assert_eq!(
            restore(&mut replica, position("a", 9), &users(&[1])),
            Some(change(&[], &[]))
        );
        // A doubt outlives a gap, and ends with the transition that says so.
        assert_eq!(replica.apply(0, transition(11, &[], &[])), Applied::Gap);
        assert_eq!(
            restore(&mut replica, position("a", 11), &users(&[1])),
            Some(change(&[], &[]))
        );
        assert_eq!(
            replica.apply(0, transition(12, &[], &[2])),
            Applied::Changed(change(&[], &[2]))
        );
        assert_eq!(replica.expire_unconfirmed(0), change(&[], &[]));
    }

    #[test]
    fn partitions_do_not_touch_each_other() {
        let mut replica = Replica::new(2);
        replica.restore(0, 0, position("a", 1), users(&[2, 4]));
        replica.restore(1, 0, position("a", 1), users(&[1]));
        assert_eq!(replica.apply(0, transition(3, &[], &[])), Applied::Gap);
        assert_eq!(replica.expected_snapshot(0), Some(1));
        assert_eq!(replica.expected_snapshot(1), None);
        let restored = replica.restore(0, 1, position("a", 3), users(&[2]));
        assert_eq!(restored, Some(change(&[], &[4])));
        assert_eq!(replica.encoded().get(), "[1,2]");
    }

    #[test]
    fn a_snapshot_begun_before_an_interruption_does_not_count() {
        let mut replica = Replica::new(1);
        let round = replica.expected_snapshot(0).expect("a snapshot is needed");
        replica.expect_snapshot(0);
        assert_eq!(
            replica.restore(0, round, position("a", 1), users(&[1])),
            None
        );
        assert!(!replica.is_complete(0));
    }

    #[test]
    fn a_pulse_shows_what_was_missed() {
        let mut replica = Replica::new(2);
        let pulse = |epoch: &str, revision| Pulse {
            epoch: epoch.to_owned(),
            revision,
        };
        assert!(!replica.is_behind(0, &pulse("a", 9)), "a snapshot is read");
        replica.restore(0, 0, position("a", 7), Vec::new());
        assert!(!replica.is_behind(0, &pulse("a", 6)));
        assert!(!replica.is_behind(0, &pulse("a", 7)));
        assert!(replica.is_behind(0, &pulse("a", 8)));
        assert!(replica.is_behind(0, &pulse("b", 1)));
        assert!(!replica.is_behind(1, &pulse("a", 8)));
    }

    #[test]
    fn whoever_waits_for_a_revision_is_told() {
        let mut replica = replica(1, &[]);
        assert!(replica.wait_for(0, 1).is_none());
        let mut waiter = replica.wait_for(0, 2).expect("not reached yet");
        assert!(waiter.try_recv().is_err());
        replica.apply(0, transition(2, &[1], &[]));
        assert!(waiter.try_recv().is_ok());
    }

    #[test]
    fn pages_are_ascending_and_complete() {
        let replica = replica(1, &[5, 1, 3]);
        assert_eq!(replica.page(None, 2), users(&[1, 3]));
        assert_eq!(replica.page(Some(users(&[3])[0]), 2), users(&[5]));
    }
}
