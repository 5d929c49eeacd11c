//! A rolling restart of both nodes, by the procedure in `config/README.md`, with the times of the shipped files and of a
//! node's defaults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use vigie::Settings;

use super::nodes_of;
use super::tab::{Tab, USERS};
use crate::harness::{
    Balancer, Builder, Cluster, NODE_KEY, Program, eventually, eventually_eq, profile, revision,
};

/// Clients, a third of each way, and a third of each way without an account.
const CLIENTS: u64 = 300;

/// Clients that connect at the same time in the beginning.
const OPENED_TOGETHER: usize = 12;

/// The nodes that are restarted, in this order.
const RESTARTS: [usize; 4] = [0, 1, 0, 1];

/// Step 3 of the procedure: how long a balancer may take to notice that a node is ready.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);

/// Pause of the back end between two updates.
const UPDATE_EVERY: Duration = Duration::from_millis(20);

/// Goal: a rolling restart loses nobody: every client is connected afterwards, none has failed to connect on the way,
/// nobody who stayed is announced offline, nobody is registered twice, every watcher has the last revision, and no
/// connection got a revision twice.
/// Method: 300 clients with their own backoff, of each transport, users and guests, each of which watches a user; a back
/// end that posts updates all along, to the other node where one does not take them; node 0, then node 1, and both
/// once more.
async fn a_rolling_restart_loses_nobody(program: Program) {
    let mut cluster = shipped().start().await;
    let balancer = Balancer::start(program, &cluster).await;
    let tabs = open_tabs(&cluster, &balancer).await;
    let transitions_before = transitions(&cluster).await;
    let back_end = BackEnd::start(&cluster);

    for node in RESTARTS {
        cluster.terminate(node);
        let status = eventually("the node has drained", async || cluster.ended(node)).await;
        assert_eq!(status.code(), Some(0), "{status}");
        cluster.start_again(node).await;
        tokio::time::sleep(NOTICED_WITHIN).await;
    }

    let last = back_end.stop().await;
    for tab in &tabs {
        tab.wait_until_connected().await;
        let what = format!("{tab} has the last revision of {}", tab.watches);
        eventually_eq(&what, last.get(&tab.watches).copied(), async || {
            tab.last_revision()
        })
        .await;
        tab.assert_each_revision_came_once();
        tab.assert_first_attempts_succeeded(RESTARTS.len());
    }
    for user in 1..=USERS {
        let open = tabs.iter().filter(|tab| tab.user == Some(user)).count();
        let what = format!("connections of user {user}");
        eventually_eq(&what, open, async || nodes_of(&cluster, user).await.len()).await;
    }
    assert_eq!(cluster.online_in_redis().await, (1..=USERS).collect());
    let announced: Vec<_> = tabs.iter().flat_map(Tab::announced_offline).collect();
    assert!(announced.is_empty(), "announced offline: {announced:?}");
    // Announcements are numbered, so none was made while nobody was connected to receive it.
    assert_eq!(transitions(&cluster).await, transitions_before);
}

#[tokio::test]
async fn a_rolling_restart_loses_nobody_behind_nginx() {
    a_rolling_restart_loses_nobody(Program::Nginx).await;
}

#[tokio::test]
async fn a_rolling_restart_loses_nobody_behind_haproxy() {
    a_rolling_restart_loses_nobody(Program::Haproxy).await;
}

/// Two nodes with a drain and a grace as they are by default.
fn shipped() -> Builder {
    let defaults = Settings::default();
    let text = |duration: Duration| format!("{}ms", duration.as_millis());
    Cluster::builder()
        .nodes(2)
        .without_lookouts()
        .grace(&text(defaults.presence.offline_grace))
        .env("VIGIE_NODE__DRAIN", &text(defaults.node.drain))
        .env("VIGIE_HTTP__TRUSTED_PROXIES", "127.0.0.1")
}

/// Opens all tabs, a few at a time, each of which watches somebody over its last transport when this returns.
async fn open_tabs(cluster: &Cluster, balancer: &Balancer) -> Vec<Tab> {
    let mut tabs = Vec::new();
    for number in 0..CLIENTS {
        tabs.push(Tab::open(cluster, balancer, number));
        if tabs.len() % OPENED_TOGETHER == 0 {
            let opened = tabs.len() - OPENED_TOGETHER;
            futures_util::future::join_all(tabs[opened..].iter_mut().map(Tab::settle)).await;
        }
    }
    tabs
}

/// How many transitions there have been.
async fn transitions(cluster: &Cluster) -> u64 {
    cluster.redis().number(&["GET", "vigie:{0}:rev"]).await
}

/// A back end that posts updates about one user after the other.
struct BackEnd {
    stop: Arc<AtomicBool>,
    posting: tokio::task::JoinHandle<BTreeMap<u64, u64>>,
}

impl BackEnd {
    fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let nodes = [0, 1].map(|node| cluster.internal_url(node).to_owned());
        let posting = tokio::spawn(post_updates(nodes, stop.clone()));
        Self { stop, posting }
    }

    /// Stops it; returns the last revision of each user.
    async fn stop(self) -> BTreeMap<u64, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.posting.await.expect("the back end posts to the end")
    }
}

async fn post_updates(nodes: [String; 2], stop: Arc<AtomicBool>) -> BTreeMap<u64, u64> {
    let http = reqwest::Client::new();
    let mut last = BTreeMap::new();
    for turn in 0.. {
        let user = turn as u64 % USERS + 1;
        let body = json!({ "user": profile(user, &format!("turn {turn}")) });
        let path = format!("/api/v1/users/{user}/profile-update");
        let mut attempts = 0;
        let revision = loop {
            let url = format!("{}{path}", nodes[(turn + attempts) % 2]);
            if let Some(revision) = post(&http, &url, &body).await {
                break revision;
            }
            attempts += 1;
            assert!(attempts < 100, "no node takes an update of user {user}");
            tokio::time::sleep(UPDATE_EVERY).await;
        };
        last.insert(user, revision);
        if stop.load(Ordering::Relaxed) && last.len() as u64 == USERS {
            break;
        }
        tokio::time::sleep(UPDATE_EVERY).await;
    }
    last
}

/// The revision of an update; `None` where the node did not take it.
async fn post(http: &reqwest::Client, url: &str, body: &Value) -> Option<u64> {
    let request = http.post(url).bearer_auth(NODE_KEY).json(body);
    let answer = request.send().await.ok()?.error_for_status().ok()?;
    let answer: Value = answer.json().await.ok()?;
    Some(revision(&answer))
}
