//! Malformed Engine.IO and Socket.IO packets, written down and drawn at random, over both transports.

mod corpus;
mod mutations;

use std::sync::Mutex;

use futures_util::StreamExt;
use futures_util::stream;

use super::{Calm, polling, two_nodes};
use crate::harness::{ADA, BOB, Cluster, EVE, Heard, WEBSOCKET, Wire, frame};

/// Connections that are open at once.
const AT_ONCE: usize = 32;

/// Does something with every item, on one node and the other, many at once.
async fn each<T>(items: impl IntoIterator<Item = T>, one: impl AsyncFn(usize, T)) {
    let numbered = stream::iter(items.into_iter().enumerate());
    numbered
        .for_each_concurrent(AT_ONCE, async |(number, item)| one(number % 2, item).await)
        .await;
}

/// Joined as one of three users, or as a guest, in turn.
async fn joined(cluster: &Cluster, node: usize, number: usize) -> Wire {
    let users = [None, Some(ADA), Some(BOB), Some(EVE)];
    cluster.joined(node, users[number % users.len()]).await
}

/// Goal: whoever breaks the protocol is closed, and whatever means nothing is passed over.
/// Method: every packet of the corpus on a session of its own, then a question; it is answered, or the connection has
/// ended. Half of the sessions are users'.
#[tokio::test]
async fn packets_that_nobody_sends() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let wrong = Mutex::new(Vec::new());
        let closed = corpus::closed_for()
            .into_iter()
            .map(|packet| (packet, false));
        let ignored = corpus::ignored().into_iter().map(|packet| (packet, true));
        each(
            closed.chain(ignored).enumerate(),
            async |node, (number, (packet, goes_on))| {
                let mut wire = joined(&cluster, node, number).await;
                wire.say(&packet).await;
                if wire.goes_on().await != goes_on {
                    wrong.lock().expect("nobody has panicked").push(packet);
                }
            },
        )
        .await;
        let wrong = wrong.into_inner().expect("nobody has panicked");
        assert!(wrong.is_empty(), "not what should be done with {wrong:#?}");
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: nothing but a handshake makes a guest or a user.
/// Method: every packet to a session that has not joined, then joining; and every auth that is none, which is refused,
/// after which a proper one is accepted on the same transport.
#[tokio::test]
async fn packets_before_joining() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let packets = corpus::closed_for().into_iter().chain(corpus::ignored());
        // These join, as they are meant to.
        let joins = ["40", "40{}", "40null", "40/,{}"];
        each(
            packets.filter(|packet| !joins.contains(&packet.as_str())),
            async |node, packet| {
                let mut wire = cluster.websocket(node).await;
                wire.say(&packet).await;
                wire.say(r#"421["get-online-users"]"#).await;
                if let Some(answer) = wire.hear_until("431").await {
                    panic!("{packet:?} makes somebody of a client, who is answered {answer}");
                }
            },
        )
        .await;
        each(corpus::no_auth(), async |node, auth| {
            let mut wire = cluster.websocket(node).await;
            wire.say(&format!("40{auth}")).await;
            let verdict = loop {
                match wire.hear().await {
                    Some(Heard::Text(text)) if text.starts_with('4') => break text,
                    Some(_) => {}
                    None => panic!("closed for {auth:?}"),
                }
            };
            assert_eq!(verdict, r#"44{"message":"invalid_token"}"#, "{auth:?}");
            wire.join(None).await.expect("a guest is admitted");
            assert!(wire.goes_on().await);
        })
        .await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: whoever breaks the protocol of WebSockets is closed.
/// Method: every broken frame, before joining and after, as a whole and byte by byte.
#[tokio::test]
async fn frames_that_are_none() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        each(
            corpus::broken_frames().into_iter().enumerate(),
            async |node, (number, bytes)| {
                let wires = [
                    cluster.websocket(node).await,
                    joined(&cluster, node, number).await,
                    cluster.joined(node, None).await,
                ];
                for (mut wire, piece) in wires.into_iter().zip([bytes.len(), bytes.len(), 1]) {
                    for part in bytes.chunks(piece).take(200) {
                        wire.write(part).await;
                    }
                    wire.write(&bytes[bytes.len().min(200 * piece)..]).await;
                    wire.ended().await;
                }
            },
        )
        .await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: what is unusual and allowed works.
/// Method: an event in single bytes, with empty pieces and pings between them, in 16 bits more of length than needed;
/// parts that were announced; 3,000 pings.
#[tokio::test]
async fn frames_that_are_odd() {
    let cluster = two_nodes().start().await;
    let ask = br#"421["get-online-users"]"#;
    let abuse = async || {
        let mut wire = cluster.joined(0, Some(ADA)).await;
        wire.write(frame(0x01, &ask[..1])).await;
        for byte in &ask[1..] {
            wire.write(frame(0x00, &[])).await;
            wire.write(frame(0x89, b"ping")).await;
            wire.write(frame(0x00, &[*byte])).await;
        }
        wire.write(frame(0x80, &[])).await;
        assert!(wire.hear_until("431[[").await.is_some());

        wire.write([&[0x81, 0xfe, 0, ask.len() as u8, 0, 0, 0, 0], &ask[..]].concat())
            .await;
        assert!(wire.hear_until("431[[").await.is_some());

        wire.say(r#"452-7["watch-profile",{"userId":{"_placeholder":true,"num":-1}}]"#)
            .await;
        wire.say_binary(b"").await;
        wire.say_binary(b"42").await;
        let refused = wire.hear_until("437[").await.expect("an answer");
        assert!(refused.contains("invalid_payload"), "{refused}");

        let mut pongs = 0;
        for _ in 0..30 {
            wire.write(frame(0x89, &[b'x'; 125]).repeat(100)).await;
            wire.say(&String::from_utf8_lossy(ask)).await;
            loop {
                match wire.hear().await.expect("the session goes on") {
                    Heard::Text(text) if text.starts_with("431[[") => break,
                    Heard::Control(0xa) => pongs += 1,
                    _ => {}
                }
            }
        }
        assert!(pongs > 0);
        wire.finish().await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    for _ in 0..5 {
        abuse().await;
    }
    calm.returns(&cluster).await;
}

/// Goal: a session moves to a WebSocket in one way only; whatever else is tried ends the attempt.
/// Method: wrong words on the WebSocket of a session that polls, in several orders; a session that has moved already;
/// a session of nobody; then the node still moves a proper one.
#[tokio::test]
async fn upgrades_that_are_none() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let wrong: [&[&str]; 14] = [
            &[],
            &[""],
            &["5"],
            &["2"],
            &["3probe"],
            &["2probex"],
            &["2PROBE"],
            &["40"],
            &["1"],
            &["6"],
            &["2probe", "2probe"],
            &["2probe", "42[\"get-online-users\"]"],
            &["2probe", "1"],
            &["2probe", "5x", "5x"],
        ];
        each(wrong, async |node, words| {
            let mut http = cluster.wire(node).await;
            let sid = http.poll_open().await;
            let mut wire = cluster.wire(node).await;
            assert_eq!(
                wire.upgrade(&format!("{WEBSOCKET}&sid={sid}")).await,
                Some(101)
            );
            for word in words {
                wire.say(word).await;
            }
            wire.finish().await;
            http.post(&polling(&sid), "", b"1").await;
        })
        .await;
        each(0..8, async |node, number| {
            let mut http = cluster.wire(node).await;
            let sid = http.poll_open().await;
            let moving = format!("{WEBSOCKET}&sid={sid}");
            let (mut first, mut second) = (cluster.wire(node).await, cluster.wire(node).await);
            assert_eq!(first.upgrade(&moving).await, Some(101));
            first.say("2probe").await;
            first.hear_until("3probe").await.expect("an answer");
            first.say("5").await;
            first.join(None).await.expect("it has moved");
            // It stays where it is, and polls no more.
            let again = second.upgrade(&moving).await;
            assert!(again.is_some_and(|status| status < 500), "{again:?}");
            second.say("2probe").await;
            second.finish().await;
            let reply = http.request("GET", &polling(&sid), "", b"").await;
            assert_eq!(reply.map(|reply| reply.status), Some(400));
            assert!(first.goes_on().await, "{number}");
        })
        .await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    for _ in 0..5 {
        abuse().await;
    }
    calm.returns(&cluster).await;
}

/// Goal: whatever is posted to a session that polls is answered, and nothing with a fault of the node.
/// Method: every body under several content types; sessions of another node, of a WebSocket, and of nobody; every odd
/// query with every method.
#[tokio::test]
async fn polling_that_nobody_does() {
    let cluster = two_nodes().start().await;
    let types = [
        "",
        "Content-Type: text/plain;charset=UTF-8\r\n",
        "Content-Type: application/octet-stream\r\n",
        "Content-Type: application/json\r\n",
        "Content-Type: \u{7f}\r\n",
    ];
    let abuse = async || {
        each(
            corpus::bodies().into_iter().enumerate(),
            async |node, (number, body)| {
                let mut http = cluster.wire(node).await;
                let sid = http.poll_open().await;
                for body in [&b"40"[..], &body] {
                    let reply = http
                        .post(&polling(&sid), types[number % types.len()], body)
                        .await;
                    match reply {
                        Some(reply) => assert!(reply.status < 500, "{body:?}: {reply:?}"),
                        None => http = cluster.wire(node).await,
                    }
                }
                let mut closing = cluster.wire(node).await;
                closing.post(&polling(&sid), "", b"1").await;
            },
        )
        .await;
        foreign_sessions(&cluster).await;
        let methods = [
            "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW",
        ];
        let requests = corpus::queries()
            .into_iter()
            .flat_map(|query| methods.map(|method| (method, query.clone())));
        each(requests, async |node, (method, query)| {
            let mut http = cluster.wire(node).await;
            let target = format!("/socket.io/?{query}");
            let head = format!(
                "{method} {target} HTTP/1.1\r\nHost: vigie\r\nContent-Length: 2\r\nConnection: close\r\n\r\n40"
            );
            assert!(http.write(head).await);
            let answer = String::from_utf8_lossy(&http.ended().await).into_owned();
            assert!(
                answer.starts_with("HTTP/1.1 4") || method == "OPTIONS",
                "{method} {query}: {answer}"
            );
        })
        .await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Sessions are their node's, their transport's, and whoever's knows them.
async fn foreign_sessions(cluster: &Cluster) {
    let mut polls = cluster.wire(0).await;
    let sid = polls.poll_open().await;
    let mut elsewhere = cluster.wire(1).await;
    let mut wire = cluster.wire(0).await;
    assert_eq!(wire.upgrade(WEBSOCKET).await, Some(101));
    let open = wire.hear_until("0").await.expect("a session");
    let open: serde_json::Value = serde_json::from_str(&open).expect("JSON");
    let of_websocket = open["sid"].as_str().expect("a session");
    for (http, sid) in [(&mut elsewhere, sid.as_str()), (&mut polls, of_websocket)] {
        for method in ["GET", "POST"] {
            let headers = "Content-Length: 2\r\n";
            let reply = http.request(method, &polling(sid), headers, b"40").await;
            assert_eq!(reply.map(|reply| reply.status), Some(400));
        }
    }
    wire.join(None).await.expect("nothing has happened to it");
    let reply = polls.post(&polling(&sid), "", b"1").await;
    assert_eq!(reply.map(|reply| reply.status), Some(200));
}
