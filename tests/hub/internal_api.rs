//! The internal HTTP API beside the notifications: who may use it, what it refuses, what it tells
//! operators.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Cluster, EVE, NODE_KEY, eventually, eventually_eq, kinds, now_seconds, run, vigie,
};

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
        ("put", "/api/v1/users/{id}"),
        ("post", "/api/v1/matches"),
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
    for path in ["/healthz", "/readyz"] {
        let operation = &document["paths"][path]["get"];
        assert!(
            operation["responses"]["200"].is_object(),
            "{path}: {operation}"
        );
        assert_eq!(operation["security"], json!([{}]), "{path} takes no key");
        assert!(
            operation["responses"]["401"].is_null(),
            "{path}: {operation}"
        );
    }
    let path = "/api/v1/users/{id}/disconnect";
    let body = &document["paths"][path]["post"]["requestBody"];
    assert!(body["content"].is_object(), "{body}");
    assert_ne!(body["required"], true, "it may be left out: {body}");
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
            cluster
                .tell(ADA, kind, &json!({ field: bad }))
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
            cluster.tell(ADA, kind, &body).await.assert_refused();
        }
        for body in [
            json!({}),
            json!([]),
            json!(null),
            json!("x"),
            json!(1),
            json!({ "wrong": value }),
        ] {
            cluster.tell(ADA, kind, &body).await.assert_refused();
        }
        let path = format!("/api/v1/users/{ADA}/{kind}");
        let deep = format!(
            "{{\"user\":{{\"a\":{}1{}}}}}",
            "[".repeat(500),
            "]".repeat(500)
        );
        for broken in [
            "",
            "{",
            "{\"user\":",
            "nonsense",
            "{\"user\":{}}trailing",
            "\u{0}",
            "[{\"username\":\"x\"},5]",
            "{\"user\":{\"\\ud800\":1}}",
            "{\"user\":{},\"user\":{}}",
            &deep,
        ] {
            let request = cluster
                .request(0, Method::POST, &path)
                .bearer_auth(NODE_KEY);
            let request = request
                .header("content-type", "application/json")
                .body(broken.to_owned());
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
    let bodies = [
        json!({}),
        json!([]),
        json!(null),
        json!({ "data": 1 }),
        json!(["x", 1]),
    ];
    for body in bodies {
        cluster.tell(ADA, "events", &body).await.assert_refused();
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
        tab.names(&[
            "profile-update",
            "game-stats-update",
            "friend-list-update",
            "match-history-update",
            "x",
            "kicked"
        ]),
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
        (Method::PUT, "/api/v1/users/42".to_owned()),
        (Method::POST, "/api/v1/matches".to_owned()),
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
    cluster
        .tell(ADA, "profile-update", &json!({ "user": user(2000) }))
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
/// Method: health and readiness without a key on both listeners, on the internal one also through a proxy; metrics
/// without a key on the internal one, which is on loopback; none of the internal routes on the public one.
#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let cluster = Cluster::start(2).await;
    let _tab = cluster.connect(0, ADA).await;
    for node in 0..2 {
        assert_eq!(cluster.get_public(node, "/healthz").await.status, 200);
        let ready = cluster.get_public(node, "/readyz").await;
        assert_eq!(ready.status, 200, "{ready:?}");
        for path in ["/healthz", "/readyz"] {
            let probe = cluster.request(node, Method::GET, path);
            let probe = cluster.send(probe.header("x-forwarded-for", "192.0.2.1"));
            let probe = probe.await;
            assert_eq!(probe.status, 200, "{probe:?}");
            let posted = cluster.send(cluster.request(node, Method::POST, path));
            posted.await.assert_problem(405);
        }
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

/// Goal: clients cannot take probes away.
/// Method: the public listener holds as many TCP connections as it takes, and more are tried; the probes of the internal
/// listener, and `vigie healthcheck`, are answered.
#[tokio::test]
async fn probes_are_answered_while_the_public_listener_is_full() {
    let cluster = Cluster::builder()
        .without_lookouts()
        .env("VIGIE_LIMITS__CONNECTIONS", "1")
        .start()
        .await;
    // Beyond `limits.connections` a node takes 1024 for those who poll.
    let mut silent = Vec::new();
    for _ in 0..1100 {
        silent.push(tokio::net::TcpStream::connect(cluster.public_address(0)).await);
    }
    for path in ["/healthz", "/readyz"] {
        let probe = cluster.send(cluster.request(0, Method::GET, path)).await;
        assert_eq!(probe.status, 200, "{probe:?}");
    }
    let listen = cluster.internal_url(0).trim_start_matches("http://");
    let env = vec![("VIGIE_INTERNAL__LISTEN".to_owned(), listen.to_owned())];
    for arguments in [&["healthcheck"][..], &["healthcheck", "--ready"]] {
        let output = run(vigie(arguments, &env)).await;
        assert!(output.status.success(), "{output:?}");
    }
}
