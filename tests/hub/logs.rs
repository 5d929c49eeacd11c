//! The log of nodes in JSON: programs read every line, and find the same fields in it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};
use vigie::internals::LOG_FIELDS;

use crate::harness::{ADA, Cluster, Connecting, eventually};

/// Fields that are numbers; all others are texts.
const NUMBERS: [&str; 9] = [
    "user",
    "status",
    "left_out",
    "released",
    "connections",
    "count",
    "lost",
    "topics",
    "limit",
];

/// The lines that a node has logged, each a JSON object in which no name stands twice.
fn lines(cluster: &Cluster, node: usize) -> Vec<Map<String, Value>> {
    let log = cluster.log(node);
    // The lines of stdout come after, and are no log.
    let logged = log
        .lines()
        .take_while(|line| !line.starts_with("vigie listening "));
    let read = |line: &str| {
        let object: Map<String, Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let again = Value::Object(object.clone()).to_string();
        assert_eq!(again.len(), line.len(), "a name stands twice: {line}");
        object
    };
    logged.map(read).collect()
}

/// Goal: in JSON each line of a node's log is one object with `node`, `timestamp`, `level`, `target` and `message`;
/// every other field of the hub's own is listed, and always of the same type.
/// Method: two nodes at `debug`, and much of what is logged: users who come and go, tokens and keys that are refused,
/// updates, a node that dies and is reaped, one that is stopped.
#[tokio::test]
async fn every_line_is_an_object_with_known_fields() {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_LOG__FORMAT", "json")
        .env("VIGIE_LOG__LEVEL", "debug")
        .env("VIGIE_NODE__LEASE", "2s")
        .env("VIGIE_NODE__HEARTBEAT", "500ms")
        .start()
        .await;
    let ada = cluster.connect(0, ADA).await;
    ada.watch(7).await;
    cluster.refusal(0, Connecting::token("no token")).await;
    let stranger = cluster.request(0, Method::GET, "/api/v1/nodes");
    cluster.send(stranger).await.assert_problem(401);
    let path = format!("/api/v1/users/{ADA}/disconnect");
    assert_eq!(cluster.post(0, &path, &json!({})).await.status, 200);
    let _elsewhere = cluster.connect(1, 7).await;
    cluster.kill(1);
    eventually("the dead node is reaped", async || {
        (cluster.metric(0, "vigie_reaped_connections_total").await > 0.0).then_some(())
    })
    .await;
    cluster.stop(0).await;

    let listed: BTreeSet<&str> = LOG_FIELDS.iter().map(|(name, _)| *name).collect();
    let mut seen = BTreeSet::new();
    for node in 0..2 {
        for line in lines(&cluster, node) {
            let text = |name: &str| {
                line.get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_else(|| panic!("{name} of {line:?}"))
            };
            assert_eq!(text("node"), format!("n{node}"));
            humantime::parse_rfc3339(text("timestamp")).expect("a time");
            assert!(
                ["ERROR", "WARN", "INFO", "DEBUG"].contains(&text("level")),
                "{line:?}"
            );
            assert!(!text("message").is_empty(), "{line:?}");
            if !text("target").starts_with("vigie") {
                continue;
            }
            for (name, value) in &line {
                assert!(
                    listed.contains(name.as_str()),
                    "LOG_FIELDS does not list {name}: {line:?}"
                );
                let is_number = NUMBERS.contains(&name.as_str());
                assert_eq!(value.is_number(), is_number, "{name} of {line:?}");
                seen.insert(name.clone());
            }
        }
    }
    for name in [
        "user",
        "connection",
        "caller",
        "status",
        "peer",
        "reason",
        "released",
        "incarnation",
    ] {
        assert!(
            seen.contains(name),
            "nothing was logged with {name}: {seen:?}"
        );
    }
}
