//! Leases in Redis: `lua/lease/`, typed, and reaping what dead incarnations registered.

use std::time::Duration;

use super::layout::LAYOUT;
use super::scripts::Script;
use super::servers::slot_of;
use super::{Redis, answer};
use crate::engine::{EngineError, NodeInfo, Reaped};
use crate::ids::{ConnectionId, UserId};

/// Leases taken away by one call of the script.
const BURY_BATCH_MAX: u32 = 100;

impl Redis {
    pub(in crate::engine) async fn begin(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<(), EngineError> {
        let args = vec![LAYOUT.to_string(), self.partitions.to_string()];
        // Recorded again where Redis has lost its data; another node's record stays.
        let recorded: (u64, u64) = self
            .scripts
            .claim
            .call(&self.servers, vec![self.keys.meta()], args)
            .await?;
        if recorded != (LAYOUT, self.partitions) {
            let (layout, partitions) = recorded;
            return Err(EngineError::Answer(format!(
                "the data has layout {layout} and {partitions} partitions; this node is configured otherwise"
            )));
        }
        let _ends_at_ms = self.lease(&self.scripts.begin, info, lease).await?;
        self.describe(info, lease).await
    }

    pub(in crate::engine) async fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        let ends_ms = self.lease(&self.scripts.renew, info, lease).await?;
        if ends_ms == 0 {
            return Ok(None);
        }
        self.describe(info, lease).await?;
        Ok(Some(ends_ms))
    }

    /// Returns the end of the lease, in ms.
    async fn lease(
        &self,
        script: &Script,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<u64, EngineError> {
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

    pub(in crate::engine) fn may_hold_leases(&self, partitions: &[u32]) -> bool {
        let leases = slot_of(&self.keys.leases());
        let mut slots = partitions
            .iter()
            .map(|partition| self.keys.slot(*partition));
        slots.any(|slot| self.servers.share_a_server(slot, leases))
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
        let args = vec![BURY_BATCH_MAX.to_string(), until_ms.to_string()];
        self.scripts.bury.call(&self.servers, keys, args).await
    }

    pub(in crate::engine) async fn dead_nodes(
        &self,
        partition: u32,
    ) -> Result<Vec<String>, EngineError> {
        let nodes = self.keys.registered_nodes(partition);
        let mut owing: Vec<String> = self.servers.call("SMEMBERS", nodes, Vec::new()).await?;
        // Asked for after, so that a node that began meanwhile is seen with its lease.
        let leases = self.leases().await?;
        let has_lease = |incarnation: &str| leases.iter().any(|(name, _)| name == incarnation);
        if !has_lease(self.incarnation().as_str()) {
            // So is everybody else's, perhaps: the list may be lost.
            return Ok(Vec::new());
        }
        owing.retain(|incarnation| !has_lease(incarnation));
        Ok(owing)
    }

    pub(in crate::engine) async fn reap(
        &self,
        partition: u32,
        incarnation: &str,
        batch_max: u32,
        grace: Duration,
    ) -> Result<Reaped, EngineError> {
        let keys = vec![
            self.keys.owed(partition, incarnation),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
        ];
        let args = vec![
            incarnation.to_owned(),
            self.keys.connections_begin(partition),
            batch_max.to_string(),
            grace.as_millis().to_string(),
        ];
        let (released, left) = self.scripts.reap.call(&self.servers, keys, args).await?;
        Ok(Reaped { released, left })
    }

    pub(in crate::engine) async fn registrations(
        &self,
        partition: u32,
    ) -> Result<Vec<(UserId, ConnectionId)>, EngineError> {
        let incarnation = self.incarnation();
        let entries: Vec<String> = self
            .scan(self.keys.owed(partition, incarnation.as_str()))
            .await?;
        Ok(entries
            .iter()
            .filter_map(|entry| answer::read_entry(entry))
            .collect())
    }
}
