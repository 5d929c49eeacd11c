//! Watching profiles: what is answered, who gets which view, and what it costs others.

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Cluster, Connecting, EVE, MARKER, Offline, Online, Record};
use crate::harness::{eventually, profile, public, revision};

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

/// Goal: with `presence.audience = "watchers"` coming and going is told to the watchers of the user, on every
/// node, and to nobody else.
/// Method: a watcher and a stranger on each of two nodes; afterwards a marker that both watch.
#[tokio::test]
async fn only_watchers_hear_of_coming_and_going_where_so_configured() {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_PRESENCE__AUDIENCE", "watchers")
        .without_lookouts()
        .start()
        .await;
    let mut watchers = Vec::new();
    let mut strangers = Vec::new();
    for node in [0, 1] {
        let watcher = cluster.connect_with(node, Connecting::guest()).await;
        watcher.watch(ADA).await;
        watchers.push(watcher);
        let stranger = cluster.connect_with(node, Connecting::guest()).await;
        stranger.watch(BOB).await;
        strangers.push(stranger);
    }
    let ada = cluster.connect_with(0, Connecting::user(ADA)).await;
    for watcher in &mut watchers {
        assert_eq!(watcher.next_status().await, (ADA, Online));
    }
    ada.close().await;
    for watcher in &mut watchers {
        assert_eq!(watcher.next_status().await, (ADA, Offline));
    }
    let _bob = cluster.connect_with(1, Connecting::user(BOB)).await;
    for stranger in &mut strangers {
        assert_eq!(stranger.next_status().await, (BOB, Online));
    }
}
