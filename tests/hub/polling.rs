//! Sessions that poll, and requests for WebSockets as proxies pass them on.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{
    ADA, BOB, Balancer, Builder, Cluster, Connecting, EVE, Program, WEBSOCKET, Wire, eventually,
    eventually_eq, profile,
};

/// Most packets in one answer to a poll: python-engineio refuses more.
const PACKETS_MAX: usize = 16;

/// Separates the packets of an answer.
const SEPARATOR: char = '\u{1e}';

/// A cluster in which nobody is sent what others do: that would answer a poll before it is broken off.
fn quiet() -> Builder {
    Cluster::builder()
        .without_lookouts()
        .env("VIGIE_PRESENCE__AUDIENCE", "watchers")
}

fn polling(sid: &str) -> String {
    format!("/socket.io/?EIO=4&transport=polling&sid={sid}")
}

/// Opens a session that polls, as a user, up to the answer to CONNECT.
async fn join(http: &mut Wire, cluster: &Cluster, user: u64) -> String {
    let sid = http.poll_open().await;
    let auth = format!("40{}", json!({ "token": cluster.token(user) }));
    http.post(&polling(&sid), "", auth.as_bytes()).await;
    let (mut is_pinged, mut is_in) = (false, false);
    while !(is_pinged && is_in) {
        let said = http.polled(&polling(&sid)).await;
        is_pinged |= said.split(SEPARATOR).any(|packet| packet == "2");
        is_in |= said.contains("40{");
    }
    http.post(&polling(&sid), "", b"3").await;
    sid
}

/// Polls, and closes the connection without waiting for an answer; returns when the other side has closed it, too, and
/// answers again, so that it knows.
async fn break_off(cluster: &Cluster, mut http: Wire, version: &str, sid: &str) {
    http.write(poll(version, sid)).await;
    http.finish().await;
    assert_eq!(cluster.get_public(0, "/healthz").await.status, 200);
}

fn poll(version: &str, sid: &str) -> String {
    let target = polling(sid);
    format!("GET {target} HTTP/{version}\r\nHost: vigie\r\n\r\n")
}

/// Goal: a tab that polls and is closed takes its connection with it, like one with a WebSocket.
/// Method: a poll that is broken off, over HTTP/1.1 and HTTP/1.0, and through nginx. Engine.IO's heartbeat would take
/// three quarters of a minute, longer than this test waits.
#[tokio::test]
async fn a_poll_that_is_broken_off_releases_the_connection() {
    let cluster = quiet().nodes(2).start().await;
    let nginx = Balancer::start(Program::Nginx, &cluster).await;
    for (address, version) in [
        (cluster.public_address(0), "1.1"),
        (cluster.public_address(0), "1.0"),
        (nginx.address(), "1.1"),
        (nginx.address(), "1.0"),
    ] {
        let mut http = Wire::connect(address, None).await;
        let sid = join(&mut http, &cluster, ADA).await;
        cluster.wait_for_refcount(ADA, 1).await;
        break_off(&cluster, http, version, &sid).await;
        cluster.wait_for_refcount(ADA, 0).await;
    }
}

/// Goal: a connection whose CONNECT cannot be answered ends, like one whose client is gone.
/// Method: a message with so many CONNECTs to a namespace that does not exist that their answers fill the queue of the
/// library, then one as Ada, to which no answer fits.
#[tokio::test]
async fn a_connect_that_cannot_be_answered_leaves_nothing() {
    let cluster = quiet().start().await;
    let mut http = cluster.wire(0).await;
    let sid = http.poll_open().await;
    let mut packets = vec!["40/unknown,".to_owned(); PACKETS_MAX - 2];
    packets.push(format!("40{}", json!({ "token": cluster.token(ADA) })));
    let body = packets.join(&SEPARATOR.to_string());
    http.post(&polling(&sid), "", body.as_bytes()).await;
    eventually("the connection ends", async || {
        let ended = "vigie_connections_closed_total{reason=\"transport\"}";
        (cluster.metric(0, ended).await > 0.0).then_some(())
    })
    .await;
    cluster.wait_for_refcount(ADA, 0).await;
}

/// Goal: a poll that is broken off does no harm where another request follows, and none while the session moves to a
/// WebSocket.
/// Method: three sessions break off a poll; then one polls again, one sends something, one begins to move to a WebSocket.
/// A fourth breaks off later and does nothing: when that one is released, the time of the others is over, too. All three
/// go on.
#[tokio::test]
async fn a_poll_that_is_followed_releases_nothing() {
    let cluster = quiet().start().await;
    let mut joined = Vec::new();
    for user in [ADA, BOB, EVE, 1, 2] {
        let mut http = cluster.wire(0).await;
        let sid = join(&mut http, &cluster, user).await;
        joined.push((http, sid));
    }
    let [ada, bob, eve, first, last] = joined.try_into().ok().expect("five");
    let (mut polls, mut posts) = (cluster.wire(0).await, cluster.wire(0).await);
    let mut moves = cluster.wire(0).await;

    break_off(&cluster, ada.0, "1.1", &ada.1).await;
    polls.write(poll("1.1", &ada.1)).await;
    break_off(&cluster, bob.0, "1.1", &bob.1).await;
    posts.post(&polling(&bob.1), "", b"3").await;
    break_off(&cluster, eve.0, "1.1", &eve.1).await;
    let query = format!("{WEBSOCKET}&sid={}", eve.1);
    assert_eq!(moves.upgrade(&query).await, Some(101));
    break_off(&cluster, first.0, "1.1", &first.1).await;
    cluster.wait_for_refcount(1, 0).await;
    break_off(&cluster, last.0, "1.1", &last.1).await;
    cluster.wait_for_refcount(2, 0).await;

    moves.say("2probe").await;
    assert_eq!(moves.hear_until("3probe").await.as_deref(), Some(""));
    moves.say("5").await;
    assert!(moves.goes_on().await);
    let ask = r#"421["get-online-users"]"#;
    for sid in [&ada.1, &bob.1] {
        let reply = cluster
            .wire(0)
            .await
            .post(&polling(sid), "", ask.as_bytes())
            .await;
        assert_eq!(reply.map(|reply| reply.status), Some(200));
    }
    let reply = polls.reply().await.expect("an answer");
    assert!(reply.body.contains("431[["), "{reply:?}");
    let said = posts.polled(&polling(&bob.1)).await;
    assert!(said.contains("431[["), "{said}");
    for user in [ADA, BOB, EVE] {
        cluster.wait_for_refcount(user, 1).await;
    }
}

/// Goal: an answer to a poll holds at most 16 packets, and nothing is lost, whatever comes at once.
/// Method: twenty guests watch a user and poll; 200 updates and 200 status changes come in one burst.
#[tokio::test]
async fn an_answer_holds_at_most_16_packets() {
    const UPDATES: u64 = 200;
    let cluster = Cluster::builder()
        .without_lookouts()
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "1000")
        .start()
        .await;
    let mut guests = Vec::new();
    for _ in 0..20 {
        let mut http = cluster.wire(0).await;
        let sid = http.poll_open().await;
        http.post(&polling(&sid), "", b"40{}").await;
        let watch = format!(r#"420["watch-profile",{{"userId":{ADA}}}]"#);
        let mut said = String::new();
        while !said.contains("40{") {
            said.push_str(&http.polled(&polling(&sid)).await);
        }
        http.post(&polling(&sid), "", watch.as_bytes()).await;
        while !said.contains("430[") {
            said.push_str(&http.polled(&polling(&sid)).await);
        }
        guests.push((http, sid));
    }
    let burst = async {
        let updates: Vec<_> = (1..=UPDATES)
            .map(|revision| {
                let user = profile(ADA, &format!("n{revision}"));
                json!({ "kind": "profile-update", "userId": ADA, "user": user, "revision": revision })
            })
            .collect();
        let answer = cluster
            .post(0, "/api/v1/notifications", &json!(updates))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // Events of the users themselves, who are many, reach everybody as status changes.
        join_all((1..=20).map(|user| cluster.connect_with(0, Connecting::user(10_000 + user))))
            .await
    };
    let polled = join_all(guests.into_iter().map(async |(mut http, sid)| {
        let mut revisions = Vec::new();
        let mut online = BTreeSet::new();
        while revisions.last() != Some(&UPDATES) || online.len() < 20 {
            let said = http.polled(&polling(&sid)).await;
            let packets: Vec<_> = said.split(SEPARATOR).collect();
            assert!(packets.len() <= PACKETS_MAX, "{} packets", packets.len());
            for packet in packets {
                if packet == "2" {
                    http.post(&polling(&sid), "", b"3").await;
                }
                let Some(event) = packet.strip_prefix("42") else {
                    continue;
                };
                let event: serde_json::Value = serde_json::from_str(event).expect("an event");
                match event[0].as_str() {
                    Some("profile-update") => {
                        revisions.push(event[1]["revision"].as_u64().expect("a revision"));
                    }
                    Some("user-status-change") => {
                        online.insert(event[1]["userId"].as_u64().expect("a user"));
                    }
                    _ => {}
                }
            }
        }
        revisions
    }));
    let (_users, polled) = tokio::join!(burst, polled);
    let all: Vec<u64> = (1..=UPDATES).collect();
    for revisions in polled {
        assert_eq!(revisions, all);
    }
}

/// Goal: a request for a WebSocket that a proxy has changed is refused with a sentence that names what to pass on, and
/// costs the session that it names nothing.
/// Method: opening and upgrading, without one header or both, over HTTP/1.0, and without a key; then the session polls.
#[tokio::test]
async fn what_cannot_become_a_websocket_is_refused() {
    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    const KEY: &str =
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cluster = Cluster::start(1).await;
    let mut http = cluster.wire(0).await;
    let sid = join(&mut http, &cluster, ADA).await;
    for query in [WEBSOCKET.to_owned(), format!("{WEBSOCKET}&sid={sid}")] {
        let ask = async |version: &str, headers: &str| {
            let mut wire = cluster.wire(0).await;
            wire.write(format!(
                "GET /socket.io/?{query} HTTP/{version}\r\nHost: vigie\r\n{headers}\r\n"
            ))
            .await;
            wire.reply().await.expect("an answer")
        };
        let both = format!("{UPGRADE}{KEY}");
        for (version, headers) in [
            ("1.1", KEY),
            ("1.0", KEY),
            ("1.0", &both),
            ("1.1", &format!("Connection: Upgrade\r\n{KEY}")),
            ("1.1", &format!("Upgrade: websocket\r\n{KEY}")),
            (
                "1.1",
                &format!("Connection: close\r\nUpgrade: websocket\r\n{KEY}"),
            ),
            (
                "1.1",
                &format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{KEY}"),
            ),
        ] {
            let reply = ask(version, headers).await;
            assert_eq!(reply.status, 400, "{headers} {reply:?}");
            for named in ["proxy", "Connection: Upgrade", "Upgrade: websocket"] {
                assert!(reply.body.contains(named), "{reply:?}");
            }
        }
        let reply = ask("1.1", UPGRADE).await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("Sec-WebSocket-Key"), "{reply:?}");
    }
    let ask = r#"421["get-online-users"]"#;
    http.post(&polling(&sid), "", ask.as_bytes()).await;
    let said = http.polled(&polling(&sid)).await;
    assert!(said.contains("431[["), "{said}");
    let mut wire = cluster.wire(0).await;
    assert_eq!(
        wire.upgrade(&format!("{WEBSOCKET}&sid={sid}")).await,
        Some(101)
    );
}

/// Goal: behind a proxy that does not pass `Upgrade` on, the official client falls back to polling at once.
/// Method: nginx with its file of `config/`, but for the lines that pass it on.
#[tokio::test]
async fn behind_a_proxy_without_upgrade_clients_poll() {
    let cluster = Cluster::start(2).await;
    let without_upgrade = |text: String| {
        let lines = text.lines().filter(|line| {
            let line = line.trim();
            !line.starts_with("proxy_set_header Upgrade")
                && !line.starts_with("proxy_set_header Connection")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let nginx = Balancer::start_edited(Program::Nginx, &cluster, without_upgrade).await;
    let both = Connecting::user(ADA)
        .transports(&["websocket", "polling"])
        .trying_all_transports();
    let client = cluster.connect_to(nginx.address(), both).await;
    assert_eq!(client.watch(BOB).await["ok"], true);
    // The other way round the client polls, tries to move, and goes on polling.
    let moving = Connecting::user(EVE).transports(&["polling", "websocket"]);
    let client = cluster.connect_to(nginx.address(), moving).await;
    assert_eq!(client.watch(BOB).await["ok"], true);
    eventually_eq("both are online", vec![ADA, EVE], async || {
        client.online().await
    })
    .await;
}
