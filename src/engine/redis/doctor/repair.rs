//! Repairs findings with the scripts that nodes use.

use std::collections::{BTreeSet, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::validator::read_registration;
use super::{Category, Doctor, Finding, FindingKind};
use crate::engine::EngineError;
use crate::engine::redis::page::BEGINNING;
use crate::ids::{ConnectionId, SAFE_INTEGER_MAX, UserId};

/// Concurrent calls.
const REPAIRS_MAX: usize = 32;

/// Connections released, or users taken offline, per call: few enough that Redis stays responsive.
const BATCH_MAX: u32 = 200;

/// Connections of one user checked per call; no user has as many.
const CONNECTIONS_MAX: u32 = 1000;

/// No time limit: the doctor checks otherwise that Redis was not suspended.
const ANY_TIME_MS: u64 = SAFE_INTEGER_MAX;

impl Doctor {
    /// Repairs what can be repaired from here. A connection that a node holds but that is not registered is left to
    /// that node's audit.
    ///
    /// # Errors
    /// If Redis cannot be reached; then only some findings are repaired.
    pub(crate) async fn repair(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let concerned = self.remove_unreadable(findings).await?;
        self.expire_dead_leases(findings).await?;
        self.reap_dead(findings).await?;
        self.release_all(findings).await?;
        for finding in of(findings, &[FindingKind::UnknownNode]) {
            let key = finding.incarnation.iter();
            for key in key.map(|incarnation| self.redis.keys.node(incarnation)) {
                let _: u64 = self.redis.servers.call("DEL", key, Vec::new()).await?;
            }
        }
        self.repair_users(findings, concerned).await?;
        self.take_offline(findings).await
    }

    /// Removes expired leases, unless one is not among the findings: then Redis was just suspended, and nodes get time
    /// to renew.
    async fn expire_dead_leases(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let dead: HashSet<&str> = of(findings, &[FindingKind::LeaseOver])
            .filter_map(|finding| finding.incarnation.as_deref())
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        let over = self.expired_leases().await?;
        if over
            .iter()
            .all(|incarnation| dead.contains(incarnation.as_str()))
        {
            while !self.redis.expire_leases(ANY_TIME_MS).await?.is_empty() {}
        }
        Ok(())
    }

    async fn reap_dead(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let dead = [
            FindingKind::NodeGone,
            FindingKind::OwedByUnknown,
            FindingKind::UnknownMember,
        ];
        let dead: BTreeSet<(u32, &str)> = of(findings, &dead)
            .filter_map(|finding| Some((finding.partition?, finding.incarnation.as_deref()?)))
            .collect();
        let grace = self.rules.offline_grace;
        for (partition, incarnation) in dead {
            // A lease that could not be removed protects the node's connections.
            if self.has_lease(incarnation).await? {
                continue;
            }
            let reap = || self.redis.reap(partition, incarnation, BATCH_MAX, grace);
            while reap().await?.left > 0 {}
        }
        Ok(())
    }

    /// Releases connections that no node holds, and registrations without a connection.
    async fn release_all(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let wrong = [
            FindingKind::NodeGone,
            FindingKind::NodeUnaware,
            FindingKind::OwedUnregistered,
        ];
        let registrations = of(findings, &wrong).filter_map(|finding| {
            let if_dead = finding.kind == FindingKind::NodeGone;
            Some((finding.registration()?, if_dead))
        });
        stream::iter(registrations)
            .map(|((incarnation, user, connection), if_dead)| {
                self.release(incarnation, user, connection, if_dead)
            })
            .buffer_unordered(REPAIRS_MAX)
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
        let connections = [(user, connection)];
        let release = self.redis.release_of(incarnation, &connections, grace);
        release.await.map(|_departing| ())
    }

    async fn repair_users(
        &self,
        findings: &[Finding],
        concerned: Vec<UserId>,
    ) -> Result<(), EngineError> {
        let drifting = findings.iter().filter(|finding| {
            finding.kind.category() == Category::Drift && finding.kind != FindingKind::NotRegistered
        });
        let mut users: BTreeSet<UserId> = concerned.into_iter().collect();
        for finding in drifting {
            match (finding.user, finding.partition, &finding.incarnation) {
                (Some(user), _, _) => _ = users.insert(user),
                // Repairing any of the node's users lists the node.
                (None, Some(partition), Some(incarnation)) => {
                    users.extend(self.registered_users(partition, incarnation).await?);
                }
                (None, _, _) => {}
            }
        }
        stream::iter(users)
            .map(|user| self.repair_user(user))
            .buffer_unordered(REPAIRS_MAX)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Some users with a connection registered by a node.
    async fn registered_users(
        &self,
        partition: u32,
        incarnation: &str,
    ) -> Result<Vec<UserId>, EngineError> {
        let key = self.redis.keys.registrations_of(partition, incarnation);
        let Some(page) = self.members("SSCAN", &key, BEGINNING).await? else {
            return Ok(Vec::new());
        };
        let entries = page
            .items
            .iter()
            .filter_map(|entry| read_registration(entry));
        Ok(entries.map(|(user, _)| user).take(REPAIRS_MAX).collect())
    }

    async fn repair_user(&self, user: UserId) -> Result<(), EngineError> {
        let (keys, partition) = (&self.redis.keys, self.redis.partition_of(user));
        let script_keys = vec![
            keys.connections(user),
            keys.registered_nodes(partition),
            keys.online(partition),
            keys.leaving(partition),
            keys.revision(partition),
            keys.epoch(partition),
        ];
        let args = vec![
            user.to_string(),
            keys.registrations_prefix(partition),
            CONNECTIONS_MAX.to_string(),
            self.rules.offline_grace.as_millis().to_string(),
            keys.presence_channel(partition),
        ];
        let script = &self.redis.scripts.repair;
        let _wrong: u64 = script.call(&self.redis.servers, script_keys, args).await?;
        Ok(())
    }

    /// Takes overdue users offline; if no node is left to do it later, also those whose grace period is running.
    async fn take_offline(&self, findings: &[Finding]) -> Result<(), EngineError> {
        let leases: u64 = self
            .redis
            .servers
            .call("ZCARD", self.redis.keys.leases(), Vec::new())
            .await?;
        let nobody_left = leases == 0;
        let partitions: BTreeSet<u32> = findings
            .iter()
            .filter(|finding| nobody_left || finding.kind == FindingKind::Overdue)
            .filter_map(|finding| finding.partition)
            .collect();
        let ahead = if nobody_left {
            self.rules.offline_grace
        } else {
            std::time::Duration::ZERO
        };
        for partition in partitions {
            let now = std::time::Duration::ZERO;
            let expire = || self.redis.expire(partition, BATCH_MAX, ahead, now);
            while expire().await?.more {}
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

/// The findings of certain kinds.
fn of<'a>(
    findings: &'a [Finding],
    problems: &'a [FindingKind],
) -> impl Iterator<Item = &'a Finding> {
    findings
        .iter()
        .filter(|finding| problems.contains(&finding.kind))
}
