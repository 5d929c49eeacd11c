//! Order: events of one connection take effect as they were sent, and revisions never go back.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Client, Cluster, Connecting, MARKER, Record};
use crate::harness::{eventually, profile, public, revision};

/// Goal: the last of `watch, unwatch, watch` sent in one burst counts.
/// Method: 200 bursts, each about another user; then one update for each of them, all of which must
/// arrive, each once.
#[tokio::test]
async fn a_burst_of_watch_unwatch_watch_ends_in_watching() {
    let cluster = roomy().await;
    let mut watcher = cluster.connect_guest(0).await;
    for target in targets() {
        let answers = burst(
            &watcher,
            target,
            &["watch-profile", "unwatch-profile", "watch-profile"],
        )
        .await;
        assert!(
            answers.iter().all(|answer| answer["ok"] == true),
            "{target}: {answers:?}"
        );
    }
    update_all(&cluster).await;
    let mut heard = Vec::new();
    for _ in targets() {
        heard.push(watcher.next_event("profile-update").await["user"]["userID"].as_u64());
    }
    heard.sort_unstable();
    assert_eq!(heard, targets().map(Some).collect::<Vec<_>>());
}

/// Goal: the last of `watch, unwatch` sent in one burst counts.
/// Method: 200 bursts; one update for each user and then one for a marker, which must come first;
/// afterwards the node listens to the marker's topic alone.
#[tokio::test]
async fn a_burst_of_watch_unwatch_ends_in_not_watching() {
    let cluster = roomy().await;
    let mut watcher = cluster.connect_guest(0).await;
    for target in targets() {
        let answers = burst(&watcher, target, &["watch-profile", "unwatch-profile"]).await;
        assert!(
            answers.iter().all(|answer| answer["ok"] == true),
            "{target}: {answers:?}"
        );
    }
    watcher.watch(MARKER).await;
    update_all(&cluster).await;
    cluster
        .notify_profile(1, MARKER, profile(MARKER, "marker"))
        .await;
    assert_eq!(
        watcher.next_event("profile-update").await["user"]["userID"],
        MARKER
    );
    let channels = async || {
        let channels = cluster
            .redis()
            .lines(&["PUBSUB", "SHARDCHANNELS", "vigie:{0}:user:*"])
            .await;
        (channels == ["vigie:{0}:user:999"]).then_some(())
    };
    eventually("only the marker's topic is subscribed", channels).await;
}

/// Goal: the same where every burst is about the same user and nothing is waited for.
/// Method: 200 bursts in a row, then the state is tried; once ending in watching, once not.
#[tokio::test]
async fn bursts_about_one_user_end_as_the_last_one_says() {
    let cluster = roomy().await;
    let mut watcher = cluster.connect_guest(0).await;
    let (watch, unwatch) = ("watch-profile", "unwatch-profile");
    let target = json!({ "userId": ADA });
    let mut last = 0;
    for _ in 0..200 {
        let events = [
            (watch, target.clone()),
            (unwatch, target.clone()),
            (watch, target.clone()),
        ];
        last = watcher.burst(&events)[2];
    }
    watcher.answer(last).await;
    let sent = cluster
        .notify_profile(1, ADA, profile(ADA, "watched"))
        .await;
    assert_eq!(revision(&watcher.next_event("profile-update").await), sent);

    for _ in 0..200 {
        last = watcher.burst(&[(watch, target.clone()), (unwatch, target.clone())])[1];
    }
    watcher.answer(last).await;
    watcher.watch(MARKER).await;
    cluster
        .notify_profile(1, ADA, profile(ADA, "unwatched"))
        .await;
    cluster
        .notify_profile(1, MARKER, profile(MARKER, "marker"))
        .await;
    assert_eq!(
        watcher.next_event("profile-update").await["user"]["userID"],
        MARKER
    );
}

/// Two nodes that let one connection watch and say more than usual.
async fn roomy() -> Cluster {
    let builder = Cluster::builder()
        .nodes(2)
        .env("VIGIE_LIMITS__WATCHES", "1000");
    let builder = builder.env("VIGIE_LIMITS__EVENTS_PER_SECOND", "10000");
    builder
        .env("VIGIE_LIMITS__EVENTS_BURST", "100000")
        .start()
        .await
}

/// The users that the bursts are about.
fn targets() -> std::ops::Range<u64> {
    2000..2200
}

async fn burst(watcher: &Client, target: u64, events: &[&str]) -> Vec<Value> {
    let payload = json!({ "userId": target });
    let events: Vec<(&str, Value)> = events
        .iter()
        .map(|event| (*event, payload.clone()))
        .collect();
    let mut answers = Vec::new();
    for number in watcher.burst(&events) {
        answers.push(watcher.answer(number).await);
    }
    answers
}

/// One update for each target, told to node 1.
async fn update_all(cluster: &Cluster) {
    let items: Vec<Value> = targets()
        .map(|user| json!({ "kind": "profile-update", "userId": user, "user": public(user, "x") }))
        .collect();
    let answer = cluster
        .post(1, "/api/v1/notifications", &json!(items))
        .await;
    let results = answer.json.as_array().cloned().unwrap_or_default();
    assert_eq!(results.len(), items.len(), "{answer:?}");
    assert!(
        results.iter().all(|result| result["status"] == 200),
        "{answer:?}"
    );
}

/// Goal: no update is lost or doubled while the transport is being upgraded.
/// Method: a stream of updates while ten clients move from polling to websocket.
#[tokio::test]
async fn an_upgrade_loses_nothing() {
    let cluster = Cluster::start(2).await;
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let connecting = Connecting::guest().transports(&["polling", "websocket"]);
        let watcher = cluster.open(0, connecting);
        let answer = watcher.watch(ADA).await;
        let known = answer["revisions"]["profile"].as_u64().unwrap_or(0);
        cluster.notify_profile(1, ADA, profile(ADA, "x")).await;
        watchers.push((watcher, known));
    }
    for (watcher, _) in &mut watchers {
        assert_eq!(watcher.next_upgrade().await, "websocket");
    }
    let last = cluster.notify_profile(1, ADA, profile(ADA, "last")).await;
    for (place, (watcher, known)) in watchers.iter().enumerate() {
        let seen = async || {
            let seen: Vec<u64> = watcher
                .payloads("profile-update")
                .iter()
                .map(revision)
                .collect();
            (seen.last() == Some(&last)).then_some(seen)
        };
        let seen = eventually("the last update", seen).await;
        assert_eq!(seen.len(), 10 - place + 1, "all since it watches: {seen:?}");
        assert!(seen.is_sorted() && seen[0] > *known, "{seen:?}");
    }
}

/// Goal: on one connection revisions only grow, and an answer to `watch-profile` is never older
/// than what the connection was sent before, nor what follows older than the answer.
/// Method: a stream of updates from two nodes while four connections watch and unwatch.
#[tokio::test]
async fn answers_and_updates_never_go_back() {
    let cluster = roomy().await;
    let done = AtomicBool::new(false);
    let updating = async |node: usize| {
        while !done.load(Ordering::Relaxed) {
            cluster.notify_profile(node, ADA, profile(ADA, "x")).await;
        }
    };
    let watching = async {
        let mut watchers = Vec::new();
        for node in [0, 1, 0, 1] {
            let user = if node == 0 {
                Connecting::guest()
            } else {
                Connecting::user(BOB)
            };
            watchers.push(cluster.connect_with(node, user).await);
        }
        let rounds = watchers.iter().map(async |watcher| {
            for _ in 0..100 {
                watcher.watch(ADA).await;
                watcher.unwatch(ADA).await;
            }
            watcher.watch(ADA).await;
        });
        futures_util::future::join_all(rounds).await;
        done.store(true, Ordering::Relaxed);
        watchers
    };
    let (watchers, (), ()) = tokio::join!(watching, updating(0), updating(1));

    let last = cluster.notify_profile(0, ADA, profile(ADA, "last")).await;
    for watcher in &watchers {
        let arrived = async || {
            let updates = watcher.payloads("profile-update");
            (updates.last().map(revision) == Some(last)).then_some(())
        };
        eventually("the last update", arrived).await;
        assert_never_goes_back(&watcher.events_so_far());
    }
}

fn assert_never_goes_back(records: &[Record]) {
    let (mut sent, mut answered) = (0, 0);
    for record in records {
        match record {
            Record::Event { name, args } if name == "profile-update" => {
                let revision = revision(&args[0]);
                assert!(revision > sent, "update {revision} after update {sent}");
                assert!(
                    revision > answered,
                    "update {revision} after answer {answered}"
                );
                sent = revision;
            }
            Record::Ack { event, args, .. } if event == "watch-profile" => {
                let revision = args[0]["revisions"]["profile"].as_u64().unwrap_or(0);
                assert!(revision >= sent, "answer {revision} after update {sent}");
                assert!(
                    revision >= answered,
                    "answer {revision} after answer {answered}"
                );
                answered = revision;
            }
            _ => {}
        }
    }
}

/// Goal: a burst of updates reaches every watcher on every node in order, and ends with the last.
/// Method: 1,000 updates in batches, then 1,000 one by one from sixteen callers at once, to two nodes;
/// two watchers on each of two nodes and the user's own tab.
#[tokio::test]
async fn a_burst_of_updates_arrives_in_order() {
    let cluster = Cluster::start(2).await;
    let mut watchers = vec![cluster.connect(0, ADA).await];
    for node in [0, 1, 0, 1] {
        let watcher = cluster.connect_guest(node).await;
        watcher.watch(ADA).await;
        watchers.push(watcher);
    }
    for batch in 0..10 {
        let item = json!({ "kind": "profile-update", "userId": ADA, "user": public(ADA, "batch") });
        let answer = cluster
            .post(batch % 2, "/api/v1/notifications", &json!(vec![item; 100]))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let callers = (0..16).map(async |caller: usize| {
        for _ in 0..1000 / 16 {
            cluster
                .notify_profile(caller % 2, ADA, public(ADA, "single"))
                .await;
        }
    });
    futures_util::future::join_all(callers).await;
    let last = cluster.notify_profile(1, ADA, public(ADA, "last")).await;
    for (place, watcher) in watchers.iter().enumerate() {
        let arrived = async || {
            let seen: Vec<u64> = watcher
                .payloads("profile-update")
                .iter()
                .map(revision)
                .collect();
            (seen.last() == Some(&last)).then_some(seen)
        };
        let seen = eventually(&format!("the last update at watcher {place}"), arrived).await;
        assert!(
            seen.is_sorted_by(|a, b| a < b),
            "watcher {place} saw an older one later"
        );
    }
}

/// Goal: answers come in the order of the events, whatever each of them has to wait for.
/// Method: bursts of events that are answered from Redis, from the replica and at once; the answers are
/// looked up in the order of the wire.
#[tokio::test]
async fn answers_come_in_the_order_of_the_events() {
    let cluster = Cluster::start(2).await;
    let client = cluster.connect_guest(0).await;
    for round in 0..50 {
        let target = json!({ "userId": 100 + round });
        let numbers = client.burst(&[
            ("watch-profile", target.clone()),
            ("get-online-users", json!(null)),
            ("unwatch-profile", target.clone()),
            ("watch-profile", target.clone()),
            ("unwatch-profile", target),
        ]);
        for number in &numbers {
            client.answer(*number).await;
        }
        let answered: Vec<u64> = client
            .events_so_far()
            .iter()
            .filter_map(|record| match record {
                Record::Ack { number, .. } if numbers.contains(number) => Some(*number),
                _ => None,
            })
            .collect();
        assert_eq!(answered, numbers, "round {round}");
    }
}
