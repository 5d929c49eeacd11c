//! The Lua scripts on their own: each against a real Redis, one file per folder of `lua/`.
//!
//! A test calls a script as a node does, by its hash, and compares the whole answer, what is stored,
//! and what is published. Answers and messages are compared as JSON, so a number that lost a digit or
//! became a fraction is not the same.

mod account;
mod lease;
mod matchmaking;
mod meta;
mod presence;
mod profile;
mod topic;

use std::collections::BTreeMap;
use std::time::Duration;

use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::prelude::{Builder, Client, Config};
use fred::types::{ClusterHash, CustomCommand, Message, Value as Answer};
use fred::util::sha1_hash;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use vigie::internals::script_text;

use crate::harness::{
    ADA, BOB, Cluster, DEADLINE, MARKER, Offline, Online, Redis, eventually, eventually_eq,
};

/// The largest id and the largest revision.
const LARGEST: u64 = 9_007_199_254_740_991;

/// The text of a script, with the fragments that it uses.
pub(crate) fn text_of(script: &str) -> &'static str {
    script_text(script).unwrap_or_else(|| panic!("there is no lua/{script}.lua"))
}

/// A Redis of the test's own, to call scripts on.
struct Server {
    commands: Client,
    redis: Redis,
}

impl Server {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let commands = connect(&redis).await;
        Self { commands, redis }
    }

    /// Calls a script, such as `presence/register`, as a node does: by its hash, and by its text where Redis does not know it.
    async fn run(&self, script: &str, keys: impl AsRef<[String]>, args: &[String]) -> Value {
        let (text, keys) = (text_of(script), keys.as_ref());
        let (hash, count) = (sha1_hash(text), keys.len().to_string());
        let call = |command: &'static str, first: String| {
            let mut words = vec![command.to_owned(), first, count.clone()];
            words.extend(keys.iter().chain(args).cloned());
            async move { self.send(&words).await }
        };
        let answer = match call("EVALSHA", hash).await {
            Err(error) if error.starts_with("NOSCRIPT") => call("EVAL", text.to_owned()).await,
            answer => answer,
        };
        answer.unwrap_or_else(|error| panic!("{script}.lua failed: {error}"))
    }

    /// Runs a command that must succeed.
    async fn command(&self, words: &[&str]) -> Value {
        let owned: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let answer = self.send(&owned).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn send(&self, words: &[String]) -> Result<Value, String> {
        let command = CustomCommand::new(words[0].as_str(), ClusterHash::Random, false);
        let answer: Result<Answer, _> = self.commands.custom(command, words[1..].to_vec()).await;
        answer
            .map(plain)
            .map_err(|error| error.details().to_owned())
    }

    /// Listens to a channel; what is published from now on arrives.
    async fn listen(&self, channel: &str) -> Listener {
        let client = connect(&self.redis).await;
        let messages = client.message_rx();
        let subscribed: Result<(), _> = client.ssubscribe(channel).await;
        subscribed.expect("Redis takes subscriptions");
        Listener {
            channel: channel.to_owned(),
            messages,
            commands: self.commands.clone(),
            _client: client,
        }
    }

    /// Milliseconds on Redis's clock.
    async fn now_ms(&self) -> u64 {
        self.now_us().await / 1000
    }

    /// Microseconds on Redis's clock.
    async fn now_us(&self) -> u64 {
        let time = self.command(&["TIME"]).await;
        number(&time[0]) * 1_000_000 + number(&time[1])
    }

    /// Minutes since 1970 on Redis's clock.
    async fn minute(&self) -> u64 {
        self.now_us().await / 60_000_000
    }

    /// Milliseconds until the answer to a request is forgotten.
    async fn answer_left_ms(&self, request: &str) -> u64 {
        for answers in requests() {
            if self.command(&["HEXISTS", &answers, request]).await == 1 {
                return number(&self.command(&["PTTL", &answers]).await);
            }
        }
        panic!("no answer to {request} is kept");
    }

    /// The fields of a hash.
    async fn hash(&self, key: &str) -> BTreeMap<String, String> {
        let answer = self.command(&["HGETALL", key]).await;
        let words: Vec<String> = serde_json::from_value(answer).expect("a list of texts");
        let pairs = words.chunks_exact(2);
        pairs
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    }

    /// The members of a set, sorted as texts.
    async fn set(&self, key: &str) -> Vec<String> {
        let answer = self.command(&["SMEMBERS", key]).await;
        let mut members: Vec<String> = serde_json::from_value(answer).expect("a list of texts");
        members.sort();
        members
    }

    /// The members of a sorted set, by their scores.
    async fn scores(&self, key: &str) -> Vec<(String, u64)> {
        let answer = self
            .command(&["ZRANGE", key, "0", "-1", "WITHSCORES"])
            .await;
        let words = answer.as_array().expect("a list");
        let pairs = words.chunks_exact(2);
        pairs
            .map(|pair| {
                (
                    pair[0].as_str().unwrap_or_default().to_owned(),
                    number(&pair[1]),
                )
            })
            .collect()
    }

    /// All that Redis holds, to compare with later; expiry times are not in it.
    async fn contents(&self) -> BTreeMap<String, Value> {
        let mut contents = BTreeMap::new();
        for key in self.redis.keys("*").await {
            let dump = self.command(&["DUMP", &key]).await;
            contents.insert(key, dump);
        }
        contents
    }
}

/// One that listens to a channel.
struct Listener {
    channel: String,
    messages: Receiver<Message>,
    commands: Client,
    _client: Client,
}

impl Listener {
    /// The next message, as it was sent.
    async fn next_text(&mut self) -> String {
        let message = tokio::time::timeout(DEADLINE, self.messages.recv())
            .await
            .unwrap_or_else(|_| panic!("nothing was published on {}", self.channel))
            .expect("the connection stays and the buffer suffices");
        assert_eq!(message.channel.to_string(), self.channel);
        message.value.as_string().expect("messages are texts")
    }

    /// The next message, which is JSON.
    async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Asserts that all that was published has been taken out: a marker sent now is what comes next.
    async fn hears_nothing(&mut self) {
        let sent: Result<u64, _> = self.commands.spublish(&self.channel, "marker").await;
        assert!(sent.is_ok_and(|listeners| listeners > 0));
        assert_eq!(self.next_text().await, "marker");
    }
}

async fn connect(redis: &Redis) -> Client {
    let config = Config::from_url(&redis.url()).expect("the harness spells URLs");
    let client = Builder::from_config(config)
        .with_performance_config(|performance| {
            performance.default_command_timeout = Duration::from_secs(10);
            performance.broadcast_channel_capacity = 4096;
        })
        .build()
        .expect("the configuration is complete");
    client.init().await.expect("Redis answers");
    client
}

/// An answer of Redis as JSON; bytes that are no text become a list of numbers.
fn plain(answer: Answer) -> Value {
    match answer {
        Answer::Null => Value::Null,
        Answer::Integer(number) => json!(number),
        Answer::String(text) => json!(text.to_string()),
        Answer::Bytes(bytes) => json!(bytes.to_vec()),
        Answer::Array(answers) => answers.into_iter().map(plain).collect(),
        other => panic!("no script or command here answers {other:?}"),
    }
}

/// A number, also one that Redis tells as text.
fn number(value: &Value) -> u64 {
    let told = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    told.unwrap_or_else(|| panic!("{value} is no number of milliseconds, users or the like"))
}

/// A key or channel of the only partition.
fn key(name: impl std::fmt::Display) -> String {
    format!("vigie:{{0}}:{name}")
}

/// The hashes of the answers to requests: of even minutes, of odd ones.
fn requests() -> [String; 2] {
    ["requests:even", "requests:odd"].map(key)
}

/// Every script that nodes call when something happens, not by the clock.
const CALLED: [&str; 19] = [
    "meta/claim",
    "lease/begin",
    "presence/position",
    "presence/register",
    "presence/register_many",
    "presence/release",
    "profile/read",
    "profile/update",
    "topic/publish",
    "account/disconnect",
    "account/revoke",
    "account/delete",
    "matchmaking/enqueue",
    "matchmaking/cancel",
    "matchmaking/pair",
    "matchmaking/due",
    "matchmaking/notify",
    "matchmaking/confirm",
    "matchmaking/status",
];

/// Goal: a Redis that has forgotten the scripts (SCRIPT FLUSH, a restart, a fail-over) costs nothing.
/// Method: two real nodes; before each step the cache is emptied; each step has its usual effect on
/// the other node, and in the end Redis knows every script again that a step calls.
#[tokio::test]
async fn a_flushed_script_cache_goes_unnoticed() {
    let mut cluster = Cluster::start(2).await;
    let mut seen = Vec::new();
    let mut observer = cluster.connect_guest(1).await;
    observer.watch(ADA).await;

    flush(&cluster, &mut seen).await;
    let mut tab = cluster.connect(0, ADA).await;
    assert_eq!(observer.next_status().await, (ADA, Online));

    flush(&cluster, &mut seen).await;
    let revision = cluster
        .notify_profile(0, ADA, json!({ "userID": ADA }))
        .await;
    let update = observer.next_event("profile-update").await;
    assert_eq!(update["revision"], json!(revision));

    flush(&cluster, &mut seen).await;
    let event = json!({ "event": "hello", "data": 1 });
    cluster.notify(1, ADA, "events", event).await;
    assert_eq!(tab.next_event("hello").await, json!(1));

    let mut opponent = cluster.connect(1, BOB).await;
    assert_eq!(observer.next_status().await, (BOB, Online));
    flush(&cluster, &mut seen).await;
    for client in [&tab, &opponent] {
        let answer = client.emit_args_ack("join-matchmaking", vec![]).await;
        assert_eq!(answer["status"], "queued");
    }
    let found = tab.next_event("match-found").await;
    let theirs = opponent.next_event("match-found").await;
    assert_eq!(found["matchId"], theirs["matchId"]);
    let left = opponent.emit_args_ack("leave-matchmaking", vec![]).await;
    assert_eq!(left["ok"], true);
    eventually_eq("matches not shown everywhere", json!(0), async || {
        let queue = cluster.get(0, "/api/v1/matchmaking").await.json;
        queue["pendingMatches"].clone()
    })
    .await;

    flush(&cluster, &mut seen).await;
    cluster.notify(1, ADA, "disconnect", json!({})).await;
    assert_eq!(tab.next_event("kicked").await["code"], "kicked");
    assert_eq!(observer.next_status().await, (ADA, Offline));

    flush(&cluster, &mut seen).await;
    let revoke = json!({ "revoke": true });
    let revoked = cluster.notify(1, ADA, "disconnect", revoke).await;
    assert!(revoked["revokedBefore"].is_u64(), "{revoked}");

    flush(&cluster, &mut seen).await;
    cluster.notify(1, ADA, "account-deleted", json!({})).await;
    assert_eq!(observer.next_event("profile-deleted").await["userId"], ADA);

    flush(&cluster, &mut seen).await;
    let third = cluster.add_node().await;
    let _marker = cluster.connect(third, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online));

    flush(&cluster, &mut seen).await;
    assert_eq!(observer.watch(BOB).await["profile"], Value::Null);

    flush(&cluster, &mut seen).await;
    let connections = cluster.key(BOB, "conns");
    let former = cluster.redis().lines(&["HKEYS", &connections]).await;
    assert_eq!(cluster.cli(&["DEL", "vigie:nodes"]).await, "1");
    let what = "nodes without a lease register their connections again, as other incarnations";
    eventually(what, async || {
        let fields = cluster.redis().lines(&["HKEYS", &connections]).await;
        (fields.len() == 1 && fields != former).then_some(())
    })
    .await;

    flush(&cluster, &mut seen).await;
    let missing: Vec<_> = CALLED.iter().filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "never sent again: {missing:?}");
}

/// Notes which scripts Redis was sent since the last time, and makes it forget all.
async fn flush(cluster: &Cluster, seen: &mut Vec<&'static str>) {
    for name in CALLED {
        let hash = sha1_hash(text_of(name));
        if cluster.cli(&["SCRIPT", "EXISTS", &hash]).await == "1" {
            seen.push(name);
        }
    }
    assert_eq!(cluster.cli(&["SCRIPT", "FLUSH"]).await, "OK");
}

/// Goal: a script is called by its hash, so its text crosses the wire once and not with every call.
/// Method: twenty updates; how often Redis was sent a text is read off its statistics before and after.
#[tokio::test]
async fn scripts_are_called_by_hash() {
    let cluster = Cluster::start(1).await;
    cluster.notify_profile(0, ADA, json!({})).await;
    let (texts, hashes) = calls(&cluster).await;
    for _ in 0..20 {
        cluster.notify_profile(0, ADA, json!({})).await;
    }
    let (more_texts, more_hashes) = calls(&cluster).await;
    assert!(more_hashes >= hashes + 20, "{hashes} {more_hashes}");
    // Timed tasks of the node may call a script for the first time in between.
    assert!(more_texts < texts + 10, "{texts} {more_texts}");
}

/// How often Redis has run EVAL and EVALSHA.
async fn calls(cluster: &Cluster) -> (u64, u64) {
    let statistics = cluster.cli(&["INFO", "commandstats"]).await;
    let calls = |command: &str| {
        let line = statistics.lines().find_map(|line| {
            let counts = line
                .trim()
                .strip_prefix("cmdstat_")?
                .strip_prefix(command)?;
            counts.strip_prefix(":calls=")?.split_once(',')
        });
        line.map_or(0, |(count, _)| count.parse().expect("a number"))
    };
    (calls("eval"), calls("evalsha"))
}

/// Draws the same numbers in every run.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's multiplier for 64 bits; the high ones are the random ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
