//! A Redis Cluster that changes its shape, or loses a part, under two nodes and users of every partition.
//!
//! Before, during and after each change updates about a user of every partition are sent to both nodes, and watched on
//! both. Whatever was accepted arrives, whoever was disconnected, revoked or deleted is gone, and nobody who stayed is
//! said to be offline.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;
use vigie::internals::hash_tags;

use super::{fragile, revisions_of, times_offline, update_when_possible};
use crate::harness::{Client, Cluster, Connecting, Servers};
use crate::harness::{eventually, eventually_eq, profile};

const PARTITIONS: u64 = 12;

/// One user of each partition stays; one after the other of the rest is made to go.
const STAYING: std::ops::Range<u64> = PARTITIONS..2 * PARTITIONS;
const DISCONNECTED: u64 = 2 * PARTITIONS;
const DELETED: u64 = 3 * PARTITIONS;
/// Far above those who are made to go, in whatever round.
const NEWCOMER: u64 = 100 * PARTITIONS;

/// Keys in the slot that is moved while it is large.
const MANY_KEYS: u64 = 30_000;

/// Goal: a slot that moves takes its subscriptions along.
/// Method: each slot of a partition in turn, at once, with two users of it disconnected or deleted directly after.
#[tokio::test]
async fn slots_that_move_leave_nobody_deaf() {
    let scene = Scene::start(Servers::replicated_cluster(3, None).await).await;
    for partition in [0, 1, 2] {
        let slot = scene.servers().slot(&scene.cluster.tag(partition)).await;
        let to = (scene.servers().owner(slot).await + 1) % 3;
        let moved = scene.servers().move_slot(slot, to, async {});
        scene.survives(moved).await;
    }
}

/// Goal: the same where the move takes longer than a handshake may, while users of the partition sign in.
/// Method: all keys are on the target for nine seconds before the slot is.
#[tokio::test]
async fn users_sign_in_while_their_slot_is_on_the_move() {
    let scene = Scene::start(Servers::replicated_cluster(3, None).await).await;
    let slot = scene.servers().slot(&scene.cluster.tag(0)).await;
    let to = (scene.servers().owner(slot).await + 1) % 3;
    let signing_in = Mutex::new(Vec::new());
    let stop = async {
        for turn in 0..9 {
            let user = NEWCOMER + PARTITIONS * (1 + turn);
            let connecting = Connecting::user(user).steady();
            let node = (turn % 2) as usize;
            signing_in
                .lock()
                .await
                .push((user, scene.cluster.open(node, connecting)));
            // The move itself takes this long.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    scene
        .survives(scene.servers().move_slot(slot, to, stop))
        .await;
    for (user, client) in signing_in.lock().await.iter() {
        eventually("whoever signed in is connected", async || {
            client.connected_since()
        })
        .await;
        scene.cluster.wait_until_seen(*user).await;
    }
}

/// Goal: `redis-cli --cluster reshard` of a slot with many keys: every partition is served again afterwards.
/// Method: the slot of the last partition is the first of its master, so it is the one that goes.
#[tokio::test]
async fn a_slot_with_many_keys_is_resharded() {
    let tag = hash_tags(PARTITIONS as u32).pop().expect("the last tag");
    let bounds = [5_461, slot_of(&tag)];
    let scene = Scene::start(Servers::replicated_cluster(3, Some(&bounds)).await).await;
    let servers = scene.servers();
    let fill = format!("for i = 1, {MANY_KEYS} do redis.call('SET', KEYS[1] .. i, i) end");
    servers
        .primary()
        .cli(&[
            "EVAL",
            &fill,
            "1",
            &format!("vigie:{{{tag}}}:request:filler"),
        ])
        .await;
    let ids = [2, 0].map(|place| servers.all()[place].cli(&["CLUSTER", "MYID"]));
    let [from, to] = ids;
    let (from, to) = (from.await, to.await);
    let arguments = [
        "reshard",
        "--cluster-from",
        &from,
        "--cluster-to",
        &to,
        "--cluster-slots",
        "1",
    ];
    scene.survives(servers.manage(&arguments)).await;
    assert_eq!(servers.owner(bounds[1]).await, 0);
}

/// Goal: a master that joins takes over a share of the slots.
/// Method: `redis-cli --cluster rebalance --cluster-use-empty-masters` with a fourth master.
#[tokio::test]
async fn a_fourth_master_takes_its_share() {
    let mut servers = Servers::replicated_cluster(3, None).await;
    servers.add_empty_master().await;
    let scene = Scene::start(servers).await;
    let rebalanced = scene
        .servers()
        .manage(&["rebalance", "--cluster-use-empty-masters"]);
    scene.survives(rebalanced).await;
}

/// Goal: replicas that take over when they are asked to, one and then all.
/// Method: `CLUSTER FAILOVER`, which breaks no connection.
#[tokio::test]
async fn replicas_take_over_when_asked() {
    let scene = Scene::start(Servers::replicated_cluster(3, None).await).await;
    scene.survives(scene.servers().fail_over_to(3)).await;
    let all = async {
        for replica in [4, 5] {
            scene.servers().fail_over_to(replica).await;
        }
    };
    scene.survives(all).await;
    scene.survives(scene.servers().fail_over_to(0)).await;
}

/// Goal: a master that is killed, and comes back as a replica.
/// Method: SIGKILL; its replica is promoted by the others.
#[tokio::test]
async fn a_master_that_is_killed_is_replaced() {
    let scene = Scene::start(Servers::replicated_cluster(3, None).await).await;
    let servers = scene.servers();
    let killed = async {
        servers.all()[2].kill();
        servers.wait_until_master(5).await;
    };
    scene.survives(killed).await;
    let back = async {
        servers.all()[2].start_again().await;
        servers.wait_until_replicated(&servers.all()[2]).await;
    };
    scene.survives(back).await;
}

/// Goal: a master that hangs for ten seconds is replaced meanwhile; back as a replica it misleads nobody.
/// Method: SIGSTOP, SIGCONT.
#[tokio::test]
async fn a_master_that_hangs_is_replaced() {
    let scene = Scene::start(Servers::replicated_cluster(3, None).await).await;
    let servers = scene.servers();
    let hung = async {
        servers.all()[1].pause();
        servers.wait_until_master(4).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        servers.all()[1].resume();
        servers.wait_until_replicated(&servers.all()[1]).await;
    };
    scene.survives(hung).await;
}

/// Goal: a master without a replica that is away for a minute concerns the users of its partitions alone; a node that
/// starts meanwhile serves the others; all of it is back with the master.
/// Method: SIGSTOP of each master in turn would take long: of one that has partitions, for a minute.
#[tokio::test]
async fn a_master_that_is_away_concerns_its_partitions_alone() {
    let mut scene = Scene::start(Servers::split_cluster(3, None).await).await;
    let leases = scene.servers().slot("vigie:nodes").await;
    let leases = scene.servers().owner(leases).await;
    let away = (leases + 1) % 3;
    let mut served = Vec::new();
    for user in STAYING {
        let slot = scene
            .servers()
            .slot(&scene.cluster.tag(user % PARTITIONS))
            .await;
        if scene.servers().owner(slot).await != away {
            served.push(user);
        }
    }
    assert!(
        !served.is_empty() && served.len() < PARTITIONS as usize,
        "{served:?}"
    );
    scene.servers().ask(leases);
    scene.servers().all()[away].pause();
    let begun = std::time::Instant::now();
    let third = scene.cluster.add_node().await;
    while begun.elapsed() < Duration::from_secs(60) {
        for user in &served {
            for node in [0, 1, third] {
                let path = format!("/api/v1/users/{user}/profile-update");
                let body = json!({ "user": profile(*user, "meanwhile") });
                let answer = scene.cluster.post(node, &path, &body).await;
                assert_eq!(answer.status, 200, "node {node}, user {user}: {answer:?}");
                let revision = answer.json["revision"].as_u64().expect("a revision");
                scene.accept(*user, revision);
            }
        }
        for node in [0, 1, third] {
            let ready = scene.cluster.get_public(node, "/readyz").await;
            assert_eq!(ready.status, 200, "node {node}: {ready:?}");
        }
        scene.wait_for_what_was_accepted(&served).await;
    }
    let ready = scene.cluster.get_public(0, "/readyz").await;
    assert!(ready.text.contains("not heard"), "{}", ready.text);
    scene.servers().all()[away].resume();
    scene.agrees().await;
    scene.survives(async {}).await;
}

/// Goal: a connection over which nothing comes back is noticed, also where Redis itself sees nothing wrong.
/// Method: a proxy in front of one master drops whatever it answers over the connections there are.
#[tokio::test]
async fn half_open_connections_are_replaced() {
    let servers = Servers::replicated_cluster(3, None).await;
    let proxy = servers.announce_proxy(1).await;
    let scene = Scene::start(servers).await;
    scene.survives(async { proxy.deafen() }).await;
}

/// Goal: subscriptions that break, and a master that pauses for less than it takes to be replaced.
/// Method: `CLIENT KILL TYPE pubsub` on one master, `CLIENT PAUSE` on another.
#[tokio::test]
async fn broken_subscriptions_of_one_master_are_renewed() {
    let scene = Scene::start(Servers::replicated_cluster(3, None).await).await;
    let servers = scene.servers();
    let broken = async {
        servers.all()[0]
            .cli(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
    };
    scene.survives(broken).await;
    let paused = async {
        servers.all()[1].cli(&["CLIENT", "PAUSE", "3000"]).await;
    };
    scene.survives(paused).await;
}

/// The slot of a hash tag, which decides who serves it: CRC16 (XMODEM) of the tag.
fn slot_of(tag: &str) -> u32 {
    let step = |crc: u16, byte: u8| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    };
    let crc = tag.bytes().fold(0, step);
    u32::from(crc) % 16_384
}

/// Two nodes, a user of each partition on the first, and an observer of all of them on each.
struct Scene {
    cluster: Cluster,
    observers: [Client; 2],
    _staying: Vec<Client>,
    /// The last revision that was accepted about each user.
    accepted: std::sync::Mutex<BTreeMap<u64, u64>>,
    round: std::sync::atomic::AtomicU64,
}

impl Scene {
    async fn start(servers: Servers) -> Self {
        let cluster = fragile()
            .nodes(2)
            .partitions(PARTITIONS)
            .on_servers(servers);
        let cluster = cluster
            .env("VIGIE_LOG__LEVEL", "info,vigie=debug")
            .start()
            .await;
        let observers = [
            cluster.connect_guest(0).await,
            cluster.connect_guest(1).await,
        ];
        let mut staying = Vec::new();
        for user in STAYING {
            staying.push(cluster.connect(0, user).await);
            for observer in &observers {
                observer.watch(user).await;
            }
        }
        Self {
            cluster,
            observers,
            _staying: staying,
            accepted: std::sync::Mutex::default(),
            round: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn servers(&self) -> &Servers {
        self.cluster.servers()
    }

    fn accept(&self, user: u64, revision: u64) {
        let mut accepted = self.accepted.lock().expect("no test panics with it");
        let last = accepted.entry(user).or_default();
        *last = revision.max(*last);
    }

    fn accepted_of(&self, user: u64) -> u64 {
        let accepted = self.accepted.lock().expect("no test panics with it");
        accepted.get(&user).copied().unwrap_or(0)
    }

    /// Something happens to the Cluster: updates go on meanwhile, users are made to go directly after, and then
    /// everything has to be true.
    async fn survives(&self, change: impl Future<Output = ()>) {
        let round = self
            .round
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let offset = 4 * PARTITIONS * (round + 1);
        let leaving: Vec<u64> = (0..PARTITIONS)
            .flat_map(|partition| [DISCONNECTED, DELETED].map(|kind| kind + offset + partition))
            .collect();
        let mut clients = Vec::new();
        for user in &leaving {
            let node = (user % 2) as usize;
            clients.push(
                self.cluster
                    .connect_with(node, Connecting::user(*user).steady())
                    .await,
            );
        }
        tokio::select! {
            () = self.keep_updating() => {}
            () = change => {}
        }
        for user in &leaving {
            let (route, body) = match (user - offset) / PARTITIONS * PARTITIONS {
                DISCONNECTED => ("disconnect", json!({ "revoke": true })),
                _ => ("account-deleted", json!({})),
            };
            let path = format!("/api/v1/users/{user}/{route}");
            eventually("whoever has to go is made to", async || {
                let answer = self.cluster.post(1, &path, &body).await;
                (answer.status == 200).then_some(())
            })
            .await;
        }
        for (client, user) in clients.iter().zip(&leaving) {
            let what = format!("{user} is gone");
            eventually(&what, async || client.is_gone().then_some(())).await;
        }
        drop(clients);
        self.agrees().await;
    }

    async fn keep_updating(&self) {
        for turn in 0.. {
            let requests = STAYING.map(|user| self.update((user + turn) as usize % 2, user));
            futures_util::future::join_all(requests).await;
        }
    }

    async fn update(&self, node: usize, user: u64) {
        let path = format!("/api/v1/users/{user}/profile-update");
        let body = json!({ "user": profile(user, "during") });
        let answer = self.cluster.post(node, &path, &body).await;
        match answer.status {
            200 => self.accept(user, answer.json["revision"].as_u64().expect("a revision")),
            status => assert_eq!(status, 503, "{answer:?}"),
        }
    }

    /// Every partition is served, whatever was accepted has arrived, and nobody who stayed was said to be offline.
    async fn agrees(&self) {
        for user in STAYING {
            for node in [0, 1] {
                let revision = update_when_possible(&self.cluster, node, user, "after").await;
                self.accept(user, revision);
            }
        }
        let all: Vec<u64> = STAYING.collect();
        self.wait_for_what_was_accepted(&all).await;
        for user in STAYING {
            self.cluster.wait_until_seen(user).await;
        }
        for node in [0, 1] {
            eventually_eq("the node is ready", 200, async || {
                self.cluster.get_public(node, "/readyz").await.status
            })
            .await;
        }
        let users: [u64; PARTITIONS as usize] =
            std::array::from_fn(|place| STAYING.start + place as u64);
        let said = times_offline(&self.cluster, &self.observers, users).await;
        assert_eq!(said, [[0; PARTITIONS as usize]; 2]);
    }

    /// An update whose answer was lost may be newer than what is known to be accepted.
    async fn wait_for_what_was_accepted(&self, users: &[u64]) {
        for user in users {
            let accepted = self.accepted_of(*user);
            for (node, observer) in self.observers.iter().enumerate() {
                let what =
                    format!("update {accepted} about {user} reaches the observer on node {node}");
                eventually(&what, async || {
                    let last = revisions_of(observer, *user).last().copied();
                    last.filter(|last| *last >= accepted)
                })
                .await;
                let revisions = revisions_of(observer, *user);
                assert!(
                    revisions.is_sorted_by(|a, b| a < b),
                    "{user}: {revisions:?}"
                );
            }
        }
    }
}
