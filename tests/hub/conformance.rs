//! Engine.IO 4 and Socket.IO 5, packet by packet, on both transports: one is the hub's own, the other the library's, and
//! clients see no difference.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::harness::{ADA, Cluster, Heard, WEBSOCKET, Wire};

/// Separates the packets of a payload.
const SEPARATOR: char = '\u{1e}';

const ONLINE: &str = r#"["get-online-users"]"#;

/// A session, whichever its transport is.
enum Session {
    WebSocket {
        wire: Wire,
        open: Value,
    },
    Polling {
        http: Wire,
        open: Value,
        unread: VecDeque<String>,
    },
}

fn polling(sid: &str) -> String {
    format!("/socket.io/?EIO=4&transport=polling&sid={sid}")
}

fn sid_of(open: &Value) -> String {
    open["sid"].as_str().expect("a session id").to_owned()
}

impl Session {
    /// One session of each transport.
    async fn both(cluster: &Cluster) -> [Self; 2] {
        let mut wire = cluster.wire(0).await;
        assert_eq!(wire.upgrade(WEBSOCKET).await, Some(101));
        let open = wire.hear_until("0").await.expect("a session");
        let open = serde_json::from_str(&open).expect("JSON");
        let websocket = Self::WebSocket { wire, open };
        let mut http = cluster.wire(0).await;
        let reply = http.request("GET", "/socket.io/?EIO=4&transport=polling", "", b"");
        let body = reply.await.expect("an answer").body;
        let mut unread: VecDeque<_> = body.split(SEPARATOR).map(str::to_owned).collect();
        let open = unread.pop_front().expect("a packet");
        let open = serde_json::from_str(open.strip_prefix('0').expect("a session")).expect("JSON");
        let polls = Self::Polling { http, open, unread };
        [websocket, polls]
    }

    /// The same, each in the root namespace.
    async fn both_joined(cluster: &Cluster) -> [Self; 2] {
        let mut both = Self::both(cluster).await;
        for session in &mut both {
            session.send(&["40"]).await;
            session.until("40{").await.expect("it is admitted");
        }
        both
    }

    fn open(&self) -> &Value {
        match self {
            Self::WebSocket { open, .. } | Self::Polling { open, .. } => open,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::WebSocket { .. } => "websocket",
            Self::Polling { .. } => "polling",
        }
    }

    /// Sends packets together: in one payload, or as frames in one piece.
    async fn send(&mut self, packets: &[&str]) {
        match self {
            Self::WebSocket { wire, .. } => {
                let frames = packets.iter().map(|packet| match packet.strip_prefix('b') {
                    // Over a WebSocket, binary travels as it is.
                    Some(_) => crate::harness::frame(0x82, b"binary"),
                    None => crate::harness::frame(0x81, packet.as_bytes()),
                });
                wire.write(frames.collect::<Vec<_>>().concat()).await;
            }
            Self::Polling { http, open, .. } => {
                let payload = packets.join(&SEPARATOR.to_string());
                // The answer to what ends the session says so, or not.
                http.post(&polling(&sid_of(open)), "", payload.as_bytes())
                    .await
                    .expect("an answer");
            }
        }
    }

    /// Reads up to a packet that begins with `wanted`, and returns the rest of it; `None` where the session ends before.
    async fn until(&mut self, wanted: &str) -> Option<String> {
        match self {
            Self::WebSocket { wire, .. } => wire.hear_until(wanted).await,
            Self::Polling { http, open, unread } => loop {
                while let Some(packet) = unread.pop_front() {
                    if let Some(rest) = packet.strip_prefix(wanted) {
                        return Some(rest.to_owned());
                    }
                }
                let target = polling(&sid_of(open));
                let reply = http.request("GET", &target, "", b"").await?;
                if reply.status != 200 {
                    return None;
                }
                unread.extend(reply.body.split(SEPARATOR).map(str::to_owned));
            },
        }
    }

    /// Whether the session ends, after whatever it still says.
    async fn ends(&mut self) -> bool {
        self.until("nothing begins so").await.is_none()
    }

    /// Whether events are answered.
    async fn goes_on(&mut self) -> bool {
        self.send(&[&format!("42987654321{ONLINE}")]).await;
        self.until("43987654321[[").await.is_some()
    }
}

/// Goal: the first packet says what Engine.IO 4 wants, and ids of sessions are not guessable from each other.
#[tokio::test]
async fn the_handshake_has_every_field() {
    let cluster = Cluster::start(1).await;
    let both = Session::both(&cluster).await;
    for (session, upgrades) in both.iter().zip([json!([]), json!(["websocket"])]) {
        let mut open = session.open().clone();
        let sid = open["sid"].take();
        assert!(sid.as_str().is_some_and(|sid| sid.len() >= 16), "{sid}");
        let expected = json!({
            "sid": null, "upgrades": upgrades, "pingInterval": 25_000, "pingTimeout": 20_000, "maxPayload": 16_384,
        });
        assert_eq!(open, expected, "{}", session.name());
    }
    assert_ne!(both[0].open()["sid"], both[1].open()["sid"]);
}

/// Goal: a request without a version or transport that there is opens nothing, whatever its headers are.
#[tokio::test]
async fn what_is_no_handshake_is_a_bad_request() {
    let cluster = Cluster::start(1).await;
    for query in [
        "",
        "EIO=4",
        "transport=polling",
        "transport=websocket",
        "EIO=2&transport=polling",
        "EIO=5&transport=websocket",
        "EIO=four&transport=websocket",
        "EIO=4&transport=webtransport",
        "EIO=4&transport=",
        "EIO=4&transport=polling&sid=unknown",
        "EIO=4&transport=websocket&sid=unknown",
    ] {
        let target = format!("/socket.io/?{query}");
        let mut wire = cluster.wire(0).await;
        let reply = wire.request("GET", &target, "", b"").await;
        assert_eq!(reply.map(|reply| reply.status), Some(400), "{query}");
        let mut wire = cluster.wire(0).await;
        // The library answers a WebSocket of an unknown session with 101, and ends it.
        if !query.contains("sid=") {
            assert_eq!(wire.upgrade(query).await, Some(400), "{query}");
        }
    }
}

/// Goal: packets that come together are taken in their order, and answered in it.
#[tokio::test]
async fn packets_of_one_payload_are_taken_in_order() {
    let cluster = Cluster::start(1).await;
    for mut session in Session::both_joined(&cluster).await {
        let packets: Vec<_> = (0..12).map(|ack| format!("42{ack}{ONLINE}")).collect();
        let packets: Vec<_> = packets.iter().map(String::as_str).collect();
        session.send(&packets).await;
        let mut answered = Vec::new();
        while answered.len() < packets.len() {
            let answer = session.until("43").await.expect("the session goes on");
            answered.push(answer.split('[').next().unwrap_or_default().to_owned());
        }
        let expected: Vec<_> = (0..12).map(|ack| ack.to_string()).collect();
        assert_eq!(answered, expected, "{}", session.name());
    }
}

/// Goal: a packet that is none, and one that closes, end the session.
#[tokio::test]
async fn bad_packets_and_the_close_packet_end_the_session() {
    let cluster = Cluster::start(1).await;
    for packet in [
        "1",
        "9",
        "4",
        "49",
        "4x",
        "42[]",
        "42[1]",
        "42{}",
        "45[\"x\"]",
    ] {
        for mut session in Session::both_joined(&cluster).await {
            session.send(&[packet]).await;
            assert!(session.ends().await, "{packet} on {}", session.name());
        }
    }
    cluster.wait_until_nobody_is_left().await;
}

/// Goal: a session is polled by one request at a time.
#[tokio::test]
async fn two_polls_at_once_end_the_session() {
    let cluster = Cluster::builder()
        .without_lookouts()
        .env("VIGIE_PRESENCE__AUDIENCE", "watchers")
        .start()
        .await;
    let [_, mut session] = Session::both_joined(&cluster).await;
    // First read the packets that the library sends by itself.
    let sid = sid_of(session.open());
    session.send(&["3"]).await;
    let (mut first, mut second) = (cluster.wire(0).await, cluster.wire(0).await);
    let poll = format!("GET {} HTTP/1.1\r\nHost: vigie\r\n\r\n", polling(&sid));
    first.write(&poll).await;
    second.write(&poll).await;
    loop {
        // Where something waited, one poll was answered before the other came: it asks again.
        let (reply, again) = tokio::select! {
            reply = first.reply() => (reply, true),
            reply = second.reply() => (reply, false),
        };
        match reply.map(|reply| reply.status) {
            Some(200) if again => _ = first.write(&poll).await,
            Some(200) => _ = second.write(&poll).await,
            Some(400) | None => break,
            other => panic!("{other:?}"),
        };
    }
    assert!(session.ends().await);
}

/// Goal: a session that polls moves to a WebSocket by probe, noop and upgrade; then it polls no more, and moves no more.
#[tokio::test]
async fn a_session_moves_once() {
    let cluster = Cluster::builder()
        .without_lookouts()
        .env("VIGIE_PRESENCE__AUDIENCE", "watchers")
        .start()
        .await;
    let [_, session] = Session::both_joined(&cluster).await;
    let sid = sid_of(session.open());
    let moving = format!("{WEBSOCKET}&sid={sid}");
    let mut wire = cluster.wire(0).await;
    assert_eq!(wire.upgrade(&moving).await, Some(101));
    wire.say("2probe").await;
    assert_eq!(wire.hear().await, Some(Heard::Text("3probe".to_owned())));
    let Session::Polling { mut http, .. } = session else {
        unreachable!("it polls");
    };
    // A poll that waits is answered, so that the client can go on.
    loop {
        let said = http.polled(&polling(&sid)).await;
        if said.split(SEPARATOR).any(|packet| packet == "6") {
            break;
        }
    }
    wire.say("5").await;
    assert!(wire.goes_on().await);
    let reply = http.request("GET", &polling(&sid), "", b"").await;
    assert_eq!(reply.map(|reply| reply.status), Some(400));
    let mut again = cluster.wire(0).await;
    if again.upgrade(&moving).await == Some(101) {
        assert_eq!(
            again.hear_until("3").await,
            None,
            "a second one is not taken"
        );
    }
    assert!(wire.goes_on().await);
}

/// Goal: CONNECT is answered in its namespace, with or without a payload, and once.
#[tokio::test]
async fn namespaces_are_joined_left_and_joined_again() {
    let cluster = Cluster::start(1).await;
    for mut session in Session::both(&cluster).await {
        let auth = json!({ "token": cluster.token(ADA) });
        session.send(&[&format!("40/socket.io/,{auth}")]).await;
        let named = session.until("40/socket.io/,").await.expect("admitted");
        session.send(&["40{}"]).await;
        let root = session.until("40{").await.expect("admitted");
        assert!(
            root.contains("sid") && named.contains("sid"),
            "{root} {named}"
        );
        session
            .send(&["40", &format!("42/socket.io/,1{ONLINE}")])
            .await;
        assert!(session.until("43/socket.io/,1[[").await.is_some());
        session.send(&["41"]).await;
        session.send(&["40"]).await;
        assert!(session.until("40{").await.is_some(), "{}", session.name());
        assert!(session.goes_on().await, "{}", session.name());
    }
}

/// Goal: the id of a connection, which clients show to others, is not that of the session.
#[tokio::test]
async fn the_id_of_a_connection_gives_nobody_the_session() {
    let cluster = Cluster::start(1).await;
    let [mut session, _] = Session::both(&cluster).await;
    session.send(&["40"]).await;
    let connected = session.until("40").await.expect("it is admitted");
    let connected: Value = serde_json::from_str(&connected).expect("JSON");
    assert_ne!(sid_of(&connected), sid_of(session.open()));
}

/// Goal: a namespace that does not exist is refused by its name, and the session goes on.
#[tokio::test]
async fn unknown_namespaces_are_refused_by_name() {
    let cluster = Cluster::start(1).await;
    for mut session in Session::both_joined(&cluster).await {
        session.send(&["40/nowhere,", "42/nowhere,[\"x\"]"]).await;
        let refusal = session.until("44/nowhere,").await.expect("an answer");
        let refusal: Value = serde_json::from_str(&refusal).expect("JSON");
        assert_eq!(refusal, json!({ "message": "Invalid namespace" }));
        assert!(session.goes_on().await, "{}", session.name());
    }
}

/// Goal: a session speaks in a namespace only after it has joined it.
#[tokio::test]
async fn who_has_not_joined_is_closed() {
    let cluster = Cluster::start(1).await;
    for packet in ["42[\"get-online-users\"]", "41", "430[]"] {
        for mut session in Session::both(&cluster).await {
            session.send(&[packet]).await;
            assert!(session.ends().await, "{packet} on {}", session.name());
        }
    }
}

/// Goal: answers carry the id that the client chose, up to the largest integer of JavaScript.
#[tokio::test]
async fn every_acknowledgement_id_comes_back() {
    let cluster = Cluster::start(1).await;
    for mut session in Session::both_joined(&cluster).await {
        for id in [0, 1, 4_294_967_296, (1_u64 << 53) - 1] {
            session.send(&[&format!("42{id}{ONLINE}")]).await;
            let answer = session.until(&format!("43{id}[[")).await;
            assert!(answer.is_some(), "{id} on {}", session.name());
        }
    }
}

/// Goal: an event with attachments is refused, and its attachments do no harm.
#[tokio::test]
async fn binary_events_are_refused() {
    let cluster = Cluster::start(1).await;
    for mut session in Session::both_joined(&cluster).await {
        let event =
            r#"452-7["watch-profile",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        session.send(&[event, "bAAAA", "bAAAA"]).await;
        let answer = session.until("437").await.expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer[0]["ok"], false, "{answer}");
        assert!(session.goes_on().await, "{}", session.name());
    }
}
