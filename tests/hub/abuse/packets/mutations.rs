//! Sessions as clients have them, changed at random. `ABUSE_SEED` draws the same ones again.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::each;
use crate::abuse::{Calm, polling, two_nodes};
use crate::harness::{ADA, Cluster, WEBSOCKET, frame};

/// Sessions over each transport, twice: the first time to warm up.
const WEBSOCKETS: u64 = 3_000;
const POLLING: u64 = 1_500;

/// Pieces of which packets are made, and what does not belong into any.
const PIECES: [&str; 40] = [
    "4",
    "40",
    "41",
    "42",
    "43",
    "44",
    "45",
    "46",
    "2",
    "3",
    "2probe",
    "5",
    "1-",
    "51-",
    "-",
    "/",
    ",",
    "/socket.io/,",
    "0",
    "7",
    "9007199254740993",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    ":",
    "\"userId\"",
    "\"token\"",
    "\"get-online-users\"",
    "\"watch-profile\"",
    "{\"_placeholder\":true,\"num\":0}",
    "null",
    "\u{1e}",
    "\0",
    "é",
    "\\ud800",
    "b",
    "1e308",
];

/// Goal: no packet does harm, whatever it is.
/// Method: sessions of a user, of which packets or bytes are changed at random; each is written to its end, and the
/// node ends the connection then.
#[tokio::test]
async fn changed_packets_on_websockets() {
    let cluster = two_nodes().start().await;
    let token = cluster.token(ADA);
    let abuse = async |seeds: std::ops::Range<u64>| {
        each(seeds, async |node, seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let bytes = changed_session(&mut rng, &token);
            let mut wire = cluster.wire(node).await;
            assert_eq!(wire.upgrade(WEBSOCKET).await, Some(101));
            for piece in bytes.chunks(rng.random_range(1..=bytes.len().max(2))) {
                wire.write(piece).await;
            }
            wire.finish().await;
        })
        .await;
    };
    run(&cluster, WEBSOCKETS, abuse).await;
}

/// Goal: the same over polling.
/// Method: bodies of several packets, changed at random, posted to sessions that are closed in the end; every request
/// is answered, and none with a fault of the node.
#[tokio::test]
async fn changed_packets_over_polling() {
    let cluster = two_nodes().start().await;
    let token = cluster.token(ADA);
    let abuse = async |seeds: std::ops::Range<u64>| {
        each(seeds, async |node, seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut http = cluster.wire(node).await;
            let sid = http.poll_open().await;
            let mut bodies: Vec<Vec<u8>> = (0..rng.random_range(1..4))
                .map(|_| {
                    let packets = changed_packets(&mut rng, &token);
                    changed_bytes(&mut rng, packets.join("\u{1e}").into_bytes())
                })
                .collect();
            bodies.push(b"1".to_vec());
            for body in bodies {
                let reply = http.post(&polling(&sid), "", &body).await;
                let reply = reply.unwrap_or_else(|| panic!("no answer to {body:?}"));
                assert!(reply.status < 500, "{body:?}: {reply:?}");
            }
        })
        .await;
    };
    run(&cluster, POLLING, abuse).await;
}

/// Once to warm up, then again.
async fn run(cluster: &Cluster, count: u64, abuse: impl AsyncFn(std::ops::Range<u64>)) {
    let seed = std::env::var("ABUSE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("ABUSE_SEED={seed}");
    abuse(seed..seed + count).await;
    let calm = Calm::after_warm_up(cluster).await;
    abuse(seed + count..seed + 2 * count).await;
    calm.returns(cluster).await;
}

/// The usual packets of a client.
fn packets(token: &str) -> Vec<String> {
    let mut packets = vec![format!("40/socket.io/,{{\"token\":\"{token}\"}}")];
    let usual = [
        "40{\"token\":null}",
        "42/socket.io/,1[\"get-online-users\"]",
        "421[\"get-online-users\"]",
        "42/socket.io/,2[\"watch-profile\",{\"userId\":42}]",
        "422[\"watch-profile\",{\"userId\":9007199254740991}]",
        "42/socket.io/,[\"unwatch-profile\",{\"userId\":42}]",
        "42/socket.io/,4[\"join-matchmaking\"]",
        "42/socket.io/,5[\"leave-matchmaking\"]",
        "426[\"refresh-token\",{\"token\":\"a.b.c\"}]",
        "3",
        "2",
        "451-[\"watch-profile\",{\"_placeholder\":true,\"num\":0}]",
        "43/socket.io/,1[]",
        "41/socket.io/,",
        "41",
        "1",
    ];
    packets.extend(usual.map(str::to_owned));
    packets
}

/// Some of them, in order, with pieces changed.
fn changed_packets(rng: &mut StdRng, token: &str) -> Vec<String> {
    let mut packets = packets(token);
    packets.retain(|_| rng.random_bool(0.7));
    for packet in &mut packets {
        if rng.random_bool(0.3) {
            for _ in 0..rng.random_range(1..4) {
                change_text(rng, packet);
            }
        }
    }
    if rng.random_bool(0.3) && !packets.is_empty() {
        let (from, to) = (
            rng.random_range(0..packets.len()),
            rng.random_range(0..packets.len()),
        );
        packets.swap(from, to);
    }
    packets
}

fn change_text(rng: &mut StdRng, text: &mut String) {
    let at = text.floor_char_boundary(rng.random_range(0..=text.len()));
    let to = text.ceil_char_boundary((at + rng.random_range(0..8)).min(text.len()));
    let piece = PIECES[rng.random_range(0..PIECES.len())];
    match rng.random_range(0..5) {
        0 => text.insert_str(at, piece),
        1 => text.replace_range(at..to, piece),
        2 => text.replace_range(at..to, ""),
        3 => text.truncate(at),
        _ => text.insert_str(at, &piece.repeat(rng.random_range(1..400))),
    }
}

/// The frames of a session, most of them whole.
fn changed_session(rng: &mut StdRng, token: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in changed_packets(rng, token) {
        let first = match rng.random_range(0..40) {
            0 => rng.random(),
            1 => 0x82,
            2 => 0x01,
            _ => 0x81,
        };
        bytes.extend(frame(first, packet.as_bytes()));
    }
    if rng.random_bool(0.3) {
        bytes = changed_bytes(rng, bytes);
    }
    bytes
}

fn changed_bytes(rng: &mut StdRng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.random_range(0..3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        let to = (at + rng.random_range(1..16)).min(bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => drop(bytes.drain(at..to)),
            3 => bytes.truncate(at),
            _ => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}
