//! One contract, two engines: the same suite on the embedded engine and on Redis.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Client, Cluster, Connecting, MARKER, NODE_KEY, Offline, Online, eventually, issued,
    token,
};

/// One test per engine for each part of the contract.
macro_rules! on_both_engines {
    ($($(#[$documentation:meta])* $name:ident;)*) => {
        mod memory {
            $($(#[$documentation])* #[tokio::test]
            async fn $name() {
                super::$name(&crate::harness::Cluster::start_memory().await).await;
            })*
        }
        mod redis {
            $($(#[$documentation])* #[tokio::test]
            async fn $name() {
                super::$name(&crate::harness::Cluster::start(2).await).await;
            })*
        }
    };
}

on_both_engines! {
    /// Goal: guests and users get in, bad tokens do not. Method: one of each.
    connects;
    /// Goal: online and offline are said once. Method: two tabs; a marker behind them.
    announces;
    /// Goal: watching answers with what is known and brings what comes. Method: before and after.
    watches;
    /// Goal: every kind of update has its audience. Method: own tab and stranger compared.
    notifies;
    /// Goal: a user can be sent away, and come back. Method: two tabs.
    disconnects;
    /// Goal: revoked tokens stay out, newer ones do not. Method: two tabs; tokens around the time of the revocation, and
    /// once more after the node's next heartbeat.
    revokes;
    /// Goal: a deleted account stays out. Method: a tab, a watcher, a second attempt.
    deletes;
    /// Goal: a batch does its good items. Method: one bad item among good ones.
    takes_batches;
    /// Goal: old revisions change nothing. Method: 5, 5, 4, 6.
    knows_stale_revisions;
    /// Goal: updates can be forgotten, and nothing else is. Method: before, after, once more; a deleted account stays so.
    forgets;
    /// Goal: a custom event goes to the user. Method: all tabs.
    sends_events;
    /// Goal: two who wait become a match, told once on every tab; who left or is gone waits no more.
    /// Method: joining twice, leaving, a back end's ticket; two tabs and two matches; then somebody who goes.
    finds_opponents;
    /// Goal: presence and nodes are told over HTTP. Method: compared with the truth.
    tells_operators;
}

/// The node farthest from node 0: another one where there is one.
fn far(cluster: &Cluster) -> usize {
    cluster.len() - 1
}

async fn connects(cluster: &Cluster) {
    let user = cluster.connect(0, ADA).await;
    let guest = cluster.connect_guest(far(cluster)).await;
    assert_eq!(guest.online().await, [ADA]);
    assert_eq!(user.online().await, [ADA]);
    assert_eq!(
        cluster.refusal(0, Connecting::token("x")).await,
        "invalid_token"
    );
}

async fn announces(cluster: &Cluster) {
    let mut observer = cluster.connect_guest(0).await;
    let (phone, laptop) = (
        cluster.connect(0, ADA).await,
        cluster.connect(far(cluster), ADA).await,
    );
    phone.close().await;
    cluster.wait_for_refcount(ADA, 1).await;
    let _marker = cluster.connect(0, MARKER).await;
    laptop.close().await;
    for expected in [(ADA, Online), (MARKER, Online), (ADA, Offline)] {
        assert_eq!(observer.next_status().await, expected);
    }
    cluster.wait_until_all_see(&[MARKER]).await;
}

async fn watches(cluster: &Cluster) {
    let mut watcher = cluster.connect_guest(0).await;
    let first = watcher.watch(ADA).await;
    assert_eq!(
        (&first["profile"], &first["stats"]),
        (&Value::Null, &Value::Null)
    );
    let profile = json!({ "userID": ADA, "username": "ada", "email": "x@y" });
    let sent = cluster.notify_profile(far(cluster), ADA, profile).await;
    let seen = json!({ "userID": ADA, "username": "ada" });
    let update = watcher.next_event("profile-update").await;
    assert_eq!(update, json!({ "user": seen, "revision": sent }));
    let again = watcher.watch(ADA).await;
    assert_eq!(
        (&again["profile"], &again["revisions"]["profile"]),
        (&seen, &json!(sent))
    );
    watcher.unwatch(ADA).await;
    watcher.watch(MARKER).await;
    cluster
        .notify_profile(0, ADA, json!({ "userID": ADA }))
        .await;
    cluster
        .notify_profile(0, MARKER, json!({ "userID": MARKER }))
        .await;
    assert_eq!(
        watcher.next_event("profile-update").await["user"]["userID"],
        MARKER
    );
}

async fn notifies(cluster: &Cluster) {
    let mut own = cluster.connect(0, ADA).await;
    let mut stranger = cluster.connect(far(cluster), BOB).await;
    stranger.watch(ADA).await;
    cluster
        .notify(0, ADA, "friend-list-update", json!({ "friends": [] }))
        .await;
    cluster
        .notify(0, ADA, "match-history-update", json!({ "matches": [] }))
        .await;
    cluster
        .notify(
            0,
            ADA,
            "game-stats-update",
            json!({ "stats": { "wins": 1 } }),
        )
        .await;
    let full = json!({ "userID": ADA, "email": "x@y" });
    cluster.notify_profile(0, ADA, full.clone()).await;
    for kind in [
        "friend-list-update",
        "match-history-update",
        "game-stats-update",
    ] {
        assert_eq!(own.next_event(kind).await["userId"], ADA, "{kind}");
    }
    assert_eq!(own.next_event("profile-update").await["user"], full);
    assert_eq!(
        stranger.next_event("game-stats-update").await["stats"],
        json!({ "wins": 1 })
    );
    assert_eq!(
        stranger.next_event("profile-update").await["user"],
        json!({ "userID": ADA })
    );
    assert!(stranger.payloads("friend-list-update").is_empty());
    assert!(stranger.payloads("match-history-update").is_empty());
}

async fn disconnects(cluster: &Cluster) {
    let mut tabs = [
        cluster.connect(0, ADA).await,
        cluster.connect(far(cluster), ADA).await,
    ];
    cluster.notify(0, ADA, "disconnect", json!({})).await;
    for tab in &mut tabs {
        let kicked = tab.next_event("kicked").await;
        assert_eq!(
            (&kicked["code"], &kicked["reconnect"]),
            (&json!("kicked"), &json!(false))
        );
        assert_eq!(tab.next_disconnect().await, "io server disconnect");
    }
    cluster.wait_for_refcount(ADA, 0).await;
    cluster.connect(0, ADA).await;
}

async fn revokes(cluster: &Cluster) {
    let mut tabs = [
        cluster.connect(0, ADA).await,
        cluster.connect(far(cluster), ADA).await,
    ];
    let body = json!({ "revoke": true });
    let answer = cluster.notify(far(cluster), ADA, "disconnect", body).await;
    assert_eq!(answer["nodes"], cluster.len(), "{answer}");
    let before = answer["revokedBefore"].as_u64().expect("a time");
    for tab in &mut tabs {
        assert_eq!(tab.next_event("kicked").await["code"], "kicked");
        assert_eq!(tab.next_disconnect().await, "io server disconnect");
    }
    let lease_ends = async || {
        let nodes = cluster.get(0, "/api/v1/nodes").await.json;
        nodes["nodes"][0]["leaseEndsAt"].as_u64()
    };
    for _ in 0..2 {
        for old in [token(ADA), issued(ADA, before - 1)] {
            let old = Connecting::token(&old);
            assert_eq!(cluster.refusal(0, old).await, "invalid_token");
        }
        let newer = issued(ADA, before);
        let tab = cluster.connect_with(0, Connecting::token(&newer)).await;
        let refresh = async |token: &str| {
            let payload = json!({ "token": token });
            tab.emit_ack("refresh-token", payload).await["ok"].clone()
        };
        assert_eq!(refresh(&token(ADA)).await, false);
        assert_eq!(refresh(&newer).await, true);
        let now = lease_ends().await;
        eventually("the node's next heartbeat", async || {
            (lease_ends().await > now).then_some(())
        })
        .await;
    }
}

async fn deletes(cluster: &Cluster) {
    let mut tab = cluster.connect(0, ADA).await;
    let mut watcher = cluster.connect_guest(far(cluster)).await;
    watcher.watch(ADA).await;
    cluster
        .notify(far(cluster), ADA, "account-deleted", json!({}))
        .await;
    assert_eq!(tab.next_args("account-deleted").await, Vec::<Value>::new());
    assert_eq!(tab.next_event("kicked").await["code"], "account_deleted");
    assert_eq!(tab.next_disconnect().await, "io server disconnect");
    assert_eq!(
        watcher.next_event("profile-deleted").await,
        json!({ "userId": ADA })
    );
    assert_eq!(watcher.next_status().await, (ADA, Offline));
    assert_eq!(
        cluster.refusal(0, Connecting::user(ADA)).await,
        "account_deleted"
    );
    let update = json!({ "user": { "userID": ADA } });
    cluster
        .post(0, "/api/v1/users/42/profile-update", &update)
        .await
        .assert_problem(410);
}

async fn takes_batches(cluster: &Cluster) {
    let mut watcher = cluster.connect_guest(far(cluster)).await;
    watcher.watch(ADA).await;
    let items = json!([
        { "kind": "profile-update", "userId": ADA, "user": { "userID": ADA }, "revision": 3 },
        { "kind": "profile-update", "userId": 0, "user": {} },
        { "kind": "game-stats-update", "userId": ADA, "stats": { "wins": 2 }, "revision": 3 },
        { "kind": "game-stats-update", "userId": ADA, "stats": { "wins": 1 }, "revision": 2 },
    ]);
    let answer = cluster.post(0, "/api/v1/notifications", &items).await.json;
    let statuses: Vec<&Value> = answer
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| &r["status"])
        .collect();
    assert_eq!(statuses, [200, 400, 200, 200], "{answer}");
    assert_eq!(
        (&answer[0]["nodes"], &answer[3]["stale"]),
        (&json!(1), &json!(true)),
        "{answer}"
    );
    assert_eq!(watcher.next_event("profile-update").await["revision"], 3);
    assert_eq!(
        watcher.next_event("game-stats-update").await["stats"],
        json!({ "wins": 2 })
    );
}

async fn knows_stale_revisions(cluster: &Cluster) {
    let mut watcher = cluster.connect_guest(far(cluster)).await;
    watcher.watch(ADA).await;
    for (revision, stale) in [(5, false), (5, true), (4, true), (6, false)] {
        let body = json!({ "user": { "userID": ADA, "username": revision }, "revision": revision });
        let answer = cluster.notify(0, ADA, "profile-update", body).await;
        assert_eq!(answer["stale"] == true, stale, "{revision}: {answer}");
    }
    for revision in [5, 6] {
        assert_eq!(
            watcher.next_event("profile-update").await["revision"],
            revision
        );
    }
    assert_eq!(watcher.watch(ADA).await["profile"]["username"], 6);
}

async fn forgets(cluster: &Cluster) {
    let forget = async |user: u64| {
        let path = format!("/api/v1/users/{user}/updates");
        let request = cluster.request(0, Method::DELETE, &path);
        let answer = cluster.send(request.bearer_auth(NODE_KEY)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["removed"] == true
    };
    let body = json!({ "user": { "userID": ADA, "username": "ada" }, "revision": 5 });
    cluster.notify(0, ADA, "profile-update", body.clone()).await;
    cluster
        .notify(0, ADA, "game-stats-update", json!({ "stats": {} }))
        .await;
    assert!(forget(ADA).await);
    assert!(!forget(ADA).await && !forget(BOB).await);
    let watcher = cluster.connect_guest(far(cluster)).await;
    let known = watcher.watch(ADA).await;
    assert_eq!(
        (&known["profile"], &known["stats"]),
        (&Value::Null, &Value::Null)
    );
    let answer = cluster.notify(0, ADA, "profile-update", body.clone()).await;
    assert_eq!(
        answer["stale"],
        Value::Null,
        "as if there had been none: {answer}"
    );

    cluster
        .post(
            0,
            &format!("/api/v1/users/{BOB}/account-deleted"),
            &json!({}),
        )
        .await;
    assert!(!forget(BOB).await);
    assert_eq!(
        cluster.refusal(0, Connecting::user(BOB)).await,
        "account_deleted"
    );
}

async fn sends_events(cluster: &Cluster) {
    let mut tabs = [
        cluster.connect(0, ADA).await,
        cluster.connect(far(cluster), ADA).await,
    ];
    let body = json!({ "event": "hello", "data": { "a": [1, 2] } });
    let answer = cluster.notify(0, ADA, "events", body).await;
    assert_eq!(answer["nodes"], cluster.len(), "{answer}");
    for tab in &mut tabs {
        assert_eq!(tab.next_event("hello").await, json!({ "a": [1, 2] }));
    }
}

async fn tells_operators(cluster: &Cluster) {
    let _tabs = (
        cluster.connect(0, ADA).await,
        cluster.connect(far(cluster), BOB).await,
    );
    for node in cluster.running() {
        let listed = cluster.get(node, "/api/v1/presence").await.json;
        assert_eq!(listed["online"], 2, "{listed}");
        let ada = cluster.get(node, "/api/v1/presence/42").await.json;
        assert_eq!(
            (&ada["status"], &ada["connections"][0]["node"]),
            (&json!("online"), &json!("n0"))
        );
        let nodes = cluster.get(node, "/api/v1/nodes").await.json;
        assert_eq!(
            nodes["nodes"].as_array().map(Vec::len),
            Some(cluster.len()),
            "{nodes}"
        );
    }
    assert_eq!(cluster.get_public(0, "/readyz").await.status, 200);
}

async fn finds_opponents(cluster: &Cluster) {
    let mut guest = cluster.connect_guest(0).await;
    guest.emit_args("join-matchmaking", vec![]);
    assert_eq!(
        guest.next_event("exception").await["error"],
        "not_signed_in"
    );
    let mut ada = cluster.connect(0, ADA).await;
    let mut tab = cluster.connect(far(cluster), ADA).await;
    let mut bob = cluster.connect(far(cluster), BOB).await;
    let status = async |client: &Client, event: &str| {
        let answer = client.emit_args_ack(event, vec![]).await;
        assert_eq!(answer["ok"], true, "{answer}");
        answer["status"].clone()
    };
    assert_eq!(status(&ada, "join-matchmaking").await, "queued");
    assert_eq!(status(&tab, "join-matchmaking").await, "already_queued");
    assert_eq!(status(&ada, "leave-matchmaking").await, Value::Null);
    for round in 1..=2 {
        assert_eq!(status(&bob, "join-matchmaking").await, "queued");
        let ticket = json!({ "userId": ADA });
        let answer = cluster
            .post(0, "/api/v1/matchmaking/tickets", &ticket)
            .await;
        assert_eq!(answer.json["status"], "queued", "{answer:?}");
        let found = bob.next_event("match-found").await;
        assert_eq!(found["opponent"]["userId"], ADA);
        for client in [&mut ada, &mut tab] {
            let told = client.next_event("match-found").await;
            assert_eq!(
                (&told["matchId"], &told["opponent"]["userId"]),
                (&found["matchId"], &json!(BOB))
            );
            assert_eq!(client.payloads("match-found").len(), round);
        }
    }
    eventually("nobody waits, and all was told", async || {
        let queue = cluster.get(0, "/api/v1/matchmaking").await.json;
        let expected = json!({ "queueLength": 0, "oldestWaitMs": 0, "matchesPerMinute": 2, "pendingMatches": 0 });
        (queue == expected).then_some(())
    })
    .await;
    assert_eq!(status(&bob, "join-matchmaking").await, "queued");
    bob.close().await;
    eventually("who is gone does not wait", async || {
        let queue = cluster.get(0, "/api/v1/matchmaking").await.json;
        (queue["queueLength"] == 0).then_some(())
    })
    .await;
}
