//! Redis comes and goes, with its data or without.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    fragile, incarnation_of, leases, observers, times_offline, update_when_possible,
    wait_for_last_revision, wait_until_everybody_agrees,
};
use crate::harness::{ADA, BOB, Client, Cluster, Connecting, EVE};
use crate::harness::{eventually, eventually_eq, profile, revision};

/// The command timeout here is a second; more than a few of those is a request that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// Goal: Redis restarted without data loses nobody who stayed.
/// Method: SIGKILL; Eve leaves while it is away; started again, empty, on the same port.
#[tokio::test]
async fn redis_restarted_empty_loses_nobody_who_stayed() {
    let scene = Scene::start().await;
    scene.cluster.redis().kill();
    scene.eve.close().await;
    scene.cluster.redis().start_again().await;
    scene.is_as_before_without_eve().await;
}

/// Goal: data that vanishes while every connection stays loses nobody either.
/// Method: FLUSHALL, right after which Eve leaves.
#[tokio::test]
async fn flushed_redis_loses_nobody_who_stayed() {
    let scene = Scene::start().await;
    assert_eq!(scene.cluster.cli(&["FLUSHALL"]).await, "OK");
    scene.eve.close().await;
    scene.is_as_before_without_eve().await;
}

/// Goal: the same when somebody comes while the nodes have not noticed yet.
/// Method: FLUSHALL and a new connection at once, five times.
#[tokio::test]
async fn somebody_who_comes_right_after_a_flush_takes_nobody_offline() {
    let scene = Scene::start().await;
    scene.eve.close().await;
    for user in 101..=105 {
        assert_eq!(scene.cluster.cli(&["FLUSHALL"]).await, "OK");
        let newcomer = scene.cluster.connect(1, user).await;
        for (user, refcount) in [(ADA, 1), (BOB, 2), (user, 1)] {
            scene.cluster.wait_for_refcount(user, refcount).await;
        }
        newcomer.close().await;
    }
    scene.is_as_before_without_eve().await;
}

/// Goal: while Redis stands still, callers are told so in time, and clients are served what is known; afterwards
/// everything is as it was.
/// Method: SIGSTOP of Redis for longer than a lease, measured by requests that fail meanwhile; every kind of
/// request is tried on every node.
#[tokio::test]
async fn redis_that_stands_still_is_told_and_survived() {
    let scene = Scene::start().await;
    let cluster = &scene.cluster;
    cluster.redis().pause();
    let begun = Instant::now();
    // Longer than the lease of 1.5 s, and than fred takes to give the connections up.
    while begun.elapsed() < Duration::from_secs(5) {
        for node in 0..3 {
            refuses_in_time(cluster, node).await;
        }
        assert_eq!(scene.ada.online().await, [BOB, ADA, EVE]);
    }
    assert_eq!(cluster.get_public(0, "/healthz").await.status, 200);
    let readiness = cluster.get_public(0, "/readyz").await;
    assert_eq!(readiness.status, 503, "{readiness:?}");
    let checks = readiness.json["checks"].as_array().expect("checks");
    let engine = checks.iter().find(|check| check["name"] == "redis");
    assert_eq!(engine.expect("is checked")["ok"], false, "{readiness:?}");
    scene.eve.close().await;
    cluster.redis().resume();
    scene.is_as_before_without_eve().await;
}

async fn refuses_in_time(cluster: &Cluster, node: usize) {
    let asked = Instant::now();
    let [update, event, nothing] = [
        json!({ "user": profile(EVE, "unheard") }),
        json!({ "event": "x", "data": 1 }),
        json!({}),
    ];
    let route = |route: &str| format!("/api/v1/users/{EVE}/{route}");
    let (to_update, to_events, to_disconnect) = (
        route("profile-update"),
        route("events"),
        route("disconnect"),
    );
    let (updated, sent, disconnected) = tokio::join!(
        cluster.post(node, &to_update, &update),
        cluster.post(node, &to_events, &event),
        cluster.post(node, &to_disconnect, &nothing),
    );
    for answer in [updated, sent, disconnected] {
        answer.assert_problem(503);
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert!(asked.elapsed() < ANSWER_WITHIN, "{:?}", asked.elapsed());
}

/// Goal: after all nodes were without Redis for longer than a lease, the first to come back gives the others
/// the time of a lease before it takes them for dead.
/// Method: both nodes are cut off until their leases are over; one comes back and renews three times, then the
/// other does. Its user was never away, and it is still the same incarnation.
#[tokio::test]
async fn the_first_node_back_waits_for_the_others() {
    let cluster = fragile().nodes(2).links().env("VIGIE_NODE__LEASE", "6s");
    let cluster = cluster.start().await;
    let observers = observers(&cluster, &[0, 1]).await;
    let ada = cluster.connect(1, ADA).await;
    let before = leases(&cluster).await;
    let (first, second) = (cluster.link(0), cluster.link(1));
    first.cut();
    second.cut();
    eventually("both leases are over", async || {
        let script = "local t = redis.call('TIME') \
                      return redis.call('ZCOUNT', 'vigie:nodes', '-inf', t[1] * 1000)";
        (cluster.redis().number(&["EVAL", script, "0"]).await == 2).then_some(())
    })
    .await;
    first.mend();
    let incarnation = incarnation_of(&cluster, 0).await;
    let mut ends = BTreeSet::new();
    eventually(
        "the first node has renewed its lease three times",
        async || {
            let end = cluster.cli(&["ZSCORE", "vigie:nodes", &incarnation]).await;
            ends.insert(end);
            (ends.len() > 3).then_some(())
        },
    )
    .await;
    second.mend();
    let last = update_when_possible(&cluster, 1, ADA, "back").await;
    wait_for_last_revision(&ada, ADA, last).await;
    wait_until_everybody_agrees(&cluster, &[&ada], &[ADA]).await;
    assert_eq!(leases(&cluster).await, before);
    assert_eq!(times_offline(&cluster, &observers, [ADA]).await, [[0], [0]]);
}

/// Goal: connections to Redis that are killed come back, whichever they are.
/// Method: `CLIENT KILL TYPE normal` and `TYPE pubsub`, ten times each; nobody is said to be offline.
#[tokio::test]
async fn killed_connections_to_redis_come_back() {
    let scene = Scene::start().await;
    for _ in 0..10 {
        for kind in ["normal", "pubsub"] {
            scene.cluster.cli(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
        update_when_possible(&scene.cluster, 0, BOB, "meanwhile").await;
    }
    scene.eve.close().await;
    scene.is_as_before_without_eve().await;
}

/// Goal: batches keep their order when Redis has forgotten the scripts, as after a restart.
/// Method: SCRIPT FLUSH, then eight batches at once, each of a hundred updates about a user of its own, five
/// times: revisions go up within each batch, and what is stored is its last update.
#[tokio::test]
async fn batches_keep_their_order_when_redis_has_forgotten_the_scripts() {
    let cluster = fragile().start().await;
    for _ in 0..5 {
        assert_eq!(cluster.cli(&["SCRIPT", "FLUSH"]).await, "OK");
        let batches = (1..=8).map(|user| keeps_the_order_of_a_batch(&cluster, user));
        futures_util::future::join_all(batches).await;
    }
}

async fn keeps_the_order_of_a_batch(cluster: &Cluster, user: u64) {
    let one = |turn: u64| {
        let profile = json!({ "userID": user, "turn": turn });
        json!({ "kind": "profile-update", "userId": user, "user": profile })
    };
    let batch = Value::Array((1..=100).map(one).collect());
    let answer = cluster.post(0, "/api/v1/notifications", &batch).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json.as_array().expect("an array");
    let revisions: Vec<u64> = results.iter().map(revision).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    let stored = cluster
        .cli(&["HGET", &cluster.key(user, "profile"), "profile.full"])
        .await;
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!(stored["turn"], 100);
}

/// Goal: Redis restarted with old data agrees with everybody again: nobody who never left is said to be offline, who
/// has left since goes away again, and updates are delivered, whatever came before.
/// Method: `SAVE`, while Ada's grace runs. Then Ada comes back and Bob comes; Eve leaves, node 2 is killed with a user
/// on it; profiles change, one with revisions of the caller's own. Redis is killed and started with what it had saved,
/// while node 0, with Ada and Bob on it, cannot reach it until Ada's old grace is over and the others have looked. The
/// audit, which would find Eve by and by, is an hour away.
#[tokio::test]
async fn redis_restarted_with_old_data_agrees_with_everybody_again() {
    let (lost, numbered) = (77, 88);
    let cluster = fragile().nodes(3).links().env("VIGIE_NODE__LEASE", "10s");
    let cluster = cluster.env("VIGIE_NODE__AUDIT", "1h").grace("4s");
    let mut cluster = cluster.start().await;
    let observers = observers(&cluster, &[0, 1]).await;
    for observer in &observers {
        observer.watch(ADA).await;
        observer.watch(numbered).await;
    }
    let ada = cluster.connect(0, ADA).await;
    let eve = cluster.connect(1, EVE).await;
    let client_of_lost = cluster.connect(2, lost).await;
    cluster.notify_profile(0, ADA, profile(ADA, "old")).await;
    choose_revision(&cluster, numbered, 5).await;
    ada.close().await;
    cluster.wait_for_refcount(ADA, 0).await;
    let ada_due = ["ZSCORE", "vigie:{0}:leaving", "42"];
    let ada_due_ms = cluster.redis().number(&ada_due).await;
    assert_eq!(cluster.cli(&["SAVE"]).await, "OK");
    let ada = cluster.connect_with(0, Connecting::user(ADA)).await;
    let bob = cluster.connect(0, BOB).await;
    eve.close().await;
    cluster.wait_for_refcount(EVE, 0).await;
    cluster.kill(2);
    // It would come back by itself once the node is started again.
    drop(client_of_lost);
    let before = cluster.notify_profile(1, ADA, profile(ADA, "new")).await;
    choose_revision(&cluster, numbered, 9).await;
    for observer in &observers {
        wait_for_last_revision(observer, ADA, before).await;
        wait_for_last_revision(observer, numbered, 9).await;
    }

    cluster.link(0).cut();
    cluster.redis().kill();
    cluster.redis().start_again().await;
    eventually("Ada's old grace is over", async || {
        let script = "return redis.call('TIME')[1]";
        let now_s = cluster.redis().number(&["EVAL", script, "0"]).await;
        (now_s * 1000 > ada_due_ms).then_some(())
    })
    .await;
    // Every node looks once a second for those whose grace is over.
    has_renewed_its_lease(&cluster, 1, 3).await;
    cluster.link(0).mend();

    for (user, refcount) in [(ADA, 1), (BOB, 1), (EVE, 0), (lost, 0)] {
        cluster.wait_for_refcount(user, refcount).await;
    }
    wait_until_everybody_agrees(&cluster, &[&ada, &bob], &[BOB, ADA]).await;
    for node in 0..2 {
        let last = update_when_possible(&cluster, node, ADA, "newest").await;
        for client in observers.iter().chain([&ada]) {
            wait_for_last_revision(client, ADA, last).await;
        }
        let chosen = 10 + node as u64;
        choose_revision(&cluster, numbered, chosen).await;
        for observer in &observers {
            wait_for_last_revision(observer, numbered, chosen).await;
        }
    }
    let said = times_offline(&cluster, &observers, [ADA, BOB]).await;
    assert_eq!(said, [[0, 0]; 2]);
    cluster.start_again(2).await;
    cluster.wait_until_all_see(&[BOB, ADA]).await;
}

/// Tells of a profile with a revision of the caller's own.
async fn choose_revision(cluster: &Cluster, user: u64, revision: u64) {
    let body = json!({ "user": profile(user, "chosen"), "revision": revision });
    let answer = cluster.notify(1, user, "profile-update", body).await;
    assert_eq!(answer["stale"], Value::Null, "{answer}");
}

/// Waits until the node has renewed its lease so many times from now on.
async fn has_renewed_its_lease(cluster: &Cluster, node: usize, times: usize) {
    let mut ends = BTreeSet::new();
    eventually("the node renews its lease", async || {
        let incarnation = incarnation_of(cluster, node).await;
        ends.insert(cluster.cli(&["ZSCORE", "vigie:nodes", &incarnation]).await);
        (ends.len() > times).then_some(())
    })
    .await;
}

/// Goal: Redis that stands still for twenty seconds costs nothing but patience, with leases as they are by default.
/// Method: SIGSTOP. Meanwhile updates are refused with 503 and `Retry-After`, who is online is answered, and Eve
/// leaves. After SIGCONT nobody who stayed was said to be offline, and Eve was once.
#[tokio::test]
async fn redis_that_stands_still_for_long_is_survived_with_the_default_lease() {
    let cluster = Cluster::builder().nodes(3).grace("2s").start().await;
    let observers = observers(&cluster, &[0, 1, 2]).await;
    let ada = cluster.connect(0, ADA).await;
    let bob = [cluster.connect(1, BOB).await, cluster.connect(2, BOB).await];
    let mut eve = Some(cluster.connect(2, EVE).await);
    observers[0].watch(ADA).await;
    let incarnations = leases(&cluster).await;

    cluster.redis().pause();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        for node in 0..3 {
            let path = format!("/api/v1/users/{ADA}/profile-update");
            let body = json!({ "user": profile(ADA, "unheard") });
            let answer = cluster.post(node, &path, &body).await;
            answer.assert_problem(503);
            assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        }
        for client in [&ada, &bob[0], &bob[1]] {
            assert_eq!(client.online().await, [BOB, ADA, EVE]);
        }
        if let Some(eve) = eve.take() {
            eve.close().await;
        }
    }
    cluster.redis().resume();
    cluster.wait_for_refcount(EVE, 0).await;
    let clients = [&ada, &bob[0], &bob[1]];
    wait_until_everybody_agrees(&cluster, &clients, &[BOB, ADA]).await;
    for (user, refcount) in [(ADA, 1), (BOB, 2)] {
        cluster.wait_for_refcount(user, refcount).await;
    }
    let last = update_when_possible(&cluster, 1, ADA, "heard").await;
    wait_for_last_revision(&observers[0], ADA, last).await;
    assert_eq!(leases(&cluster).await.len(), incarnations.len());
    let said = times_offline(&cluster, &observers, [ADA, BOB, EVE]).await;
    assert_eq!(said, [[0, 0, 1]; 3]);
}

/// Ada on one node, Bob on two, Eve on the last; a guest on each; everybody watches Ada and Bob.
struct Scene {
    cluster: Cluster,
    observers: Vec<Client>,
    ada: Client,
    bob: [Client; 2],
    eve: Client,
}

impl Scene {
    async fn start() -> Self {
        let cluster = fragile().nodes(3).partitions(2).start().await;
        let observers = observers(&cluster, &[0, 1, 2]).await;
        let ada = cluster.connect(0, ADA).await;
        let bob = [cluster.connect(1, BOB).await, cluster.connect(2, BOB).await];
        let eve = cluster.connect(2, EVE).await;
        cluster.notify_profile(0, ADA, profile(ADA, "before")).await;
        for observer in &observers {
            observer.watch(ADA).await;
            observer.watch(BOB).await;
        }
        Self {
            cluster,
            observers,
            ada,
            bob,
            eve,
        }
    }

    /// Ada and Bob were never away, Eve went once; Redis holds all of it again, and updates arrive.
    async fn is_as_before_without_eve(&self) {
        let cluster = &self.cluster;
        for (user, refcount) in [(ADA, 1), (BOB, 2), (EVE, 0)] {
            cluster.wait_for_refcount(user, refcount).await;
        }
        let clients = [&self.ada, &self.bob[0], &self.bob[1]];
        wait_until_everybody_agrees(cluster, &clients, &[BOB, ADA]).await;
        for node in 0..3 {
            eventually_eq("the node is ready", 200, async || {
                cluster.get_public(node, "/readyz").await.status
            })
            .await;
        }
        eventually("the layout is recorded again", async || {
            let meta = cluster.redis().lines(&["HGETALL", "vigie:meta"]).await;
            (meta == ["2", "2", "layout", "partitions"]).then_some(())
        })
        .await;
        let said = times_offline(cluster, &self.observers, [ADA, BOB, EVE]).await;
        assert_eq!(said, [[0, 0, 1]; 3]);

        for (node, user) in [(0, BOB), (1, ADA), (2, BOB), (2, ADA)] {
            let last = update_when_possible(cluster, node, user, "after").await;
            for observer in &self.observers {
                wait_for_last_revision(observer, user, last).await;
            }
            let own = if user == ADA { &self.ada } else { &self.bob[1] };
            wait_for_last_revision(own, user, last).await;
        }
    }
}
