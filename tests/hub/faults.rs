//! Faults: what stays true when nodes, Redis, networks and clients fail.
//!
//! Leases and graces are short here, so that what takes seconds in earnest takes less.

mod bounds;
mod chaos;
mod cluster;
mod drain;
mod failover;
mod killed;
mod paused;
mod redis_away;
mod refusals;
mod restored;
mod slow;
mod subscriptions;
mod truth;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Builder, Client, Cluster, MARKER, Offline};
use crate::harness::{eventually, eventually_eq, profile, revision};

/// A cluster in which a silent node is dead after a second and a half.
fn fragile() -> Builder {
    Cluster::builder()
        .grace("300ms")
        .env("VIGIE_NODE__LEASE", "1500ms")
        .env("VIGIE_NODE__HEARTBEAT", "500ms")
        .env("VIGIE_NODE__AUDIT", "2s")
        .env("VIGIE_NODE__DRAIN", "1s")
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "1s")
}

/// A guest on each of these nodes.
async fn observers(cluster: &Cluster, nodes: &[usize]) -> Vec<Client> {
    let mut observers = Vec::new();
    for node in nodes {
        observers.push(cluster.connect_guest(*node).await);
    }
    observers
}

/// How often each observer has heard that the user went offline, once all that is under way has arrived:
/// somebody who comes afterwards is seen first.
async fn times_offline<const N: usize>(
    cluster: &Cluster,
    observers: &[Client],
    users: [u64; N],
) -> Vec<[usize; N]> {
    let gone = |observer: &Client| observer.times_said(MARKER, Offline);
    let before: Vec<usize> = observers.iter().map(gone).collect();
    let place = *cluster.running().last().expect("a node is left");
    cluster.connect(place, MARKER).await.close().await;
    let mut counts = Vec::new();
    for (observer, before) in observers.iter().zip(before) {
        eventually("the observer has seen the marker go", async || {
            (gone(observer) > before).then_some(())
        })
        .await;
        counts.push(users.map(|user| observer.times_said(user, Offline)));
    }
    counts
}

/// The incarnations that have a lease.
async fn leases(cluster: &Cluster) -> BTreeSet<String> {
    let leases = cluster
        .redis()
        .lines(&["ZRANGE", "vigie:nodes", "0", "-1"])
        .await;
    leases.into_iter().collect()
}

/// The incarnation of a node that lives.
async fn incarnation_of(cluster: &Cluster, node: usize) -> String {
    let begin = format!("n{node}.");
    eventually("the node has a lease", async || {
        let leases = leases(cluster).await;
        leases
            .into_iter()
            .find(|incarnation| incarnation.starts_with(&begin))
    })
    .await
}

/// Waits until Redis knows nothing of an incarnation any more.
async fn wait_until_forgotten(cluster: &Cluster, incarnation: &str) {
    let what = format!("nothing is left of {incarnation}");
    eventually_eq(&what, Vec::<String>::new(), async || {
        traces_of(cluster, incarnation).await
    })
    .await;
}

async fn traces_of(cluster: &Cluster, incarnation: &str) -> Vec<String> {
    let redis = cluster.redis();
    let mut traces = redis.keys(&format!("vigie:*node:{incarnation}")).await;
    if leases(cluster).await.contains(incarnation) {
        traces.push("vigie:nodes".to_owned());
    }
    for key in redis.keys("vigie:{*}:nodes").await {
        let members = redis.lines(&["SMEMBERS", &key]).await;
        traces.extend(members.contains(&incarnation.to_owned()).then_some(key));
    }
    for key in redis.keys("vigie:{*}:conns:*").await {
        let fields = redis.lines(&["HKEYS", &key]).await;
        let begin = format!("{incarnation}/");
        traces.extend(
            fields
                .iter()
                .any(|field| field.starts_with(&begin))
                .then_some(key),
        );
    }
    traces
}

/// Tells `node` of an update about `user` as soon as it takes it; returns the revision.
async fn update_when_possible(cluster: &Cluster, node: usize, user: u64, name: &str) -> u64 {
    let path = format!("/api/v1/users/{user}/profile-update");
    let body = json!({ "user": profile(user, name) });
    let answer = eventually("an update is taken", async || {
        let answer = cluster.post(node, &path, &body).await;
        (answer.status == 200).then_some(answer.json)
    })
    .await;
    revision(&answer)
}

/// The revisions of the `profile-update`s about `user` that a client has received, in order.
fn revisions_of(client: &Client, user: u64) -> Vec<u64> {
    let updates = client.payloads("profile-update");
    let about = |update: &&Value| update["user"]["userID"] == user;
    updates.iter().filter(about).map(revision).collect()
}

/// Waits until the last thing that a client has received about `user` is `wanted`, after revisions that only
/// went up.
async fn wait_for_last_revision(client: &Client, user: u64, wanted: u64) {
    eventually_eq("the last revision", Some(wanted), async || {
        revisions_of(client, user).last().copied()
    })
    .await;
    let revisions = revisions_of(client, user);
    assert!(
        revisions.is_sorted_by(|earlier, later| earlier < later),
        "{revisions:?}"
    );
}

/// Waits until every lookout's and every given client's own set is exactly these users.
async fn wait_until_everybody_agrees(cluster: &Cluster, clients: &[&Client], users: &[u64]) {
    cluster.wait_for_online(users).await;
    cluster.wait_until_all_see(users).await;
    for client in clients {
        eventually_eq("get-online-users", users.to_vec(), async || {
            client.online().await
        })
        .await;
    }
}
