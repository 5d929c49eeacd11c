//! Notifications of back ends about a user, and their recipients.

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Client, Cluster, Connecting, EVE, MARKER, Offline, Online};
use crate::harness::{kinds, now_seconds};

/// The event of an update on the user's own connections.
fn delivered(kind: &str, field: &str, value: &Value, revision: &Value) -> Value {
    let mut update = json!({ "revision": revision });
    update[field] = value.clone();
    if kind != "profile-update" {
        update["userId"] = json!(ADA);
    }
    update
}

/// Goal: every kind of update reaches the user's own connections on all nodes; only profile and
/// statistics reach a stranger who watches.
/// Method: an update of each kind; the watcher's marker is a second round of statistics.
#[tokio::test]
async fn every_kind_reaches_the_user() {
    let cluster = Cluster::start(2).await;
    let mut tabs = [cluster.connect(0, ADA).await, cluster.connect(1, ADA).await];
    let mut watcher = cluster.connect(0, BOB).await;
    watcher.watch(ADA).await;
    for (kind, field, value) in kinds() {
        let answer = cluster.notify(1, ADA, kind, json!({ field: value })).await;
        assert!(
            answer["revision"]
                .as_u64()
                .is_some_and(|revision| revision > 0),
            "{answer}"
        );
        assert_eq!(answer["nodes"], 2, "{answer}");
        for tab in &mut tabs {
            let update = tab.next_event(kind).await;
            assert_eq!(
                update,
                delivered(kind, field, &value, &answer["revision"]),
                "{kind}"
            );
        }
    }
    cluster
        .notify(
            1,
            ADA,
            "game-stats-update",
            json!({ "stats": { "marker": true } }),
        )
        .await;
    watcher.next_event("profile-update").await;
    watcher.next_event("game-stats-update").await;
    watcher.next_event("game-stats-update").await;
    assert!(watcher.payloads("friend-list-update").is_empty());
    assert!(watcher.payloads("match-history-update").is_empty());
}

/// Goal: a revision that is not newer than the stored one changes nothing and says `stale`.
/// Method: own numbers for each kind: 5, then 5 and 4 again, then 6; each kind counts for itself.
#[tokio::test]
async fn old_revisions_are_stale() {
    let cluster = Cluster::start(2).await;
    let mut tab = cluster.connect(0, ADA).await;
    for (kind, field, value) in kinds() {
        for (revision, stale) in [(5, false), (5, true), (4, true), (6, false)] {
            let answer = cluster
                .notify(1, ADA, kind, json!({ field: value, "revision": revision }))
                .await;
            assert_eq!(
                answer["stale"] == true,
                stale,
                "{kind} {revision}: {answer}"
            );
            if !stale {
                assert_eq!(answer["revision"], revision, "{kind}: {answer}");
            }
        }
        assert_eq!(tab.next_event(kind).await["revision"], 5);
        assert_eq!(tab.next_event(kind).await["revision"], 6);
        assert_eq!(tab.payloads(kind).len(), 2, "{kind}");
    }
    let known = tab.watch(ADA).await;
    assert_eq!(known["revisions"]["profile"], 6);
    assert_eq!(known["revisions"]["stats"], 6);
}

/// Goal: revisions that the hub assigns are microseconds and strictly increase.
/// Method: twenty updates in a row through both nodes.
#[tokio::test]
async fn assigned_revisions_increase() {
    let cluster = Cluster::start(2).await;
    let mut last = 0;
    for turn in 0..20 {
        let revision = cluster
            .notify_profile(turn % 2, ADA, json!({ "userID": ADA }))
            .await;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
    assert!(
        (last as i64 / 1_000_000 - now_seconds()).abs() < 600,
        "{last} is a time in microseconds"
    );
}

/// Goal: a deleted account is told so, sent away, refused, and takes no more updates.
/// Method: two tabs on two nodes, over a websocket and over polling; the order of what they hear;
/// then a new connection, a login of a guest, updates and events to the account.
#[tokio::test]
async fn a_deleted_account_is_gone_everywhere() {
    let cluster = Cluster::start(3).await;
    let mut observer = cluster.connect_guest(2).await;
    let polling = Connecting::user(ADA)
        .transports(&["polling"])
        .namespace("/");
    let mut tabs = [
        cluster.connect(0, ADA).await,
        cluster.connect_with(1, polling).await,
    ];
    cluster.wait_for_refcount(ADA, 2).await;
    assert_eq!(observer.next_status().await, (ADA, Online));

    cluster.notify(2, ADA, "account-deleted", json!({})).await;
    for tab in &mut tabs {
        assert_eq!(tab.next_args("account-deleted").await, Vec::<Value>::new());
        assert_kicked(tab, "account_deleted").await;
        let names = tab.names(&["account-deleted", "kicked"]);
        assert_eq!(names, ["account-deleted", "kicked"]);
    }
    assert_eq!(observer.next_status().await, (ADA, Offline));
    for node in 0..3 {
        assert_eq!(
            cluster.refusal(node, Connecting::user(ADA)).await,
            "account_deleted"
        );
    }
    let mut guest = cluster.connect_with(0, Connecting::guest()).await;
    guest.login(&cluster.token(ADA));
    assert_eq!(
        guest.next_verdict().await,
        Err("account_deleted".to_owned())
    );

    for (kind, field, value) in kinds() {
        let answer = cluster
            .post(
                0,
                &format!("/api/v1/users/{ADA}/{kind}"),
                &json!({ field: value }),
            )
            .await;
        answer.assert_problem(410);
    }
    cluster.wait_until_nobody_is_left().await;
    let _bob = cluster.connect(0, BOB).await;
    assert_eq!(
        observer.next_status().await,
        (BOB, Online),
        "nobody else was touched"
    );
}

/// Goal: `disconnect` sends away every connection of the user on every node, and nobody else.
/// Method: three tabs on two nodes and a bystander; afterwards the user may come back.
#[tokio::test]
async fn a_user_can_be_disconnected() {
    let cluster = Cluster::start(2).await;
    let mut tabs = [
        cluster.connect(0, ADA).await,
        cluster.connect(0, ADA).await,
        cluster.connect(1, ADA).await,
    ];
    let bystander = cluster.connect(0, BOB).await;
    cluster.notify(1, ADA, "disconnect", json!({})).await;
    for tab in &mut tabs {
        assert_kicked(tab, "kicked").await;
    }
    cluster.wait_for_refcount(ADA, 0).await;
    cluster.wait_until_all_see(&[BOB]).await;
    assert_eq!(bystander.online().await, [BOB]);
    // It does not come back by itself; the front end may still connect on purpose.
    tabs[0].connect();
    assert_eq!(tabs[0].next_verdict().await, Ok(()));
    cluster.wait_for_refcount(ADA, 1).await;
}

/// Told why, then a Socket.IO disconnect packet, after which the official client stays away.
async fn assert_kicked(tab: &mut Client, code: &str) {
    let kicked = tab.next_event("kicked").await;
    assert_eq!(kicked["code"], code, "{kicked}");
    assert_eq!(kicked["reconnect"], false, "{kicked}");
    assert!(kicked["message"].is_string(), "{kicked}");
    assert_eq!(tab.next_disconnect().await, "io server disconnect");
}

/// Goal: a custom event reaches the user's own connections on all nodes, and nobody who watches.
/// Method: payloads of every JSON type; the watcher hears a later update first.
#[tokio::test]
async fn custom_events_reach_the_user_alone() {
    let cluster = Cluster::start(2).await;
    let mut tabs = [cluster.connect(0, ADA).await, cluster.connect(1, ADA).await];
    let mut watcher = cluster.connect(0, BOB).await;
    watcher.watch(ADA).await;
    let payloads = [
        json!({ "coins": 5, "deep": [{ "er": null }] }),
        json!("text"),
        json!(7),
        json!([1, 2]),
        json!(true),
    ];
    for data in payloads {
        let body = json!({ "event": "gift-received", "data": data });
        let answer = cluster.notify(1, ADA, "events", body).await;
        assert_eq!(answer["nodes"], 2, "{answer}");
        for tab in &mut tabs {
            assert_eq!(tab.next_event("gift-received").await, data);
        }
    }
    cluster
        .notify_profile(1, ADA, json!({ "userID": ADA }))
        .await;
    watcher.next_event("profile-update").await;
    assert!(watcher.payloads("gift-received").is_empty());

    let absent = cluster
        .notify(0, MARKER, "events", json!({ "event": "x", "data": null }))
        .await;
    assert_eq!(absent["nodes"], 0, "nobody is there: {absent}");
}

/// Goal: names that mean something to Socket.IO itself cannot be sent as custom events.
/// Method: each of them, and names that are none; then a good one, which must arrive first.
#[tokio::test]
async fn reserved_event_names_are_refused() {
    let cluster = Cluster::start(1).await;
    let mut tab = cluster.connect(0, ADA).await;
    let reserved = [
        "connect",
        "disconnect",
        "connect_error",
        "disconnecting",
        "newListener",
        "removeListener",
    ];
    for name in reserved {
        cluster
            .tell(ADA, "events", &json!({ "event": name, "data": 1 }))
            .await
            .assert_refused();
    }
    for name in [json!(""), json!(5), json!(null), json!(["a"]), json!({})] {
        cluster
            .tell(ADA, "events", &json!({ "event": name, "data": 1 }))
            .await
            .assert_refused();
    }
    cluster
        .notify(0, ADA, "events", json!({ "event": "good", "data": 1 }))
        .await;
    tab.next_event("good").await;
    let heard = tab.events_so_far();
    let events = heard.iter().filter(|record| {
        matches!(record, crate::harness::Record::Event { name, .. } if name != "user-status-change")
    });
    assert_eq!(events.count(), 1, "{heard:?}");
}

/// Goal: a batch does what its items say, in order, and a bad item stops no other.
/// Method: good and bad items mixed; results by place; what arrives.
#[tokio::test]
async fn a_batch_survives_its_bad_items() {
    let cluster = Cluster::start(2).await;
    cluster.notify(0, EVE, "account-deleted", json!({})).await;
    let (mut ada, mut bob) = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    let items = json!([
        { "kind": "profile-update", "userId": ADA, "user": { "userID": ADA, "username": "one" }, "revision": 10 },
        { "kind": "no-such-kind", "userId": ADA },
        { "kind": "profile-update", "userId": 0, "user": {} },
        { "kind": "profile-update", "userId": "42", "user": {} },
        { "kind": "profile-update", "userId": ADA, "user": "no object" },
        { "kind": "profile-update", "userId": ADA },
        { "kind": "game-stats-update", "userId": ADA, "stats": [1], "revision": 1 },
        { "kind": "profile-update", "userId": ADA, "user": {}, "revision": -1 },
        { "userId": ADA, "user": {} },
        "text", null, 5, [],
        { "kind": "game-stats-update", "userId": BOB, "stats": { "wins": 9 } },
        { "kind": "profile-update", "userId": ADA, "user": { "userID": ADA, "username": "old" }, "revision": 9 },
        { "kind": "profile-update", "userId": ADA, "user": { "userID": ADA, "username": "two" }, "revision": 11 },
        { "kind": "friend-list-update", "userId": ADA, "friends": [] },
        { "kind": "match-history-update", "userId": ADA, "matches": [] },
    ]);
    let answer = cluster.post(1, "/api/v1/notifications", &items).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json.as_array().expect("an array").clone();
    assert_eq!(results.len(), 18, "{answer:?}");
    let good = [0, 13, 14, 15, 16, 17];
    for (place, result) in results.iter().enumerate() {
        let status = if good.contains(&place) { 200 } else { 400 };
        assert_eq!(result["status"], status, "item {place}: {result}");
        assert_eq!(
            result["error"].is_string(),
            status == 400,
            "item {place}: {result}"
        );
        assert_eq!(
            result["revision"].is_u64() && result["nodes"].is_u64(),
            status == 200,
            "item {place}: {result}"
        );
    }
    assert_eq!(
        (&results[0]["revision"], &results[15]["revision"]),
        (&json!(10), &json!(11))
    );
    assert_eq!(results[14]["stale"], true, "{}", results[14]);

    assert_eq!(
        ada.next_event("profile-update").await["user"]["username"],
        "one"
    );
    assert_eq!(
        ada.next_event("profile-update").await["user"]["username"],
        "two"
    );
    assert_eq!(
        ada.next_event("friend-list-update").await["friends"],
        json!([])
    );
    assert_eq!(
        ada.next_event("match-history-update").await["matches"],
        json!([])
    );
    assert_eq!(
        bob.next_event("game-stats-update").await["stats"],
        json!({ "wins": 9 })
    );
    assert_eq!(ada.payloads("profile-update").len(), 2);

    let items = json!([
        { "kind": "profile-update", "userId": EVE, "user": { "userID": EVE } },
        { "kind": "game-stats-update", "userId": ADA, "stats": {} },
    ]);
    let answer = cluster.post(0, "/api/v1/notifications", &items).await;
    assert_ne!(
        answer.json[0]["status"], 200,
        "a deleted account: {answer:?}"
    );
    assert_eq!(answer.json[1]["status"], 200, "{answer:?}");

    assert_eq!(
        cluster
            .post(0, "/api/v1/notifications", &json!([]))
            .await
            .json,
        json!([])
    );
    for body in [
        json!({}),
        json!("x"),
        json!(null),
        json!({ "kind": "profile-update" }),
    ] {
        cluster
            .post(0, "/api/v1/notifications", &body)
            .await
            .assert_refused();
    }
}

/// Goal: updates about users whom nobody knows are stored, and shown to whoever asks later.
/// Method: the largest id there is; nobody listens; then somebody watches.
#[tokio::test]
async fn updates_are_kept_for_later() {
    let cluster = Cluster::start(2).await;
    let largest = (1_u64 << 53) - 1;
    let body = json!({ "stats": { "elo": 1500 } });
    let answer = cluster.notify(0, largest, "game-stats-update", body).await;
    assert_eq!(answer["nodes"], 0, "{answer}");
    let guest = cluster.connect_guest(1).await;
    let watched = guest.watch(largest).await;
    assert_eq!(watched["stats"], json!({ "elo": 1500 }));
    assert_eq!(watched["revisions"]["stats"], answer["revision"]);
    let ttl = cluster
        .redis()
        .number(&["TTL", &cluster.key(largest, "profile")])
        .await;
    assert!(ttl > 0, "what is stored expires some day");
}
