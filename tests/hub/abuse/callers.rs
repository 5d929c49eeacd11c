//! Callers of the internal API: known by their key, named in the log, and bounded.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{ADA, Answer, BOB, Cluster, DEADLINE, NODE_KEY, eventually, kinds};

/// Keys of two back ends, besides [`NODE_KEY`].
const KEYS: &str = "billing=a key that billing presents,games=a key that games present";
const BILLING: &str = "a key that billing presents";
const GAMES: &str = "a key that games present";

async fn with_callers(level: &str) -> Cluster {
    let builder = Cluster::builder().memory().without_lookouts();
    let builder = builder
        .env("VIGIE_INTERNAL__API_KEYS", KEYS)
        .env("VIGIE_LOG__FORMAT", "json")
        .env("VIGIE_LOG__LEVEL", level);
    builder.start().await
}

async fn call(cluster: &Cluster, key: &str, method: Method, path: &str) -> Answer {
    let request = cluster.request(0, method, path).header("x-api-key", key);
    cluster.send(request.json(&json!({}))).await
}

/// The lines of the log about callers: level, caller, method, route, status.
fn told(cluster: &Cluster) -> Vec<Value> {
    let log = cluster.log(0);
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["caller"].is_string()).collect()
}

fn brief(line: &Value) -> String {
    let word = |field: &str| match &line[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ["level", "caller", "method", "route", "status"]
        .map(word)
        .join(" ")
}

/// Goal: the log says who called, which route, and with which outcome; what lasts at `info`, the rest at `debug`.
/// Method: a call of each sort with each key; both levels.
#[tokio::test]
async fn the_log_says_who_called() {
    let calls = [
        (NODE_KEY, Method::GET, "/api/v1/nodes"),
        (BILLING, Method::POST, "/api/v1/users/42/disconnect"),
        (GAMES, Method::POST, "/api/v1/users/7/account-deleted"),
        (GAMES, Method::POST, "/api/v1/users/0/disconnect"),
        (BILLING, Method::PUT, "/api/v1/users/42"),
        (GAMES, Method::POST, "/api/v1/matches"),
        (BILLING, Method::POST, "/api/v1/users/42/profile-update"),
        (BILLING, Method::DELETE, "/api/v1/nodes"),
        (BILLING, Method::GET, "/api/v1/nothing"),
        (BILLING, Method::GET, "/metrics"),
    ];
    let of_both = [
        "INFO billing POST /api/v1/users/{id}/disconnect 200",
        "INFO games POST /api/v1/users/{id}/account-deleted 200",
        "INFO games POST /api/v1/users/{id}/disconnect 400",
        "INFO billing PUT /api/v1/users/{id} 404",
        "INFO games POST /api/v1/matches 404",
    ];
    let of_debug = [
        "DEBUG default GET /api/v1/nodes 200",
        "DEBUG billing POST /api/v1/users/{id}/profile-update 400",
        "DEBUG billing DELETE /api/v1/nodes 405",
        "DEBUG billing GET (none) 404",
        "DEBUG billing GET /metrics 200",
    ];
    for (level, also) in [("info", &[][..]), ("info,vigie=debug", &of_debug)] {
        let cluster = with_callers(level).await;
        for (key, method, path) in &calls {
            call(&cluster, key, method.clone(), path).await;
        }
        let keyless = cluster.request(0, Method::GET, "/metrics");
        assert_eq!(cluster.send(keyless).await.status, 200);
        call(
            &cluster,
            BILLING,
            Method::POST,
            "/api/v1/users/999/disconnect",
        )
        .await;
        let last = "INFO billing POST /api/v1/users/{id}/disconnect 200";
        let lines = eventually("the last call is told", async || {
            let lines: Vec<String> = told(&cluster).iter().map(brief).collect();
            let times = lines.iter().filter(|line| *line == last).count();
            (times == 2).then_some(lines)
        })
        .await;
        for line in of_both.iter().chain(also) {
            assert!(
                lines.iter().any(|told| told == line),
                "no {line:?} in {lines:#?}"
            );
        }
        let keyless = "DEBUG (loopback) GET /metrics 200".to_owned();
        assert_eq!(lines.contains(&keyless), !also.is_empty(), "{lines:#?}");
        if also.is_empty() {
            assert_eq!(lines.len(), of_both.len() + 1, "{lines:#?}");
        }
        for key in [NODE_KEY, BILLING, GAMES] {
            assert!(!cluster.log(0).contains(key), "{key} is in the log");
        }
    }
}

/// Goal: whoever tries keys is told of, and cannot fill the log.
/// Method: 300 wrong keys; few lines, which say how many were left out and none of the keys.
#[tokio::test]
async fn wrong_keys_do_not_fill_the_log() {
    const TRIES: usize = 300;
    let cluster = with_callers("info").await;
    for number in 0..TRIES {
        let key = format!("{BILLING} {number}");
        let answer = call(&cluster, &key, Method::GET, "/api/v1/nodes").await;
        answer.assert_problem(401);
    }
    let refused = "WARN (nobody) GET /api/v1/nodes 401";
    let lines = eventually("a refusal is told", async || {
        let lines = told(&cluster);
        (!lines.is_empty()).then_some(lines)
    })
    .await;
    assert!(lines.len() < TRIES / 2, "{} lines", lines.len());
    for line in &lines {
        assert_eq!(brief(line), refused);
        assert_eq!(line["address"], "127.0.0.1", "{line}");
        assert!(line["left_out"].is_u64(), "{line}");
    }
    assert!(!cluster.log(0).contains(BILLING), "a key is in the log");
}

/// Goal: without a key `/metrics` is for programs on this machine; not for pages in a browser on it, nor for whoever
/// comes through a proxy on it. With a key it is for everybody.
/// Method: the headers that browsers and proxies add, one at a time.
#[tokio::test]
async fn loopback_alone_is_no_key_for_pages_and_proxies() {
    let cluster = Cluster::start_memory().await;
    let port = cluster.internal_url(0).rsplit(':').next().expect("a port");
    let ask = async |headers: &[(&str, &str)], key: Option<&str>| {
        let mut request = cluster.request(0, Method::GET, "/metrics");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        cluster.send(request).await
    };
    let own = format!("http://localhost:{port}");
    let own_host = format!("localhost:{port}");
    for headers in [
        &[][..],
        &[("host", "localhost")],
        &[("host", "[::1]:8182")],
        &[
            ("host", &own_host),
            ("origin", &own),
            ("sec-fetch-site", "same-origin"),
        ],
        &[("sec-fetch-site", "none")],
    ] {
        assert_eq!(ask(headers, None).await.status, 200, "{headers:?}");
    }
    for headers in [
        &[("host", "evil.example")][..],
        &[("host", "10.0.0.1:8182")],
        &[("host", "localhost.evil.example")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:3000")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("x-forwarded-for", "127.0.0.1")],
        &[("forwarded", "for=127.0.0.1")],
    ] {
        let answer = ask(headers, None).await;
        answer.assert_problem(401);
        assert!(!answer.text.contains("vigie_"), "{headers:?}: {answer:?}");
        ask(headers, Some("wrong")).await.assert_problem(401);
        assert_eq!(
            ask(headers, Some(NODE_KEY)).await.status,
            200,
            "{headers:?}"
        );
    }
    // Routes that need a key refuse every caller without one.
    let openapi = cluster.request(0, Method::GET, "/api/v1/openapi.json");
    cluster.send(openapi).await.assert_problem(401);
}

/// Goal: JSON that is nested deeper than 64 levels is refused, and nothing happens; an item of a batch stops no other.
/// Method: just within the limit and just beyond it, on every route that takes JSON of any shape.
#[tokio::test]
async fn json_that_is_nested_too_deep_is_refused() {
    let cluster = Cluster::start_memory().await;
    // The body and the field are two levels; what is in a list is one more.
    let nested = |levels: usize| {
        let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    for (kind, field, value) in kinds() {
        let (levels, content) = match value.is_array() {
            true => (
                61,
                &(|levels| json!([{ "a": nested(levels) }])) as &dyn Fn(usize) -> Value,
            ),
            false => (
                62,
                &(|levels| json!({ "a": nested(levels) })) as &dyn Fn(usize) -> Value,
            ),
        };
        let body = |levels| json!({ field: content(levels) });
        let answer = cluster.tell(ADA, kind, &body(levels + 1)).await;
        answer.assert_problem(400);
        let detail = answer.json["detail"].as_str().expect("a text");
        assert!(detail.contains("64 levels"), "{detail}");
        assert_eq!(
            cluster.tell(ADA, kind, &body(levels)).await.status,
            200,
            "{kind}"
        );

        let item = |levels| {
            let mut item = body(levels);
            (item["kind"], item["userId"]) = (json!(kind), json!(BOB));
            item
        };
        let batch = json!([item(levels + 1), item(levels)]);
        let answer = cluster.post(0, "/api/v1/notifications", &batch).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json[0]["status"], 400, "{answer:?}");
        assert_eq!(answer.json[1]["status"], 200, "{answer:?}");
    }
    let event = |levels| json!({ "event": "x", "data": nested(levels) });
    cluster
        .tell(ADA, "events", &event(64))
        .await
        .assert_problem(400);
    assert_eq!(cluster.tell(ADA, "events", &event(63)).await.status, 200);
}

/// Goal: no route of the internal API takes in more than `limits.http_body`, however it is sent.
/// Method: every route that the description has, with a body beyond the limit: of a stated length, and in chunks. Those
/// that take a body refuse it, the others ignore it. Then with 16 MiB each: the node's memory does not grow by one.
#[tokio::test]
async fn bodies_are_bounded_on_every_route() {
    let builder = Cluster::builder().memory().without_lookouts();
    let cluster = builder.env("VIGIE_LIMITS__HTTP_BODY", "1KiB").start().await;
    let description = cluster.get(0, "/api/v1/openapi.json").await.json;
    let mut routes = Vec::new();
    for (path, operations) in description["paths"].as_object().expect("routes") {
        for (method, operation) in operations.as_object().expect("methods") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let takes_body = operation["requestBody"].is_object();
            routes.push((method, path.replace("{id}", "42"), takes_body));
        }
    }
    assert!(routes.len() > 10, "{routes:?}");
    let address = cluster.internal_url(0).trim_start_matches("http://");
    let small = "x".repeat(2048);
    for (method, path, takes_body) in &routes {
        let stated = cluster.request(0, method.clone(), path);
        let stated = stated.bearer_auth(NODE_KEY).body(small.clone());
        let stated = cluster.send(stated).await.status;
        if !takes_body {
            assert!(stated < 500 && stated != 413, "{method} {path}: {stated}");
            continue;
        }
        let chunked = send_in_chunks(address, method, path, &small).await;
        let chunked = chunked.expect("the node reads, and answers");
        // Without Postgres there are no accounts, which is said before anything is read.
        let refused = |status: u16| matches!(status, 413 | 404);
        assert!(refused(stated), "{method} {path}: {stated}");
        assert!(refused(chunked), "{method} {path}: {chunked}");
    }
    let large = "x".repeat(16 * 1024 * 1024);
    let before = cluster.resident_memory(0);
    for (method, path, _) in &routes {
        // A caller that keeps sending after the answer may find the connection closed before reading it.
        let _ = send_in_chunks(address, method, path, &large).await;
    }
    let grown = cluster.resident_memory(0).saturating_sub(before);
    assert!(grown < large.len() as u64, "grown by {grown} bytes");
}

/// Sends a body whose length is not stated; returns the status of the answer.
async fn send_in_chunks(
    address: &str,
    method: &Method,
    path: &str,
    body: &str,
) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {NODE_KEY}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let mut message = head.into_bytes();
    for chunk in body.as_bytes().chunks(64 * 1024) {
        message.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        message.extend(chunk);
        message.extend(b"\r\n");
    }
    message.extend(b"0\r\n\r\n");
    stream.write_all(&message).await?;
    let mut status = [0; 12];
    let reading = tokio::time::timeout(DEADLINE, stream.read_exact(&mut status));
    reading.await.expect("an answer in time")?;
    let status = String::from_utf8_lossy(&status[9..]).into_owned();
    Ok(status.parse().expect("a status"))
}
