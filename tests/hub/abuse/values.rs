//! Hostile values in requests to the HTTP APIs: refused, and nothing is changed.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};

use super::{Calm, two_nodes};
use crate::harness::{ADA, BOB, Cluster, NODE_KEY, Postgres, Wire};

/// Requests that are under way at once.
const AT_ONCE: usize = 16;

/// Ids that are none, as a path has them.
const IDS: [&str; 30] = [
    "0",
    "-0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e0",
    "1e308",
    "0x10",
    "NaN",
    "null",
    "true",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999",
    "%00",
    "42%00",
    "%2542",
    "%20",
    "42%20",
    "%ff",
    "%D9%A1",
    "..%2f42",
    "42;x=y",
    "42,43",
    "[42]",
    "__proto__",
];

/// JSON that is no whole number from 1 to 2^53 - 1.
const NUMBERS: [&str; 24] = [
    "-0",
    "-1",
    "1.0",
    "1.5",
    "1e0",
    "1e15",
    "1e308",
    "1e-400",
    "1e999",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "\"1\"",
    "\"\"",
    "true",
    "[]",
    "[1]",
    "{}",
    "NaN",
    "01",
    "0x1",
];

/// Bodies that no request may have.
fn bodies() -> Vec<String> {
    let mut bodies: Vec<String> = [
        "",
        " ",
        "\0",
        "null",
        "true",
        "1",
        "\"x\"",
        "[]",
        "[{}]",
        "{}",
        "{",
        "}",
        "{]",
        "{\"user\"}",
        "{\"user\":}",
        "{'user':{}}",
        "{user:{}}",
        "{\"__proto__\":{\"user\":{}}}",
        "{\"constructor\":{\"prototype\":{}}}",
        "{\"user\":{},\"unknown\":1}",
        "\u{feff}{\"user\":{}}",
        "<user/>",
        "user=%7B%7D",
    ]
    .map(str::to_owned)
    .into();
    for levels in [65, 128, 1_000, 100_000] {
        bodies.push(format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        bodies.push(format!(
            "{{\"user\":{}1{}}}",
            "{\"a\":".repeat(levels),
            "}".repeat(levels)
        ));
    }
    bodies
}

/// Sends requests to node 0, each over a connection of its own, and returns which were not refused.
async fn not_refused(
    connect: impl AsyncFn() -> Wire,
    requests: Vec<(&str, String, String, String)>,
) -> Vec<String> {
    let answers = stream::iter(requests).map(async |(method, target, headers, body)| {
        let mut wire = connect().await;
        let length = format!("Content-Length: {}\r\n", body.len());
        let headers = format!("{headers}{length}");
        let reply = wire
            .request(method, &target, &headers, body.as_bytes())
            .await;
        let refused = reply
            .as_ref()
            .is_none_or(|reply| (400..500).contains(&reply.status));
        let begin: String = body.chars().take(200).collect();
        (!refused).then(|| format!("{method} {target:.200} {begin}: {reply:?}"))
    });
    let answers = answers.buffer_unordered(AT_ONCE);
    answers.filter_map(async |answer| answer).collect().await
}

fn assert_all_refused(wrong: &[String]) {
    assert!(wrong.is_empty(), "not refused: {wrong:#?}");
}

/// Everything that back ends can change: the data in Redis and in Postgres.
async fn stored(cluster: &Cluster, postgres: Option<&Postgres>) -> Vec<String> {
    let mut stored = Vec::new();
    for key in cluster.redis().keys("vigie:*").await {
        let kind = cluster.cli(&["TYPE", &key]).await;
        let lasting = ["profile:", "{mm}", ":revoked"];
        if lasting.iter().any(|part| key.contains(part)) && kind == "hash" {
            stored.push(format!("{key} {}", cluster.cli(&["HGETALL", &key]).await));
        } else if lasting.iter().any(|part| key.contains(part)) {
            stored.push(key);
        }
    }
    if let Some(postgres) = postgres {
        for table in ["users", "friendships", "game_stats", "matches", "avatars"] {
            let rows = format!("SELECT t.* FROM {table} t ORDER BY t::text");
            stored.push(format!("{table} {}", postgres.psql(&rows).await));
        }
    }
    stored
}

/// Every route that changes something, and how a valid body of it begins and ends around its revision.
const ROUTES: [(&str, &str); 4] = [
    ("profile-update", "\"user\":{}"),
    ("game-stats-update", "\"stats\":{}"),
    ("friend-list-update", "\"friends\":[]"),
    ("match-history-update", "\"matches\":[]"),
];

/// Goal: back ends that send nonsense are told so, and nothing changes.
/// Method: ids, revisions and bodies that are none, on every route, with every method that is not the route's, under
/// paths that mean something elsewhere; a hundred thousand items that are none in one batch.
#[tokio::test]
async fn nonsense_from_back_ends() {
    let postgres = Postgres::start().await;
    let cluster = two_nodes().on_postgres(&postgres).start().await;
    for user in [ADA, BOB] {
        let path = format!("/api/v1/users/{user}");
        let request = cluster.request(0, reqwest::Method::PUT, &path);
        let request = request.bearer_auth(NODE_KEY);
        let answer = cluster
            .send(request.json(&json!({ "username": "x" })))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let key = format!("X-API-Key: {NODE_KEY}\r\n");
    let request = |method: &'static str, target: &str, body: &str| {
        (method, target.to_owned(), key.clone(), body.to_owned())
    };
    let mut requests = Vec::new();
    for (route, content) in ROUTES {
        let target = format!("/api/v1/users/{ADA}/{route}");
        let body = format!("{{{content}}}");
        for id in IDS {
            requests.push(request(
                "POST",
                &format!("/api/v1/users/{id}/{route}"),
                &body,
            ));
        }
        for number in NUMBERS.into_iter().chain(["0"]) {
            let body = format!("{{{content},\"revision\":{number}}}");
            requests.push(request("POST", &target, &body));
        }
        for body in bodies() {
            requests.push(request("POST", &target, &body));
        }
        for method in [
            "GET", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW", "post",
        ] {
            requests.push(request(method, &target, &body));
        }
    }
    for id in IDS {
        for (method, route, body) in [
            ("PUT", "", "{\"username\":\"x\"}"),
            ("POST", "/account-deleted", "{}"),
            ("POST", "/disconnect", "{}"),
            ("POST", "/events", "{\"event\":\"x\",\"data\":1}"),
        ] {
            requests.push(request(method, &format!("/api/v1/users/{id}{route}"), body));
        }
        requests.push(request("GET", &format!("/api/v1/presence/{id}"), ""));
        requests.push(request("DELETE", &format!("/api/v1/matchmaking/{id}"), ""));
    }
    for number in NUMBERS {
        let played = |players: &str, winner: &str, score: &str| {
            format!("{{\"players\":{players},\"winner\":{winner},\"score\":{score}}}")
        };
        let (players, winner) = (format!("[{ADA},{BOB}]"), ADA.to_string());
        for body in [
            played(&format!("[{number},{BOB}]"), &winner, "[1,2]"),
            played(&players, number, "[1,2]"),
            played(&players, &winner, &format!("[{number},2]")),
        ] {
            // A score may be nought, in whatever way it is written, and no player has that number.
            requests.push(request("POST", "/api/v1/matches", &body));
        }
        requests.push(request(
            "POST",
            "/api/v1/matchmaking",
            &format!("{{\"userId\":{number}}}"),
        ));
    }
    let long = "1".repeat(8_000);
    for target in [
        "/api/v1/users/42/../43/profile-update",
        "/api/v1/users/./42/profile-update",
        "//api/v1/users/42/profile-update",
        "/api/v1//users/42/profile-update",
        "/api/v1/users/42%2Fprofile-update",
        "/api/v1/users/42/profile-update/",
        "/api/v1/users/42/profile-update%00",
        "/api/v1/users/42/profile-update;x",
        "/api/v1/users/42\\profile-update",
        "/API/v1/users/42/profile-update",
        "/api/v1/users/",
        "/api/v1/users",
        "/api/v1/users/42/__proto__",
        "/api/v1/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/presence?limit=0",
        "/api/v1/presence?limit=-1",
        "/api/v1/presence?limit=1e9",
        "/api/v1/presence?limit=10001",
        "/api/v1/presence?limit=99999999999999999999",
        "/api/v1/presence?cursor=-1",
        "/api/v1/presence?cursor=%00",
        "/api/v1/presence?cursor=x",
        "/api/v1/presence?unknown=1",
        "/api/v1/presence?limit=1&limit=2",
        "*",
        &format!("/api/v1/users/{long}/profile-update"),
        &format!("/{long}"),
    ] {
        let method = if target.contains('?') { "GET" } else { "POST" };
        requests.push(request(method, target, "{\"user\":{}}"));
    }
    let count = requests.len();
    assert!(count > 500, "{count} requests");

    let abuse = async || {
        let before = stored(&cluster, Some(&postgres)).await;
        let wrong = not_refused(async || cluster.internal_wire(0).await, requests.clone()).await;
        assert_all_refused(&wrong);
        large_batches(&cluster).await;
        assert_eq!(stored(&cluster, Some(&postgres)).await, before);
    };
    // The allocator's memory settles after a few answers of megabytes.
    for _ in 0..4 {
        abuse().await;
    }
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// As many items as a body can have.
async fn large_batches(cluster: &Cluster) {
    let key = format!("X-API-Key: {NODE_KEY}\r\n");
    for item in ["1", "{}", "[]"] {
        let count = if item == "1" { 100_000 } else { 80_000 };
        let body = format!("[{}]", vec![item; count].join(","));
        let mut wire = cluster.internal_wire(0).await;
        let reply = wire
            .post("/api/v1/notifications", &key, body.as_bytes())
            .await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200, "{reply:.300?}");
        let results: Vec<Value> = serde_json::from_str(&reply.body).expect("an array");
        assert_eq!(results.len(), count);
        assert!(results.iter().all(|result| result["status"] == 400));
    }
    for body in ["[1,", "[1]]", "{}", "null", "[", &"[".repeat(200_000)] {
        let mut wire = cluster.internal_wire(0).await;
        let reply = wire
            .post("/api/v1/notifications", &key, body.as_bytes())
            .await;
        let status = reply.map(|reply| reply.status);
        assert_eq!(status, Some(400), "{:.40}", body);
    }
}

/// Goal: users who send nonsense about their own account are told so, and nothing changes.
/// Method: names, pictures and friends that are none; methods that are not the route's; bodies without end, of other
/// types, with tokens that are none.
#[tokio::test]
async fn nonsense_from_users() {
    let postgres = Postgres::start().await;
    let cluster = two_nodes().on_postgres(&postgres).start().await;
    let path = format!("/api/v1/users/{ADA}");
    let account = cluster.request(0, reqwest::Method::PUT, &path);
    let account = account
        .bearer_auth(NODE_KEY)
        .json(&json!({ "username": "ada" }));
    assert_eq!(cluster.send(account).await.status, 200);
    let authorization = format!("Authorization: Bearer {}\r\n", cluster.token(ADA));
    let request = |method: &'static str, target: &str, headers: &str, body: &str| {
        let headers = format!("{authorization}{headers}");
        (method, target.to_owned(), headers, body.to_owned())
    };
    let as_json = "Content-Type: application/json\r\n";
    let mut requests = Vec::new();
    let (me, avatar) = ("/api/v1/me", "/api/v1/me/avatar");
    for body in bodies() {
        requests.push(request("PATCH", me, as_json, &body));
        requests.push(request("PUT", avatar, as_json, &body));
        requests.push(request("PUT", avatar, "Content-Type: image/png\r\n", &body));
        requests.push(request("PUT", avatar, "", &body));
    }
    for name in [
        "\"\"",
        "\" \"",
        "\"\\u0000\"",
        "\"a\\u0000b\"",
        "\"\\n\"",
        "\"\\u202e\\u0007\"",
        "\"\\ud800\"",
        "null",
        "1",
        "[]",
        "[\"x\"]",
        "{\"__proto__\":\"x\"}",
        &format!("\"{}\"", "x".repeat(65)),
        &format!("\"{}\"", "x".repeat(100_000)),
    ] {
        requests.push(request(
            "PATCH",
            me,
            as_json,
            &format!("{{\"username\":{name}}}"),
        ));
    }
    for url in [
        "\"javascript:alert(1)\"",
        "\"JaVaScRiPt:alert(1)\"",
        "\"data:text/html,x\"",
        "\"//evil.example/a.png\"",
        "\"/\\\\evil.example/a.png\"",
        "\"\\u0000\"",
        "\"https://\"",
        "\"ftp://x/a.png\"",
        "\"file:///etc/passwd\"",
        "null",
        "1",
        "{}",
        &format!("\"/{}\"", "x".repeat(3_000)),
    ] {
        requests.push(request(
            "PUT",
            avatar,
            as_json,
            &format!("{{\"url\":{url}}}"),
        ));
    }
    for id in IDS.into_iter().chain(["42", "999999"]) {
        let target = format!("/api/v1/me/friends/{id}");
        requests.push(request("PUT", &target, "", ""));
        requests.push(request(
            "GET",
            &format!("/api/v1/avatars/{id}/{}", "0".repeat(64)),
            "",
            "",
        ));
        if id != "42" {
            requests.push(request("GET", &format!("/api/v1/users/{id}"), "", ""));
        }
    }
    for method in ["GET", "POST", "PUT", "TRACE", "BREW"] {
        requests.push(request(method, me, "", ""));
    }
    for token in ["", "x", "a.b.c", "null", "\u{7f}", "Bearer"] {
        let headers = format!("Authorization: Bearer {token}\r\n");
        let target = me.to_owned();
        requests.push(("DELETE", target.clone(), headers, String::new()));
        requests.push((
            "DELETE",
            target,
            format!("Authorization: {token}\r\n"),
            String::new(),
        ));
    }
    // Two tokens are none.
    requests.push(request("DELETE", me, &authorization, ""));

    let abuse = async || {
        let before = stored(&cluster, Some(&postgres)).await;
        let wrong = not_refused(async || cluster.wire(0).await, requests.clone()).await;
        assert_all_refused(&wrong);
        assert_eq!(stored(&cluster, Some(&postgres)).await, before);
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: a profile is data, to the letter, whatever its fields are called.
/// Method: fields that mean something to JavaScript, numbers that no double holds, texts that end other languages; the
/// user's own tabs on both nodes get them to the letter, a stranger gets the public ones.
#[tokio::test]
async fn profiles_are_data() {
    let cluster = two_nodes().start().await;
    let profiles = [
        r#"{"__proto__":{"isAdmin":true},"constructor":{"prototype":{"isAdmin":true}},"username":"x"}"#,
        r#"{"toString":1,"valueOf":null,"hasOwnProperty":false,"then":{},"toJSON":[],"username":"x"}"#,
        r#"{"username":"\u0000\u001f\u2028\u2029\ufeff\u202e</script><!--","email":"a\"b\\c"}"#,
        r#"{"username":-0,"avatar":1e308,"x":123456789012345678901234567890.10,"y":1e400}"#,
        r#"{"username":{"__proto__":{"isAdmin":true}},"":"","  ":[],"42":42}"#,
    ];
    let target = format!("/api/v1/users/{ADA}/profile-update");
    let key = format!("X-API-Key: {NODE_KEY}\r\n");
    let abuse = async || {
        let mut tabs = [
            cluster.joined(0, Some(ADA)).await,
            cluster.joined(1, Some(ADA)).await,
        ];
        let mut stranger = cluster.joined(1, None).await;
        stranger.say(r#"421["watch-profile",{"userId":42}]"#).await;
        stranger.hear_until("431").await.expect("an answer");
        cluster.wait_for_refcount(ADA, 2).await;
        for profile in profiles {
            let body = format!("{{\"user\":{profile}}}");
            let mut wire = cluster.internal_wire(0).await;
            let reply = wire.post(&target, &key, body.as_bytes()).await;
            let reply = reply.expect("an answer");
            // A number that no double holds is no JSON to some.
            if reply.status == 400 && profile.contains("1e400") {
                continue;
            }
            assert_eq!(reply.status, 200, "{profile}: {reply:?}");
            let published: Value = serde_json::from_str(&reply.body).expect("JSON");
            let revision = &published["revision"];
            for tab in &mut tabs {
                let update = update_of(tab, revision).await;
                assert!(update.contains(&format!("\"user\":{profile}")), "{update}");
            }
            let update = update_of(&mut stranger, revision).await;
            for hidden in ["\"constructor\"", "\"email\"", "\"then\"", "\"x\":"] {
                assert!(!update.contains(hidden), "{update}");
            }
        }
        for wire in tabs.into_iter().chain([stranger]) {
            wire.finish().await;
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    for _ in 0..5 {
        abuse().await;
    }
    calm.returns(&cluster).await;
}

/// The profile update of this revision; what is older may come before.
async fn update_of(wire: &mut Wire, revision: &Value) -> String {
    loop {
        let update = wire.hear_until(r#"42["profile-update","#).await;
        let update = update.expect("an update");
        if update.contains(&format!("\"revision\":{revision}}}")) {
            return update;
        }
    }
}
