//! The nodes behind the real nginx and HAProxy, each with the project's file of `config/`.
//!
//! Clients come from addresses of their own, as they do in the world: nginx keeps those that poll at a node by it.

mod restart;
mod tab;

use serde_json::{Value, json};

use crate::harness::{
    ADA, Balancer, Builder, Client, Cluster, Connecting, MARKER, Offline, Online, Program, Record,
    eventually, eventually_eq, profile, public, run, scratch,
};

/// The ways in which the official client connects: WebSockets only, long polling only, and by default, which begins
/// with polling and moves to a WebSocket.
const WAYS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

/// Clients of each way: enough that some of them come to each of two nodes.
const CLIENTS_OF_EACH_WAY: u64 = 12;

/// Two nodes that believe what a proxy on this machine says.
fn two_nodes() -> Builder {
    Cluster::builder()
        .nodes(2)
        .grace("10s")
        .env("VIGIE_HTTP__TRUSTED_PROXIES", "127.0.0.1")
        .env("VIGIE_NODE__DRAIN", "2s")
}

/// A client of one of the three ways; both the way and its address follow from its user id.
fn client_of(user: u64) -> Connecting {
    let way = WAYS[(user % 3) as usize];
    Connecting::user(user).transports(way).from(&format!(
        "127.0.{}.{}",
        user / 200 + 1,
        user % 200 + 1
    ))
}

/// Connects users from 1 on, and waits until those that move to a WebSocket have done so.
async fn connect_everybody(cluster: &Cluster, balancer: &Balancer) -> Vec<(u64, Client)> {
    let mut clients = Vec::new();
    for user in 1..=CLIENTS_OF_EACH_WAY * WAYS.len() as u64 {
        let address = balancer.address();
        let mut client = cluster.connect_to(address, client_of(user)).await;
        if WAYS[(user % 3) as usize].len() > 1 {
            assert_eq!(client.next_upgrade().await, "websocket");
        }
        client.watch(ADA).await;
        clients.push((user, client));
    }
    clients
}

/// The places of the nodes that a user is connected to.
async fn nodes_of(cluster: &Cluster, user: u64) -> Vec<usize> {
    let asked = cluster.running()[0];
    let answer = cluster
        .get(asked, &format!("/api/v1/presence/{user}"))
        .await;
    let connections = answer.json["connections"].as_array().cloned();
    let place = |connection: Value| {
        let name = connection["node"].as_str().expect("a name").to_owned();
        name.trim_start_matches('n').parse().expect("a place")
    };
    connections
        .unwrap_or_default()
        .into_iter()
        .map(place)
        .collect()
}

/// An update about ADA, told to one node, reaches every client through the balancer.
async fn assert_all_hear(
    cluster: &Cluster,
    node: usize,
    clients: &mut [(u64, Client)],
    name: &str,
) {
    let revision = cluster.notify_profile(node, ADA, profile(ADA, name)).await;
    let told = json!({ "user": public(ADA, name), "revision": revision });
    for (user, client) in clients {
        let heard = async || client.payloads("profile-update").last().cloned();
        let what = format!("user {user} hears of it");
        eventually_eq(&what, Some(told.clone()), heard).await;
    }
}

/// Nothing went wrong on the way: connected once, never refused, never closed.
fn assert_undisturbed(user: u64, client: &Client) {
    let records = client.events_so_far();
    let of_the_transport = records.iter().filter(|record| {
        !matches!(
            record,
            Record::Event { .. } | Record::Ack { .. } | Record::Upgrade { .. }
        )
    });
    let of_the_transport: Vec<_> = of_the_transport.collect();
    assert!(
        matches!(of_the_transport[..], [Record::Connect { .. }]),
        "user {user} ({:?}): {of_the_transport:?}",
        WAYS[(user % 3) as usize]
    );
}

/// Goal: behind each balancer every client works, whatever its transports, on both nodes, and updates told to either
/// node reach all.
/// Method: clients of each way; nobody is disturbed, although each asks several times, which takes those that poll
/// several requests; some of each way are on each node.
async fn every_client_is_served(program: Program) {
    let cluster = two_nodes().start().await;
    let balancer = Balancer::start(program, &cluster).await;
    let mut clients = connect_everybody(&cluster, &balancer).await;
    assert_all_hear(&cluster, 0, &mut clients, "told to one").await;
    assert_all_hear(&cluster, 1, &mut clients, "told to the other").await;
    let everybody: Vec<u64> = clients.iter().map(|(user, _)| *user).collect();
    let mut ways_at = [[0; 3]; 2];
    for (user, client) in &clients {
        for _ in 0..5 {
            assert_eq!(client.online().await, everybody);
        }
        assert_undisturbed(*user, client);
        let nodes = nodes_of(&cluster, *user).await;
        assert_eq!(nodes.len(), 1, "user {user} is on {nodes:?}");
        ways_at[nodes[0]][(user % 3) as usize] += 1;
    }
    // Those that poll, and those that begin so, are spread in the same manner.
    for [websockets, polling, begun_polling] in ways_at {
        assert!(websockets > 0 && polling + begun_polling > 0, "{ways_at:?}");
    }
}

#[tokio::test]
async fn every_client_is_served_behind_nginx() {
    every_client_is_served(Program::Nginx).await;
}

#[tokio::test]
async fn every_client_is_served_behind_haproxy() {
    every_client_is_served(Program::Haproxy).await;
}

/// Goal: a node that drains hands its clients over: they come back on the other node by themselves, nobody hears that
/// they were gone, and who is new meanwhile never meets the node that leaves. When it is back, it is given clients again.
/// Method: clients of each way; SIGTERM of one of two nodes; newcomers, one after the other, until it has ended. An
/// observer is connected to the other node itself.
async fn a_drain_disturbs_nobody_else(program: Program) {
    let mut cluster = two_nodes().start().await;
    let mut observer = cluster.connect_guest(1).await;
    let balancer = Balancer::start(program, &cluster).await;
    let mut clients = connect_everybody(&cluster, &balancer).await;

    cluster.terminate(0);
    eventually("the node says that it is not ready", async || {
        (cluster.try_get_public(0, "/readyz").await == Some(503)).then_some(())
    })
    .await;
    let mut newcomers = Vec::new();
    for user in 1001.. {
        let newcomer = cluster
            .connect_to(balancer.address(), client_of(user))
            .await;
        newcomer.online().await;
        newcomers.push((user, newcomer));
        if cluster.ended(0).is_some() && newcomers.len() >= WAYS.len() {
            break;
        }
    }
    assert_eq!(cluster.ended(0).and_then(|status| status.code()), Some(0));
    for (user, newcomer) in &newcomers {
        assert_undisturbed(*user, newcomer);
        assert_eq!(nodes_of(&cluster, *user).await, [1], "user {user}");
    }

    for (user, client) in &clients {
        eventually_eq(&format!("where user {user} is"), vec![1], async || {
            nodes_of(&cluster, *user).await
        })
        .await;
        eventually("the client knows it", async || client.connected_since()).await;
        client.watch(ADA).await;
    }
    assert_all_hear(&cluster, 1, &mut clients, "told after the drain").await;
    let marker = cluster.connect(1, MARKER).await;
    while observer.next_status().await != (MARKER, Online) {}
    for (user, _) in &clients {
        assert_eq!(observer.times_said(*user, Offline), 0, "user {user}");
    }
    marker.close().await;

    cluster.start_again(0).await;
    for way in WAYS {
        // More and more of them, each from another address, as long as none has come to it.
        let mut tabs = Vec::new();
        eventually(
            &format!("the node is given clients of {way:?}"),
            async || {
                let user = 2001 + tabs.len() as u64;
                let connecting = client_of(user).transports(way);
                tabs.push(cluster.connect_to(balancer.address(), connecting).await);
                let is_back = nodes_of(&cluster, user).await.contains(&0);
                is_back.then_some(())
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_drain_disturbs_nobody_else_behind_nginx() {
    a_drain_disturbs_nobody_else(Program::Nginx).await;
}

#[tokio::test]
async fn a_drain_disturbs_nobody_else_behind_haproxy() {
    a_drain_disturbs_nobody_else(Program::Haproxy).await;
}

/// Goal: a node that dies without a word takes nothing with it but its sessions: their clients come back on the other.
/// Method: clients of each way; SIGKILL of one of two nodes.
async fn a_dead_node_is_left_alone(program: Program) {
    let cluster = two_nodes().start().await;
    let balancer = Balancer::start(program, &cluster).await;
    let mut clients = connect_everybody(&cluster, &balancer).await;
    cluster.kill(0);
    for (user, client) in &clients {
        eventually(&format!("user {user} is on the other node"), async || {
            nodes_of(&cluster, *user).await.contains(&1).then_some(())
        })
        .await;
        eventually("the client knows it", async || client.connected_since()).await;
        client.watch(ADA).await;
    }
    assert_all_hear(&cluster, 1, &mut clients, "told after the death").await;
}

#[tokio::test]
async fn a_dead_node_is_left_alone_by_nginx() {
    a_dead_node_is_left_alone(Program::Nginx).await;
}

#[tokio::test]
async fn a_dead_node_is_left_alone_by_haproxy() {
    a_dead_node_is_left_alone(Program::Haproxy).await;
}

/// Goal: a Redis that is away for a while is no reason to open sessions anew, although no node is ready meanwhile.
/// Method: Redis stands still until every node, and the balancer that asks them, has noticed; clients of each way go on
/// asking, which takes those that poll further requests, and are where they were.
async fn a_pause_of_redis_disturbs_nobody(program: Program) {
    let cluster = two_nodes().start().await;
    let balancer = Balancer::start(program, &cluster).await;
    let clients = connect_everybody(&cluster, &balancer).await;
    cluster.redis().pause();
    for node in [0, 1] {
        eventually("the node is not ready", async || {
            (cluster.try_get_public(node, "/readyz").await == Some(503)).then_some(())
        })
        .await;
    }
    if program == Program::Haproxy {
        let opening = format!(
            "http://{}/socket.io/?EIO=4&transport=polling",
            balancer.address()
        );
        eventually("newcomers are turned away", async || {
            let answer = cluster.send(reqwest::Client::new().get(&opening)).await;
            (answer.status == 503).then_some(())
        })
        .await;
    }
    for (_, client) in &clients {
        for _ in 0..5 {
            assert_eq!(client.online().await.len(), clients.len());
        }
    }
    cluster.redis().resume();
    eventually("nodes are ready again", async || {
        (cluster.try_get_public(0, "/readyz").await == Some(200)).then_some(())
    })
    .await;
    for (user, client) in &clients {
        client.watch(ADA).await;
        assert_undisturbed(*user, client);
    }
}

#[tokio::test]
async fn a_pause_of_redis_disturbs_nobody_behind_nginx() {
    a_pause_of_redis_disturbs_nobody(Program::Nginx).await;
}

#[tokio::test]
async fn a_pause_of_redis_disturbs_nobody_behind_haproxy() {
    a_pause_of_redis_disturbs_nobody(Program::Haproxy).await;
}

/// Goal: nginx finds a polling session wherever it was opened, also where the client's address leads to another node.
/// Method: a session opened at each node itself; what one client asks through nginx about both, by POST and by GET, is
/// answered by the node that has it. A session that nobody has is refused, and a node on its own says so as it always did.
#[tokio::test]
async fn nginx_finds_the_node_of_a_session() {
    let cluster = two_nodes().start().await;
    let balancer = Balancer::start(Program::Nginx, &cluster).await;
    let client = reqwest::Client::new();
    let poll = |base: &str, sid: &str| format!("{base}/socket.io/?EIO=4&transport=polling{sid}");
    let through = format!("http://{}", balancer.address());
    for node in [0, 1] {
        let opening = client.get(poll(cluster.public_url(node), ""));
        let opened = cluster.send(opening).await;
        let sid = opened.text.split('"').nth(3).expect("a sid");
        let url = poll(&through, &format!("&sid={sid}"));
        let joined = cluster.send(client.post(&url).body("40")).await;
        assert_eq!((joined.status, &*joined.text), (200, "ok"), "node {node}");
        // A ping may come first.
        eventually("the namespace is joined", async || {
            let answer = cluster.send(client.get(&url)).await;
            answer.text.contains("40{").then_some(())
        })
        .await;
    }
    let unknown = "&sid=AAAAAAAAAAAAAAAA";
    let answer = cluster.send(client.get(poll(&through, unknown))).await;
    assert_eq!(answer.status, 404, "{answer:?}");
    let upgrade = |base: &str| {
        let url = poll(base, unknown).replace("polling", "websocket");
        let request = client.get(url).header("connection", "upgrade");
        let request = request.header("upgrade", "websocket");
        let request = request.header("sec-websocket-version", "13");
        request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let answer = cluster.send(upgrade(&through)).await;
    assert_eq!(answer.status, 404, "{answer:?}");
    let answer = cluster.get_public(0, &poll("", unknown)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

/// Goal: nodes know clients by their own addresses, and not by what they say themselves.
/// Method: one connection for each address on each of two nodes; four clients of four addresses get in, and of three
/// from one address, which claim others, one does not before another leaves.
#[tokio::test]
async fn nodes_know_the_addresses_of_clients() {
    for program in [Program::Nginx, Program::Haproxy] {
        let cluster = two_nodes()
            .without_lookouts()
            .env("VIGIE_LIMITS__CONNECTIONS_PER_ADDRESS", "1")
            .env("VIGIE_LIMITS__HANDSHAKE", "2s")
            .start()
            .await;
        let balancer = Balancer::start(program, &cluster).await;
        let mut inside = Vec::new();
        for user in 1..=4 {
            let address = balancer.address();
            inside.push(cluster.connect_to(address, client_of(user)).await);
        }
        let mut claiming = Vec::new();
        for claimed in 1..=3 {
            let claims = Connecting::guest().from("127.0.9.9");
            let claims = claims.header("x-forwarded-for", &format!("192.0.2.{claimed}"));
            claiming.push(cluster.open_to(balancer.address(), claims));
        }
        let is_in = |client: &Client| client.connected_since().is_some();
        let count = |clients: &[Client]| clients.iter().filter(|client| is_in(client)).count();
        eventually_eq("two nodes admit one each", 2, async || count(&claiming)).await;
        let address = balancer.address();
        inside.push(cluster.connect_to(address, client_of(5)).await);
        assert_eq!(count(&claiming), 2, "{program:?}");
        let leaves = claiming.iter().position(is_in).expect("two are in");
        claiming.swap_remove(leaves).close().await;
        eventually_eq("the third gets in", 2, async || count(&claiming)).await;
    }
}

/// Goal: what is nobody's business stays inside, and what is too large stays outside.
/// Method: health, metrics and the internal API by the balancer's address; bodies and heads beyond the limits, and
/// within them. Only the latter reach a node, which answers in its own words.
#[tokio::test]
async fn only_what_is_for_everybody_passes() {
    let cluster = Cluster::builder().nodes(2).start().await;
    let client = reqwest::Client::new();
    for program in [Program::Nginx, Program::Haproxy] {
        let balancer = Balancer::start(program, &cluster).await;
        let url = |path: &str| format!("http://{}{path}", balancer.address());
        for path in [
            "/",
            "/readyz",
            "/healthz",
            "/metrics",
            "/admin",
            "/socket.iox",
        ] {
            let answer = cluster.send(client.get(url(path))).await;
            assert_eq!(answer.status, 404, "{program:?} {path}: {answer:?}");
            assert!(!answer.text.contains("nothing here"), "a node answered");
        }
        let poll = "/socket.io/?EIO=4&transport=polling";
        let opened = cluster.send(client.get(url(poll))).await;
        let sid = opened.text.split('"').nth(3).expect("a sid").to_owned();
        let send = async |length: usize| {
            let request = client.post(url(&format!("{poll}&sid={sid}")));
            cluster.send(request.body("4".repeat(length))).await.status
        };
        assert_eq!(send(300 * 1024).await, 413, "{program:?}");
        assert_eq!(send(4096).await, 200, "{program:?}");
        let head = async |length: usize| {
            let request = client
                .get(url("/api/v1/users/1"))
                .header("x-long", "x".repeat(length));
            cluster.send(request).await.status
        };
        assert!([400, 431, 494].contains(&head(20_000).await), "{program:?}");
        assert_eq!(head(5000).await, head(10).await, "{program:?}");
    }
}

/// Goal: no balancer gives up a session that a node has not given up: a poll, or a WebSocket, that is silent for as long as
/// the node allows.
/// Method: what a node tells clients about its pings, against the times in the files.
#[tokio::test]
async fn times_fit_the_ping_interval() {
    let cluster = Cluster::start_memory().await;
    let opening = "/socket.io/?EIO=4&transport=polling";
    let opened = cluster.get_public(0, opening).await.text;
    let told: Value = serde_json::from_str(&opened[1..]).expect("the opening packet");
    let ms = |name: &str| told[name].as_u64().expect("a number");
    let silent_s = (ms("pingInterval") + ms("pingTimeout")) / 1000;
    for (program, times) in [
        (
            Program::Nginx,
            &["proxy_read_timeout", "proxy_send_timeout"][..],
        ),
        (
            Program::Haproxy,
            &[
                "timeout client",
                "timeout server",
                "timeout tunnel",
                "expire",
            ],
        ),
    ] {
        let text = program.text();
        for name in times {
            let (_, rest) = text.split_once(&format!(" {name} ")).expect(name);
            let (seconds, _) = rest.split_once('s').expect(name);
            let seconds: u64 = seconds.parse().expect(name);
            assert!(seconds > silent_s, "{program:?}: {name} {seconds}s");
        }
    }
}

/// Goal: the files are right as they stand, not only as the other tests change them.
/// Method: each program's own check; of nginx's file only the paths differ, which need not be writable here, and the port,
/// which need not be ours to have.
#[tokio::test]
async fn the_files_pass_their_own_checks() {
    for program in [Program::Nginx, Program::Haproxy] {
        let (_directory, folder) = scratch();
        let file = folder.join("as-it-stands.conf");
        std::fs::write(&file, program.text_for_a_check(&folder)).expect("the folder is ours");
        let output = run(program.check(&file, &folder)).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", program.file());
        std::fs::write(&file, "no such directive;\n").expect("the folder is ours");
        let output = run(program.check(&file, &folder)).await;
        assert!(!output.status.success(), "the check of {program:?} checks");
    }
}
