//! The state that has to hold after any abuse.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Builder, Cluster, profile, revision};

/// How long it may take until everything is as before.
const CALM_WITHIN: Duration = Duration::from_secs(60);

/// How long sessions may take to join a namespace; short, since those that never do are waited for.
const HANDSHAKE: &str = "3s";

/// Files that a node may have open beyond those it had before: connections of the tests' own HTTP client come and go.
const FILES_SLACK: usize = 12;

/// Lines that a node may log: strangers do not fill anybody's disk.
const LOG_LINES_MAX: usize = 100;

/// Somebody who signs in after the abuse, on each node.
const FRESH: u64 = 5_000_001;
/// Whom they watch.
const WATCHED: u64 = 6_000_001;

/// Two nodes on one Redis.
pub fn two_nodes() -> Builder {
    let builder = Cluster::builder().nodes(2);
    builder.env("VIGIE_LIMITS__HANDSHAKE", HANDSHAKE)
}

/// The resources that every node used before the abuse.
pub struct Calm(Vec<Usage>);

struct Usage {
    memory: u64,
    files: usize,
}

impl Calm {
    /// Measures nodes that have been abused a little already, so that what is allocated once does not count.
    pub async fn after_warm_up(cluster: &Cluster) -> Self {
        assert_served(cluster).await;
        wait_until_nobody_is_there(cluster).await;
        wait_until_forgotten(cluster).await;
        let usage = |node| Usage {
            memory: cluster.resident_memory(node),
            files: cluster.open_files(node),
        };
        Self((0..cluster.len()).map(usage).collect())
    }

    /// Checks that everything is as it was: fresh clients are served at once, nobody is stuck online, connections and
    /// files are closed, memory is back within 20 %, and little was logged.
    pub async fn returns(self, cluster: &Cluster) {
        assert_served(cluster).await;
        wait_until_nobody_is_there(cluster).await;
        for (node, before) in self.0.iter().enumerate() {
            let log = cluster.log(node);
            let by_strangers = |line: &&str| !line.contains("the internal API was called");
            let logged = log.lines().filter(by_strangers).count();
            assert!(logged <= LOG_LINES_MAX, "node {node} logged {logged} lines");
            let most = before.files + FILES_SLACK;
            at_most(&format!("open files of node {node}"), most, || {
                cluster.open_files(node)
            })
            .await;
            let most = before.memory / 5 * 6;
            at_most(&format!("bytes of memory of node {node}"), most, || {
                cluster.resident_memory(node)
            })
            .await;
        }
    }
}

async fn at_most<N: PartialOrd + std::fmt::Display>(what: &str, most: N, seen: impl Fn() -> N) {
    let deadline = Instant::now() + CALM_WITHIN;
    loop {
        let now = seen();
        if now <= most {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {now}, not {most}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Checks that whoever comes now is served, on every node: a guest learns who is online and watches somebody, a user
/// signs in, and an update that another node is told of arrives.
pub async fn assert_served(cluster: &Cluster) {
    for node in 0..cluster.len() {
        let (user, watched) = (FRESH + node as u64, WATCHED + node as u64);
        let mut guest = cluster.connect_guest(node).await;
        let tab = cluster.connect(node, user).await;
        assert!(guest.online().await.contains(&user));
        guest.watch(watched).await;
        let other = (node + 1) % cluster.len();
        let sent = cluster
            .notify_profile(other, watched, profile(watched, "fresh"))
            .await;
        let update = guest.next_event("profile-update").await;
        assert_eq!(revision(&update), sent, "{update}");
        guest.close().await;
        tab.close().await;
    }
}

/// Waits until Redis and every node agree that nobody is online, and nobody is connected but the harness's guests.
async fn wait_until_nobody_is_there(cluster: &Cluster) {
    let deadline = Instant::now() + CALM_WITHIN;
    loop {
        let left = left(cluster).await;
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.wait_until_nobody_is_left().await;
    cluster.wait_until_all_see(&[]).await;
}

/// Waits until the nodes have forgotten every session that was opened before and joined nothing: one that is opened
/// now is forgotten last.
async fn wait_until_forgotten(cluster: &Cluster) {
    for node in 0..cluster.len() {
        let sid = cluster.wire(node).await.poll_open().await;
        let target = polling(&sid);
        let deadline = Instant::now() + CALM_WITHIN;
        loop {
            let mut http = cluster.wire(node).await;
            let reply = http.post(&target, "", b"3").await.expect("an answer");
            if reply.status == 400 {
                break;
            }
            assert!(Instant::now() < deadline, "a session is never forgotten");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Where a polling client of the session sends its requests.
pub fn polling(sid: &str) -> String {
    format!("/socket.io/?EIO=4&transport=polling&sid={sid}")
}

/// Differences from the state in which only the harness's guests are connected.
async fn left(cluster: &Cluster) -> Vec<String> {
    let mut left = Vec::new();
    for node in 0..cluster.len() {
        for (metric, calm) in [
            ("vigie_connections", 1.0),
            ("vigie_users", 0.0),
            ("vigie_online_users", 0.0),
            ("vigie_topics", 0.0),
        ] {
            let now = cluster.metric(node, metric).await;
            if now != calm {
                left.push(format!("{metric} of node {node} is {now}"));
            }
        }
        let answer = cluster.get(node, "/api/v1/presence").await;
        if answer.json["online"] != json!(0) {
            left.push(format!("node {node} says {}", answer.json));
        }
    }
    let topics = cluster
        .redis()
        .lines(&["PUBSUB", "SHARDCHANNELS", "vigie:{*}:user:*"])
        .await;
    if !topics.is_empty() {
        left.push(format!("{} topics are subscribed", topics.len()));
    }
    left
}
