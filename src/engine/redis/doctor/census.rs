//! Who is alive, and what every node says that it holds.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Doctor, Name};
use crate::engine::EngineError;
use crate::engine::redis::answer::{Held, Incoming, Progress};
use crate::engine::redis::bus::question;
use crate::ids::{ConnectionId, UserId, random_name};

/// Nodes that are asked at the same time.
const ASKED_TOGETHER: usize = 16;

/// Parts of an answer that are read together.
const PARTS_TOGETHER: i64 = 10;

/// Pause between two looks whether an answer has come.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How an incarnation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers.
    Alive,
    /// It has a lease and does not answer.
    Silent,
    /// It has no lease, or one that is over and no answer.
    Gone,
}

/// Who is alive and holds what, at one time.
#[derive(Default)]
pub(super) struct Census {
    /// When it was taken, in ms since 1970 on Redis's clock.
    pub(super) taken_at_ms: u64,
    leases: HashMap<String, Lease>,
    held: HashMap<UserId, Vec<(Name, ConnectionId)>>,
}

#[derive(Clone, Copy)]
struct Lease {
    over: bool,
    answered: bool,
}

impl Census {
    /// How many nodes have a lease.
    pub(super) fn nodes(&self) -> usize {
        self.leases.values().filter(|lease| !lease.over).count()
    }

    pub(super) fn account_status(&self, incarnation: &str) -> Standing {
        match self.leases.get(incarnation) {
            Some(Lease { answered: true, .. }) => Standing::Alive,
            Some(Lease { over: false, .. }) => Standing::Silent,
            Some(Lease { over: true, .. }) | None => Standing::Gone,
        }
    }

    pub(super) fn has_lease(&self, incarnation: &str) -> bool {
        self.leases.contains_key(incarnation)
    }

    /// The incarnations in the list of leases.
    pub(super) fn incarnations(&self) -> impl Iterator<Item = &String> {
        self.leases.keys()
    }

    /// Whether somebody's lease is over who may be about to renew it.
    pub(super) fn may_have_to_renew(&self) -> bool {
        self.leases
            .values()
            .any(|lease| lease.over && !lease.answered)
    }

    /// The users of whom some node holds a connection.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> {
        self.held.keys().copied()
    }

    /// The connections of `user` that nodes hold.
    pub(super) fn held_of(&self, user: UserId) -> &[(Name, ConnectionId)] {
        self.held.get(&user).map_or(&[], Vec::as_slice)
    }

    pub(super) fn holds(&self, incarnation: &str, (user, connection): Held) -> bool {
        self.held_of(user)
            .iter()
            .any(|(name, id)| **name == *incarnation && *id == connection)
    }

    fn enter(&mut self, incarnation: &str, held: HashSet<Held>) {
        if let Some(lease) = self.leases.get_mut(incarnation) {
            lease.answered = true;
        }
        let name = Name::from(incarnation);
        for (user, connection) in held {
            let of_user = self.held.entry(user).or_default();
            of_user.push((name.clone(), connection));
        }
    }
}

impl Doctor {
    /// Asks every node that has a lease what it holds.
    pub(super) async fn take_census(&self) -> Result<Census, EngineError> {
        let mut census = self.read_leases().await?;
        let incarnations: Vec<String> = census.incarnations().cloned().collect();
        let answers: Vec<_> = stream::iter(incarnations)
            .map(|incarnation| async move {
                let held = self.ask(&incarnation).await?;
                Ok::<_, EngineError>((incarnation, held))
            })
            .buffer_unordered(ASKED_TOGETHER)
            .try_collect()
            .await?;
        for (incarnation, held) in answers {
            if let Some(held) = held {
                census.enter(&incarnation, held);
            }
        }
        Ok(census)
    }

    async fn read_leases(&self) -> Result<Census, EngineError> {
        let leases = self.redis.leases().await?;
        let taken_at_ms = self.redis.now_ms().await?;
        let lease = |(incarnation, ends_at_ms): (String, u64)| {
            let over = ends_at_ms < taken_at_ms;
            let answered = false;
            (incarnation, Lease { over, answered })
        };
        Ok(Census {
            taken_at_ms,
            leases: leases.into_iter().map(lease).collect(),
            held: HashMap::new(),
        })
    }

    /// Whose leases are over.
    pub(super) async fn leases_that_are_over(&self) -> Result<Vec<String>, EngineError> {
        let leases = self.read_leases().await?.leases.into_iter();
        let over = leases.filter(|(_, lease)| lease.over);
        Ok(over.map(|(incarnation, _)| incarnation).collect())
    }

    /// Asks a node which connections it holds. `None` where it does not answer.
    async fn ask(&self, incarnation: &str) -> Result<Option<HashSet<Held>>, EngineError> {
        let reply = random_name();
        let key = self.redis.keys.reply(&reply);
        let channel = self.redis.keys.node(incarnation);
        let listeners = self.redis.spublish(channel, question(&reply)).await?;
        if listeners == 0 {
            return Ok(None);
        }
        let held = self.read_answer(incarnation, &key).await?;
        let _: u64 = self.redis.servers.call("DEL", key, Vec::new()).await?;
        Ok(held)
    }

    /// Reads an answer as it comes; gives up when nothing more has come for a while.
    async fn read_answer(
        &self,
        incarnation: &str,
        key: &str,
    ) -> Result<Option<HashSet<Held>>, EngineError> {
        let (mut incoming, mut read) = (Incoming::default(), 0_i64);
        let mut heard_at = Instant::now();
        while heard_at.elapsed() < self.rules.patience {
            let range = vec![read.to_string(), (read + PARTS_TOGETHER - 1).to_string()];
            let parts: Vec<String> = self
                .redis
                .servers
                .call("LRANGE", key.to_owned(), range)
                .await?;
            if parts.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            heard_at = Instant::now();
            for part in parts {
                read += 1;
                if let Progress::Finished(held) = incoming.take_in(incarnation, &part) {
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
    fn an_incarnation_stands_by_its_lease_and_its_answer() {
        let lease = |over, answered| Lease { over, answered };
        let census = Census {
            leases: HashMap::from([
                ("alive".to_owned(), lease(false, true)),
                ("late".to_owned(), lease(true, true)),
                ("silent".to_owned(), lease(false, false)),
                ("over".to_owned(), lease(true, false)),
            ]),
            ..Census::default()
        };
        assert_eq!(census.account_status("alive"), Standing::Alive);
        assert_eq!(census.account_status("late"), Standing::Alive);
        assert_eq!(census.account_status("silent"), Standing::Silent);
        assert_eq!(census.account_status("over"), Standing::Gone);
        assert_eq!(census.account_status("unknown"), Standing::Gone);
    }
}
