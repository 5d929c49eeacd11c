//! N nodes, their Redis, and a guest on each node that sees who comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use super::bridge::Bridge;
use super::client::Client;
use super::node::{Life, Node};
use super::redis::Redis;
use super::{eventually, eventually_eq};

/// What the nodes of a test sign tokens with.
pub const SECRET: &str = "a secret that only the tests know, long enough";
/// The key of the internal API.
pub const NODE_KEY: &str = "the internal key of the tests";

/// How a cluster differs from the usual one.
pub struct Builder {
    nodes: usize,
    memory: bool,
    lookouts: bool,
    named: bool,
    env: BTreeMap<String, String>,
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

    /// Without the guest on each node: for tests that count guests or change who hears of whom.
    pub fn without_lookouts(mut self) -> Self {
        self.lookouts = false;
        self
    }

    /// Starts Redis, the nodes and the bridge, and waits until all are ready.
    pub async fn start(self) -> Cluster {
        let redis = match self.memory {
            true => None,
            false => Some(Redis::start().await),
        };
        let mut env = self.env;
        if let Some(redis) = &redis {
            env.insert("VIGIE_ENGINE".to_owned(), "redis".to_owned());
            env.insert("VIGIE_REDIS__URL".to_owned(), redis.url());
        }
        let partitions = env.get("VIGIE_REDIS__PARTITIONS").map_or(1, |text| {
            text.parse().expect("the number of partitions is a number")
        });
        let mut cluster = Cluster {
            lookouts: Mutex::default(),
            with_lookouts: self.lookouts,
            named: self.named,
            bridge: Bridge::start(),
            http: reqwest::Client::new(),
            nodes: Vec::new(),
            env,
            partitions,
            redis,
        };
        let names: Vec<String> = (0..self.nodes).map(|place| format!("n{place}")).collect();
        let starting = names
            .iter()
            .map(|name| Node::start(name.clone(), cluster.env_of(name)));
        cluster.nodes = futures_util::future::join_all(starting).await;
        for node in 0..cluster.nodes.len() {
            cluster.welcome(node).await;
        }
        cluster
    }
}

/// What a test runs against. Everything in it ends when it is dropped.
pub struct Cluster {
    // Dropped in this order: sockets, the official client, the nodes, Redis.
    lookouts: Mutex<BTreeMap<usize, Client>>,
    with_lookouts: bool,
    named: bool,
    bridge: Arc<Bridge>,
    http: reqwest::Client,
    nodes: Vec<Node>,
    env: BTreeMap<String, String>,
    partitions: u64,
    redis: Option<Redis>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The body as JSON; `null` where it is none.
    pub json: Value,
}

impl Answer {
    /// Fails the test unless this is a refusal in problem JSON with the given status.
    pub fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:#?}");
        self.assert_some_problem();
    }

    /// The same for any status from 400 to 499.
    pub fn assert_refused(&self) {
        assert!((400..500).contains(&self.status), "{self:#?}");
        self.assert_some_problem();
    }

    fn assert_some_problem(&self) {
        let kind = self
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{self:#?}");
        assert_eq!(self.json["status"], self.status, "{self:#?}");
        for field in ["type", "title", "detail"] {
            assert!(self.json[field].is_string(), "no {field} in {self:#?}");
        }
    }
}

/// How a socket is opened.
#[derive(Clone, Debug)]
pub struct Connecting {
    auth: Option<Value>,
    namespace: &'static str,
    options: Value,
}

impl Connecting {
    /// With `auth` as it stands.
    pub fn auth(auth: Value) -> Self {
        let options = json!({ "transports": ["websocket"] });
        Self {
            auth: Some(auth),
            namespace: "/socket.io/",
            options,
        }
    }

    /// Without `auth` at all.
    pub fn no_auth() -> Self {
        Self {
            auth: None,
            ..Self::guest()
        }
    }

    /// As front ends do it before anybody has signed in.
    pub fn guest() -> Self {
        Self::auth(json!({ "token": null }))
    }

    /// With this token.
    pub fn token(token: &str) -> Self {
        Self::auth(json!({ "token": token }))
    }

    /// As this user.
    pub fn user(user: u64) -> Self {
        Self::token(&token(user))
    }

    /// `/` or `/socket.io/` (the default).
    pub fn namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = namespace;
        self
    }

    /// Which transports, in which order; more than one means an upgrade.
    pub fn transports(mut self, transports: &[&str]) -> Self {
        self.options["transports"] = json!(transports);
        self
    }

    /// On the transport of the sockets opened so before to the same node.
    pub fn shared(mut self) -> Self {
        self.options["forceNew"] = json!(false);
        self
    }

    /// Stays away once the transport has closed.
    pub fn once(mut self) -> Self {
        self.options["reconnection"] = json!(false);
        self
    }
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
        let mut builder = Self::bare().memory();
        builder.named = false;
        builder.start().await
    }

    fn bare() -> Builder {
        let env = BTreeMap::new();
        let builder = Builder {
            nodes: 1,
            memory: false,
            lookouts: true,
            named: true,
            env,
        };
        builder
            .env("VIGIE_HTTP__LISTEN", "127.0.0.1:0")
            .env("VIGIE_INTERNAL__LISTEN", "127.0.0.1:0")
    }

    /// Starts one more node and returns its place.
    pub async fn add_node(&mut self) -> usize {
        let place = self.nodes.len();
        let name = format!("n{place}");
        let node = Node::start(name.clone(), self.env_of(&name)).await;
        self.nodes.push(node);
        self.welcome(place).await;
        place
    }

    /// The settings that a node of this name gets.
    pub fn env_of(&self, name: &str) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        if self.named {
            env.insert("VIGIE_NODE__ID".to_owned(), name.to_owned());
        }
        env.into_iter().collect()
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

    /// The Redis of this cluster.
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("this cluster runs on Redis")
    }

    /// `redis-cli …` against the Redis of this cluster.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        self.redis().cli(arguments).await
    }

    /// What a node has logged.
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

    /// Connects in a certain way and waits for the hub's consent, nothing more.
    pub async fn connect_with(&self, node: usize, connecting: Connecting) -> Client {
        let how = format!("{connecting:?}");
        let mut client = self.open(node, connecting);
        if let Err(refusal) = client.next_verdict().await {
            panic!("node {node} refused {how}: {refusal}");
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
        let url = format!("{}{}", self.nodes[node].public, connecting.namespace);
        let mut open = json!({ "url": url, "options": connecting.options });
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

    /// Kills a node (SIGKILL).
    pub fn kill(&self, node: usize) {
        self.dismiss_lookout(node);
        self.nodes[node].kill();
    }

    /// Freezes a node (SIGSTOP).
    pub fn pause(&self, node: usize) {
        self.nodes[node].pause();
    }

    /// Lets a frozen node go on (SIGCONT).
    pub fn resume(&self, node: usize) {
        self.nodes[node].resume();
    }

    // ---- HTTP

    /// POSTs to the internal listener, with the key.
    pub async fn post(&self, node: usize, path: &str, body: &Value) -> Answer {
        self.send(
            self.request(node, Method::POST, path)
                .bearer_auth(NODE_KEY)
                .json(body),
        )
        .await
    }

    /// GETs from the internal listener, with the key.
    pub async fn get(&self, node: usize, path: &str) -> Answer {
        self.send(self.request(node, Method::GET, path).bearer_auth(NODE_KEY))
            .await
    }

    /// GETs from the public listener.
    pub async fn get_public(&self, node: usize, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.nodes[node].public)))
            .await
    }

    /// A request to the internal listener to which the test adds what it likes; no key yet.
    pub fn request(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.nodes[node].internal))
    }

    /// Sends a request.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request
            .timeout(super::DEADLINE)
            .send()
            .await
            .expect("the node answers");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response
            .text()
            .await
            .expect("the node sends a whole answer");
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer {
            status,
            headers,
            text,
            json,
        }
    }

    /// Tells a node of an update (`profile-update` and so on), which must succeed.
    pub async fn notify(&self, node: usize, user: u64, kind: &str, body: Value) -> Value {
        let answer = self
            .post(node, &format!("/api/v1/users/{user}/{kind}"), &body)
            .await;
        assert_eq!(
            answer.status, 200,
            "{kind} of {user} {body} answered {answer:#?}"
        );
        answer.json
    }

    /// Tells a node of a new profile; returns its revision.
    pub async fn notify_profile(&self, node: usize, user: u64, profile: Value) -> u64 {
        let answer = self
            .notify(node, user, "profile-update", json!({ "user": profile }))
            .await;
        answer["revision"]
            .as_u64()
            .unwrap_or_else(|| panic!("no revision in {answer}"))
    }

    /// A number among a node's metrics, summed over its labels; 0 where the metric is not there.
    pub async fn metric(&self, node: usize, name: &str) -> f64 {
        let answer = self.get(node, "/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let of_that_name = answer.text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values = of_that_name.filter_map(|line| line.rsplit(' ').next());
        values
            .map(|value| value.parse::<f64>().expect("a metric is a number"))
            .sum()
    }

    // ---- waiting

    /// Waits until so many connections of a user are registered, on all nodes together.
    pub async fn wait_for_refcount(&self, user: u64, refcount: u64) {
        let what = format!("user {user} has {refcount} connections");
        eventually_eq(&what, refcount, async || match &self.redis {
            Some(redis) => {
                redis
                    .number(&["HLEN", &self.key(user, "conns", true)])
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

    /// Who is online according to Redis.
    pub async fn online_in_redis(&self) -> BTreeSet<u64> {
        let mut online = BTreeSet::new();
        for partition in 0..self.partitions {
            let key = format!("vigie:{{{partition}}}:online");
            let members = self.redis().lines(&["SMEMBERS", &key]).await;
            online.extend(members.iter().map(|id| id.parse::<u64>().expect("an id")));
        }
        online
    }

    /// Waits until a user's topic has so many subscribed nodes.
    pub async fn wait_for_subscribers(&self, user: u64, nodes: u64) {
        let channel = self.key(user, "user", true);
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

    /// A key or channel about a user.
    pub fn key(&self, user: u64, kind: &str, with_user: bool) -> String {
        let partition = user % self.partitions;
        let of_user = if with_user {
            format!(":{user}")
        } else {
            String::new()
        };
        format!("vigie:{{{partition}}}:{kind}{of_user}")
    }

    /// The connections of a user that one node has registered.
    async fn connections_of(&self, node: usize, user: u64) -> BTreeSet<String> {
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
        eventually(what, async || {
            let lookouts = self.lookouts.lock().unwrap_or_else(PoisonError::into_inner);
            let of_running = lookouts.iter().filter(|(place, _)| running.contains(place));
            let agreed = of_running
                .map(|(_, lookout)| lookout.roster())
                .all(|roster| roster.is_some_and(|roster| holds(&roster)));
            agreed.then_some(())
        })
        .await;
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

/// A token of a user, good for an hour.
fn token(user: u64) -> String {
    sign(
        &json!({ "sub": user.to_string(), "exp": now_seconds() + 3600 }),
        SECRET,
    )
}

/// Signs claims with HS256.
pub fn sign(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key)
        .expect("claims are JSON, the secret is bytes")
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs() as i64
}
