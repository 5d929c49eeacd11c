//! Refusals that pass by themselves: nobody stays away because of one. The pages here are the official client, without
//! any handler: after a CONNECT_ERROR it would never try again.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::fragile;
use crate::harness::{
    ADA, BOB, Client, Cluster, Connecting, EVE, MARKER, Offline, Online, Record, Wire, eventually,
    eventually_eq, now_seconds, sign,
};

/// The transports that a page may use.
const TRANSPORTS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

/// How long a page fetches its token.
const TOKEN_TAKES: Duration = Duration::from_millis(300);

/// Goal: pages that sign in, open or reconnect while Redis stands still are back by themselves.
/// Method: SIGSTOP for two seconds, in which each CONNECT is held.
#[tokio::test]
async fn redis_stands_still_for_2_s() {
    let scene = Scene::start().await;
    scene.cluster.redis().pause();
    let pages = scene.everybody_comes().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.cluster.redis().resume();
    scene.everybody_is_back(pages).await;
}

/// Goal: the same while Redis is gone.
/// Method: SIGKILL; six seconds later it starts again, empty. Nodes have noticed meanwhile that they are not ready.
#[tokio::test]
async fn redis_is_gone_for_6_s() {
    let scene = Scene::start().await;
    scene.cluster.redis().kill();
    let pages = scene.everybody_comes().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    scene.cluster.redis().start_again().await;
    scene.everybody_is_back(pages).await;
}

/// Goal: the same while Redis stands still for longer than a CONNECT is held.
/// Method: SIGSTOP for twenty seconds.
#[tokio::test]
async fn redis_stands_still_for_20_s() {
    let scene = Scene::start().await;
    scene.cluster.redis().pause();
    let pages = scene.everybody_comes().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    scene.cluster.redis().resume();
    scene.everybody_is_back(pages).await;
}

/// Pages that are open before Redis goes away.
struct Scene {
    cluster: Cluster,
    signed_in: Vec<(u64, Client)>,
    guests: Vec<(u64, Client)>,
}

impl Scene {
    async fn start() -> Self {
        let cluster = fragile().nodes(2).start().await;
        let (mut signed_in, mut guests) = (Vec::new(), Vec::new());
        for (place, transports) in (0..).zip(TRANSPORTS) {
            let node = place as usize % 2;
            let user = 100 + place;
            let page = Connecting::user(user).transports(transports);
            signed_in.push((user, cluster.connect_with(node, page).await));
            let guest = Connecting::guest().transports(transports);
            guests.push((200 + place, cluster.connect_with(node, guest).await));
        }
        Self {
            cluster,
            signed_in,
            guests,
        }
    }

    /// Lines break, guests sign in, pages open, at once or with a token that comes later.
    async fn everybody_comes(&self) -> Vec<(u64, Client)> {
        for (_, page) in &self.signed_in {
            page.abort();
        }
        for (user, page) in &self.guests {
            page.login(&self.cluster.token(*user));
        }
        let mut opened = Vec::new();
        for (place, transports) in (0..).zip(TRANSPORTS) {
            for (user, takes) in [(300 + place, None), (400 + place, Some(TOKEN_TAKES))] {
                let mut page = Connecting::user(user).transports(transports);
                if let Some(takes) = takes {
                    page = page.fetching_its_token(takes);
                }
                let page = self.cluster.open(place as usize % 2, page);
                opened.push((user, page));
            }
        }
        opened
    }

    async fn everybody_is_back(self, opened: Vec<(u64, Client)>) {
        let pages = self.signed_in.iter().chain(&self.guests).chain(&opened);
        for (user, page) in pages {
            is_in(page).await;
            self.cluster.wait_for_refcount(*user, 1).await;
            self.cluster.wait_until_seen(*user).await;
        }
    }
}

/// Waits until a page is connected, by itself, and checks that the hub has never refused it.
async fn is_in(page: &Client) {
    eventually("the page is connected", async || page.connected_since()).await;
    assert_eq!(refusals(page), Vec::<String>::new());
}

/// The codes with which the hub has refused a page. What the client says of its transport is none.
fn refusals(page: &Client) -> Vec<String> {
    let records = page.events_so_far();
    let errors = records.into_iter().filter_map(|record| match record {
        Record::ConnectError { message } => Some(message),
        _ => None,
    });
    let of_transport = [
        "websocket error",
        "xhr poll error",
        "xhr post error",
        "timeout",
    ];
    errors
        .filter(|message| !of_transport.contains(&message.as_str()))
        .collect()
}

fn polling(sid: &str) -> String {
    format!("/socket.io/?EIO=4&transport=polling&sid={sid}")
}

/// A cluster that tells in its log what it holds.
fn talkative() -> crate::harness::Builder {
    fragile().env("VIGIE_LOG__LEVEL", "info,vigie=debug")
}

/// Waits until a node holds so many more CONNECTs, or has tried again so often.
async fn wait_until_held(cluster: &Cluster, times: usize) {
    eventually("the node holds what it cannot answer", async || {
        let held = cluster.log(0).matches("holds a connection").count();
        (held >= times).then_some(())
    })
    .await;
}

/// Goal: a CONNECT that comes while Redis stands still is answered over the same transport when Redis is back.
/// Method: a WebSocket and a session that polls, both open before; the node has tried each at least once.
#[tokio::test]
async fn a_connect_is_held_until_redis_answers() {
    let cluster = talkative().start().await;
    let mut websocket = cluster.websocket(0).await;
    let mut http = cluster.wire(0).await;
    let sid = http.poll_open().await;
    cluster.redis().pause();
    let auth = |user: u64| format!("40{}", json!({ "token": cluster.token(user) }));
    websocket.say(&auth(ADA)).await;
    let posted = http.post(&polling(&sid), "", auth(BOB).as_bytes()).await;
    assert_eq!(posted.map(|reply| reply.status), Some(200));
    wait_until_held(&cluster, 2).await;
    cluster.redis().resume();
    assert_eq!(websocket.verdict().await, Ok(()));
    let mut said = String::new();
    while !said.contains("40{") {
        said.push_str(&http.polled(&polling(&sid)).await);
        assert!(!said.contains("44{"), "{said}");
    }
    for user in [ADA, BOB] {
        cluster.wait_for_refcount(user, 1).await;
    }
}

/// Goal: a CONNECT is held for so long and no longer; then the transport is closed, and no refusal is sent, which would
/// be final.
/// Method: Redis stands still; a WebSocket, one that has joined the other namespace before, so that the library has no
/// time limit for it, and a session that polls.
#[tokio::test]
async fn a_connect_is_held_for_so_long() {
    let cluster = fragile().env("VIGIE_LIMITS__HANDSHAKE", "2s").start().await;
    let mut fresh = cluster.websocket(0).await;
    let mut joined = cluster.joined(0, None).await;
    let mut http = cluster.wire(0).await;
    let sid = http.poll_open().await;
    cluster.redis().pause();
    let auth = json!({ "token": cluster.token(ADA) });
    fresh.say(&format!("40{auth}")).await;
    joined.say(&format!("40/socket.io/,{auth}")).await;
    http.post(&polling(&sid), "", format!("40{auth}").as_bytes())
        .await;
    for wire in [fresh, joined] {
        let said = String::from_utf8_lossy(&wire.ended().await).into_owned();
        assert!(!said.contains("44"), "{said}");
    }
    let said = everything_polled(&mut http, &sid).await;
    assert!(!said.contains("44"), "{said}");
    cluster.redis().resume();
    cluster.wait_for_refcount(ADA, 0).await;
}

/// Everything that a session that polls is sent up to its end.
async fn everything_polled(http: &mut Wire, sid: &str) -> String {
    let mut said = String::new();
    loop {
        let reply = http.request("GET", &polling(sid), "", b"").await;
        let reply = reply.expect("an answer");
        if reply.status != 200 {
            return said;
        }
        said.push_str(&reply.body);
        if reply.body.contains('2') {
            http.post(&polling(sid), "", b"3").await;
        }
    }
}

/// Goal: of a client that is gone while its CONNECT is held nothing is admitted later.
/// Method: a user may have one connection, so another is held; its line breaks, over each transport, and the node has
/// noticed; when the first leaves, the user goes offline, and nothing more is said before a marker comes.
#[tokio::test]
async fn who_is_gone_is_not_admitted() {
    let cluster = talkative()
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "1")
        .start()
        .await;
    let mut observer = cluster.connect_guest(0).await;
    let only = cluster.connect(0, ADA).await;
    assert_eq!(observer.next_status().await, (ADA, Online));
    let mut websocket = cluster.websocket(0).await;
    let auth = format!("40{}", json!({ "token": cluster.token(ADA) }));
    websocket.say(&auth).await;
    let mut http = cluster.wire(0).await;
    let sid = http.poll_open().await;
    http.polled(&polling(&sid)).await;
    http.post(&polling(&sid), "", auth.as_bytes()).await;
    wait_until_held(&cluster, 2).await;
    websocket.reset();
    let poll = format!("GET {} HTTP/1.1\r\nHost: vigie\r\n\r\n", polling(&sid));
    http.write(poll).await;
    drop(http);
    eventually("the node has noticed both", async || {
        let noticed = cluster.log(0).matches("the client has gone").count();
        (noticed == 2).then_some(())
    })
    .await;
    only.close().await;
    assert_eq!(observer.next_status().await, (ADA, Offline));
    let _marker = cluster.connect(0, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online));
}

/// Goal: a token that expires while its CONNECT is held is refused as such: that is final.
/// Method: a user may have one connection; the token of another is in its leeway when it comes.
#[tokio::test]
async fn a_token_may_expire_while_it_waits() {
    let cluster = fragile()
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "1")
        .start()
        .await;
    let _only = cluster.connect(0, ADA).await;
    let claims = json!({ "sub": ADA.to_string(), "exp": now_seconds() - 2 });
    let token = sign(&claims, crate::harness::SECRET);
    let refusal = cluster.refusal(0, Connecting::token(&token)).await;
    assert_eq!(refusal, "token_expired");
    let refusal = cluster.refusal(0, Connecting::token("a.b.c")).await;
    assert_eq!(refusal, "invalid_token", "it is not held");
}

/// Goal: handshakes that are under way when a node begins to drain go on at another node by themselves.
/// Method: thirty pages behind a balancer fetch their token for 300 ms; one of two nodes, which has enough to close for
/// a second, is told to stop as soon as all are connecting.
#[tokio::test]
async fn a_drain_amid_handshakes() {
    let cluster = fragile().nodes(2).grace("5s").start().await;
    let _open =
        join_all((1..=20).map(|user| cluster.connect_with(0, Connecting::user(user)))).await;
    let balancer = cluster.balancer(&[0, 1]).await;
    let sticky = cluster.sticky_balancer(&[0, 1]).await;
    let users: Vec<u64> = (101..=130).collect();
    let files = || cluster.open_files(0) + cluster.open_files(1);
    let before = files();
    let mut pages = Vec::new();
    for user in &users {
        let (address, transports) = match user % 3 {
            0 => (balancer.address(), TRANSPORTS[0]),
            place => (sticky.address(), TRANSPORTS[place as usize]),
        };
        let page = Connecting::user(*user)
            .transports(transports)
            .fetching_its_token(TOKEN_TAKES);
        pages.push(cluster.open_to(address, page));
    }
    eventually("all are connecting", async || {
        (files() >= before + users.len()).then_some(())
    })
    .await;
    cluster.terminate(0);
    for (user, page) in users.iter().zip(&pages) {
        is_in(page).await;
        cluster.wait_for_refcount(*user, 1).await;
    }
    eventually("the node ends", async || cluster.ended(0)).await;
    for (user, page) in users.iter().zip(&pages) {
        is_in(page).await;
        cluster.wait_for_refcount(*user, 1).await;
    }
}

/// Goal: a node that drains admits nobody, and refuses nobody for good.
/// Method: a WebSocket and a session that polls, both open before; the node has enough to close for five seconds, and
/// says that it is not ready, when each asks to join. Its transport is closed at once, without a word.
#[tokio::test]
async fn a_connect_that_comes_while_the_node_drains() {
    let cluster = fragile()
        .without_lookouts()
        .env("VIGIE_NODE__DRAIN", "5s")
        .start()
        .await;
    let _open =
        join_all((1..=20).map(|user| cluster.connect_with(0, Connecting::user(user)))).await;
    let mut websocket = cluster.websocket(0).await;
    let mut http = cluster.wire(0).await;
    let sid = http.poll_open().await;
    cluster.terminate(0);
    eventually("the node drains", async || {
        (cluster.try_get_public(0, "/readyz").await == Some(503)).then_some(())
    })
    .await;
    let auth = format!("40{}", json!({ "token": cluster.token(ADA) }));
    websocket.say(&auth).await;
    http.post(&polling(&sid), "", auth.as_bytes()).await;
    let said = String::from_utf8_lossy(&websocket.ended().await).into_owned();
    let polled = everything_polled(&mut http, &sid).await;
    for said in [said, polled] {
        assert!(!said.contains("40{") && !said.contains("44{"), "{said}");
    }
    assert_eq!(cluster.ended(0), None, "it still drains");
    eventually("the node ends", async || cluster.ended(0)).await;
}

/// Goal: who meets a limit gets in by itself when others leave, also when that takes longer than a CONNECT is held.
/// Method: a user, and an address, may have two connections; three more pages of each wait, over each transport, until
/// the transport of each was closed at least once. Then the two leave, and of the three two get in, and the last when
/// they leave.
#[tokio::test]
async fn limits_that_are_reached_and_left() {
    let cluster = fragile()
        .without_lookouts()
        .env("VIGIE_LIMITS__HANDSHAKE", "1s")
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "2")
        .env("VIGIE_LIMITS__CONNECTIONS_PER_ADDRESS", "2")
        .start()
        .await;
    let one_address = || Connecting::guest().from("127.0.0.9");
    let one_user = |place: usize| Connecting::user(EVE).from(&format!("127.0.1.{}", place + 1));
    let full = [
        cluster.connect_with(0, one_address()).await,
        cluster.connect_with(0, one_address()).await,
        cluster.connect_with(0, one_user(0)).await,
        cluster.connect_with(0, one_user(0)).await,
    ];
    let mut waiting = Vec::new();
    for (place, transports) in (0..).zip(TRANSPORTS) {
        waiting.push(cluster.open(0, one_address().transports(transports)));
        waiting.push(cluster.open(0, one_user(place + 1).transports(transports)));
    }
    for page in &waiting {
        eventually("its transport is closed", async || {
            page.has_failed().then_some(())
        })
        .await;
    }
    for page in full {
        page.close().await;
    }
    eventually_eq("two of each get in", 4, async || {
        let is_in = |page: &&Client| page.connected_since().is_some();
        waiting.iter().filter(is_in).count()
    })
    .await;
    let (inside, outside): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .partition(|page| page.connected_since().is_some());
    for page in inside {
        assert_eq!(refusals(&page), Vec::<String>::new());
        page.close().await;
    }
    for page in &outside {
        is_in(page).await;
    }
}

/// Goal: a node that is not ready opens no sessions, and leaves those alone that are open.
/// Method: Redis stands still; requests that would open a session get 503 with `Retry-After`; a guest who is there is
/// answered; then Redis is back, and sessions are opened again.
#[tokio::test]
async fn a_node_that_is_not_ready_opens_no_sessions() {
    let cluster = fragile().start().await;
    let mut guest = cluster.connect_guest(0).await;
    let ada = cluster.connect(0, ADA).await;
    assert_eq!(guest.next_status().await, (ADA, Online));
    cluster.redis().pause();
    for transport in ["polling", "websocket"] {
        let path = format!("/socket.io/?EIO=4&transport={transport}");
        eventually("it opens no sessions", async || {
            let answer = cluster.get_public(0, &path).await;
            (answer.status == 503 && answer.header("retry-after") == "5").then_some(())
        })
        .await;
    }
    assert_eq!(guest.online().await, [ADA]);
    assert_eq!(ada.online().await, [ADA]);
    cluster.redis().resume();
    let _bob = eventually("it opens sessions again", async || {
        let mut bob = cluster.open(0, Connecting::user(BOB).once());
        bob.next_verdict().await.ok().map(|()| bob)
    })
    .await;
    cluster.wait_for_refcount(ADA, 1).await;
    for client in [&guest, &ada] {
        let records = client.events_so_far();
        let left = |record: &Record| matches!(record, Record::Disconnect { .. });
        assert!(!records.iter().any(left), "{records:?}");
    }
}
