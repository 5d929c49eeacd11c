//! Several Redis servers that belong together: a primary and its replica behind a Sentinel, or a Redis Cluster.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::redis::{Redis, SERVICE};
use super::{eventually, eventually_eq};

/// Hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// Servers that belong together; all end when dropped.
pub struct Servers {
    url: String,
    all: Vec<Redis>,
    /// The place of the one that is asked by default.
    pub(super) primary: AtomicUsize,
    sentinel: Option<Redis>,
}

impl Servers {
    /// Just one.
    pub async fn single() -> Self {
        let redis = Redis::start().await;
        Self {
            url: redis.url(),
            all: vec![redis],
            primary: AtomicUsize::new(0),
            sentinel: None,
        }
    }

    /// A primary, a replica that is in step, and a Sentinel that knows both.
    pub async fn with_sentinel() -> Self {
        // Replicas start at once, not after five seconds in which others might ask for the data, too.
        let undelayed = ["--repl-diskless-sync-delay", "0"];
        let primary = Redis::start_with(&undelayed).await;
        let port = primary.port();
        let mut options = vec!["--replicaof", "127.0.0.1", &port];
        options.extend(undelayed);
        let replica = Redis::start_with(&options).await;
        let sentinel = Redis::start_sentinel(&primary).await;
        let servers = Self {
            url: format!(
                "redis-sentinel://{}?sentinelServiceName={SERVICE}",
                sentinel.address()
            ),
            all: vec![primary, replica],
            primary: AtomicUsize::new(0),
            sentinel: Some(sentinel),
        };
        servers.wait_until_in_step().await;
        servers
    }

    /// A Redis Cluster of so many masters.
    pub async fn cluster(masters: usize) -> Self {
        // Short, so that a master that is gone is noticed soon.
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
        Self::cluster_with(masters, None, &options).await
    }

    /// The same, started with these options; a slot in `bounds` is the first of the next master.
    pub(super) async fn cluster_with(
        masters: usize,
        bounds: Option<&[u32]>,
        options: &[&str],
    ) -> Self {
        let bounds: Vec<usize> = match bounds {
            Some(bounds) => bounds.iter().map(|slot| *slot as usize).collect(),
            None => (1..masters).map(|place| SLOTS * place / masters).collect(),
        };
        let firsts: Vec<usize> = std::iter::once(0).chain(bounds).collect();
        let mut all = Vec::new();
        for place in 0..masters {
            let master = Redis::start_with(options).await;
            let end = firsts.get(place + 1).copied().unwrap_or(SLOTS);
            let (first, last) = (firsts[place].to_string(), (end - 1).to_string());
            let add = ["CLUSTER", "ADDSLOTSRANGE", &first, &last];
            assert_eq!(master.cli(&add).await, "OK");
            all.push(master);
        }
        for master in &all[1..] {
            let port = master.port();
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port];
            assert_eq!(all[0].cli(&meet).await, "OK");
        }
        let others = all[1..]
            .iter()
            .map(|master| format!("node={}", master.address()));
        let others: Vec<String> = others.collect();
        let servers = Self {
            url: format!("redis-cluster://{}?{}", all[0].address(), others.join("&")),
            all,
            primary: AtomicUsize::new(0),
            sentinel: None,
        };
        servers.wait_until_the_cluster_stands().await;
        servers
    }

    /// The `redis.url` of the nodes.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) fn add(&mut self, server: Redis) {
        self.all.push(server);
    }

    /// From now on nodes are configured with this user.
    pub fn log_in_as(&mut self, user: &str, password: &str) {
        self.url = self.url.replace("://", &format!("://{user}:{password}@"));
    }

    /// Each of them.
    pub fn all(&self) -> &[Redis] {
        &self.all
    }

    /// The one that is asked.
    pub fn primary(&self) -> &Redis {
        &self.all[self.primary.load(Ordering::Relaxed)]
    }

    /// The one beside the primary.
    pub fn replica(&self) -> &Redis {
        &self.all[1 - self.primary.load(Ordering::Relaxed)]
    }

    /// From now on the replica is the primary; waits until Sentinel says so, too.
    pub async fn wait_until_promoted(&self) {
        let port = self.replica().port();
        let sentinel = self.sentinel();
        eventually("Sentinel names the replica", async || {
            let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
            let named = sentinel.cli(&asked).await;
            named.lines().any(|line| line == port).then_some(())
        })
        .await;
        let role = async || self.replica().role().await;
        eventually_eq("the role of the replica", "master".to_owned(), role).await;
        self.primary.fetch_xor(1, Ordering::Relaxed);
    }

    /// The replica has become the primary without Sentinel's doing: has Sentinel watch over it instead.
    pub async fn tell_sentinel_of_the_swap(&self) {
        let (sentinel, port) = (self.sentinel(), self.replica().port());
        let forgotten = sentinel.cli(&["SENTINEL", "REMOVE", SERVICE]).await;
        assert_eq!(forgotten, "OK");
        let monitor = ["SENTINEL", "MONITOR", SERVICE, "127.0.0.1", &port, "1"];
        assert_eq!(sentinel.cli(&monitor).await, "OK");
        self.primary.fetch_xor(1, Ordering::Relaxed);
    }

    /// The Sentinel.
    pub fn sentinel(&self) -> &Redis {
        self.sentinel.as_ref().expect("these have a Sentinel")
    }

    async fn wait_until_in_step(&self) {
        eventually("the replica is in step", async || {
            let state = self.replica().cli(&["INFO", "replication"]).await;
            state.contains("master_link_status:up").then_some(())
        })
        .await;
        eventually("Sentinel knows the replica", async || {
            let known = self
                .sentinel()
                .cli(&["SENTINEL", "REPLICAS", SERVICE])
                .await;
            known.contains(&self.replica().port()).then_some(())
        })
        .await;
    }

    /// Waits until every master says that all slots are served.
    pub async fn wait_until_the_cluster_stands(&self) {
        for master in &self.all {
            eventually("the cluster stands", async || {
                let info = master.cli(&["CLUSTER", "INFO"]).await;
                let nodes = format!("cluster_known_nodes:{}", self.all.len());
                let holds = |line: &str| info.lines().any(|seen| seen.trim() == line);
                (holds("cluster_state:ok") && holds(&nodes)).then_some(())
            })
            .await;
        }
    }
}

impl Redis {
    /// `master` or `slave`, as Redis says it.
    pub async fn role(&self) -> String {
        let answer = self.cli(&["ROLE"]).await;
        answer.lines().next().unwrap_or_default().to_owned()
    }
}
