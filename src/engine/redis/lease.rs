//! Leases in Redis: typed calls of `lua/lease/`, and reaping the connections of dead incarnations.

use std::time::Duration;

use fred::types::FromValue;
use futures_util::future::join_all;

use super::layout::LAYOUT;
use super::scripts::Script;
use super::servers::slot_of;
use super::{Redis, connection_report};
use crate::engine::{EngineError, NodeInfo, Reaped};
use crate::ids::UserConnection;
use crate::telemetry::warn_seldom;

/// Leases removed per script call.
const EXPIRE_BATCH_MAX: u32 = 100;

impl Redis {
    pub(in crate::engine) async fn begin(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<(), EngineError> {
        let args = vec![LAYOUT.to_string(), self.partitions().to_string()];
        // Recorded again if Redis has lost its data; an existing record stays.
        let recorded: Result<(u64, u64), _> = self
            .scripts
            .claim
            .call(&self.servers, vec![self.keys.meta()], args)
            .await;
        match recorded {
            Ok(recorded) if recorded == (LAYOUT, u64::from(self.partitions())) => {}
            Ok((layout, partitions)) => {
                return Err(EngineError::Answer(format!(
                    "the data has layout {layout} and {partitions} partitions; this node is configured otherwise"
                )));
            }
            // A node without a lease counts as dead, so the lease must not wait for another server.
            Err(error) if self.servers.is_cluster() => {
                warn_seldom!(%error, "could not compare the layout of the data");
            }
            Err(error) => return Err(error),
        }
        let begin = &self.scripts.begin_lease;
        let _ends_at_ms: u64 = self.lease(begin, info, lease).await?;
        // In a Cluster the report may be on another server. The lease holds without it.
        if let Err(error) = self.describe(info, lease).await {
            warn_seldom!(%error, "could not publish the node's report");
        }
        Ok(())
    }

    pub(in crate::engine) async fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        self.lease(&self.scripts.renew_lease, info, lease).await
    }

    /// Returns the end of the lease, in ms.
    async fn lease<R: FromValue>(
        &self,
        script: &Script,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<R, EngineError> {
        let args = vec![info.incarnation.clone(), lease.as_millis().to_string()];
        script
            .call(&self.servers, vec![self.keys.leases()], args)
            .await
    }

    pub(in crate::engine) async fn resign(&self) -> Result<(), EngineError> {
        let incarnation = self.incarnation().to_string();
        let node = self.keys.node(&incarnation);
        let leases = self.keys.leases();
        let _: u64 = self.servers.call("ZREM", leases, vec![incarnation]).await?;
        let _: u64 = self.servers.call("DEL", node, Vec::new()).await?;
        Ok(())
    }

    pub(in crate::engine) async fn leases(&self) -> Result<Vec<(String, u64)>, EngineError> {
        let range = ["0", "-1", "WITHSCORES"].map(str::to_owned).to_vec();
        let leases: Vec<String> = self
            .servers
            .call("ZRANGE", self.keys.leases(), range)
            .await?;
        let lease = |pair: &[String]| Some((pair[0].clone(), pair[1].parse::<f64>().ok()? as u64));
        Ok(leases.chunks_exact(2).filter_map(lease).collect())
    }

    /// The clock on which leases end.
    pub(in crate::engine) async fn now_ms(&self) -> Result<u64, EngineError> {
        let slot = slot_of(&self.keys.leases());
        let (seconds, microseconds): (u64, u64) = self.servers.call_at(slot, "TIME", &[]).await?;
        Ok(seconds * 1000 + microseconds / 1000)
    }

    pub(in crate::engine) async fn expire_leases(
        &self,
        until_ms: u64,
    ) -> Result<Vec<String>, EngineError> {
        let keys = vec![self.keys.leases()];
        let args = vec![EXPIRE_BATCH_MAX.to_string(), until_ms.to_string()];
        let script = &self.scripts.expire_leases;
        script.call(&self.servers, keys, args).await
    }

    pub(in crate::engine) async fn registered_nodes(
        &self,
        partitions: &[u32],
    ) -> Vec<(u32, String)> {
        let registered = partitions.iter().map(|partition| {
            let key = self.keys.registered_nodes(*partition);
            let nodes = self.servers.call("SMEMBERS", key, Vec::new());
            async move { (*partition, nodes.await) }
        });
        let registered: Vec<(u32, Result<Vec<String>, _>)> = join_all(registered).await;
        let mut found = Vec::new();
        for (partition, nodes) in registered {
            let nodes = nodes.unwrap_or_default().into_iter();
            found.extend(nodes.map(|incarnation| (partition, incarnation)));
        }
        found
    }

    pub(in crate::engine) async fn reap(
        &self,
        partition: u32,
        incarnation: &str,
        batch_max: u32,
        grace: Duration,
    ) -> Result<Reaped, EngineError> {
        let keys = vec![
            self.keys.registrations_of(partition, incarnation),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
        ];
        let args = vec![
            incarnation.to_owned(),
            self.keys.connections_prefix(partition),
            batch_max.to_string(),
            grace.as_millis().to_string(),
        ];
        // The script computes key names itself, so it must not follow a migrating slot.
        let script = &self.scripts.reap;
        let answer = script.call_once(&self.servers, keys, args, false).await;
        let answer = answer.map_err(|error| self.servers.failure(error))?;
        let (released, left) = script.decode(answer)?;
        Ok(Reaped { released, left })
    }

    pub(in crate::engine) async fn registrations(
        &self,
        partition: u32,
    ) -> Result<Vec<UserConnection>, EngineError> {
        let incarnation = self.incarnation();
        let entries: Vec<String> = self
            .scan(self.keys.registrations_of(partition, incarnation.as_str()))
            .await?;
        Ok(entries
            .iter()
            .filter_map(|entry| connection_report::read_entry(entry))
            .collect())
    }
}
