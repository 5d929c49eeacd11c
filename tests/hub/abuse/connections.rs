//! Connections: too many, too slow, never finished, never used, broken off.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;

use super::{Calm, assert_served, polling, two_nodes};
use crate::harness::{
    ADA, BOB, Builder, Cluster, Connecting, EVE, WEBSOCKET, Wire, eventually, eventually_eq, frame,
};

/// `limits.connections_per_user`, as it is by default.
const PER_USER: u64 = 50;

/// How long a node may take to close what nobody uses: its time for a handshake, and whatever the machine does besides.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);

/// Opens so many of something, some at a time, on one node and the other.
async fn many<T>(count: usize, open: impl AsyncFn(usize) -> T) -> Vec<T> {
    let opening = stream::iter(0..count).map(|number| open(number));
    opening.buffer_unordered(100).collect().await
}

/// The node closes each of them by itself, without a fault of its own.
async fn all_end(wires: Vec<Wire>) {
    for said in join_all(
        wires
            .into_iter()
            .map(|wire| wire.ended_within(CLOSED_WITHIN)),
    )
    .await
    {
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("HTTP/1.1 5"), "{said}");
    }
}

/// Goal: connections over which nothing comes cost nobody else anything, and are closed.
/// Method: 2,000 of them; meanwhile fresh clients are served.
#[tokio::test]
async fn idle_connections() {
    let cluster = two_nodes().start().await;
    let abuse = async |count: usize| {
        let idle = many(count, async |number| cluster.wire(number % 2).await).await;
        assert_served(&cluster).await;
        all_end(idle).await;
    };
    abuse(2_000).await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse(2_000).await;
    calm.returns(&cluster).await;
}

/// TCP connections that a node takes beyond `limits.connections`.
const BEYOND: usize = 1024;

/// TCP connections of one address without a request.
const SILENT_PER_ADDRESS: usize = 256;

/// A full node on which nobody is closed for being slow.
async fn small_node(env: &[(&str, &str)]) -> Cluster {
    let small = Cluster::builder()
        .without_lookouts()
        .env("VIGIE_LIMITS__CONNECTIONS", "20")
        .env("VIGIE_LIMITS__HANDSHAKE", "1m");
    let with = |builder: Builder, (name, value): &(&str, &str)| builder.env(name, value);
    env.iter().fold(small, with).start().await
}

/// Whether a node answers a request on this connection.
async fn is_answered(wire: &mut Wire) -> bool {
    let reply = wire.request("GET", "/readyz", "", b"").await;
    reply.is_some_and(|reply| reply.status == 200)
}

/// Connections of which the node closed so many to make room.
async fn closed(cluster: &Cluster, reason: &str) -> f64 {
    let name = format!("vigie_transports_closed_total{{reason=\"{reason}\"}}");
    cluster.metric(0, &name).await
}

/// Goal: connections over which nothing is asked take nobody's place, however many there are; nobody is closed who does
/// anything.
/// Method: more than a listener takes, from many addresses, that say nothing, or asked once; before them a WebSocket and a
/// poll that waits. Each time `/readyz` answers, and a client comes in.
#[tokio::test]
async fn a_full_listener_makes_room() {
    let cluster = small_node(&[]).await;
    let ada = cluster.connect_with(0, Connecting::user(ADA)).await;
    let mut guest = cluster.joined(0, None).await;
    let mut waiting = cluster.wire(0).await;
    let sid = waiting.poll_open().await;
    // The next poll has to come after the session's first packets.
    assert!(waiting.post(&polling(&sid), "", b"40").await.is_some());
    while !waiting.polled(&polling(&sid)).await.contains("40{") {}
    let poll = format!("GET {} HTTP/1.1\r\nHost: vigie\r\n\r\n", polling(&sid));
    waiting.write(poll).await;

    for asks in [false, true] {
        let mut crowd = Vec::new();
        for number in 0..BEYOND + 200 {
            let address = format!("127.0.0.{}", 2 + number % 10);
            let mut wire = cluster.wire_from(&address, 0).await;
            if asks {
                let reply = wire.request("GET", "/healthz", "", b"").await;
                assert_eq!(reply.map(|reply| reply.status), Some(200), "{number}");
            }
            crowd.push(wire);
        }
        let mut fresh = cluster.wire(0).await;
        assert!(is_answered(&mut fresh).await);
        let user = cluster.connect_with(0, Connecting::user(BOB)).await;
        user.watch(EVE).await;
        assert_eq!(closed(&cluster, "full").await, 0.0, "nobody is turned away");
        assert!(closed(&cluster, "made_room").await >= 100.0);
        user.close().await;
        drop(crowd);
    }
    assert!(guest.goes_on().await);
    assert!(ada.connected_since().is_some());
    cluster
        .notify_profile(0, BOB, serde_json::json!({ "userID": BOB }))
        .await;
    let posted = cluster
        .wire(0)
        .await
        .post(&polling(&sid), "", b"42[\"get-online-users\"]")
        .await;
    assert_eq!(posted.map(|reply| reply.status), Some(200));
    let reply = waiting.reply().await.expect("the poll was never closed");
    assert_eq!(reply.status, 200);
}

/// Goal: an address has so many connections without a request; the oldest goes for the newest, and others lose none. Who
/// speaks for many may have more.
/// Method: more of one address than that, after one of another and beside many of a trusted proxy.
#[tokio::test]
async fn silent_connections_of_one_address() {
    let cluster = small_node(&[("VIGIE_HTTP__TRUSTED_PROXIES", "127.0.0.9")]).await;
    let mut neighbour = cluster.wire_from("127.0.0.3", 0).await;
    let mut proxied = many(SILENT_PER_ADDRESS + 50, async |_| {
        cluster.wire_from("127.0.0.9", 0).await
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..SILENT_PER_ADDRESS + 20 {
        silent.push(cluster.wire_from("127.0.0.2", 0).await);
    }
    let mut newcomer = cluster.wire_from("127.0.0.2", 0).await;
    assert!(is_answered(&mut newcomer).await);
    // The newcomer may have taken the place of one more.
    let mut left = silent.split_off(20);
    all_end(silent).await;
    let closed = closed(&cluster, "per_address").await;
    assert!((20.0..=21.0).contains(&closed), "{closed}");
    for wire in [&mut neighbour, &mut left[1], &mut proxied[0]] {
        assert!(is_answered(wire).await);
    }
}

/// Goal: a node takes as many connections as its open files allow, says so, and keeps what it needs for itself.
/// Method: 400 files, of which half are for clients; more WebSockets than that, then more connections of every kind, while
/// updates are stored and clients come. SIGHUP changes nothing about it.
#[tokio::test]
async fn open_files_are_a_limit() {
    let cluster = Cluster::builder()
        .without_lookouts()
        .open_files(400)
        .start()
        .await;
    let log = cluster.log(0);
    assert!(log.contains("WARN") && log.contains("LimitNOFILE"), "{log}");
    assert_eq!(cluster.metric(0, "vigie_connections_limit").await, 200.0);
    cluster.hang_up(0);
    eventually("the node takes over", async || {
        cluster.log(0).contains("took over").then_some(())
    })
    .await;
    assert_eq!(cluster.metric(0, "vigie_connections_limit").await, 200.0);

    let mut opened = Vec::new();
    let mut admitted = 0;
    for _ in 0..300 {
        let mut wire = cluster.wire(0).await;
        admitted += usize::from(wire.upgrade(WEBSOCKET).await == Some(101));
        opened.push(wire);
    }
    assert_eq!(admitted, 200);
    let crowd = many(500, async |number| {
        cluster
            .wire_from(&format!("127.0.0.{}", 2 + number % 10), 0)
            .await
    })
    .await;
    for _ in 0..20 {
        let mut fresh = cluster.wire(0).await;
        assert!(is_answered(&mut fresh).await);
        let profile = serde_json::json!({ "userID": ADA, "username": "ada" });
        cluster.notify_profile(0, ADA, profile).await;
    }
    drop((opened, crowd));
    eventually("clients come in again", async || {
        cluster
            .open(0, Connecting::user(ADA).once())
            .next_verdict()
            .await
            .ok()
    })
    .await;
    let log = cluster.log(0);
    assert!(!log.contains("cannot accept connections"), "{log}");
}

/// Goal: where there are no files left the log says so, once, and silent connections are closed for others.
/// Method: a running node may have a few files more than it has; then silent connections come, and requests.
#[tokio::test]
async fn no_files_left() {
    let cluster = Cluster::builder().without_lookouts().start().await;
    let most = cluster.open_files(0) + 10;
    let (pid, most) = (cluster.pid(0).to_string(), format!("--nofile={most}:"));
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &pid, &most])
        .status();
    assert!(limited.is_ok_and(|status| status.success()));
    let silent = many(100, async |_| cluster.wire(0).await).await;
    eventually("the node says so", async || {
        cluster
            .log(0)
            .contains("cannot accept connections")
            .then_some(())
    })
    .await;
    for _ in 0..3 {
        let mut fresh = cluster.wire(0).await;
        assert!(is_answered(&mut fresh).await);
    }
    let log = cluster.log(0);
    assert_eq!(log.matches("cannot accept connections").count(), 1, "{log}");
    assert!(closed(&cluster, "made_room").await >= 1.0);
    drop(silent);
}

/// Goal: whoever never finishes a request is closed, and nobody waits for it.
/// Method: heads that come byte by byte, heads that stop anywhere, also of a request for a WebSocket, 400 at once; while
/// they last, fresh clients are served.
#[tokio::test]
async fn slow_and_unfinished_requests() {
    let cluster = two_nodes().start().await;
    let head = format!(
        "GET /socket.io/?{WEBSOCKET} HTTP/1.1\r\nHost: vigie\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX: {}",
        "x".repeat(2_000)
    );
    let abuse = async || {
        let slow = many(200, async |number| {
            let mut wire = cluster.wire(number % 2).await;
            wire.write(&head[..number % 300]).await;
            (number, wire)
        })
        .await;
        let unfinished = many(200, async |number| {
            let mut wire = cluster.wire(number % 2).await;
            wire.write(&head[..1 + number * head.len() / 201]).await;
            wire
        })
        .await;
        let dripping = slow.into_iter().map(async |(number, mut wire)| {
            for byte in &head.as_bytes()[number % 300..] {
                if !wire.write([*byte]).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            wire
        });
        let (slow, (), ()) = tokio::join!(
            join_all(dripping),
            all_end(unfinished),
            assert_served(&cluster)
        );
        all_end(slow).await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: bodies that never end hold up nobody, and are gone with their connections.
/// Method: 300 that stop in the middle and stay, on routes that read bodies; fresh clients are served meanwhile.
#[tokio::test]
async fn bodies_that_never_end() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let stuck = many(300, async |number| {
            let mut wire = cluster.wire(number % 2).await;
            let sid = wire.poll_open().await;
            let head = format!("POST {} HTTP/1.1\r\nHost: vigie\r\n", polling(&sid));
            let (length, body) = match number % 3 {
                0 => ("Content-Length: 1000", "4"),
                1 => ("Transfer-Encoding: chunked", "3e8\r\n4"),
                _ => ("Transfer-Encoding: chunked", "1\r\n4\r\n"),
            };
            wire.write(format!("{head}{length}\r\n\r\n{body}")).await;
            wire
        })
        .await;
        assert_served(&cluster).await;
        drop(stuck);
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: a user has so many connections and no more, on all nodes together, and gets in again once they are gone.
/// Method: 1,000 at once on both nodes, of which exactly so many are admitted and stay, while the others are held until
/// their transport is closed; 2,000 that come and go; then the user's own client.
#[tokio::test]
async fn thousands_of_connections_of_one_user() {
    let cluster = two_nodes().start().await;
    let token = cluster.token(ADA);
    let abuse = async || {
        // Opened a hundred at a time: the listener closes TCP connections of one address that ask for nothing.
        let sessions = many(1_000, async |number| cluster.websocket(number % 2).await).await;
        let opened = join_all(sessions.into_iter().map(async |mut wire| {
            let verdict = wire.join(Some(&token)).await;
            (wire, verdict)
        }))
        .await;
        cluster.wait_for_refcount(ADA, PER_USER).await;
        let admitted = opened.iter().filter(|(_, verdict)| verdict.is_ok());
        assert_eq!(admitted.count() as u64, PER_USER);
        for (_, verdict) in &opened {
            if let Err(refusal) = verdict {
                assert_eq!(refusal, "the node has closed the connection");
            }
        }
        assert_served(&cluster).await;
        for (number, (wire, _)) in opened.into_iter().enumerate() {
            if number % 2 == 0 {
                wire.reset();
            }
        }
        many(2_000, async |number| {
            let mut wire = cluster.websocket(number % 2).await;
            // Admitted at once or later, or closed: others come and go at the same time.
            let _ = wire.join(Some(&token)).await;
            match number % 3 {
                0 => wire.reset(),
                1 => drop(wire),
                _ => drop(wire.say("41").await),
            }
        })
        .await;
        eventually("the user's own client gets in", async || {
            let mut own = cluster.open(0, Connecting::user(ADA).once());
            own.next_verdict().await.ok()
        })
        .await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: sessions that are opened and abandoned are forgotten.
/// Method: 3,000 by polling, over few connections.
#[tokio::test]
async fn abandoned_sessions() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let sids = many(30, async |number| {
            let mut http = cluster.wire(number % 2).await;
            let mut last = String::new();
            for _ in 0..100 {
                last = http.poll_open().await;
            }
            (number % 2, last)
        })
        .await;
        assert_served(&cluster).await;
        for (node, sid) in sids {
            eventually_eq("the session is unknown", Some(400), async || {
                let mut http = cluster.wire(node).await;
                let reply = http.post(&polling(&sid), "", b"3").await;
                reply.map(|reply| reply.status)
            })
            .await;
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: who joined by polling and polls no more is gone after a while, and offline.
/// Method: 100 users; Engine.IO's heartbeat finds out, which takes three quarters of a minute.
#[tokio::test]
async fn abandoned_users() {
    let cluster = two_nodes().start().await;
    let calm = Calm::after_warm_up(&cluster).await;
    many(100, async |number| {
        let mut http = cluster.wire(number % 2).await;
        let sid = http.poll_open().await;
        let token = cluster.token(1_000 + number as u64);
        let body = format!("40{{\"token\":\"{token}\"}}");
        let reply = http.post(&polling(&sid), "", body.as_bytes()).await;
        assert_eq!(reply.map(|reply| reply.status), Some(200));
    })
    .await;
    eventually_eq("users online", 100, async || {
        cluster.online_in_redis().await.len()
    })
    .await;
    calm.returns(&cluster).await;
}

/// Goal: a transport over which nobody is connected is closed, for whatever reason nobody is.
/// Method: 500 each that never join, that are refused, that leave the namespace again, that are kicked by a back end;
/// none does anything more.
#[tokio::test]
async fn transports_without_a_namespace() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let silent = many(500, async |number| cluster.websocket(number % 2).await).await;
        let refused = many(500, async |number| {
            let mut wire = cluster.websocket(number % 2).await;
            let refusal = wire.join(Some("a.b.c")).await;
            assert_eq!(refusal, Err(r#"44{"message":"invalid_token"}"#.to_owned()));
            wire
        })
        .await;
        let left = many(500, async |number| {
            let mut wire = cluster.joined(number % 2, None).await;
            wire.say("41").await;
            wire
        })
        .await;
        let kicked = many(20, async |number| {
            cluster.joined(number % 2, Some(BOB)).await
        })
        .await;
        let path = format!("/api/v1/users/{BOB}/disconnect");
        let answer = cluster.post(0, &path, &serde_json::json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_served(&cluster).await;
        for wires in [silent, refused, left, kicked] {
            all_end(wires).await;
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: a connection may break at any moment.
/// Method: 50 at each stage of coming in, of users, broken off without a word (RST), some with answers on their way.
#[tokio::test]
async fn connections_that_break() {
    let cluster = two_nodes().start().await;
    let token = cluster.token(EVE);
    let abuse = async || {
        many(50 * STAGES, async |number| {
            let wire = broken_at(&cluster, number % 2, number % STAGES, &token).await;
            wire.reset();
        })
        .await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// How many stages there are in [`broken_at`].
const STAGES: usize = 11;

async fn broken_at(cluster: &Cluster, node: usize, stage: usize, token: &str) -> Wire {
    let request = format!("GET /socket.io/?{WEBSOCKET} HTTP/1.1\r\nHost: vigie\r\n");
    let join = format!("40{{\"token\":\"{token}\"}}");
    let mut wire = match stage {
        0..4 => cluster.wire(node).await,
        _ => cluster.websocket(node).await,
    };
    match stage {
        0 => {}
        1 => drop(wire.write(&request).await),
        2 => drop(wire.write(format!("{request}\r\n")).await),
        3 => drop(wire.upgrade(WEBSOCKET).await),
        4 => {}
        5 => drop(wire.write(&frame(0x81, join.as_bytes())[..20]).await),
        6 => drop(wire.say(&join).await),
        7 => drop(wire.join(Some(token)).await),
        8 => {
            wire.say(&join).await;
            wire.say(r#"421["watch-profile",{"userId":42}]"#).await;
        }
        9 => {
            let _ = wire.join(Some(token)).await;
            wire.say(r#"421["watch-profile",{"userId":42}]"#).await;
            wire.say(r#"422["join-matchmaking"]"#).await;
        }
        _ => {
            let _ = wire.join(Some(token)).await;
            wire.write(&frame(0x81, br#"421["get-online-users"]"#)[..15])
                .await;
        }
    }
    wire
}
