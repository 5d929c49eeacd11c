//! Puts right what was found, with the scripts that nodes use.

use std::collections::{BTreeSet, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::readable::read_held;
use super::{Category, Doctor, Finding, Problem};
use crate::engine::EngineError;
use crate::engine::redis::page::BEGINNING;
use crate::ids::{ConnectionId, SAFE_INTEGER_MAX, UserId};

/// Calls that are under way together.
const TOGETHER: usize = 32;

/// Connections released, or users taken offline, by one call: few enough that Redis stays responsive.
const BATCH_MAX: u32 = 200;

/// Connections of one user that are looked at by one call; no user has as many.
const CONNECTIONS_MAX: u32 = 1000;

/// The doctor makes sure by other means that Redis did not stand still.
const ANY_TIME_MS: u64 = SAFE_INTEGER_MAX;

impl Doctor {
    /// Puts right what can be put right from here. A connection that a node holds and that is not registered
    /// is left to the node: its audit registers it.
    ///
    /// # Errors
    /// When Redis cannot be reached; then some is put right and some is not.
    pub async fn repair(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let concerned = self.remove_unreadable(findings).await?;
        self.bury_the_dead(findings).await?;
        self.reap_the_dead(findings).await?;
        self.release_all(findings).await?;
        for finding in of(findings, &[Problem::UnknownNode]) {
            let key = finding.incarnation.iter();
            for key in key.map(|incarnation| self.redis.keys.node(incarnation)) {
                let _: u64 = self.redis.servers.call("DEL", key, Vec::new()).await?;
            }
        }
        self.put_users_right(findings, concerned).await?;
        self.take_offline(findings).await
    }

    /// Takes away leases that are over, unless one of them is nobody's finding: then Redis has just stood
    /// still, and everybody gets the time to renew.
    async fn bury_the_dead(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let dead: HashSet<&str> = of(findings, &[Problem::LeaseOver])
            .filter_map(|finding| finding.incarnation.as_deref())
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        let over = self.leases_that_are_over().await?;
        if over
            .iter()
            .all(|incarnation| dead.contains(incarnation.as_str()))
        {
            while !self.redis.bury(ANY_TIME_MS).await?.is_empty() {}
        }
        Ok(())
    }

    async fn reap_the_dead(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let dead = [
            Problem::NodeGone,
            Problem::OwedByUnknown,
            Problem::UnknownMember,
        ];
        let dead: BTreeSet<(u32, &str)> = of(findings, &dead)
            .filter_map(|finding| Some((finding.partition?, finding.incarnation.as_deref()?)))
            .collect();
        let grace = self.rules.offline_grace;
        for (partition, incarnation) in dead {
            // A lease that could not be taken away protects what it covers.
            if self.has_lease(incarnation).await? {
                continue;
            }
            let reap = || self.redis.reap(partition, incarnation, BATCH_MAX, grace);
            while reap().await?.left > 0 {}
        }
        Ok(())
    }

    /// Releases what is registered and held by nobody, and what is owed and not registered.
    async fn release_all(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let wrong = [
            Problem::NodeGone,
            Problem::NodeUnaware,
            Problem::OwedUnregistered,
        ];
        let registrations = of(findings, &wrong).filter_map(|finding| {
            let if_dead = finding.problem == Problem::NodeGone;
            Some((finding.registration()?, if_dead))
        });
        stream::iter(registrations)
            .map(|((incarnation, user, connection), if_dead)| {
                self.release(incarnation, user, connection, if_dead)
            })
            .buffer_unordered(TOGETHER)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    async fn release(
        &self,
        incarnation: &str,
        user: UserId,
        connection: ConnectionId,
        if_dead: bool,
    ) -> Result<(), EngineError> {
        if if_dead && self.has_lease(incarnation).await? {
            return Ok(());
        }
        let grace = self.rules.offline_grace;
        let release = self
            .redis
            .release_of(incarnation, user, connection, grace)
            .await;
        release.map(|_refcount| ())
    }

    async fn put_users_right(
        &self,
        findings: &[Finding],
        concerned: Vec<UserId>,
    ) -> Result<(), EngineError> {
        let drifting = findings.iter().filter(|finding| {
            finding.problem.category() == Category::Drift
                && finding.problem != Problem::NotRegistered
        });
        let mut users: BTreeSet<UserId> = concerned.into_iter().collect();
        for finding in drifting {
            match (finding.user, finding.partition, &finding.incarnation) {
                (Some(user), _, _) => _ = users.insert(user),
                // Whoever is put right has the node listed.
                (None, Some(partition), Some(incarnation)) => {
                    users.extend(self.users_owed(partition, incarnation).await?);
                }
                (None, _, _) => {}
            }
        }
        stream::iter(users)
            .map(|user| self.put_right(user))
            .buffer_unordered(TOGETHER)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Some of the users of whom a node owes a connection.
    async fn users_owed(
        &self,
        partition: u32,
        incarnation: &str,
    ) -> Result<Vec<UserId>, EngineError> {
        let key = self.redis.keys.owed(partition, incarnation);
        let Some(page) = self.members("SSCAN", &key, BEGINNING).await? else {
            return Ok(Vec::new());
        };
        let entries = page.items.iter().filter_map(|entry| read_held(entry));
        Ok(entries.map(|(user, _)| user).take(TOGETHER).collect())
    }

    async fn put_right(&self, user: UserId) -> Result<(), EngineError> {
        let (keys, partition) = (&self.redis.keys, self.redis.partition_of(user));
        let words = vec![
            keys.connections(user),
            keys.registered_nodes(partition),
            keys.online(partition),
            keys.leaving(partition),
            keys.revision(partition),
            keys.epoch(partition),
        ];
        let args = vec![
            user.to_string(),
            keys.owed_begin(partition),
            CONNECTIONS_MAX.to_string(),
            self.rules.offline_grace.as_millis().to_string(),
            keys.presence_channel(partition),
        ];
        let script = &self.redis.scripts.repair;
        let _wrong: u64 = script.call(&self.redis.servers, words, args).await?;
        Ok(())
    }

    /// Takes offline whose time is over; where no node is left to do it later, also those whose grace runs.
    async fn take_offline(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let leases: u64 = self
            .redis
            .servers
            .call("ZCARD", self.redis.keys.leases(), Vec::new())
            .await?;
        let nobody_left = leases == 0;
        let partitions: BTreeSet<u32> = findings
            .iter()
            .filter(|finding| nobody_left || finding.problem == Problem::Overdue)
            .filter_map(|finding| finding.partition)
            .collect();
        let ahead = match nobody_left {
            true => self.rules.offline_grace,
            false => std::time::Duration::ZERO,
        };
        for partition in partitions {
            let now = std::time::Duration::ZERO;
            let expire = || self.redis.expire(partition, BATCH_MAX, ahead, now);
            while expire().await?.next_due.is_some_and(|due| due <= ahead) {}
        }
        Ok(())
    }

    async fn has_lease(&self, incarnation: &str) -> Result<bool, EngineError> {
        let incarnation = vec![incarnation.to_owned()];
        let lease: Option<f64> = self
            .redis
            .servers
            .call("ZSCORE", self.redis.keys.leases(), incarnation)
            .await?;
        Ok(lease.is_some())
    }
}

/// The findings of certain problems.
fn of<'a>(findings: &'a [Finding], problems: &'a [Problem]) -> impl Iterator<Item = &'a Finding> {
    findings
        .iter()
        .filter(|finding| problems.contains(&finding.problem))
}
