//! Watching profiles: who gets which update, in which order, how often, and what it costs others.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Client, Cluster, Connecting, EVE, MARKER, Record, eventually};

/// A profile as a back end sends it: with fields that only the user may see.
fn profile(user: u64, name: &str) -> Value {
    json!({
        "userID": user,
        "username": name,
        "avatar": "/avatars/a.png",
        "email": "hidden@example.org",
        "settings": { "theme": "hidden-theme" },
    })
}

/// What everybody may see of it.
fn public(user: u64, name: &str) -> Value {
    json!({ "userID": user, "username": name, "avatar": "/avatars/a.png" })
}

fn revision(update: &Value) -> u64 {
    update["revision"]
        .as_u64()
        .unwrap_or_else(|| panic!("no revision in {update}"))
}

/// Goal: an update told to one node reaches a watcher on another.
/// Method: watch on node 0, POST to node 1.
#[tokio::test]
async fn an_update_on_one_node_reaches_a_watcher_on_another() {
    let cluster = Cluster::start(2).await;
    let mut watcher = cluster.connect_guest(0).await;
    watcher.watch(ADA).await;
    let sent = cluster.notify_profile(1, ADA, profile(ADA, "ada")).await;
    let update = watcher.next_event("profile-update").await;
    assert_eq!(
        update,
        json!({ "user": public(ADA, "ada"), "revision": sent })
    );

    let answer = cluster
        .notify(
            1,
            ADA,
            "game-stats-update",
            json!({ "stats": { "wins": 3, "elo": 1200.5 } }),
        )
        .await;
    assert_eq!(answer["nodes"], 1, "one node was listening");
    let update = watcher.next_event("game-stats-update").await;
    let stats = json!({ "wins": 3, "elo": 1200.5 });
    assert_eq!(
        update,
        json!({ "userId": ADA, "stats": stats, "revision": answer["revision"] })
    );
}

/// Goal: the answer to `watch-profile` is the last known view.
/// Method: asked before anything is known, then after updates that nobody was watching, on a node
/// that never heard of the user.
#[tokio::test]
async fn watching_answers_with_what_is_known() {
    let cluster = Cluster::start(2).await;
    let watcher = cluster.connect_guest(0).await;
    let nothing = json!({
        "ok": true,
        "profile": null,
        "stats": null,
        "revisions": { "profile": null, "stats": null },
    });
    assert_eq!(watcher.watch(ADA).await, nothing);
    watcher.unwatch(ADA).await;

    let of_profile = cluster.notify_profile(1, ADA, profile(ADA, "ada")).await;
    let half = watcher.watch(ADA).await;
    assert_eq!(half["profile"], public(ADA, "ada"));
    assert_eq!(half["stats"], Value::Null);
    assert_eq!(
        half["revisions"],
        json!({ "profile": of_profile, "stats": null })
    );

    let stats = cluster
        .notify(
            1,
            ADA,
            "game-stats-update",
            json!({ "stats": { "wins": 1 } }),
        )
        .await;
    let whole = json!({
        "ok": true,
        "profile": public(ADA, "ada"),
        "stats": { "wins": 1 },
        "revisions": { "profile": of_profile, "stats": stats["revision"] },
    });
    for node in 0..2 {
        assert_eq!(cluster.connect_guest(node).await.watch(ADA).await, whole);
    }
    assert_eq!(
        watcher.watch(ADA).await,
        whole,
        "watching again answers again"
    );
}

/// Goal: after `unwatch-profile` nothing more comes; unwatching what is not watched is fine.
/// Method: an update to the user, then one to a marker, which must arrive first.
#[tokio::test]
async fn unwatching_ends_the_updates() {
    let cluster = Cluster::start(2).await;
    let mut watcher = cluster.connect_guest(0).await;
    watcher.unwatch(ADA).await;
    watcher.watch(ADA).await;
    watcher.watch(ADA).await;
    watcher.watch(MARKER).await;
    watcher.unwatch(ADA).await;
    watcher.unwatch(ADA).await;
    cluster.notify_profile(1, ADA, profile(ADA, "ada")).await;
    cluster
        .notify_profile(1, MARKER, profile(MARKER, "marker"))
        .await;
    let first = watcher.next_event("profile-update").await;
    assert_eq!(first["user"]["userID"], MARKER);
}

/// Goal: one watcher's unwatching does not cost another on the same node the updates.
/// Method: two watchers on one node, one leaves, the other must still hear.
#[tokio::test]
async fn watchers_of_one_node_do_not_depend_on_each_other() {
    let cluster = Cluster::start(2).await;
    let mut stays = cluster.connect_guest(0).await;
    let (leaves, vanishes) = (
        cluster.connect_guest(0).await,
        cluster.connect_guest(0).await,
    );
    for watcher in [&stays, &leaves, &vanishes] {
        watcher.watch(ADA).await;
    }
    leaves.unwatch(ADA).await;
    vanishes.close().await;
    let sent = cluster.notify_profile(1, ADA, profile(ADA, "ada")).await;
    assert_eq!(revision(&stays.next_event("profile-update").await), sent);
}

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

/// Goal: a user's own connections get updates without watching, in full; each once, also when they
/// watch themselves as well.
/// Method: two tabs on two nodes, one of which watches its user; two updates; nothing comes twice.
#[tokio::test]
async fn own_connections_get_the_full_view_once() {
    let cluster = Cluster::start(3).await;
    let (mut tab, mut both) = (cluster.connect(0, ADA).await, cluster.connect(1, ADA).await);
    both.watch(ADA).await;
    let first = cluster.notify_profile(2, ADA, profile(ADA, "first")).await;
    let second = cluster.notify_profile(2, ADA, profile(ADA, "second")).await;
    for own in [&mut tab, &mut both] {
        for (name, sent) in [("first", first), ("second", second)] {
            let update = own.next_event("profile-update").await;
            assert_eq!(
                update,
                json!({ "user": profile(ADA, name), "revision": sent })
            );
        }
    }
    both.unwatch(ADA).await;
    let third = cluster.notify_profile(2, ADA, profile(ADA, "third")).await;
    for own in [&mut tab, &mut both] {
        assert_eq!(
            revision(&own.next_event("profile-update").await),
            third,
            "own without watching"
        );
        assert_eq!(own.payloads("profile-update").len(), 3);
    }
}

/// Goal: what a user sees by watching itself is the full view, with friends and matches.
/// Method: an update of each kind, then the own answer and a stranger's are compared.
#[tokio::test]
async fn watching_oneself_answers_with_the_full_view() {
    let cluster = Cluster::start(2).await;
    let own = cluster.connect(0, ADA).await;
    let stranger = cluster.connect(1, BOB).await;
    let friends = json!([{ "userId": 5, "username": "friend-of-ada", "avatar": "" }]);
    let matches = json!([{
        "matchId": "m1",
        "opponent": { "userId": 5, "username": "friend-of-ada", "avatar": "" },
        "result": "win",
        "score": [11, 7],
        "playedAt": 1_700_000_000_000_u64,
    }]);
    cluster.notify_profile(0, ADA, profile(ADA, "ada")).await;
    cluster
        .notify(0, ADA, "friend-list-update", json!({ "friends": friends }))
        .await;
    cluster
        .notify(
            1,
            ADA,
            "match-history-update",
            json!({ "matches": matches }),
        )
        .await;

    let seen = own.watch(ADA).await;
    assert_eq!(seen["profile"], profile(ADA, "ada"));
    assert_eq!(seen["friends"], friends);
    assert_eq!(seen["matches"], matches);
    let seen = stranger.watch(ADA).await;
    assert_eq!(seen["profile"], public(ADA, "ada"));
    assert!(
        seen.get("friends").is_none() && seen.get("matches").is_none(),
        "{seen}"
    );
}

/// Goal: updates arrive on both namespaces and over every transport.
/// Method: a watcher of each sort, one of which begins with polling and moves on to websocket; three
/// updates each, in order.
#[tokio::test]
async fn every_namespace_and_transport_gets_updates() {
    let cluster = Cluster::start(2).await;
    let mut watchers = Vec::new();
    for namespace in ["/", "/socket.io/"] {
        for transports in [&["websocket"][..], &["polling"], &["polling", "websocket"]] {
            let connecting = Connecting::guest()
                .namespace(namespace)
                .transports(transports);
            let mut watcher = cluster.connect_with(0, connecting).await;
            let first = Record::Connect {
                transport: transports[0].to_owned(),
            };
            if transports.len() == 1 {
                assert_eq!(watcher.events_so_far()[0], first);
            } else {
                assert_eq!(watcher.next_upgrade().await, "websocket");
            }
            watcher.watch(ADA).await;
            watchers.push(watcher);
        }
    }
    let mut sent = Vec::new();
    for name in ["one", "two", "three"] {
        sent.push(cluster.notify_profile(1, ADA, profile(ADA, name)).await);
    }
    for watcher in &mut watchers {
        for expected in &sent {
            assert_eq!(
                revision(&watcher.next_event("profile-update").await),
                *expected
            );
        }
        assert_eq!(watcher.payloads("profile-update").len(), 3);
    }
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

/// Goal: guests and strangers never see more than the public fields.
/// Method: updates with private fields; everything that reached the watchers is searched for them.
#[tokio::test]
async fn strangers_see_the_public_view_only() {
    let cluster = Cluster::start(2).await;
    let early = cluster.connect_guest(0).await;
    early.watch(ADA).await;
    cluster.notify_profile(1, ADA, profile(ADA, "ada")).await;
    cluster
        .notify(
            1,
            ADA,
            "friend-list-update",
            json!({ "friends": [{ "userId": 5, "username": "hidden friend", "avatar": "" }] }),
        )
        .await;
    cluster
        .notify(1, ADA, "match-history-update", json!({ "matches": [] }))
        .await;
    let stranger = cluster.connect(1, BOB).await;
    stranger.watch(ADA).await;
    let last = cluster.notify_profile(0, ADA, profile(ADA, "ada2")).await;
    for watcher in [&early, &stranger] {
        let seen = async || {
            let updates = watcher.payloads("profile-update");
            updates
                .iter()
                .any(|update| update["revision"] == last)
                .then_some(())
        };
        eventually("the last update", seen).await;
        let everything = format!("{:?}", watcher.events_so_far());
        assert!(!everything.contains("hidden"), "{everything}");
        assert!(
            !everything.contains("email") && !everything.contains("settings"),
            "{everything}"
        );
        assert!(!everything.contains("friend-list-update"), "{everything}");
        assert!(!everything.contains("match-history-update"), "{everything}");
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

/// Goal: a node listens to a topic only while it has an interest in it.
/// Method: Redis is asked how many nodes listen while watchers and own connections come and go, in
/// every way in which they go.
#[tokio::test]
async fn a_topic_is_subscribed_while_somebody_needs_it() {
    let cluster = Cluster::start(2).await;
    cluster.wait_for_subscribers(ADA, 0).await;
    let (first, second) = (
        cluster.connect_guest(0).await,
        cluster.connect_guest(0).await,
    );
    first.watch(ADA).await;
    cluster.wait_for_subscribers(ADA, 1).await;
    second.watch(ADA).await;
    let own = cluster.connect(1, ADA).await;
    cluster.wait_for_subscribers(ADA, 2).await;
    first.unwatch(ADA).await;
    own.abort();
    own.disconnect();
    cluster.wait_for_subscribers(ADA, 1).await;
    second.close().await;
    cluster.wait_for_subscribers(ADA, 0).await;

    let answer = cluster
        .notify(
            0,
            ADA,
            "profile-update",
            json!({ "user": profile(ADA, "x") }),
        )
        .await;
    assert_eq!(answer["nodes"], 0, "nobody listens: {answer}");
    let (third, _own) = (
        cluster.connect_guest(0).await,
        cluster.connect(0, ADA).await,
    );
    third.watch(ADA).await;
    cluster.wait_for_subscribers(ADA, 1).await;
    third.unwatch(ADA).await;
    let answer = cluster
        .notify(
            1,
            ADA,
            "profile-update",
            json!({ "user": profile(ADA, "y") }),
        )
        .await;
    assert_eq!(
        answer["nodes"], 1,
        "its own connection still needs it: {answer}"
    );
}

/// Goal: an update costs only the nodes that care.
/// Method: two of three nodes have an interest; a hundred updates; the third node's own counter of
/// topic messages does not move, although it is told the updates over HTTP.
#[tokio::test]
async fn a_node_without_interest_receives_nothing() {
    let counter = "vigie_topic_messages_total";
    let cluster = Cluster::start(3).await;
    let mut watcher = cluster.connect_guest(0).await;
    watcher.watch(ADA).await;
    let mut own = cluster.connect(1, ADA).await;
    let _stranger = cluster.connect(2, BOB).await;
    let before = cluster.metric(2, counter).await;
    for turn in 0..100 {
        let name = format!("turn {turn}");
        let body = json!({ "user": profile(ADA, &name) });
        assert_eq!(
            cluster.notify(2, ADA, "profile-update", body).await["nodes"],
            2
        );
        watcher.next_event("profile-update").await;
        own.next_event("profile-update").await;
    }
    assert_eq!(
        cluster.metric(2, counter).await,
        before,
        "the node without interest"
    );
    for node in 0..2 {
        assert!(
            cluster.metric(node, counter).await >= 100.0,
            "node {node} counted its messages"
        );
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

/// Goal: an account that is deleted is announced to its watchers on every node.
/// Method: watchers on two nodes, the deletion told to a third.
#[tokio::test]
async fn watchers_hear_that_an_account_is_gone() {
    let cluster = Cluster::start(3).await;
    let mut watchers = [
        cluster.connect_guest(0).await,
        cluster.connect(1, EVE).await,
    ];
    for watcher in &watchers {
        watcher.watch(ADA).await;
    }
    cluster.notify(2, ADA, "account-deleted", json!({})).await;
    for watcher in &mut watchers {
        assert_eq!(
            watcher.next_event("profile-deleted").await,
            json!({ "userId": ADA })
        );
    }
}
