//! Connections that behave oddly: they vanish, come twice, share a transport. Nothing of them stays.

use serde_json::json;

use crate::harness::{ADA, BOB, Cluster, Connecting, EVE, MARKER, Offline, Online, eventually_eq};

/// Goal: a transport that breaks without a word counts as leaving.
/// Method: the client's WebSocket is cut; it does not come back.
#[tokio::test]
async fn a_broken_transport_is_a_departure() {
    let cluster = Cluster::start(2).await;
    let mut observer = cluster.connect_guest(1).await;
    let tab = cluster.connect_with(0, Connecting::user(ADA).once()).await;
    assert_eq!(observer.next_status().await, (ADA, Online));
    tab.abort();
    assert_eq!(observer.next_status().await, (ADA, Offline));
    cluster.wait_until_nobody_is_left().await;
}

/// Goal: clients that connect and vanish before the answer leave nothing in Redis.
/// Method: 200 bare WebSockets on each namespace send CONNECT and are gone, at four different
/// moments. Then somebody real comes and goes, so that whatever was late has been through.
#[tokio::test]
async fn connecting_and_vanishing_leaves_nothing() {
    leaves_nothing("vanish").await;
}

/// Goal: CONNECT sent twice on one transport leaves nothing in Redis.
/// Method: 200 transports on each namespace, the second CONNECT before and after the first answer,
/// left by cutting, closing and disconnecting.
#[tokio::test]
async fn connecting_twice_leaves_nothing() {
    leaves_nothing("connect_twice").await;
}

async fn leaves_nothing(verb: &str) {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "500")
        .start()
        .await;
    for namespace in ["/", "/socket.io/"] {
        cluster.raw(0, verb, namespace, &[ADA, BOB, EVE], 200).await;
    }
    cluster.wait_until_nobody_is_left().await;
    cluster.connect(0, MARKER).await.close().await;
    cluster.wait_until_nobody_is_left().await;
    cluster.wait_until_all_see(&[]).await;
    let nodes = cluster.get(0, "/api/v1/nodes").await.json;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(2), "{nodes}");
}

/// Goal: one socket that connects, and connects again and again without waiting, counts once.
/// Method: `disconnect().connect()` twenty times in one breath, then one registered connection.
#[tokio::test]
async fn a_socket_that_reconnects_in_haste_counts_once() {
    let cluster = Cluster::builder().nodes(2).grace("30s").start().await;
    let tab = cluster.connect(0, ADA).await;
    tab.reconnect(20);
    assert!(tab.online().await.contains(&ADA));
    cluster.wait_for_refcount(ADA, 1).await;
    let owed = cluster.redis().keys("vigie:{0}:node:*").await;
    assert_eq!(owed.len(), 1, "{owed:?}");
    assert_eq!(cluster.redis().number(&["SCARD", &owed[0]]).await, 1);
}

/// Goal: two namespaces on one transport are two connections, and end one by one.
/// Method: one WebSocket carries both; the refcount follows.
#[tokio::test]
async fn two_namespaces_share_a_transport() {
    let cluster = Cluster::start(2).await;
    let root = cluster
        .connect_with(0, Connecting::user(ADA).namespace("/").shared())
        .await;
    let other = cluster
        .connect_with(0, Connecting::user(ADA).namespace("/socket.io/").shared())
        .await;
    cluster.wait_for_refcount(ADA, 2).await;
    cluster.wait_until_seen(ADA).await;
    assert_eq!(root.online().await, [ADA]);
    assert_eq!(other.online().await, [ADA]);
    root.close().await;
    cluster.wait_for_refcount(ADA, 1).await;
    assert_eq!(other.online().await, [ADA]);
    other.close().await;
    cluster.wait_until_nobody_is_left().await;
}

/// Goal: a namespace that is left and entered again on a transport that stays always comes back.
/// Method: fifty times, while the other namespace keeps the transport open.
#[tokio::test]
async fn a_namespace_can_be_left_and_entered_again() {
    let cluster = Cluster::start(2).await;
    let root = cluster
        .connect_with(0, Connecting::user(ADA).namespace("/").shared())
        .await;
    let mut other = cluster
        .connect_with(0, Connecting::user(BOB).namespace("/socket.io/").shared())
        .await;
    for turn in 0..50 {
        other.reconnect(1);
        assert_eq!(other.next_verdict().await, Ok(()), "turn {turn}");
        if turn % 2 == 0 {
            assert!(other.online().await.contains(&ADA), "turn {turn}");
        }
    }
    cluster.wait_for_refcount(BOB, 1).await;
    cluster.wait_for_refcount(ADA, 1).await;
    assert_eq!(
        root.online().await,
        [BOB, ADA],
        "the other one works as before"
    );
}

/// Goal: an account that is deleted while its user connects stays gone, on both engines.
/// Method: for many users a connection is opened and the account deleted at the same time; whichever
/// was first, in the end nobody is connected and nothing is registered.
#[tokio::test]
async fn an_account_deleted_while_its_user_connects_stays_gone() {
    for builder in [Cluster::builder().nodes(2), Cluster::builder().memory()] {
        let cluster = builder.start().await;
        let last = cluster.len() - 1;
        let users: Vec<u64> = (1000..1060).collect();
        let mut tabs = Vec::new();
        for user in &users {
            tabs.push(cluster.open(0, Connecting::user(*user).once()));
            let path = format!("/api/v1/users/{user}/account-deleted");
            assert_eq!(cluster.post(last, &path, &json!({})).await.status, 200);
        }
        for user in users {
            let path = format!("/api/v1/presence/{user}");
            eventually_eq(&format!("user {user}"), json!("offline"), async || {
                cluster.get(last, &path).await.json["status"].clone()
            })
            .await;
        }
    }
}

/// Goal: pages of other origins may not connect where origins are listed, whatever the transport; what
/// is no page may.
/// Method: one origin is allowed; it, another one, and a client without an origin connect.
#[tokio::test]
async fn foreign_origins_are_refused() {
    let cluster = Cluster::builder()
        .env(
            "VIGIE_HTTP__ALLOWED_ORIGINS",
            "https://good.example,https://also.example",
        )
        .start()
        .await;
    for transport in ["websocket", "polling"] {
        let page = |origin: &str| {
            Connecting::guest()
                .origin(origin)
                .transports(&[transport])
                .once()
        };
        cluster.connect_with(0, page("https://good.example")).await;
        let refusal = cluster.refusal(0, page("https://evil.example")).await;
        assert!(refusal.contains("error"), "{transport}: {refusal}");
        cluster
            .connect_with(0, Connecting::guest().transports(&[transport]))
            .await;
    }
}
