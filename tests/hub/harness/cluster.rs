//! N nodes, their Redis, and a guest on each node that sees who comes and goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::bridge::Bridge;
use super::client::Client;
use super::connecting::{Connecting, token};
use super::eventually;
use super::node::{Life, Node};
use super::postgres::Postgres;
use super::proxy::Proxy;
use super::redis::Redis;
use super::servers::Servers;

/// The secret of the tokens of a test's nodes.
pub const SECRET: &str = "a secret that only the tests know, long enough";
/// The key of the internal API.
pub const NODE_KEY: &str = "the internal key of the tests";

/// The official client's messages for a transport that does not open.
const TRANSPORT_ERRORS: [&str; 3] = ["websocket error", "xhr poll error", "timeout"];

/// How a cluster differs from the usual one.
pub struct Builder {
    nodes: usize,
    memory: bool,
    lookouts: bool,
    awaited: bool,
    named: bool,
    links: bool,
    servers: Option<Servers>,
    env: BTreeMap<String, String>,
    file: Option<PathBuf>,
    open_files: Option<u64>,
}

impl Builder {
    /// How many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// The embedded engine, which is one node by nature.
    pub fn memory(mut self) -> Self {
        self.memory = true;
        self.nodes = 1;
        self
    }

    /// On a Redis that the test started itself, and shares between hubs.
    pub fn on_redis(self, redis: &Redis) -> Self {
        self.env("VIGIE_ENGINE", "redis")
            .env("VIGIE_REDIS__URL", &redis.url())
    }

    /// With accounts in this database.
    pub fn on_postgres(self, postgres: &Postgres) -> Self {
        self.env("VIGIE_POSTGRES__URL", &postgres.url())
    }

    /// How long a user may be gone before it is said.
    pub fn grace(self, grace: &str) -> Self {
        self.env("VIGIE_PRESENCE__OFFLINE_GRACE", grace)
    }

    /// Into how many partitions users are spread.
    pub fn partitions(self, partitions: u64) -> Self {
        self.env("VIGIE_REDIS__PARTITIONS", &partitions.to_string())
    }

    /// Any setting, of all nodes.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Settings of all nodes from a file, below those of the environment.
    pub fn file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Each node may have so many files open.
    pub fn open_files(mut self, files: u64) -> Self {
        self.open_files = Some(files);
        self
    }

    /// Each node reaches Redis over a link of its own, which the test can cut.
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// On several servers that the test started itself.
    pub fn on_servers(mut self, servers: Servers) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Without the guest on each node: for tests that count guests or change who hears of whom.
    pub fn without_lookouts(mut self) -> Self {
        self.lookouts = false;
        self
    }

    /// Nodes may listen without being ready; nothing is connected to them.
    pub fn ready_or_not(mut self) -> Self {
        self.lookouts = false;
        self.awaited = false;
        self
    }

    /// Starts Redis, the nodes and the bridge, and waits until all are ready.
    pub async fn start(self) -> Cluster {
        let servers = match (self.memory, self.servers) {
            (true, _) => None,
            (false, Some(servers)) => Some(servers),
            (false, None) => Some(Servers::single().await),
        };
        let mut env = self.env;
        if let Some(servers) = &servers {
            env.insert("VIGIE_ENGINE".to_owned(), "redis".to_owned());
            env.insert("VIGIE_REDIS__URL".to_owned(), servers.url());
        }
        let partitions = env.get("VIGIE_REDIS__PARTITIONS").map_or(1, |text| {
            text.parse().expect("the number of partitions is a number")
        });
        let tags = vigie::internals::hash_tags(partitions);
        let mut links = Vec::new();
        if let (true, Some(servers)) = (self.links, &servers) {
            for _ in 0..self.nodes {
                links.push(Proxy::start(&[servers.primary().address()]).await);
            }
        }
        let mut cluster = Cluster {
            lookouts: Mutex::default(),
            with_lookouts: self.lookouts,
            named: self.named,
            bridge: Bridge::start(),
            http: reqwest::Client::new(),
            nodes: Vec::new(),
            past: Vec::new(),
            links,
            env,
            file: self.file,
            open_files: self.open_files,
            tags,
            servers,
        };
        let names: Vec<String> = (0..self.nodes).map(|place| format!("n{place}")).collect();
        let starting = (0..)
            .zip(&names)
            .map(|(place, name)| cluster.start_node(name, cluster.env_at(place, name)));
        cluster.nodes = futures_util::future::join_all(starting).await;
        for node in (0..cluster.nodes.len()).filter(|_| self.awaited) {
            cluster.welcome(node).await;
        }
        cluster
    }
}

/// The nodes and servers of a test. Everything in it ends when it is dropped.
pub struct Cluster {
    // Dropped in this order: sockets, the official client, the nodes, what is in between, Redis.
    pub(super) lookouts: Mutex<BTreeMap<usize, Client>>,
    with_lookouts: bool,
    named: bool,
    bridge: Arc<Bridge>,
    pub(super) http: reqwest::Client,
    pub(super) nodes: Vec<Node>,
    /// Nodes that were started again: what they had logged before.
    past: Vec<Node>,
    links: Vec<Proxy>,
    env: BTreeMap<String, String>,
    file: Option<PathBuf>,
    open_files: Option<u64>,
    /// The hash tag of each partition.
    pub(super) tags: Vec<String>,
    pub(super) servers: Option<Servers>,
}

impl Cluster {
    /// So many nodes on one Redis.
    pub async fn start(nodes: usize) -> Self {
        Self::builder().nodes(nodes).start().await
    }

    /// One node on the embedded engine.
    pub async fn start_memory() -> Self {
        Self::builder().memory().start().await
    }

    /// A cluster that is not quite the usual one.
    pub fn builder() -> Builder {
        // A short grace, so that a test need not wait long for an offline; those about the grace
        // itself set their own.
        Self::bare()
            .grace("300ms")
            .env("VIGIE_AUTH__SECRET", SECRET)
            .env("VIGIE_INTERNAL__API_KEY", NODE_KEY)
            .env("VIGIE_NODE__DRAIN", "200ms")
    }

    /// One node with nothing configured but free ports. It has no [`NODE_KEY`] and no [`SECRET`].
    pub async fn unconfigured() -> Self {
        Self::unconfigured_builder().start().await
    }

    /// The same, before more is set.
    pub fn unconfigured_builder() -> Builder {
        let mut builder = Self::bare().memory();
        builder.named = false;
        builder
    }

    fn bare() -> Builder {
        let env = BTreeMap::new();
        let builder = Builder {
            nodes: 1,
            memory: false,
            lookouts: true,
            awaited: true,
            named: true,
            links: false,
            servers: None,
            env,
            file: None,
            open_files: None,
        };
        builder
            .env("VIGIE_HTTP__LISTEN", "127.0.0.1:0")
            .env("VIGIE_INTERNAL__LISTEN", "127.0.0.1:0")
    }

    /// Starts a node that has ended again: the same name, the same addresses.
    pub async fn start_again(&mut self, place: usize) {
        let name = self.nodes[place].name.clone();
        let mut env = self.env_at(place, &name);
        let host = |url: &str| url.trim_start_matches("http://").to_owned();
        for (listener, url) in [
            ("HTTP", &self.nodes[place].public),
            ("INTERNAL", &self.nodes[place].internal),
        ] {
            let listen = format!("VIGIE_{listener}__LISTEN");
            env.retain(|(name, _)| *name != listen);
            env.push((listen, host(url)));
        }
        let node = self.start_node(&name, env).await;
        self.past
            .push(std::mem::replace(&mut self.nodes[place], node));
        self.welcome(place).await;
    }

    /// Starts one more node and returns its place.
    pub async fn add_node(&mut self) -> usize {
        let place = self.nodes.len();
        let name = format!("n{place}");
        let node = self.start_node(&name, self.env_of(&name)).await;
        self.nodes.push(node);
        self.welcome(place).await;
        place
    }

    async fn start_node(&self, name: &str, env: Vec<(String, String)>) -> Node {
        let file = self.file.as_deref();
        Node::start(name.to_owned(), env, file, self.open_files).await
    }

    /// The settings that a node of this name gets.
    pub fn env_of(&self, name: &str) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        if self.named {
            env.insert("VIGIE_NODE__ID".to_owned(), name.to_owned());
        }
        env.into_iter().collect()
    }

    /// The same, with what only the node in this place gets.
    fn env_at(&self, place: usize, name: &str) -> Vec<(String, String)> {
        let mut env = self.env_of(name);
        if let Some(link) = self.links.get(place) {
            env.retain(|(name, _)| name != "VIGIE_REDIS__URL");
            let url = format!("redis://{}", link.address());
            env.push(("VIGIE_REDIS__URL".to_owned(), url));
        }
        env
    }

    /// How many nodes there have been.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The places of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        let running = |place: &usize| self.nodes[*place].life() == Life::Running;
        (0..self.nodes.len()).filter(running).collect()
    }

    /// The Redis of this cluster; of several servers the primary, or any master.
    pub fn redis(&self) -> &Redis {
        self.servers().primary()
    }

    /// All servers of this cluster.
    pub fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("this cluster runs on Redis")
    }

    /// `redis-cli …` against the Redis of this cluster.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        self.redis().cli(arguments).await
    }

    /// The proxy between a node and Redis; only with [`Builder::links`].
    pub fn link(&self, node: usize) -> &Proxy {
        &self.links[node]
    }

    /// A balancer in front of these nodes: takes one after the other, and knows nothing but TCP.
    pub async fn balancer(&self, nodes: &[usize]) -> Proxy {
        Proxy::start(&self.public_addresses(nodes)).await
    }

    /// A balancer that stays with the first of these nodes that answers, as polling needs it.
    pub async fn sticky_balancer(&self, nodes: &[usize]) -> Proxy {
        Proxy::sticky(&self.public_addresses(nodes)).await
    }

    fn public_addresses(&self, nodes: &[usize]) -> Vec<SocketAddr> {
        let address = |node: &usize| self.public_address(*node);
        nodes.iter().map(address).collect()
    }

    /// Where a node's public listener is.
    pub fn public_address(&self, node: usize) -> SocketAddr {
        let address = self.nodes[node].public.trim_start_matches("http://");
        address.parse().expect("an address")
    }

    /// The log of a node.
    pub fn log(&self, node: usize) -> String {
        self.nodes[node].log()
    }

    /// `http://127.0.0.1:PORT` of a node's public listener.
    pub fn public_url(&self, node: usize) -> &str {
        &self.nodes[node].public
    }

    /// The same of its internal listener.
    pub fn internal_url(&self, node: usize) -> &str {
        &self.nodes[node].internal
    }

    /// A token of this user, good for an hour.
    pub fn token(&self, user: u64) -> String {
        token(user)
    }

    // ---- sockets

    /// Connects as a user. When it returns, the connection is registered, and every node knows
    /// that the user is online.
    pub async fn connect(&self, node: usize, user: u64) -> Client {
        let before = self.connections_of(node, user).await;
        let mut client = self.connect_with(node, Connecting::user(user)).await;
        eventually("the connection is registered", async || {
            let now = self.connections_of(node, user).await;
            now.difference(&before).next().is_some().then_some(())
        })
        .await;
        self.wait_until_seen(user).await;
        client.settle().await;
        client
    }

    /// Connects as a guest, who from then on hears of everybody who comes or goes.
    pub async fn connect_guest(&self, node: usize) -> Client {
        let mut client = self.connect_with(node, Connecting::guest()).await;
        client.settle().await;
        client
    }

    /// Connects in a certain way and waits for the hub's consent, nothing more. A node that is not ready turns the transport
    /// away, and the client tries again by itself, as in a page.
    pub async fn connect_with(&self, node: usize, connecting: Connecting) -> Client {
        let how = format!("{connecting:?}");
        let mut client = self.open(node, connecting);
        while let Err(refusal) = client.next_verdict().await {
            let is_of_transport = TRANSPORT_ERRORS.contains(&refusal.as_str());
            assert!(is_of_transport, "node {node} refused {how}: {refusal}");
        }
        client
    }

    /// Tries to connect and returns the message with which the hub refuses.
    pub async fn refusal(&self, node: usize, connecting: Connecting) -> String {
        let how = format!("{connecting:?}");
        let mut client = self.open(node, connecting.once());
        match client.next_verdict().await {
            Ok(()) => panic!("node {node} accepted {how}"),
            Err(message) => message,
        }
    }

    /// Opens a socket and does not wait for anything.
    pub fn open(&self, node: usize, connecting: Connecting) -> Client {
        self.open_at(&self.nodes[node].public, connecting)
    }

    /// Opens a socket through a proxy and waits for the hub's consent.
    pub async fn connect_through(&self, proxy: &Proxy, connecting: Connecting) -> Client {
        self.connect_to(proxy.address(), connecting).await
    }

    /// The same through whatever listens on this address.
    pub async fn connect_to(&self, address: SocketAddr, connecting: Connecting) -> Client {
        let mut client = self.open_to(address, connecting);
        assert_eq!(client.next_verdict().await, Ok(()));
        client
    }

    /// The same without waiting for anything.
    pub fn open_to(&self, address: SocketAddr, connecting: Connecting) -> Client {
        self.open_at(&format!("http://{address}"), connecting)
    }

    fn open_at(&self, base: &str, connecting: Connecting) -> Client {
        let url = format!("{base}{}", connecting.namespace);
        let mut open = json!({
            "url": url,
            "options": connecting.options,
            "tokenMs": connecting.token_ms,
            "steady": connecting.steady,
            "from": connecting.from,
        });
        if let Some(auth) = connecting.auth {
            open["auth"] = auth;
        }
        Client::open(&self.bridge, open)
    }

    /// Has the bridge do something with bare WebSockets against a node (`vanish`, `connect_twice`).
    pub async fn raw(&self, node: usize, verb: &str, namespace: &str, users: &[u64], count: u32) {
        let tokens: Vec<String> = users.iter().map(|user| token(*user)).collect();
        let command = json!({
            "verb": verb,
            "url": self.nodes[node].public,
            "namespace": namespace,
            "tokens": tokens,
            "count": count,
        });
        self.bridge.call(command).await;
    }

    // ---- what befalls a node

    /// Stops a node as an operator would (SIGTERM); it must end well.
    pub async fn stop(&self, node: usize) {
        self.dismiss_lookout(node);
        let status = self.nodes[node].stop().await;
        assert!(
            status.success(),
            "node {node} ended with {status}:\n{}",
            self.log(node)
        );
    }

    /// Tells a node to stop (SIGTERM) and waits for nothing.
    pub fn terminate(&self, node: usize) {
        self.dismiss_lookout(node);
        self.nodes[node].terminate();
    }

    /// How a node ended; `None` while it runs.
    pub fn ended(&self, node: usize) -> Option<ExitStatus> {
        self.nodes[node].ended()
    }

    /// The id of a node's process.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].pid()
    }

    /// A node's resident memory, in bytes.
    pub fn resident_memory(&self, node: usize) -> u64 {
        self.nodes[node].resident_memory()
    }

    /// The arguments of a node's process.
    pub fn command_line(&self, node: usize) -> String {
        self.nodes[node].command_line()
    }

    /// How many files a node has open, sockets among them.
    pub fn open_files(&self, node: usize) -> usize {
        self.nodes[node].open_files()
    }

    /// Kills a node (SIGKILL).
    pub fn kill(&self, node: usize) {
        self.dismiss_lookout(node);
        self.nodes[node].kill();
    }

    /// Has a node read its settings again (SIGHUP).
    pub fn hang_up(&self, node: usize) {
        self.nodes[node].hang_up();
    }

    /// Freezes a node (SIGSTOP).
    pub fn pause(&self, node: usize) {
        self.nodes[node].pause();
    }

    /// Lets a frozen node go on (SIGCONT).
    pub fn resume(&self, node: usize) {
        self.nodes[node].resume();
    }

    /// Waits until a new node is ready, and posts a guest on it.
    async fn welcome(&self, node: usize) {
        eventually(&format!("node {node} is ready"), async || {
            (self.get_public(node, "/readyz").await.status == 200).then_some(())
        })
        .await;
        if self.with_lookouts {
            let lookout = self.connect_guest(node).await;
            let mut lookouts = self.lookouts.lock().unwrap_or_else(PoisonError::into_inner);
            lookouts.insert(node, lookout);
        }
    }

    fn dismiss_lookout(&self, node: usize) {
        self.lookouts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&node);
    }
}
