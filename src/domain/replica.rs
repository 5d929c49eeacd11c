//! This node's copy of the set of online users: a snapshot plus subsequent transitions.
//!
//! Pure state. It never calls the engine; it only says when a snapshot is needed, which `presence` then reads.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::engine::{Position, Pulse, Transition};
use crate::ids::UserId;

/// Transitions buffered while a snapshot is read. If there are more, the snapshot is read again.
const PENDING_MAX: usize = 10_000;

/// The online users of all partitions.
pub(crate) struct Replica {
    partitions: Vec<PartitionReplica>,
    online: BTreeSet<UserId>,
    /// The ids as a JSON array; cleared by each change.
    encoded: Option<Arc<RawValue>>,
}

/// Users who came online or went offline, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceChange {
    /// Users who came online, ascending.
    pub(crate) online: Vec<UserId>,
    /// Users who went offline, ascending.
    pub(crate) offline: Vec<UserId>,
}

/// The result of applying a transition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Applied, with this difference.
    Changed(PresenceChange),
    /// Buffered until the snapshot has been read.
    Waiting,
    /// Not consecutive: a snapshot is needed.
    Gap,
}

#[derive(Default)]
struct PartitionReplica {
    /// The last transition applied; `None` before the first snapshot.
    position: Option<Position>,
    /// Transitions buffered while a snapshot is needed; `None` while none is.
    pending: Option<VecDeque<Transition>>,
    /// Incremented when snapshots begun earlier become invalid.
    round: u64,
    /// Set if the history may have changed: users missing from the next snapshot are unconfirmed, not offline.
    suspicious: bool,
    /// Users shown as online although missing from the last snapshot: their nodes may be about to register them again.
    unconfirmed: HashSet<UserId>,
    /// Callers waiting for a revision to be applied.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl PresenceChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.online.is_empty() && self.offline.is_empty()
    }
}

impl Replica {
    /// An empty replica, which needs a snapshot of each partition.
    pub(crate) fn new(partitions: u32) -> Self {
        let waiting_for_snapshot = || PartitionReplica {
            pending: Some(VecDeque::new()),
            ..PartitionReplica::default()
        };
        Self {
            partitions: (0..partitions).map(|_| waiting_for_snapshot()).collect(),
            online: BTreeSet::new(),
            encoded: None,
        }
    }

    /// Number of online users.
    pub(crate) fn count(&self) -> usize {
        self.online.len()
    }

    pub(crate) fn contains(&self, user: UserId) -> bool {
        self.online.contains(&user)
    }

    /// At most `limit` online users with ids above `after`, ascending.
    pub(crate) fn page(&self, after: Option<UserId>, limit: usize) -> Vec<UserId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.online
            .range((from, Unbounded))
            .take(limit)
            .copied()
            .collect()
    }

    /// All online users, ascending, as a JSON array.
    pub(crate) fn encoded(&mut self) -> Arc<RawValue> {
        let online = &self.online;
        self.encoded.get_or_insert_with(|| encode(online)).clone()
    }

    /// Whether the partition has its snapshot and follows transitions.
    pub(crate) fn is_complete(&self, partition: u32) -> bool {
        let state = self.partitions.get(partition as usize);
        state.is_some_and(|state| state.pending.is_none())
    }

    /// Whether the pulse shows that transitions were missed; `false` while a snapshot is being read.
    pub(crate) fn is_behind(&self, partition: u32, pulse: &Pulse) -> bool {
        self.partitions
            .get(partition as usize)
            .filter(|state| state.pending.is_none())
            .and_then(|state| state.position.as_ref())
            .is_some_and(|position| {
                position.epoch != pulse.epoch || position.revision < pulse.revision
            })
    }

    /// Resolves once `revision` of the partition has been applied; `None` if it already has. Revision 0 is part of
    /// every snapshot.
    pub(crate) fn wait_for(
        &mut self,
        partition: u32,
        revision: u64,
    ) -> Option<oneshot::Receiver<()>> {
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

    /// Invalidates the partition: messages may have been missed, or the engine may have lost data. Users missing from
    /// the next snapshot stay online until [`Self::expire_unconfirmed`].
    pub(crate) fn expect_snapshot(&mut self, partition: u32) {
        if let Some(partition) = self.partitions.get_mut(partition as usize) {
            partition.suspicious = true;
            partition.expect_snapshot(VecDeque::new());
        }
    }

    /// The round to pass to [`Self::restore`] if the partition needs a snapshot.
    pub(crate) fn expected_snapshot(&self, partition: u32) -> Option<u64> {
        let state = self.partitions.get(partition as usize)?;
        state.pending.as_ref().map(|_| state.round)
    }

    /// Applies a transition that the engine announced.
    pub(crate) fn apply(&mut self, partition: u32, transition: Transition) -> Applied {
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
        let change = PresenceChange {
            online: insert_all(&mut self.online, transition.online),
            offline: remove_all(&mut self.online, transition.offline),
        };
        self.forget_encoded(&change);
        Applied::Changed(change)
    }

    /// Users of the partition shown as online although missing from its last snapshot.
    pub(crate) fn unconfirmed_count(&self, partition: u32) -> usize {
        let state = self.partitions.get(partition as usize);
        state.map_or(0, |state| state.unconfirmed.len())
    }

    /// Takes the partition's unconfirmed users offline: nodes have had time to register again.
    pub(crate) fn expire_unconfirmed(&mut self, partition: u32) -> PresenceChange {
        let state = self.partitions.get_mut(partition as usize);
        let unconfirmed: Vec<UserId> =
            state.map_or_else(Vec::new, |state| state.unconfirmed.drain().collect());
        let change = PresenceChange {
            online: Vec::new(),
            offline: remove_all(&mut self.online, unconfirmed),
        };
        self.forget_encoded(&change);
        change
    }

    /// Replaces the partition by a snapshot of `round`, read at `position`, plus the transitions buffered since. `None`
    /// if the round is over or the transitions do not follow the snapshot: it must be read again.
    pub(crate) fn restore(
        &mut self,
        partition: u32,
        round: u64,
        position: Position,
        snapshot: Vec<UserId>,
    ) -> Option<PresenceChange> {
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
        // Revisions of different epochs cannot be compared, so all waiting callers are resolved.
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
        let change = PresenceChange {
            offline: remove_all(&mut self.online, gone),
            online: insert_all(&mut self.online, members),
        };
        self.forget_encoded(&change);
        Some(change)
    }

    fn forget_encoded(&mut self, change: &PresenceChange) {
        if !change.is_empty() {
            self.encoded = None;
        }
    }
}

impl PartitionReplica {
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
            // The caller may have given up.
            let _ = waiter.send(());
        }
        self.position = Some(position);
    }
}

/// Applies buffered transitions to a snapshot read at `position`; `None` if they do not follow it.
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

/// Inserts users; returns the new ones, ascending.
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

/// Removes users; returns those that were present, ascending.
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
mod tests;
