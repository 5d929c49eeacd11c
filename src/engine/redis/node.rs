//! Nodes in Redis: reports, each node's own channel, and requests between nodes.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Redis, bus, connection_report};
use crate::engine::{EngineError, LiveNode, NodeInfo};
use crate::ids::{UserConnection, UserId};

impl Redis {
    pub(in crate::engine) async fn describe(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<(), EngineError> {
        let key = self.keys.node(&info.incarnation);
        let not_heard: Vec<String> = info.not_heard.iter().map(u32::to_string).collect();
        let fields = [
            ("id", info.id.clone()),
            ("incarnation", info.incarnation.clone()),
            ("version", info.version.clone()),
            ("startedAt", info.started_at.to_string()),
            ("connections", info.connections.to_string()),
            ("guests", info.guests.to_string()),
            ("users", info.users.to_string()),
            ("topics", info.topics.to_string()),
            ("notHeard", not_heard.join(",")),
        ];
        let mut set = vec![key.clone()];
        set.extend(
            fields
                .into_iter()
                .flat_map(|(field, value)| [field.to_owned(), value]),
        );
        let expire = vec![key.clone(), lease.as_millis().to_string()];
        // Together, so that a node that dies in between leaves no hash without an expiry.
        let commands = [("HSET", set), ("PEXPIRE", expire)];
        self.servers.call_together(&key, &commands).await?;
        Ok(())
    }

    pub(in crate::engine) async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        let leases = self.leases().await?;
        let reports = leases.iter().map(|(incarnation, _)| {
            let key = self.keys.node(incarnation);
            self.servers
                .call::<HashMap<String, String>>("HGETALL", key, Vec::new())
        });
        let mut nodes = Vec::with_capacity(leases.len());
        for (fields, (_, ends_at)) in join_all(reports).await.into_iter().zip(&leases) {
            // The report expires with the lease, so a node without one is dead. One whose server is unavailable is
            // omitted.
            if let Some(info) = fields.ok().as_ref().and_then(node_info) {
                nodes.push(LiveNode {
                    info,
                    lease_ends_at_ms: *ends_at,
                });
            }
        }
        nodes.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        Ok(nodes)
    }

    pub(in crate::engine) async fn send_canary(&self, nonce: u64) -> Result<(), EngineError> {
        let channel = self.subscribe_own().await?;
        // Changes nothing, but fails where writes are refused: a server demoted to a replica would still publish the
        // canary.
        let field = vec!["canary".to_owned()];
        let _: u64 = self.servers.call("HDEL", channel.clone(), field).await?;
        if self.spublish(channel, nonce.to_string()).await? == 0 {
            // The subscription was lost with its slot, or its connection.
            self.forget_own_channel();
            let channel = self.subscribe_own().await?;
            self.spublish(channel, nonce.to_string()).await?;
        }
        Ok(())
    }

    /// Subscribes the current incarnation's channel if necessary; returns it.
    async fn subscribe_own(&self) -> Result<String, EngineError> {
        let channel = self.keys.node(self.incarnation().as_str());
        if self.own_channel.lock().as_ref() != Some(&channel) {
            self.servers.subscribe(vec![channel.clone()]).await?;
            *self.own_channel.lock() = Some(channel.clone());
        }
        Ok(channel)
    }

    pub(in crate::engine) fn forget_own_channel(&self) {
        *self.own_channel.lock() = None;
    }

    pub(in crate::engine) async fn reconnect(&self) {
        self.forget_own_channel();
        let own = self.keys.node(self.incarnation().as_str());
        self.servers.reconnect(&own).await;
    }

    pub(in crate::engine) async fn request_watchers(
        &self,
        user: UserId,
        count_id: u64,
    ) -> Result<u64, EngineError> {
        let request = bus::watchers_request(self.incarnation().as_str(), count_id);
        self.spublish(self.keys.topic(user), request).await
    }

    pub(in crate::engine) async fn reply_watchers(
        &self,
        asker: &str,
        count_id: u64,
        watchers: u64,
    ) -> Result<(), EngineError> {
        let reply = bus::watchers_reply(count_id, watchers);
        self.spublish(self.keys.node(asker), reply).await?;
        Ok(())
    }

    pub(in crate::engine) async fn reply_connections(
        &self,
        reply: &str,
        held: &[UserConnection],
    ) -> Result<(), EngineError> {
        // Read after `held`: if a new incarnation began meanwhile, the report does not pass for the old one's.
        let incarnation = self.incarnation().to_string();
        connection_report::write(&self.servers, &self.keys.reply(reply), incarnation, held).await
    }

    /// Returns the number of receiving nodes.
    pub(super) async fn spublish(
        &self,
        channel: String,
        message: String,
    ) -> Result<u64, EngineError> {
        self.servers.call("SPUBLISH", channel, vec![message]).await
    }
}

fn node_info(fields: &HashMap<String, String>) -> Option<NodeInfo> {
    let text = |name: &str| fields.get(name).cloned();
    let number = |name: &str| fields.get(name)?.parse().ok();
    Some(NodeInfo {
        id: text("id")?,
        incarnation: text("incarnation")?,
        version: text("version")?,
        started_at: number("startedAt")?,
        connections: number("connections")?,
        guests: number("guests")?,
        users: number("users")?,
        topics: number("topics")?,
        not_heard: text("notHeard")
            .iter()
            .flat_map(|not_heard| not_heard.split(','))
            .filter_map(|partition| partition.parse().ok())
            .collect(),
    })
}
