//! Connections: too many, too slow, never finished, never used, broken off.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;

use super::{Calm, assert_served, polling, two_nodes};
use crate::harness::{
    ADA, BOB, Cluster, Connecting, EVE, WEBSOCKET, Wire, eventually, eventually_eq, frame,
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
        let opened = join_all((0..1_000).map(async |number| {
            let mut wire = cluster.websocket(number % 2).await;
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
