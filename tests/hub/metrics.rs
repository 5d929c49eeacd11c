//! Metrics after known work.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ADA, BOB, Cluster, Connecting, NODE_KEY, eventually, eventually_eq};

/// The value of one series of a node's metrics; 0 where it is not there.
async fn series(cluster: &Cluster, node: usize, series: &str) -> f64 {
    let page = cluster.get(node, "/metrics").await.text;
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Goal: connections are told apart by kind and transport, and by how they ended.
/// Method: one of each is opened; a client says goodbye, one vanishes, a back end closes one; each is counted once, and
/// nothing is open in the end.
#[tokio::test]
async fn connections_are_counted_by_what_they_are() {
    let cluster = Cluster::builder().nodes(1).without_lookouts().start().await;
    let kinds = [
        ("guest", "websocket", Connecting::guest()),
        (
            "guest",
            "polling",
            Connecting::guest().transports(&["polling"]),
        ),
        ("user", "websocket", Connecting::user(ADA)),
        (
            "user",
            "polling",
            Connecting::user(BOB).transports(&["polling"]),
        ),
    ];
    let mut clients = Vec::new();
    for (kind, transport, connecting) in kinds {
        clients.push(cluster.connect_with(0, connecting.once()).await);
        let labels = format!("{{kind=\"{kind}\",transport=\"{transport}\"}}");
        for name in ["vigie_connections", "vigie_connections_accepted_total"] {
            let counted = series(&cluster, 0, &format!("{name}{labels}")).await;
            assert_eq!(counted, 1.0, "{name}{labels}");
        }
    }
    clients[0].watch(ADA).await;
    clients[1].watch(ADA).await;
    clients[1].watch(BOB).await;
    assert_eq!(cluster.metric(0, "vigie_watchers").await, 3.0);
    assert_eq!(cluster.metric(0, "vigie_nodes").await, 1.0);
    assert!(cluster.metric(0, "vigie_connections_limit").await > 1000.0);
    clients[1].unwatch(BOB).await;
    assert_eq!(cluster.metric(0, "vigie_watchers").await, 2.0);

    let ended = async |reason: &str| {
        let ended = format!("vigie_connections_closed_total{{reason=\"{reason}\"}}");
        series(&cluster, 0, &ended).await
    };
    clients[0].close().await;
    eventually_eq("goodbyes of clients", 1.0, async || ended("client").await).await;
    clients[2].abort();
    eventually("a transport that was closed", async || {
        (ended("transport").await + ended("error").await == 1.0).then_some(())
    })
    .await;
    cluster.notify(0, BOB, "disconnect", json!({})).await;
    let kicked = "vigie_connections_kicked_total{code=\"kicked\"}";
    eventually_eq("kicks", 1.0, async || series(&cluster, 0, kicked).await).await;
    clients[1].close().await;
    eventually_eq("open connections", 0.0, async || {
        cluster.metric(0, "vigie_connections").await
    })
    .await;
    assert_eq!(cluster.metric(0, "vigie_watchers").await, 0.0);
    assert_eq!(
        cluster.metric(0, "vigie_connections_closed_total").await,
        4.0
    );
    let came = "vigie_transitions_total{status=\"online\"}";
    assert_eq!(series(&cluster, 0, came).await, 2.0);
    let left = "vigie_transitions_total{status=\"offline\"}";
    eventually_eq("users who left", 2.0, async || {
        series(&cluster, 0, left).await
    })
    .await;
}

/// Goal: requests are counted by template, so that nobody who asks for many paths makes many series; scripts and
/// deliveries have their times.
/// Method: updates about many users, paths and methods that nobody knows, a wrong key.
#[tokio::test]
async fn requests_are_counted_by_route() {
    let cluster = Cluster::builder().nodes(1).without_lookouts().start().await;
    let _tab = cluster.connect(0, ADA).await;
    for user in ADA..ADA + 20 {
        cluster
            .notify_profile(0, user, json!({ "userID": user }))
            .await;
        let nothing = format!("/nothing/{user}");
        assert_eq!(cluster.get(0, &nothing).await.status, 404);
        let method = Method::from_bytes(format!("X{user}").as_bytes()).expect("a method");
        cluster.send(cluster.request(0, method, &nothing)).await;
    }
    let refused = cluster.request(0, Method::GET, "/api/v1/nodes");
    cluster.send(refused.bearer_auth("wrong")).await;

    let page = cluster.get(0, "/metrics").await.text;
    for line in [
        r#"vigie_http_requests_total{method="POST",route="/api/v1/users/{id}/profile-update",status="200"} 20"#,
        r#"vigie_http_requests_total{method="GET",route="(none)",status="404"} 20"#,
        r#"vigie_http_requests_total{method="other",route="(none)",status="404"} 20"#,
        r#"vigie_http_requests_total{method="GET",route="/api/v1/nodes",status="401"} 1"#,
        r#"vigie_http_request_duration_seconds_count{method="POST",route="/api/v1/users/{id}/profile-update"} 20"#,
        r#"vigie_redis_script_duration_seconds_count{script="profile/update"} 20"#,
    ] {
        assert!(
            page.lines().any(|told| told == line),
            "no {line} in\n{page}"
        );
    }
    assert!(
        !page.contains(NODE_KEY) && !page.contains("/nothing"),
        "{page}"
    );
    eventually("something was fanned out", async || {
        let fan_out = series(&cluster, 0, "vigie_fan_out_duration_seconds_count").await;
        (fan_out >= 1.0).then_some(())
    })
    .await;
    assert_eq!(
        cluster.metric(0, "vigie_redis_script_errors_total").await,
        0.0
    );
}

/// Goal: what a Redis that is away costs shows in the metrics.
/// Method: Redis is killed, an update fails; the calls that failed and the answer are counted.
#[tokio::test]
async fn what_fails_is_counted() {
    let cluster = Cluster::builder().nodes(1).without_lookouts().start().await;
    cluster.redis().kill();
    let answer = cluster
        .tell(ADA, "profile-update", &json!({ "user": {} }))
        .await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let failed = r#"vigie_http_requests_total{method="POST",route="/api/v1/users/{id}/profile-update",status="503"}"#;
    assert_eq!(series(&cluster, 0, failed).await, 1.0);
    assert!(cluster.metric(0, "vigie_redis_script_errors_total").await >= 1.0);
}
