//! Which nodes do the work that no connection of theirs causes: publish a partition's pulse, take its users offline
//! whom a dead node left behind, reap; and make matches.
//!
//! Two nodes own each of these, so that one may be dead while its lease still runs. Rendezvous hashing over the living
//! incarnations chooses them: every node computes the same owners without asking, and a node that joins or leaves moves
//! only its own.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

/// Owners of each partition, and of the queue.
const OWNERS: usize = 2;

/// The queue's number beside those of the partitions.
const QUEUE: u32 = u32::MAX;

/// This node's part in a partition, or in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Does the work.
    First,
    /// Does the work too, or takes over what the first leaves undone.
    Second,
    /// Leaves the work to others.
    Other,
}

pub(crate) struct Ownership {
    partitions: Vec<AtomicU8>,
    queue: AtomicU8,
    queue_changed: Notify,
    /// The living nodes among which owners were last chosen, this one first.
    nodes: Mutex<Vec<String>>,
}

impl Ownership {
    /// Everything is owned until the other nodes are known.
    pub(crate) fn new(partitions: u32) -> Self {
        let first = || AtomicU8::new(Role::First as u8);
        Self {
            partitions: (0..partitions).map(|_| first()).collect(),
            queue: first(),
            queue_changed: Notify::new(),
            nodes: Mutex::default(),
        }
    }

    /// Chooses the owners among the living nodes.
    pub(crate) fn choose<'a>(&self, incarnation: &'a str, alive: impl Iterator<Item = &'a str>) {
        let mut others: Vec<&str> = alive.filter(|other| *other != incarnation).collect();
        others.sort_unstable();
        {
            let mut nodes = self.nodes.lock();
            let now = std::iter::once(incarnation).chain(others.iter().copied());
            if now.clone().eq(nodes.iter().map(String::as_str)) {
                return;
            }
            *nodes = now.map(str::to_owned).collect();
        }
        for (number, partition) in (0..).zip(&self.partitions) {
            partition.store(role(incarnation, &others, number) as u8, Ordering::Relaxed);
        }
        self.queue
            .store(role(incarnation, &others, QUEUE) as u8, Ordering::Relaxed);
        self.queue_changed.notify_one();
    }

    pub(crate) fn role(&self, partition: u32) -> Role {
        self.partitions
            .get(partition as usize)
            .map_or(Role::Other, read)
    }

    /// The partitions that this node owns.
    pub(crate) fn owned(&self) -> Vec<u32> {
        let partitions = (0..).zip(&self.partitions);
        let owned = partitions.filter(|(_, partition)| read(partition) != Role::Other);
        owned.map(|(number, _)| number).collect()
    }

    pub(crate) fn owns_queue(&self) -> bool {
        read(&self.queue) != Role::Other
    }

    /// Resolves when the owners of the queue may have changed.
    pub(crate) async fn queue_changed(&self) {
        self.queue_changed.notified().await;
    }
}

fn read(role: &AtomicU8) -> Role {
    const FIRST: u8 = Role::First as u8;
    const SECOND: u8 = Role::Second as u8;
    match role.load(Ordering::Relaxed) {
        FIRST => Role::First,
        SECOND => Role::Second,
        _ => Role::Other,
    }
}

fn role(incarnation: &str, others: &[&str], number: u32) -> Role {
    let own = weight(incarnation, number);
    let heavier = others.iter().filter(|other| weight(other, number) > own);
    match heavier.take(OWNERS).count() {
        0 => Role::First,
        1 => Role::Second,
        _ => Role::Other,
    }
}

/// Must be the same in every version, since nodes of different versions run together.
fn weight(incarnation: &str, number: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(number.to_be_bytes());
    hash.update(incarnation);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_one_first_and_one_second_owner() {
        let names: Vec<String> = (0..9).map(|number| format!("n{number}.x")).collect();
        let mut owned = vec![0; names.len()];
        for partition in 0..300 {
            let (mut first, mut second) = (0, 0);
            for (place, name) in names.iter().enumerate() {
                let others = names.iter().filter(|other| *other != name);
                let others: Vec<&str> = others.map(String::as_str).collect();
                match role(name, &others, partition) {
                    Role::First => first += 1,
                    Role::Second => second += 1,
                    Role::Other => continue,
                }
                owned[place] += 1;
            }
            assert_eq!((first, second), (1, 1));
        }
        assert!(owned.iter().all(|count| *count > 30), "{owned:?}");
    }

    #[test]
    fn a_node_alone_owns_everything() {
        let ownership = Ownership::new(3);
        assert_eq!(ownership.owned(), [0, 1, 2]);
        ownership.choose("a.1", ["a.1", "b.1"].into_iter());
        assert_eq!(ownership.owned(), [0, 1, 2], "each has two owners");
        assert!(ownership.owns_queue());
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_partitions() {
        let names = ["a.1", "b.1", "c.1", "d.1"];
        let (before, after) = (Ownership::new(64), Ownership::new(64));
        before.choose("a.1", names.into_iter());
        after.choose("a.1", names.into_iter().filter(|name| *name != "d.1"));
        assert!(before.owned().len() < after.owned().len());
        assert!(before.owned().iter().all(|one| after.owned().contains(one)));
    }
}
