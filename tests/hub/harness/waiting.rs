//! Waiting for conditions: on Redis, and on the events that every node has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::eventually_eq;

impl Cluster {
    /// Waits until so many connections of a user are registered, on all nodes together.
    pub async fn wait_for_refcount(&self, user: u64, refcount: u64) {
        let what = format!("user {user} has {refcount} connections");
        eventually_eq(&what, refcount, async || match &self.servers {
            Some(servers) => {
                servers
                    .primary()
                    .number(&["HLEN", &self.key(user, "conns")])
                    .await
            }
            None => self.registered(0, user).await.len() as u64,
        })
        .await;
    }

    /// Waits until exactly these users are in Redis's sets of online users.
    pub async fn wait_for_online(&self, users: &[u64]) {
        let wanted: BTreeSet<u64> = users.iter().copied().collect();
        eventually_eq("who is online in Redis", wanted, async || {
            self.online_in_redis().await
        })
        .await;
    }

    /// The online users according to Redis.
    pub async fn online_in_redis(&self) -> BTreeSet<u64> {
        let mut online = BTreeSet::new();
        for tag in &self.tags {
            let key = format!("vigie:{{{tag}}}:online");
            let members = self.redis().lines(&["SMEMBERS", &key]).await;
            online.extend(members.iter().map(|id| id.parse::<u64>().expect("an id")));
        }
        online
    }

    /// Waits until a user's topic has so many subscribed nodes.
    pub async fn wait_for_subscribers(&self, user: u64, nodes: u64) {
        let channel = self.key(user, "user");
        let wanted = vec![channel.clone(), nodes.to_string()];
        eventually_eq("nodes that listen to the topic", wanted, async || {
            let answer = self.cli(&["PUBSUB", "SHARDNUMSUB", &channel]).await;
            answer.lines().map(str::to_owned).collect()
        })
        .await;
    }

    /// Waits until Redis holds nothing about anybody's presence.
    pub async fn wait_until_nobody_is_left(&self) {
        for kind in ["conns:*", "node:*", "online", "leaving"] {
            let what = format!("no key vigie:{{p}}:{kind}");
            eventually_eq(&what, Vec::<String>::new(), async || {
                self.redis().keys(&format!("vigie:{{*}}:{kind}")).await
            })
            .await;
        }
    }

    /// Waits until every running node counts this user among those online.
    pub async fn wait_until_seen(&self, user: u64) {
        self.wait_for_roster(&format!("every node sees {user}"), |roster| {
            roster.contains(&user)
        })
        .await;
    }

    /// Waits until every running node counts exactly these users as online.
    pub async fn wait_until_all_see(&self, users: &[u64]) {
        let wanted: BTreeSet<u64> = users.iter().copied().collect();
        self.wait_for_roster(&format!("every node sees {users:?}"), |roster| {
            *roster == wanted
        })
        .await;
    }

    /// The hash tag of a partition, with braces.
    pub fn tag(&self, partition: u64) -> String {
        format!("{{{}}}", self.tags[partition as usize])
    }

    /// A key or channel about a user.
    pub fn key(&self, user: u64, kind: &str) -> String {
        let tag = self.tag(user % self.tags.len() as u64);
        format!("vigie:{tag}:{kind}:{user}")
    }

    /// The connections of a user that one node has registered.
    pub(super) async fn connections_of(&self, node: usize, user: u64) -> BTreeSet<String> {
        let all = self.registered(node, user).await;
        let name = json!(self.nodes[node].name);
        let own = all.iter().filter(|connection| connection["node"] == name);
        own.map(|connection| connection["id"].to_string()).collect()
    }

    /// The connections of a user on all nodes, as one node tells it.
    async fn registered(&self, node: usize, user: u64) -> Vec<Value> {
        let answer = self.get(node, &format!("/api/v1/presence/{user}")).await;
        answer.json["connections"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    async fn wait_for_roster(&self, what: &str, holds: impl Fn(&BTreeSet<u64>) -> bool) {
        let running = self.running();
        let disagreeing = BTreeMap::new();
        eventually_eq(what, disagreeing, async || {
            let lookouts = self.lookouts.lock().unwrap_or_else(PoisonError::into_inner);
            let of_running = lookouts.iter().filter(|(place, _)| running.contains(place));
            of_running
                .map(|(place, lookout)| (*place, lookout.roster()))
                .filter(|(_, roster)| !roster.as_ref().is_some_and(&holds))
                .collect()
        })
        .await;
    }
}
