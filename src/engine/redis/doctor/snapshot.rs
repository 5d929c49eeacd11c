//! Which nodes are alive, and which connections each reports.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Doctor, IncarnationName};
use crate::engine::EngineError;
use crate::engine::redis::bus::connections_request;
use crate::engine::redis::connection_report::{Progress, Reassembly};
use crate::ids::{ConnectionId, UserConnection, UserId, random_name};

/// Nodes queried concurrently.
const REQUESTS_MAX: usize = 16;

/// Report parts read per call.
const PARTS_BATCH_MAX: i64 = 10;

/// Interval between two reads of a report.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The status of an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeStatus {
    /// It replies.
    Alive,
    /// It has a lease but does not reply.
    Silent,
    /// It has no lease, or an expired one and no reply.
    Gone,
}

/// The nodes and their connections at one time.
#[derive(Default)]
pub(super) struct Snapshot {
    /// When the snapshot was taken, in ms since 1970 on Redis's clock.
    pub(super) taken_at_ms: u64,
    leases: HashMap<String, LeaseState>,
    held: HashMap<UserId, Vec<(IncarnationName, ConnectionId)>>,
}

#[derive(Clone, Copy)]
struct LeaseState {
    over: bool,
    answered: bool,
}

impl Snapshot {
    /// Number of nodes with a lease.
    pub(super) fn nodes(&self) -> usize {
        self.leases.values().filter(|lease| !lease.over).count()
    }

    pub(super) fn node_status(&self, incarnation: &str) -> NodeStatus {
        match self.leases.get(incarnation) {
            Some(LeaseState { answered: true, .. }) => NodeStatus::Alive,
            Some(LeaseState { over: false, .. }) => NodeStatus::Silent,
            Some(LeaseState { over: true, .. }) | None => NodeStatus::Gone,
        }
    }

    pub(super) fn has_lease(&self, incarnation: &str) -> bool {
        self.leases.contains_key(incarnation)
    }

    /// The incarnations in the list of leases.
    pub(super) fn incarnations(&self) -> impl Iterator<Item = &String> {
        self.leases.keys()
    }

    /// Whether a node with an expired lease may be about to renew it.
    pub(super) fn may_have_to_renew(&self) -> bool {
        self.leases
            .values()
            .any(|lease| lease.over && !lease.answered)
    }

    /// Users with a connection on some node.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> {
        self.held.keys().copied()
    }

    /// The connections of `user` that nodes hold.
    pub(super) fn held_of(&self, user: UserId) -> &[(IncarnationName, ConnectionId)] {
        self.held.get(&user).map_or(&[], Vec::as_slice)
    }

    pub(super) fn holds(&self, incarnation: &str, (user, connection): UserConnection) -> bool {
        self.held_of(user)
            .iter()
            .any(|(name, id)| **name == *incarnation && *id == connection)
    }

    fn add_report(&mut self, incarnation: &str, held: HashSet<UserConnection>) {
        if let Some(lease) = self.leases.get_mut(incarnation) {
            lease.answered = true;
        }
        let name = IncarnationName::from(incarnation);
        for (user, connection) in held {
            let of_user = self.held.entry(user).or_default();
            of_user.push((name.clone(), connection));
        }
    }
}

impl Doctor {
    /// Requests a report from every node with a lease.
    pub(super) async fn take_snapshot(&self) -> Result<Snapshot, EngineError> {
        let mut snapshot = self.read_leases().await?;
        let incarnations: Vec<String> = snapshot.incarnations().cloned().collect();
        let answers: Vec<_> = stream::iter(incarnations)
            .map(|incarnation| async move {
                let held = self.request_report(&incarnation).await?;
                Ok::<_, EngineError>((incarnation, held))
            })
            .buffer_unordered(REQUESTS_MAX)
            .try_collect()
            .await?;
        for (incarnation, held) in answers {
            if let Some(held) = held {
                snapshot.add_report(&incarnation, held);
            }
        }
        Ok(snapshot)
    }

    async fn read_leases(&self) -> Result<Snapshot, EngineError> {
        let leases = self.redis.leases().await?;
        let taken_at_ms = self.redis.now_ms().await?;
        let lease = |(incarnation, ends_at_ms): (String, u64)| {
            let over = ends_at_ms < taken_at_ms;
            let answered = false;
            (incarnation, LeaseState { over, answered })
        };
        Ok(Snapshot {
            taken_at_ms,
            leases: leases.into_iter().map(lease).collect(),
            held: HashMap::new(),
        })
    }

    /// Incarnations whose lease has expired.
    pub(super) async fn expired_leases(&self) -> Result<Vec<String>, EngineError> {
        let leases = self.read_leases().await?.leases.into_iter();
        let over = leases.filter(|(_, lease)| lease.over);
        Ok(over.map(|(incarnation, _)| incarnation).collect())
    }

    /// Requests a node's connections; `None` if it does not reply.
    async fn request_report(
        &self,
        incarnation: &str,
    ) -> Result<Option<HashSet<UserConnection>>, EngineError> {
        let reply = random_name();
        let key = self.redis.keys.reply(&reply);
        let channel = self.redis.keys.node(incarnation);
        let listeners = self
            .redis
            .spublish(channel, connections_request(&reply))
            .await?;
        if listeners == 0 {
            return Ok(None);
        }
        let held = self.read_report(incarnation, &key).await?;
        let _: u64 = self.redis.servers.call("DEL", key, Vec::new()).await?;
        Ok(held)
    }

    /// Reads a report as it arrives; ends after `reply_timeout` without a new part.
    async fn read_report(
        &self,
        incarnation: &str,
        key: &str,
    ) -> Result<Option<HashSet<UserConnection>>, EngineError> {
        let (mut reassembly, mut read) = (Reassembly::default(), 0_i64);
        let mut received_at = Instant::now();
        while received_at.elapsed() < self.rules.reply_timeout {
            let range = vec![read.to_string(), (read + PARTS_BATCH_MAX - 1).to_string()];
            let parts: Vec<String> = self
                .redis
                .servers
                .call("LRANGE", key.to_owned(), range)
                .await?;
            if parts.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            received_at = Instant::now();
            for part in parts {
                read += 1;
                if let Progress::Finished(held) = reassembly.push(incarnation, &part) {
                    return Ok(held);
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_and_reply_decide_the_status() {
        let lease = |over, answered| LeaseState { over, answered };
        let snapshot = Snapshot {
            leases: HashMap::from([
                ("alive".to_owned(), lease(false, true)),
                ("late".to_owned(), lease(true, true)),
                ("silent".to_owned(), lease(false, false)),
                ("over".to_owned(), lease(true, false)),
            ]),
            ..Snapshot::default()
        };
        assert_eq!(snapshot.node_status("alive"), NodeStatus::Alive);
        assert_eq!(snapshot.node_status("late"), NodeStatus::Alive);
        assert_eq!(snapshot.node_status("silent"), NodeStatus::Silent);
        assert_eq!(snapshot.node_status("over"), NodeStatus::Gone);
        assert_eq!(snapshot.node_status("unknown"), NodeStatus::Gone);
    }
}
