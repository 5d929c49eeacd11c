//! The internal HTTP API: what back ends tell the hub, and what operators ask it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ADA, Answer, BOB, Client, Cluster, Connecting, EVE, MARKER, NODE_KEY};
use crate::harness::{Offline, Online, eventually, eventually_eq, now_seconds};

/// The four updates: how the route is called, the body's field, and a value for it.
fn kinds() -> [(&'static str, &'static str, Value); 4] {
    let opponent = json!({ "userId": 5, "username": "five", "avatar": "" });
    let played = json!({ "matchId": "m1", "opponent": opponent, "result": "win", "score": [11, 7], "playedAt": 1_700_000_000_000_u64 });
    [
        (
            "profile-update",
            "user",
            json!({ "userID": ADA, "username": "ada", "avatar": "" }),
        ),
        (
            "game-stats-update",
            "stats",
            json!({ "wins": 1, "losses": 2 }),
        ),
        ("friend-list-update", "friends", json!([opponent])),
        ("match-history-update", "matches", json!([played])),
    ]
}

/// What a connection of the user gets of an update.
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
        let names = event_names(tab, &["account-deleted", "kicked"]);
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

/// The events among `wanted` that a client has heard, in order.
fn event_names(client: &Client, wanted: &[&str]) -> Vec<String> {
    let records = client.events_so_far().into_iter();
    let names = records.filter_map(|record| match record {
        crate::harness::Record::Event { name, .. } => Some(name),
        _ => None,
    });
    names
        .filter(|name| wanted.contains(&name.as_str()))
        .collect()
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
        post(&cluster, "events", &json!({ "event": name, "data": 1 }))
            .await
            .assert_refused();
    }
    for name in [json!(""), json!(5), json!(null), json!(["a"]), json!({})] {
        post(&cluster, "events", &json!({ "event": name, "data": 1 }))
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

/// Goal: presence over HTTP: one page after the other gives everybody once; one user in detail.
/// Method: seven users on two nodes, pages of three.
#[tokio::test]
async fn presence_can_be_paged_through() {
    let cluster = Cluster::start(2).await;
    let mut tabs = Vec::new();
    for user in 1..=7 {
        tabs.push(cluster.connect(user as usize % 2, user).await);
    }
    tabs.push(cluster.connect(0, 1).await);
    for node in 0..2 {
        let (mut users, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let from = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let page = cluster
                .get(node, &format!("/api/v1/presence?limit=3{from}"))
                .await;
            assert_eq!(page.status, 200, "{page:?}");
            assert_eq!(page.json["online"], 7, "{page:?}");
            let ids = page.json["users"].as_array().expect("a list").iter();
            users.extend(ids.map(|id| id.as_u64().expect("an id")));
            pages += 1;
            assert!(pages < 20, "it ends: {page:?}");
            cursor = match &page.json["cursor"] {
                Value::Null => break,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
        }
        let each_once: BTreeSet<u64> = users.iter().copied().collect();
        assert_eq!(users.len(), each_once.len(), "{users:?}");
        assert_eq!(each_once, (1..=7).collect());
        assert!(pages > 1, "pages are limited");
    }
    let all = cluster.get(0, "/api/v1/presence").await.json;
    assert_eq!(
        (&all["users"].as_array().map(Vec::len), &all["cursor"]),
        (&Some(7), &Value::Null)
    );
    for query in ["limit=0", "limit=-1", "limit=x", "limit=1.5", "cursor=!"] {
        cluster
            .get(0, &format!("/api/v1/presence?{query}"))
            .await
            .assert_refused();
    }

    let one = cluster.get(1, "/api/v1/presence/1").await.json;
    assert_eq!(
        (&one["userId"], &one["status"]),
        (&json!(1), &json!("online"))
    );
    let connections = one["connections"].as_array().expect("a list");
    let nodes: BTreeSet<&str> = connections
        .iter()
        .filter_map(|c| c["node"].as_str())
        .collect();
    assert_eq!(connections.len(), 2, "{one}");
    assert_eq!(nodes, BTreeSet::from(["n0", "n1"]));
    for connection in connections {
        let since = connection["since"].as_i64().expect("a time in ms");
        assert!((since / 1000 - now_seconds()).abs() < 600, "{connection}");
        assert!(!connection["id"].is_null(), "{connection}");
    }
    let nobody = cluster.get(1, "/api/v1/presence/12345").await;
    assert_eq!(nobody.status, 200, "{nobody:?}");
    assert_eq!(
        nobody.json,
        json!({ "userId": 12345, "status": "offline", "connections": [] })
    );
    for id in ["0", "-1", "x", "1.5", "9007199254740992", "01", "%20"] {
        cluster
            .get(0, &format!("/api/v1/presence/{id}"))
            .await
            .assert_refused();
    }
}

/// Goal: every node lists all nodes and what they carry.
/// Method: users, guests and watches are put on two nodes and counted on both.
#[tokio::test]
async fn nodes_are_listed_with_what_they_carry() {
    let cluster = Cluster::builder().nodes(2).without_lookouts().start().await;
    let watcher = cluster.connect_guest(0).await;
    watcher.watch(EVE).await;
    let _tabs = (cluster.connect(0, ADA).await, cluster.connect(0, ADA).await);
    let _bob = cluster.connect(1, BOB).await;
    for asked in 0..2 {
        // Nodes publish their numbers with their heartbeat.
        let expected = json!([
            { "id": "n0", "connections": 3, "guests": 1, "users": 1, "topics": 2 },
            { "id": "n1", "connections": 1, "guests": 0, "users": 1, "topics": 1 },
        ]);
        eventually_eq("the nodes' numbers", expected, async || {
            let nodes = cluster.get(asked, "/api/v1/nodes").await.json["nodes"].clone();
            let mut nodes = nodes.as_array().cloned().unwrap_or_default();
            nodes.sort_by_key(|node| node["id"].to_string());
            nodes
                .iter()
                .map(|node| pick(node, &["id", "connections", "guests", "users", "topics"]))
                .collect()
        })
        .await;
    }
    let nodes = cluster.get(0, "/api/v1/nodes").await.json;
    for node in nodes["nodes"].as_array().expect("a list") {
        let id = node["id"].as_str().expect("a name");
        let incarnation = node["incarnation"].as_str().expect("a name");
        assert!(incarnation.starts_with(&format!("{id}.")), "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        let (started, ends) = (node["startedAt"].as_i64(), node["leaseEndsAt"].as_i64());
        assert!(
            started.is_some_and(|ms| (ms / 1000 - now_seconds()).abs() < 600),
            "{node}"
        );
        assert!(ends > started, "{node}");
    }
    cluster.stop(1).await;
    let left = async || {
        let nodes = cluster.get(0, "/api/v1/nodes").await.json;
        (nodes["nodes"].as_array().map(Vec::len) == Some(1)).then_some(())
    };
    eventually("a node that has left is not listed", left).await;
}

fn pick(object: &Value, fields: &[&str]) -> Value {
    fields
        .iter()
        .map(|field| ((*field).to_owned(), object[*field].clone()))
        .collect()
}

/// Goal: the API describes itself.
/// Method: the document is OpenAPI 3, and has every route with its method and its answers.
#[tokio::test]
async fn the_api_describes_itself() {
    let cluster = Cluster::start_memory().await;
    let answer = cluster.get(0, "/api/v1/openapi.json").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let document = answer.json;
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let routes = [
        ("post", "/api/v1/users/{id}/profile-update"),
        ("post", "/api/v1/users/{id}/game-stats-update"),
        ("post", "/api/v1/users/{id}/friend-list-update"),
        ("post", "/api/v1/users/{id}/match-history-update"),
        ("post", "/api/v1/users/{id}/account-deleted"),
        ("post", "/api/v1/users/{id}/disconnect"),
        ("post", "/api/v1/users/{id}/events"),
        ("post", "/api/v1/notifications"),
        ("get", "/api/v1/presence"),
        ("get", "/api/v1/presence/{id}"),
        ("get", "/api/v1/nodes"),
    ];
    for (method, path) in routes {
        let operation = &document["paths"][path][method];
        assert!(
            operation["responses"]["200"].is_object(),
            "{method} {path}: {operation}"
        );
        assert!(
            operation["responses"]["401"].is_object(),
            "{method} {path}: {operation}"
        );
    }
    assert_references_resolve(&document, &document);
}

/// Every `$ref` leads somewhere.
fn assert_references_resolve(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let place = reference.trim_start_matches('#');
                assert!(
                    document.pointer(place).is_some(),
                    "{reference} leads nowhere"
                );
            }
            fields
                .values()
                .for_each(|inner| assert_references_resolve(document, inner));
        }
        Value::Array(items) => {
            items
                .iter()
                .for_each(|inner| assert_references_resolve(document, inner));
        }
        _ => {}
    }
}

/// Goal: bad input of every kind is refused in problem JSON, and changes nothing.
/// Method: bad ids, bad bodies and bad revisions on every route; then what is stored and what was
/// delivered are as before.
#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(2).await;
    let mut tab = cluster.connect(0, ADA).await;
    let before = cluster
        .notify_profile(0, ADA, json!({ "userID": ADA, "username": "before" }))
        .await;
    let keys_before = cluster.redis().keys("*profile*").await;

    let ids = [
        "0",
        "-1",
        "1.5",
        "abc",
        "9007199254740992",
        "99999999999999999999",
        "01",
        "+1",
        "%20",
        "42x",
        "null",
    ];
    for (kind, field, value) in kinds() {
        for id in ids {
            let path = format!("/api/v1/users/{id}/{kind}");
            cluster
                .post(0, &path, &json!({ field: value }))
                .await
                .assert_refused();
        }
        let wrong_type = [
            json!(null),
            json!("text"),
            json!(5),
            json!(true),
            if value.is_array() {
                json!({})
            } else {
                json!([])
            },
        ];
        for bad in wrong_type {
            post(&cluster, kind, &json!({ field: bad }))
                .await
                .assert_refused();
        }
        for revision in [
            json!(-1),
            json!(1.5),
            json!("7"),
            json!([]),
            json!({}),
            json!(true),
            json!(1_u64 << 53),
        ] {
            let body = json!({ field: value, "revision": revision });
            post(&cluster, kind, &body).await.assert_refused();
        }
        for body in [
            json!({}),
            json!([]),
            json!(null),
            json!("x"),
            json!(1),
            json!({ "wrong": value }),
        ] {
            post(&cluster, kind, &body).await.assert_refused();
        }
        let path = format!("/api/v1/users/{ADA}/{kind}");
        for broken in [
            "",
            "{",
            "{\"user\":",
            "nonsense",
            "{\"user\":{}}trailing",
            "\u{0}",
        ] {
            let request = cluster
                .request(0, Method::POST, &path)
                .bearer_auth(NODE_KEY);
            let request = request
                .header("content-type", "application/json")
                .body(broken);
            cluster.send(request).await.assert_refused();
        }
    }
    for route in ["account-deleted", "disconnect", "events"] {
        for id in ids {
            let path = format!("/api/v1/users/{id}/{route}");
            cluster
                .post(0, &path, &json!({ "event": "x", "data": 1 }))
                .await
                .assert_refused();
        }
    }
    for body in [json!({}), json!([]), json!(null), json!({ "data": 1 })] {
        post(&cluster, "events", &body).await.assert_refused();
    }

    assert_eq!(cluster.redis().keys("*profile*").await, keys_before);
    let known = tab.watch(ADA).await;
    assert_eq!(
        known["revisions"],
        json!({ "profile": before, "stats": null })
    );
    cluster
        .notify(1, ADA, "events", json!({ "event": "marker", "data": 1 }))
        .await;
    tab.next_event("marker").await;
    assert_eq!(
        event_names(
            &tab,
            &[
                "profile-update",
                "game-stats-update",
                "friend-list-update",
                "match-history-update",
                "x",
                "kicked"
            ]
        ),
        ["profile-update"]
    );
}

/// Goal: unknown routes and wrong methods are problems, too.
/// Method: one of each sort.
#[tokio::test]
async fn unknown_routes_are_problems() {
    let cluster = Cluster::start_memory().await;
    cluster.get(0, "/api/v1/nothing").await.assert_problem(404);
    cluster
        .post(0, "/api/v1/users/42/nothing", &json!({}))
        .await
        .assert_problem(404);
    cluster
        .get(0, "/api/v1/users/42/profile-update")
        .await
        .assert_problem(405);
    cluster
        .post(0, "/api/v1/nodes", &json!({}))
        .await
        .assert_problem(405);
}

/// Goal: nothing behind the key is to be had without it, and with it in either header.
/// Method: every route without, with a wrong, an empty and a half key; then with the right one.
#[tokio::test]
async fn the_internal_api_wants_its_key() {
    let cluster = Cluster::start_memory().await;
    let tab = cluster.connect(0, ADA).await;
    let mut routes = vec![
        (Method::GET, "/api/v1/presence".to_owned()),
        (Method::GET, "/api/v1/presence/42".to_owned()),
        (Method::GET, "/api/v1/nodes".to_owned()),
        (Method::POST, "/api/v1/notifications".to_owned()),
    ];
    let of_user = [
        "profile-update",
        "game-stats-update",
        "friend-list-update",
        "match-history-update",
        "account-deleted",
        "disconnect",
        "events",
    ];
    routes.extend(of_user.map(|route| (Method::POST, format!("/api/v1/users/42/{route}"))));
    for (method, path) in &routes {
        let request = || {
            cluster
                .request(0, method.clone(), path)
                .json(&json!({ "user": {} }))
        };
        cluster.send(request()).await.assert_problem(401);
        for key in ["wrong", "", &NODE_KEY[1..], &NODE_KEY.to_uppercase()] {
            cluster
                .send(request().bearer_auth(key))
                .await
                .assert_problem(401);
            cluster
                .send(request().header("x-api-key", key))
                .await
                .assert_problem(401);
        }
        cluster
            .send(request().basic_auth("x", Some(NODE_KEY)))
            .await
            .assert_problem(401);
    }
    assert_eq!(tab.online().await, [ADA], "nothing happened");
    let path = "/api/v1/nodes";
    let bearer = cluster.request(0, Method::GET, path).bearer_auth(NODE_KEY);
    assert_eq!(cluster.send(bearer).await.status, 200);
    let header = cluster
        .request(0, Method::GET, path)
        .header("X-API-Key", NODE_KEY);
    assert_eq!(cluster.send(header).await.status, 200);
}

/// Goal: a body over `limits.http_body` is refused as too large; one just below is not.
/// Method: a limit of 1 KiB; on a single update and on a batch.
#[tokio::test]
async fn large_bodies_are_refused() {
    let cluster = Cluster::builder()
        .nodes(1)
        .env("VIGIE_LIMITS__HTTP_BODY", "1KiB")
        .start()
        .await;
    let mut tab = cluster.connect(0, ADA).await;
    let user = |length: usize| json!({ "userID": ADA, "username": "x".repeat(length) });
    post(&cluster, "profile-update", &json!({ "user": user(2000) }))
        .await
        .assert_problem(413);
    let batch = json!([{ "kind": "profile-update", "userId": ADA, "user": user(2000) }]);
    cluster
        .post(0, "/api/v1/notifications", &batch)
        .await
        .assert_problem(413);
    let sent = cluster.notify_profile(0, ADA, user(500)).await;
    assert_eq!(tab.next_event("profile-update").await["revision"], sent);
}

/// Goal: health, readiness and metrics answer whom they should.
/// Method: health and readiness without a key on the public listener; metrics without a key on the
/// internal one, which is on loopback; none of the internal routes on the public one.
#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let cluster = Cluster::start(2).await;
    let _tab = cluster.connect(0, ADA).await;
    for node in 0..2 {
        assert_eq!(cluster.get_public(node, "/healthz").await.status, 200);
        let ready = cluster.get_public(node, "/readyz").await;
        assert_eq!(ready.status, 200, "{ready:?}");
        let metrics = cluster
            .send(cluster.request(node, Method::GET, "/metrics"))
            .await;
        assert_eq!(metrics.status, 200, "{metrics:?}");
        assert!(metrics.text.contains("# TYPE vigie_"), "{}", metrics.text);
        for path in ["/api/v1/nodes", "/api/v1/presence", "/metrics"] {
            let answer = cluster.get_public(node, path).await;
            assert!(
                matches!(answer.status, 401 | 404),
                "{path} on the public listener: {answer:?}"
            );
        }
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
        .number(&["TTL", &cluster.key(largest, "profile", true)])
        .await;
    assert!(ttl > 0, "what is stored expires some day");
}

/// A POST to node 0 about the user that most tests are about.
async fn post(cluster: &Cluster, route: &str, body: &Value) -> Answer {
    cluster
        .post(0, &format!("/api/v1/users/{ADA}/{route}"), body)
        .await
}
