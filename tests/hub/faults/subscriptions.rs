//! Subscriptions that break: whoever missed something gets it, and nobody gets anything twice.

use serde_json::json;

use super::{
    fragile, incarnation_of, update_when_possible, wait_for_last_revision, wait_until_forgotten,
};
use crate::harness::{ADA, BOB, Client, Cluster, Connecting, EVE, Record};
use crate::harness::{eventually, eventually_eq, profile, revision};

/// Goal: subscriptions that are killed again and again during a stream of updates cost nobody the last one.
/// Method: 400 updates about Ada, known before, and Bob, about whom nothing was; `CLIENT KILL TYPE pubsub`
/// every 20 updates. Watchers on every node and the users' own tabs end with the last revision; revisions on
/// a connection only go up.
#[tokio::test]
async fn killed_subscriptions_cost_nobody_the_last_update() {
    let cluster = fragile().nodes(3).start().await;
    cluster.notify_profile(0, ADA, profile(ADA, "known")).await;
    let mut clients = Vec::new();
    for node in 0..3 {
        let watcher = cluster.connect_guest(node).await;
        watcher.watch(ADA).await;
        watcher.watch(BOB).await;
        clients.push(watcher);
    }
    for node in 0..2 {
        clients.push(cluster.connect(node, ADA).await);
        clients.push(cluster.connect(node + 1, BOB).await);
    }
    let (watchers, own) = clients.split_at(3);
    let mut last = [0, 0];
    for turn in 0..400 {
        let node = turn % 3;
        for (user, last) in [ADA, BOB].into_iter().zip(&mut last) {
            *last = cluster
                .notify_profile(node, user, profile(user, &format!("v{turn}")))
                .await;
        }
        if turn % 20 == 19 {
            cluster.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
    }
    for (user, last) in [ADA, BOB].into_iter().zip(last) {
        for watcher in watchers {
            wait_for_last_revision(watcher, user, last).await;
        }
    }
    for pair in own.chunks(2) {
        for (tab, (user, last)) in pair.iter().zip([ADA, BOB].into_iter().zip(last)) {
            wait_for_last_revision(tab, user, last).await;
        }
    }
}

/// Goal: what is published while one node cannot reach Redis arrives there afterwards: updates of every kind,
/// also about somebody of whom nothing was known.
/// Method: the node's link is cut, another node tells of updates, the link is mended; once before the node's
/// lease is over and once after.
#[tokio::test]
async fn a_node_that_was_cut_off_delivers_what_it_missed() {
    for beyond_lease in [false, true] {
        let cluster = fragile().nodes(2).links().start().await;
        let watcher = cluster.connect_guest(0).await;
        watcher.watch(ADA).await;
        watcher.watch(BOB).await;
        let mut tab = cluster.connect(0, ADA).await;
        let first = cluster.notify_profile(1, ADA, profile(ADA, "v1")).await;
        wait_for_last_revision(&watcher, ADA, first).await;

        cut_off(&cluster, beyond_lease, async || {
            for (user, name) in [(ADA, "v2"), (ADA, "v3"), (BOB, "b1")] {
                cluster.notify_profile(1, user, profile(user, name)).await;
            }
            let stats = json!({ "stats": { "wins": 3 } });
            cluster.notify(1, ADA, "game-stats-update", stats).await;
        })
        .await;
        let stored = async |user: u64| {
            let key = cluster.key(user, "profile");
            cluster
                .redis()
                .number(&["HGET", &key, "profile.revision"])
                .await
        };
        wait_for_last_revision(&watcher, ADA, stored(ADA).await).await;
        wait_for_last_revision(&watcher, BOB, stored(BOB).await).await;
        wait_for_last_revision(&tab, ADA, stored(ADA).await).await;
        let stats = tab.next_event("game-stats-update").await;
        assert_eq!(stats["stats"], json!({ "wins": 3 }));
        assert!(revision(&stats) > 0);
    }
}

/// Goal: `account-deleted` and `disconnect` told while a node cannot reach Redis are acted on afterwards.
/// Method: as above. Ada's account goes, Bob is disconnected; both were on the node that missed it, and
/// Eve, who was, too, stays.
#[tokio::test]
async fn a_node_that_was_cut_off_closes_whom_it_should_have_closed() {
    for beyond_lease in [false, true] {
        let cluster = fragile().nodes(2).links().start().await;
        let mut ada = cluster.connect(0, ADA).await;
        let mut bob = cluster.connect(0, BOB).await;
        let eve = cluster.connect(0, EVE).await;
        let mut watcher = cluster.connect_guest(0).await;
        watcher.watch(ADA).await;

        cut_off(&cluster, beyond_lease, async || {
            for (user, route) in [(ADA, "account-deleted"), (BOB, "disconnect")] {
                let path = format!("/api/v1/users/{user}/{route}");
                let answer = cluster.post(1, &path, &json!({})).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        })
        .await;
        ada.next_args("account-deleted").await;
        assert_eq!(ada.next_event("kicked").await["code"], "account_deleted");
        assert_eq!(ada.next_disconnect().await, "io server disconnect");
        assert_eq!(bob.next_event("kicked").await["code"], "kicked");
        assert_eq!(bob.next_disconnect().await, "io server disconnect");
        let deleted = watcher.next_event("profile-deleted").await;
        assert_eq!(deleted, json!({ "userId": ADA }));
        cluster.wait_for_refcount(ADA, 0).await;
        cluster.wait_for_refcount(BOB, 0).await;
        cluster.wait_until_all_see(&[EVE]).await;
        cluster.wait_for_refcount(EVE, 1).await;
        assert_eq!(eve.online().await, [EVE]);
        assert!(
            !eve.events_so_far().iter().any(is_disconnect),
            "Eve was closed"
        );
        let again = cluster.refusal(0, Connecting::user(ADA)).await;
        assert_eq!(again, "account_deleted");
    }
}

fn is_disconnect(record: &Record) -> bool {
    matches!(record, Record::Disconnect { .. })
}

/// Goal: a connected user who missed `disconnect` and has come back since is not closed a second time.
/// Method: Bob is disconnected while node 0 is cut off, and comes back to node 1; once node 0 is back, he is
/// connected there once.
#[tokio::test]
async fn whoever_came_back_since_is_not_closed_again() {
    let cluster = fragile().nodes(2).links().start().await;
    let mut bob = cluster.connect(0, BOB).await;
    let mut back = None;
    cut_off(&cluster, false, async || {
        let answer = cluster
            .post(1, "/api/v1/users/7/disconnect", &json!({}))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        back = Some(cluster.connect_with(1, Connecting::user(BOB)).await);
    })
    .await;
    let mut back = back.expect("Bob came back");
    assert_eq!(bob.next_disconnect().await, "io server disconnect");
    cluster.wait_for_refcount(BOB, 1).await;
    back.settle().await;
    let last = cluster.notify_profile(0, BOB, profile(BOB, "here")).await;
    wait_for_last_revision(&back, BOB, last).await;
    assert!(!back.events_so_far().iter().any(is_disconnect));
}

/// Goal: a subscribing connection that looks alive and carries nothing is noticed, told and replaced.
/// Method: what the node's subscribing connection carries is held back for good, new connections work;
/// readiness names the canary meanwhile, and a watcher gets what was told in between.
#[tokio::test]
async fn a_subscription_that_fell_silent_is_replaced() {
    let cluster = fragile().nodes(2).links().start().await;
    let watcher = cluster.connect_guest(0).await;
    watcher.watch(ADA).await;
    assert_eq!(cluster.link(0).stall_subscriptions(), 1);
    let readiness = cluster.get_public(0, "/readyz").await;
    assert_eq!(readiness.status, 503, "{readiness:?}");
    let checks = readiness.json["checks"].as_array().expect("checks");
    let canary = checks.iter().find(|check| check["name"] == "canary");
    assert_eq!(canary.expect("is checked")["ok"], false, "{readiness:?}");
    let last = cluster.notify_profile(1, ADA, profile(ADA, "v1")).await;
    wait_for_last_revision(&watcher, ADA, last).await;
    eventually_eq("the node is ready", 200, async || {
        cluster.get_public(0, "/readyz").await.status
    })
    .await;
    let last = cluster.notify_profile(0, ADA, profile(ADA, "v2")).await;
    wait_for_last_revision(&watcher, ADA, last).await;
}

/// Goal: a link to Redis that swallows everything costs nobody anything once new connections work.
/// Method: both of a node's connections to Redis are held back for good, without being closed.
#[tokio::test]
async fn a_link_that_swallows_everything_is_replaced() {
    let cluster = fragile().nodes(2).links().start().await;
    let tab = cluster.connect(0, ADA).await;
    let elsewhere: Client = cluster.connect(1, ADA).await;
    cluster.link(0).stall();
    let last = cluster.notify_profile(1, ADA, profile(ADA, "v1")).await;
    wait_for_last_revision(&tab, ADA, last).await;
    cluster.wait_for_refcount(ADA, 2).await;
    cluster.wait_until_all_see(&[ADA]).await;
    let last = cluster.notify_profile(0, ADA, profile(ADA, "v2")).await;
    for client in [&tab, &elsewhere] {
        wait_for_last_revision(client, ADA, last).await;
    }
}

/// Goal: whoever is told that it watches misses nothing afterwards, also where the answer was given while Redis
/// was coming back.
/// Method: four turns. Redis is killed; ten clients on node 0 ask in one burst to watch nine users each, whom
/// nobody has seen before; Redis is started again, empty; as soon as the first is told that it watches, node 0 is
/// cut off for a moment, and node 1 tells of an update about each user. Every watcher gets it. Whoever was told
/// `unavailable` asks again.
#[tokio::test]
async fn watching_while_redis_comes_back_misses_nothing() {
    let cluster = fragile().nodes(2).links().start().await;
    let mut watchers = Vec::new();
    for _ in 0..10 {
        watchers.push(cluster.connect_guest(0).await);
    }
    for turn in 1..=4 {
        let users = |watcher: usize| {
            let first = turn * 1_000 + 10 * watcher as u64;
            first..first + 9
        };
        let before = watches(&watchers);
        cluster.redis().kill();
        let mut questions = Vec::new();
        for (at, watcher) in watchers.iter().enumerate() {
            let burst: Vec<_> = users(at)
                .map(|user| ("watch-profile", json!({ "userId": user })))
                .collect();
            questions.push(watcher.burst(&burst));
        }
        cluster.redis().start_again().await;
        eventually("somebody is told that it watches", async || {
            (watches(&watchers) > before).then_some(())
        })
        .await;
        cluster.link(0).cut();
        let all = (0..watchers.len()).flat_map(users);
        let telling = all.map(|user| update_when_possible(&cluster, 1, user, "seen"));
        let told = futures_util::future::join_all(telling).await;
        cluster.link(0).mend();
        for (at, watcher) in watchers.iter().enumerate() {
            for (place, user) in users(at).enumerate() {
                let answer = watcher.answer(questions[at][place]).await;
                if answer["ok"] != true {
                    watch_when_possible(watcher, user).await;
                }
                wait_until_known(watcher, user, told[at * 9 + place]).await;
            }
        }
    }
}

/// How often these were told that they watch somebody.
fn watches(clients: &[Client]) -> usize {
    let told = |record: &Record| match record {
        Record::Ack { event, args, .. } => event == "watch-profile" && args[0]["ok"] == true,
        _ => false,
    };
    let records = clients.iter().flat_map(Client::events_so_far);
    records.filter(told).count()
}

async fn watch_when_possible(client: &Client, user: u64) {
    eventually("the client may watch", async || {
        let payload = json!({ "userId": user });
        let answer = client.emit_ack("watch-profile", payload).await;
        (answer["ok"] == true).then_some(())
    })
    .await;
}

/// Waits until the client was told this revision of the user's profile, in an answer or an event.
async fn wait_until_known(client: &Client, user: u64, wanted: u64) {
    eventually(&format!("revision {wanted} of {user}"), async || {
        let records = client.events_so_far();
        let told = records.iter().any(|record| match record {
            Record::Event { name, args } if name == "profile-update" => {
                args[0]["user"]["userID"] == user && args[0]["revision"] == wanted
            }
            Record::Ack { event, args, .. } if event == "watch-profile" => {
                args[0]["revisions"]["profile"] == wanted
            }
            _ => false,
        });
        told.then_some(())
    })
    .await;
}

/// Cuts node 0 off from Redis while `meanwhile` runs, and beyond its lease if so wanted.
async fn cut_off(cluster: &Cluster, beyond_lease: bool, meanwhile: impl AsyncFnOnce()) {
    let incarnation = incarnation_of(cluster, 0).await;
    cluster.link(0).cut();
    eventually("the node's subscriptions are gone", async || {
        let list = cluster.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        (list.lines().count() == 1).then_some(())
    })
    .await;
    if beyond_lease {
        wait_until_forgotten(cluster, &incarnation).await;
    }
    meanwhile().await;
    cluster.link(0).mend();
}
