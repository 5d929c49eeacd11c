//! A replica takes over: behind a Sentinel, and in a Redis Cluster.

use serde_json::{Value, json};

use super::{
    fragile, observers, times_offline, update_when_possible, wait_for_last_revision,
    wait_until_everybody_agrees,
};
use crate::harness::{ADA, BOB, Client, Cluster, EVE, Servers};
use crate::harness::{eventually_eq, profile, revision};

/// Goal: nobody who stayed is lost when the primary dies and Sentinel promotes its replica.
/// Method: SIGKILL of the primary; Eve leaves before the replica takes over.
#[tokio::test]
async fn a_replica_that_takes_over_loses_nobody_who_stayed() {
    let scene = Scene::start(Servers::with_sentinel().await).await;
    let servers = scene.cluster.servers();
    servers.primary().kill();
    scene.eve.close().await;
    servers.wait_until_promoted().await;
    scene.is_as_before_without_eve().await;
}

/// Goal: the same when the old primary lives on: nodes notice that it takes no writes, and leave it.
/// Method: replica and primary change places by `FAILOVER`, which breaks no connection, and Sentinel is told; twice.
#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    let scene = Scene::start(Servers::with_sentinel().await).await;
    scene.swap().await;
    scene.eve.close().await;
    scene.is_as_before_without_eve().await;
    scene.swap().await;
    scene.is_as_before_without_eve().await;
}

/// Goal: a Redis Cluster serves presence, watching and updates of every partition, and a master that is killed and
/// comes back empty loses nobody who stayed.
/// Method: three masters, four partitions; each master in turn.
#[tokio::test]
async fn a_master_of_a_redis_cluster_that_restarts_loses_nobody_who_stayed() {
    let scene = Scene::start(Servers::cluster(3).await).await;
    scene.eve.close().await;
    scene.is_as_before_without_eve().await;
    for master in scene.cluster.servers().all() {
        master.kill();
        master.start_again().await;
        scene
            .cluster
            .servers()
            .wait_until_the_cluster_stands()
            .await;
        scene.is_as_before_without_eve().await;
    }
}

/// Goal: batches over several masters are carried out whole and in order, also when all have forgotten the scripts.
/// Method: SCRIPT FLUSH on each, then a batch of forty updates about eight users in turn; five times.
#[tokio::test]
async fn batches_keep_their_order_on_every_master() {
    let cluster = fragile()
        .on_servers(Servers::cluster(3).await)
        .partitions(4);
    let cluster = cluster.start().await;
    for _ in 0..5 {
        for master in cluster.servers().all() {
            assert_eq!(master.cli(&["SCRIPT", "FLUSH"]).await, "OK");
        }
        let one = |turn: u64| {
            let user = 1 + turn % 8;
            let profile = json!({ "userID": user, "turn": turn });
            json!({ "kind": "profile-update", "userId": user, "user": profile })
        };
        let batch = Value::Array((0..200).map(one).collect());
        let answer = cluster.post(0, "/api/v1/notifications", &batch).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let results = answer.json.as_array().expect("an array");
        assert!(
            results.iter().all(|result| result["status"] == 200),
            "{answer:?}"
        );
        for user in 1..=8 {
            let own = results.iter().skip(user - 1).step_by(8);
            let revisions: Vec<u64> = own.map(revision).collect();
            assert!(revisions.is_sorted(), "{user}: {revisions:?}");
            let key = cluster.key(user as u64, "profile");
            let stored = cluster.cli(&["HGET", &key, "profile.full"]).await;
            let stored: Value = serde_json::from_str(&stored).expect("JSON");
            assert_eq!(stored["turn"], 191 + user);
        }
    }
}

/// Ada on one node, Bob on two, Eve on the last; a guest on each; everybody watches Ada and Bob.
struct Scene {
    cluster: Cluster,
    observers: Vec<Client>,
    ada: Client,
    bob: [Client; 2],
    eve: Client,
}

impl Scene {
    async fn start(servers: Servers) -> Self {
        let cluster = fragile().nodes(3).partitions(4).on_servers(servers);
        let cluster = cluster.start().await;
        let observers = observers(&cluster, &[0, 1, 2]).await;
        let ada = cluster.connect(0, ADA).await;
        let bob = [cluster.connect(1, BOB).await, cluster.connect(2, BOB).await];
        let eve = cluster.connect(2, EVE).await;
        cluster.notify_profile(0, ADA, profile(ADA, "before")).await;
        for observer in &observers {
            observer.watch(ADA).await;
            observer.watch(BOB).await;
        }
        Self {
            cluster,
            observers,
            ada,
            bob,
            eve,
        }
    }

    /// Primary and replica change places; no connection of a node is broken for it.
    async fn swap(&self) {
        let servers = self.cluster.servers();
        let (old, new) = (servers.primary(), servers.replica());
        assert_eq!(old.cli(&["FAILOVER"]).await, "OK");
        eventually_eq(
            "the role of the old primary",
            "slave".to_owned(),
            async || old.role().await,
        )
        .await;
        eventually_eq("the role of the new one", "master".to_owned(), async || {
            new.role().await
        })
        .await;
        servers.tell_sentinel_of_the_swap().await;
    }

    /// Ada and Bob were never away, Eve went once; Redis holds all of it, and updates arrive.
    async fn is_as_before_without_eve(&self) {
        let cluster = &self.cluster;
        for (user, refcount) in [(ADA, 1), (BOB, 2), (EVE, 0)] {
            cluster.wait_for_refcount(user, refcount).await;
        }
        let clients = [&self.ada, &self.bob[0], &self.bob[1]];
        wait_until_everybody_agrees(cluster, &clients, &[BOB, ADA]).await;
        for node in 0..3 {
            eventually_eq("the node is ready", 200, async || {
                cluster.get_public(node, "/readyz").await.status
            })
            .await;
        }
        for (node, user) in [(0, BOB), (1, ADA), (2, BOB), (2, ADA)] {
            let last = update_when_possible(cluster, node, user, "after").await;
            for observer in &self.observers {
                wait_for_last_revision(observer, user, last).await;
            }
            let own = if user == ADA { &self.ada } else { &self.bob[1] };
            wait_for_last_revision(own, user, last).await;
        }
        let said = times_offline(cluster, &self.observers, [ADA, BOB, EVE]).await;
        assert_eq!(said, [[0, 0, 1]; 3]);
    }
}
