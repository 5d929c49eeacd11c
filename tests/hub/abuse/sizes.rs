//! Messages, bodies and heads that are too large, or say that they are.

use futures_util::future::join_all;

use super::{Calm, polling, two_nodes};
use crate::harness::{ADA, Cluster, NODE_KEY, Wire, announcing, frame};

/// `limits.message`, as it is by default.
const MESSAGE_MAX: usize = 16 * 1024;
/// `limits.http_body`, as it is by default.
const BODY_MAX: usize = 256 * 1024;

const MIB: u64 = 1024 * 1024;

/// The most memory that a node may take, for a while, for input of many connections at once.
const GROWTH_MAX: u64 = 32 * MIB;

/// An event of exactly so many bytes, which does not exist.
fn event(length: usize) -> String {
    let (begin, end) = (r#"421["x",""#, r#""]"#);
    format!(
        "{begin}{}{end}",
        "x".repeat(length - begin.len() - end.len())
    )
}

/// Fails when a node has grown by more than it may.
fn assert_small(cluster: &Cluster, before: u64, what: &str) {
    let grown = cluster.resident_memory(0).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{what}: grew by {} MiB", grown / MIB);
}

/// Goal: a frame is refused by what it announces, before it is taken in.
/// Method: 20 connections at once announce 1 MiB, 16 MiB and up to 2^64 bytes and send 16 MiB of them, before joining and
/// after; each is closed, and the node does not grow by what was announced.
#[tokio::test]
async fn frames_that_announce_much() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let before = cluster.resident_memory(0);
        for length in [
            MIB,
            16 * MIB,
            1 << 31,
            1 << 32,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX,
        ] {
            let attackers = (0..20).map(async |number| {
                let mut wire = match number % 2 {
                    0 => cluster.websocket(0).await,
                    _ => cluster.joined(0, Some(ADA)).await,
                };
                let first = if number % 4 < 2 { 0x81 } else { 0x82 };
                wire.write(announcing(first, length)).await;
                let megabyte = vec![b'x'; MIB as usize];
                for _ in 0..(length / MIB).min(16) {
                    if !wire.write(&megabyte).await {
                        break;
                    }
                }
                wire
            });
            let attackers = join_all(attackers).await;
            assert_small(&cluster, before, &format!("{length} bytes announced"));
            for wire in attackers {
                wire.ended().await;
            }
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: a message in pieces is as long as all of them.
/// Method: exactly what is allowed, whole and in thousands of pieces, is answered; one byte more ends the connection, as
/// do pieces that go on and on.
#[tokio::test]
async fn messages_in_thousands_of_pieces() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        for piece in [MESSAGE_MAX, 1024, 3, 1] {
            let mut wire = cluster.joined(0, Some(ADA)).await;
            write_in_pieces(&mut wire, &event(MESSAGE_MAX), piece).await;
            let answer = wire.hear_until("431[").await;
            assert!(answer.is_some_and(|answer| answer.contains("unknown_event")));
            write_in_pieces(&mut wire, &event(MESSAGE_MAX + 1), piece).await;
            assert!(!wire.goes_on().await, "pieces of {piece} bytes");
            wire.ended().await;
        }
        for piece in [&[b'x'; 1][..], &[b'x'; 125], &[b'x'; 8_000]] {
            let mut wire = cluster.joined(0, Some(ADA)).await;
            wire.write(frame(0x01, b"4")).await;
            let pieces = frame(0x00, piece).repeat(1 + 8_000 / piece.len());
            for _ in 0..100 {
                if !wire.write(&pieces).await {
                    break;
                }
            }
            wire.ended().await;
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    for _ in 0..3 {
        abuse().await;
    }
    calm.returns(&cluster).await;
}

async fn write_in_pieces(wire: &mut Wire, message: &str, piece: usize) {
    let mut frames = Vec::new();
    let pieces = message.as_bytes().chunks(piece);
    let last = pieces.len() - 1;
    for (number, piece) in pieces.enumerate() {
        let opcode = if number == 0 { 0x01 } else { 0x00 };
        let end = if number == last { 0x80 } else { 0x00 };
        frames.extend(frame(opcode | end, piece));
    }
    wire.write(frames).await;
}

/// Goal: parts of a binary message count together, however many were announced.
/// Method: more parts than one may announce; parts that add up to more than a message; each ends the connection.
#[tokio::test]
async fn parts_that_add_up() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        let before = cluster.resident_memory(0);
        let attackers = (0..20).map(async |number| {
            let mut wire = cluster.joined(0, Some(ADA)).await;
            let parts = [64, 10_000][number % 2];
            wire.say(&format!(r#"45{parts}-["x"]"#)).await;
            for _ in 0..parts {
                if !wire.say_binary(&[0; 15_000]).await {
                    break;
                }
            }
            wire
        });
        let attackers = join_all(attackers).await;
        assert_small(&cluster, before, "parts of messages");
        for wire in attackers {
            wire.ended().await;
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: what is posted to a session is as long as a message at most, whatever it says about its length.
/// Method: exactly what is allowed, with a length and in chunks; one byte more; 16 MiB; lengths that are none, that say
/// more or less than comes, or both ways at once.
#[tokio::test]
async fn posts_that_are_too_long() {
    let cluster = two_nodes().start().await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let abuse = async || {
        let mut http = cluster.wire(0).await;
        let sid = http.poll_open().await;
        let target = polling(&sid);
        http.post(&target, "", b"40").await.expect("an answer");
        // Nothing may be asked before the node says that it has joined.
        while !http.polled(&target).await.contains("40{") {}
        for size in [MESSAGE_MAX, MESSAGE_MAX / 2] {
            let body = event(size);
            let whole = http.post(&target, "", body.as_bytes()).await;
            assert_eq!(whole.expect("an answer").status, 200, "{size} bytes");
            let pieces = in_chunks(body.as_bytes(), 1000);
            let pieces = http.request("POST", &target, chunked, &pieces).await;
            assert_eq!(pieces.expect("an answer").status, 200, "{size} bytes");
        }
        for size in [MESSAGE_MAX + 1, MIB as usize, 16 * MIB as usize] {
            let body = event(size);
            for (headers, body) in [
                (
                    format!("Content-Length: {size}\r\n"),
                    body.clone().into_bytes(),
                ),
                (chunked.to_owned(), in_chunks(body.as_bytes(), 4000)),
            ] {
                let mut http = cluster.wire(0).await;
                let sid = http.poll_open().await;
                let reply = http.request("POST", &polling(&sid), &headers, &body).await;
                // The node may close before everything is written, and the answer is lost with it.
                let refused = reply.is_none_or(|reply| reply.status == 413);
                assert!(refused, "{size} bytes");
            }
        }
        for (headers, body) in [
            ("Content-Length: -1\r\n", "40"),
            ("Content-Length: x\r\n", "40"),
            ("Content-Length: 99999999999999999999999\r\n", "40"),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", "40"),
            ("Content-Length: 2, 2\r\n", "40"),
            (
                "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: gzip\r\n", "40"),
            (chunked, "ffffffffffffffffff\r\n40\r\n0\r\n\r\n"),
            (chunked, "-1\r\n40\r\n0\r\n\r\n"),
            (chunked, "x\r\n40\r\n0\r\n\r\n"),
            (chunked, "2\r\n40x\r\n0\r\n\r\n"),
            (chunked, "2;a=b\r\n40\r\n0\r\nX-Trailer: x\r\n\r\n"),
        ] {
            let mut wire = cluster.wire(0).await;
            let sid = wire.poll_open().await;
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: vigie\r\n{headers}\r\n{body}",
                polling(&sid)
            );
            wire.write(head).await;
            let answer = String::from_utf8_lossy(&wire.finish().await).into_owned();
            assert!(
                !answer.contains("HTTP/1.1 5"),
                "{headers:?} {body:?}: {answer}"
            );
        }
        // Less comes than was said, and more.
        let mut wire = cluster.wire(0).await;
        wire.write(format!(
            "POST {target} HTTP/1.1\r\nHost: vigie\r\nContent-Length: 100\r\n\r\n42"
        ))
        .await;
        wire.finish().await;
        let mut wire = cluster.wire(0).await;
        wire.write(format!(
            "POST {target} HTTP/1.1\r\nHost: vigie\r\nContent-Length: 1\r\n\r\n33333\r\n\r\n"
        ))
        .await;
        let answer = String::from_utf8_lossy(&wire.finish().await).into_owned();
        assert!(!answer.contains("HTTP/1.1 5"), "{answer}");
        http.post(&target, "", b"1").await;
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(size) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunks.extend(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    chunks
}

/// Goal: bodies of the HTTP API are bounded, and exactly what is allowed works.
/// Method: updates of 256 KiB, one byte more, and 16 MiB, with a length and in chunks.
#[tokio::test]
async fn updates_that_are_too_long() {
    let cluster = two_nodes().start().await;
    let target = format!("/api/v1/users/{ADA}/profile-update");
    let update = |length: usize| {
        let (begin, end) = (r#"{"user":{"x":""#, r#""}}"#);
        let padding = "x".repeat(length - begin.len() - end.len());
        format!("{begin}{padding}{end}").into_bytes()
    };
    let key = format!("X-API-Key: {NODE_KEY}\r\n");
    let abuse = async || {
        for (size, allowed) in [
            (BODY_MAX, true),
            (BODY_MAX + 1, false),
            (16 * MIB as usize, false),
        ] {
            let body = update(size);
            for (length, body) in [
                (format!("Content-Length: {size}\r\n"), body.clone()),
                (
                    "Transfer-Encoding: chunked\r\n".to_owned(),
                    in_chunks(&body, 8000),
                ),
            ] {
                let mut http = cluster.internal_wire(0).await;
                let headers = format!("{key}{length}");
                let reply = http.request("POST", &target, &headers, &body).await;
                match reply {
                    Some(reply) if allowed => assert_eq!(reply.status, 200, "{reply:?}"),
                    Some(reply) => assert_eq!(reply.status, 413, "{reply:?}"),
                    // The answer is lost where the node closes before everything is written.
                    None => assert!(!allowed, "{size} bytes"),
                }
            }
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    for _ in 0..3 {
        abuse().await;
    }
    calm.returns(&cluster).await;
}

/// Goal: heads of requests are bounded on both listeners.
/// Method: one header of 1 MiB, 10,000 headers, a URL of 64 KiB and of 1 MiB, a method of 64 KiB, a head that never ends;
/// each is refused or closed, 20 at once, and the node does not grow by what was sent.
#[tokio::test]
async fn heads_that_are_too_long() {
    let cluster = two_nodes().start().await;
    let long = |length: u64| "x".repeat(length as usize);
    let heads = [
        format!(
            "GET /healthz HTTP/1.1\r\nHost: vigie\r\nX: {}\r\n\r\n",
            long(MIB)
        ),
        format!(
            "GET /healthz HTTP/1.1\r\nHost: vigie\r\n{}\r\n",
            "X: y\r\n".repeat(10_000)
        ),
        format!(
            "GET /healthz HTTP/1.1\r\nHost: vigie\r\n{}: y\r\n\r\n",
            long(MIB)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: vigie\r\n\r\n", long(64 * 1024)),
        format!(
            "GET /socket.io/?sid={} HTTP/1.1\r\nHost: vigie\r\n\r\n",
            long(64 * 1024)
        ),
        format!(
            "GET /socket.io/?EIO=4&transport=websocket&{} HTTP/1.1\r\nHost: vigie\r\n\r\n",
            long(MIB)
        ),
        format!("{} / HTTP/1.1\r\nHost: vigie\r\n\r\n", long(64 * 1024)),
        format!("GET / HTTP/1.1{}\r\n\r\n", long(64 * 1024)),
        long(MIB),
        "\r\n".repeat(500_000),
        "\0".repeat(100_000),
    ];
    let abuse = async || {
        let before = cluster.resident_memory(0);
        for head in &heads {
            let attackers = (0..20).map(async |number| {
                let mut wire = match number % 2 {
                    0 => cluster.wire(0).await,
                    _ => cluster.internal_wire(0).await,
                };
                wire.write(head).await;
                wire
            });
            let attackers = join_all(attackers).await;
            let begin: String = head.chars().take(40).collect();
            assert_small(&cluster, before, &begin);
            for wire in attackers {
                let answer = String::from_utf8_lossy(&wire.finish().await).into_owned();
                let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
                assert!(refused, "{begin}: {answer}");
            }
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}
