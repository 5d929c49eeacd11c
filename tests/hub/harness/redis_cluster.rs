//! A Redis Cluster whose shape changes: slots that move, replicas that take over, masters that come.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::proxy::Proxy;
use super::redis::Redis;
use super::servers::Servers;
use super::{eventually, eventually_eq};

/// Keys that `MIGRATE` moves at once.
const MIGRATE_BATCH: &str = "100";

/// How long `redis-cli --cluster` may take to move thousands of slots, one after the other.
const MANAGED_WITHIN: Duration = Duration::from_secs(240);

/// How a test's cluster is configured: a master that is gone is noticed soon, the others go on without it, and replicas
/// start at once.
const OPTIONS: [&str; 10] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1500",
    "--cluster-require-full-coverage",
    "no",
    "--repl-diskless-sync-delay",
    "0",
    "--cluster-replica-validity-factor",
    "0",
];

impl Servers {
    /// So many masters, each with a replica: the masters are first in [`Servers::all`], then their replicas in the same
    /// order. A slot in `bounds` is the first of the next master; without bounds all have as many.
    pub async fn replicated_cluster(masters: usize, bounds: Option<&[u32]>) -> Self {
        let servers = Self::split_cluster(masters, bounds).await;
        servers.with_replicas(masters).await
    }

    /// The masters alone, without replicas.
    pub async fn split_cluster(masters: usize, bounds: Option<&[u32]>) -> Self {
        Self::cluster_with(masters, bounds, &OPTIONS).await
    }

    async fn with_replicas(mut self, masters: usize) -> Self {
        for place in 0..masters {
            let replica = Redis::start_with(&OPTIONS).await;
            self.meet(&replica).await;
            self.add(replica);
            self.wait_until_the_cluster_stands().await;
            let id = self.all()[place].cli(&["CLUSTER", "MYID"]).await;
            let replica = &self.all()[masters + place];
            eventually_eq("the replica is one", "OK".to_owned(), async || {
                replica.cli(&["CLUSTER", "REPLICATE", &id]).await
            })
            .await;
        }
        for place in 0..masters {
            self.wait_until_replicated(&self.all()[masters + place])
                .await;
        }
        self
    }

    /// Adds a master that serves no slot yet.
    pub async fn add_empty_master(&mut self) -> usize {
        let master = Redis::start_with(&OPTIONS).await;
        self.meet(&master).await;
        self.add(master);
        self.wait_until_the_cluster_stands().await;
        self.all().len() - 1
    }

    async fn meet(&self, server: &Redis) {
        let port = server.port();
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &port];
        assert_eq!(self.all()[0].cli(&meet).await, "OK");
    }

    /// From now on this server is asked by default.
    pub fn ask(&self, place: usize) {
        self.primary.store(place, Ordering::Relaxed);
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> u32 {
        let slot = self.primary().number(&["CLUSTER", "KEYSLOT", key]).await;
        u32::try_from(slot).expect("a slot")
    }

    /// The place of the server that serves a slot, as the one that is asked sees it.
    pub async fn owner(&self, slot: u32) -> usize {
        self.owner_seen_by(self.primary(), slot).await
    }

    async fn owner_seen_by(&self, server: &Redis, slot: u32) -> usize {
        let nodes = server.cli(&["CLUSTER", "NODES"]).await;
        let serves = |word: &str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let bound = |text: &str| text.parse::<u32>().ok();
            matches!((bound(first), bound(last)), (Some(first), Some(last)) if (first..=last).contains(&slot))
        };
        let line = nodes
            .lines()
            .find(|line| line.split(' ').skip(8).any(serves))
            .unwrap_or_else(|| panic!("nobody serves {slot}: {nodes}"));
        let address = line.split(' ').nth(1).expect("an address");
        // A proxy may be announced; the port between servers is a server's own.
        let (_, bus) = address.split_once('@').expect("a port between servers");
        let bus = bus.split(',').next().expect("a port");
        let is_it = |server: &Redis| {
            let port: u32 = server.port().parse().expect("a port");
            (port + 10_000).to_string() == bus
        };
        self.all().iter().position(is_it).expect("one of ours")
    }

    /// Moves a slot as `redis-cli --cluster reshard` does it, with a stop between the keys and the last word.
    pub async fn move_slot(&self, slot: u32, to: usize, stop: impl Future<Output = ()>) {
        let target = &self.all()[to];
        let from = self.owner_seen_by(target, slot).await;
        if from == to {
            return;
        }
        let source = &self.all()[from];
        let (slot, source_id) = (slot.to_string(), source.cli(&["CLUSTER", "MYID"]).await);
        let target_id = target.cli(&["CLUSTER", "MYID"]).await;
        let set = |state: &'static str, id: String| {
            let slot = slot.clone();
            async move |server: &Redis| {
                let words = ["CLUSTER", "SETSLOT", &slot, state, &id];
                assert_eq!(server.cli(&words).await, "OK", "{words:?}");
            }
        };
        set("IMPORTING", source_id)(target).await;
        set("MIGRATING", target_id.clone())(source).await;
        loop {
            let keys = source
                .lines(&["CLUSTER", "GETKEYSINSLOT", &slot, MIGRATE_BATCH])
                .await;
            if keys.is_empty() {
                break;
            }
            let port = target.port();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let moved = source.cli(&words).await;
            assert!(matches!(moved.as_str(), "OK" | "NOKEY"), "{moved}");
        }
        stop.await;
        // Keys that were written meanwhile are on the target already.
        let settled = set("NODE", target_id);
        settled(target).await;
        settled(source).await;
        self.wait_until_served_by(&slot, to).await;
    }

    async fn wait_until_served_by(&self, slot: &str, place: usize) {
        let slot = slot.parse().expect("a slot");
        eventually_eq("who serves the slot", place, async || {
            self.owner(slot).await
        })
        .await;
    }

    /// Has `redis-cli --cluster` do something with the whole cluster.
    pub async fn manage(&self, arguments: &[&str]) {
        let address = self.primary().address().to_string();
        let mut words = vec!["--cluster", arguments[0], &address];
        words.extend(&arguments[1..]);
        words.push("--cluster-yes");
        eventually("redis-cli --cluster is done", async || {
            let output = self.primary().cli_within(MANAGED_WITHIN, &words).await;
            (!output.contains("[ERR]")).then_some(())
        })
        .await;
    }

    /// Has a replica take over from its master, which agrees.
    pub async fn fail_over_to(&self, replica: usize) {
        let server = &self.all()[replica];
        assert_eq!(server.cli(&["CLUSTER", "FAILOVER"]).await, "OK");
        self.wait_until_master(replica).await;
    }

    /// Waits until a replica has taken over.
    pub async fn wait_until_master(&self, place: usize) {
        let server = &self.all()[place];
        eventually_eq("the role of the replica", "master".to_owned(), async || {
            server.role().await
        })
        .await;
    }

    /// Waits until a server is a replica that is in step.
    pub async fn wait_until_replicated(&self, replica: &Redis) {
        eventually("the replica is in step", async || {
            let state = replica.cli(&["INFO", "replication"]).await;
            state.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    /// Waits until every server is a master, or a replica that is in step.
    pub async fn wait_until_everything_is_replicated(&self) {
        for server in self.all() {
            eventually("the server is a master, or in step", async || {
                let state = server.cli(&["INFO", "replication"]).await;
                let in_step = state.contains("master_link_status:up");
                (in_step || state.contains("role:master")).then_some(())
            })
            .await;
        }
        self.wait_until_the_cluster_stands().await;
    }

    /// Puts a proxy in front of a server, and has the cluster announce it in the server's place.
    pub async fn announce_proxy(&self, place: usize) -> Proxy {
        let server = &self.all()[place];
        let proxy = Proxy::start(&[server.address()]).await;
        let port = proxy.address().port().to_string();
        let set = ["CONFIG", "SET", "cluster-announce-port", &port];
        assert_eq!(server.cli(&set).await, "OK");
        for other in self.all() {
            eventually("the proxy is announced", async || {
                let nodes = other.cli(&["CLUSTER", "NODES"]).await;
                nodes.contains(&format!(":{port}@")).then_some(())
            })
            .await;
        }
        proxy
    }
}
