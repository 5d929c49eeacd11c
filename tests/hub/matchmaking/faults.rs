//! Nodes that die, players who go, and a Redis that forgets, while opponents are found.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::json;

use super::{
    disjoint_pairs, join, match_number, matches_of, queue, ticket, wait_for_queue,
    wait_until_all_are_told,
};
use crate::harness::{
    ADA, BOB, Builder, Client, Cluster, Connecting, EVE, Servers, eventually, eventually_eq,
};
use crate::scripts::text_of;

/// Nobody is paired by the nodes: ratings have to be the same, and the tests' are not.
fn picky(builder: Builder) -> Builder {
    builder
        .env("VIGIE_MATCHMAKING__RATING_WINDOW", "0")
        .env("VIGIE_MATCHMAKING__WIDEN_PER_SECOND", "0")
}

/// A silent node is dead after a second and a half.
fn fragile() -> Builder {
    Cluster::builder()
        .nodes(3)
        .grace("1s")
        .env("VIGIE_NODE__LEASE", "1500ms")
        .env("VIGIE_NODE__HEARTBEAT", "500ms")
}

/// Makes matches as a node does that dies before it tells anybody: whatever the ratings. Returns how many.
async fn pair_and_die(cluster: &Cluster) -> u64 {
    let names = [
        "queue", "ratings", "playing", "pending", "count", "scan", "made",
    ];
    let keys = names.map(|name| format!("vigie:{{mm}}:{name}"));
    // Everybody is scanned again.
    cluster.cli(&["DEL", "vigie:{mm}:scan"]).await;
    let mut words = vec!["EVAL", text_of("matchmaking/pair"), "7"];
    words.extend(keys.iter().map(String::as_str));
    words.extend(["1000", "1000000", "0", "600000"]);
    words.extend(["vigie:{mm}:ticket:", "vigie:{mm}:match:"]);
    let answer = cluster.cli(&words).await;
    let matches = answer.lines().next().unwrap_or_default();
    matches.parse().unwrap_or_else(|_| panic!("{answer}"))
}

/// Goal: a hundred users keep their places although a node is killed while they wait, and become fifty pairs, told on
/// every tab. Method: two tabs each behind a balancer; the tabs of the dead node come to the others. Ratings differ, so
/// that nobody is paired before everybody is back.
#[tokio::test]
async fn a_node_is_killed_while_they_wait() {
    let cluster = picky(fragile().grace("10s")).start().await;
    let balancer = cluster.balancer(&[0, 1, 2]).await;
    let mut clients: BTreeMap<u64, Vec<Client>> = BTreeMap::new();
    for user in 1..=100 {
        let tabs = [(); 2].map(|()| cluster.connect_through(&balancer, Connecting::user(user)));
        clients.insert(user, join_all(tabs).await);
        cluster.wait_for_refcount(user, 2).await;
    }
    let asked = clients.keys().map(|user| {
        let body = json!({ "userId": user, "rating": user });
        ticket(&cluster, *user as usize % 3, body)
    });
    join_all(asked).await;
    cluster.kill(2);
    eventually_eq("nothing is left of the dead node", 2, async || {
        let nodes = cluster.cli(&["SMEMBERS", "vigie:{0}:nodes"]).await;
        nodes.lines().count()
    })
    .await;
    for user in 1..=100 {
        cluster.wait_for_refcount(user, 2).await;
    }
    assert_eq!(queue(&cluster, 0).await["queueLength"], 100);
    assert_eq!(pair_and_die(&cluster).await, 50);
    wait_until_all_are_told(&clients).await;
    wait_for_queue(&cluster, 0, 0).await;
    assert_eq!(disjoint_pairs(&clients).len(), 50);
}

/// Goal: a match that was made and not told, because the node died in between, is told by another one.
/// Method: a hundred users, whom the nodes would not pair; pairing is done by the script alone, as by a node that is
/// killed right after.
#[tokio::test]
async fn a_node_is_killed_between_pairing_and_telling() {
    let cluster = picky(fragile()).start().await;
    let mut clients: BTreeMap<u64, Vec<Client>> = BTreeMap::new();
    for user in 1..=100 {
        let connecting = Connecting::user(user);
        let client = cluster.connect_with(user as usize % 3, connecting).await;
        cluster.wait_for_refcount(user, 1).await;
        clients.insert(user, vec![client]);
        ticket(&cluster, 0, json!({ "userId": user, "rating": user })).await;
    }
    assert_eq!(queue(&cluster, 0).await["queueLength"], 100);
    assert_eq!(pair_and_die(&cluster).await, 50);
    wait_until_all_are_told(&clients).await;
    wait_for_queue(&cluster, 0, 0).await;
    assert_eq!(disjoint_pairs(&clients).len(), 50);
}

/// Goal: the same with nodes that really die. Method: users on two nodes; a third one takes their tickets, and with
/// them the turn to pair, and is killed at once; ten times.
#[tokio::test]
async fn whoever_pairs_may_die() {
    let mut cluster = fragile().start().await;
    let mut clients = BTreeMap::new();
    for user in 1..=8 {
        clients.insert(user, cluster.connect(user as usize % 2, user).await);
    }
    for round in 1..=10 {
        let asked = clients
            .keys()
            .map(|user| ticket(&cluster, 2, json!({ "userId": user })));
        join_all(asked).await;
        cluster.kill(2);
        for (user, client) in &clients {
            let (id, opponent) = match_number(client, round).await;
            let theirs = match_number(&clients[&opponent], round).await;
            assert_eq!(theirs, (id, *user));
        }
        wait_for_queue(&cluster, 0, 0).await;
        cluster.start_again(2).await;
    }
    assert!(
        clients
            .values()
            .all(|client| matches_of(client).len() == 10)
    );
}

/// Goal: who is gone before being told sends the other one back to the front of the queue, and nobody is told of that
/// match. Method: Bob's connection is closed when the match with Ada is made; Eve, who joined before both, is of
/// another rating. The next match is Ada's, not Eve's with anybody.
#[tokio::test]
async fn who_is_gone_sends_the_other_back() {
    let cluster = picky(fragile()).start().await;
    let (ada, bob) = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    let eve = cluster.connect(2, EVE).await;
    for (user, rating) in [(ADA, 1), (BOB, 2)] {
        ticket(&cluster, 2, json!({ "userId": user, "rating": rating })).await;
    }
    // Within the grace Bob is online and cannot be told, so nobody is.
    bob.close().await;
    assert_eq!(pair_and_die(&cluster).await, 1);
    ticket(&cluster, 0, json!({ "userId": EVE, "rating": 3 })).await;
    wait_for_queue(&cluster, 0, 2).await;
    let first = cluster
        .cli(&["ZRANGE", "vigie:{mm}:queue", "0", "-1"])
        .await;
    let in_order: Vec<&str> = first.lines().collect();
    assert_eq!(in_order, [ADA.to_string(), EVE.to_string()]);
    assert!(matches_of(&ada).is_empty() && matches_of(&bob).is_empty());

    assert_eq!(pair_and_die(&cluster).await, 1);
    assert_eq!(match_number(&ada, 1).await.1, EVE);
    assert_eq!(match_number(&eve, 1).await.1, ADA);
}

/// Goal: who comes back within the grace is told of the match that was found meanwhile.
/// Method: Bob's connection is closed when the match is made; he comes back to another node.
#[tokio::test]
async fn who_comes_back_in_time_is_told() {
    let cluster = picky(fragile().grace("10s")).start().await;
    let (ada, bob) = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    for (user, rating) in [(ADA, 1), (BOB, 2)] {
        ticket(&cluster, 2, json!({ "userId": user, "rating": rating })).await;
    }
    bob.close().await;
    cluster.wait_for_refcount(BOB, 0).await;
    assert_eq!(pair_and_die(&cluster).await, 1);
    let bob = cluster.connect(2, BOB).await;
    let found = match_number(&ada, 1).await;
    assert_eq!(match_number(&bob, 1).await, (found.0, ADA));
    wait_for_queue(&cluster, 0, 0).await;
}

/// Goal: a node that does not hear is told again, and shows each match once on each connection.
/// Method: Ada has tabs on two nodes, of which one stands still while the match is told again and again.
#[tokio::test]
async fn every_node_shows_it_once() {
    let cluster = Cluster::builder().nodes(3).start().await;
    let tabs = [cluster.connect(0, ADA).await, cluster.connect(1, ADA).await];
    let bob = cluster.connect(2, BOB).await;
    cluster.pause(1);
    assert_eq!(join(&tabs[0]).await, "queued");
    assert_eq!(join(&bob).await, "queued");
    let found = match_number(&tabs[0], 1).await;
    let mut told_at = BTreeSet::new();
    eventually("the match was told three times", async || {
        let due = ["ZRANGE", "vigie:{mm}:pending", "0", "-1", "WITHSCORES"];
        told_at.insert(cluster.cli(&due).await);
        (told_at.len() > 3).then_some(())
    })
    .await;
    cluster.resume(1);
    assert_eq!(match_number(&tabs[1], 1).await, found);
    wait_for_queue(&cluster, 0, 0).await;
    for client in [&tabs[0], &tabs[1], &bob] {
        client.online().await;
        assert_eq!(matches_of(client).len(), 1);
    }
}

/// Goal: the queue works on a Redis Cluster, where the players' data is on other servers than the queue.
/// Method: three masters, seven partitions, three nodes; ten users.
#[tokio::test]
async fn a_cluster_has_one_queue() {
    let builder = Cluster::builder().nodes(3).partitions(7);
    let cluster = builder.on_servers(Servers::cluster(3).await).start().await;
    let mut clients = BTreeMap::new();
    for user in 1..=10 {
        let client = cluster
            .connect_with(user as usize % 3, Connecting::user(user))
            .await;
        assert_eq!(join(&client).await, "queued");
        clients.insert(user, vec![client]);
    }
    wait_until_all_are_told(&clients).await;
    wait_for_queue(&cluster, 1, 0).await;
    assert_eq!(disjoint_pairs(&clients).len(), 5);
}

/// Goal: a Redis that comes back empty has everybody in its queue again who waited, in the old order.
/// Method: FLUSHALL, and killed and started again; then somebody joins.
#[tokio::test]
async fn a_queue_that_redis_lost_is_there_again() {
    let cluster = picky(fragile())
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "1s")
        .start()
        .await;
    let (ada, bob) = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    assert_eq!(join(&ada).await, "queued");
    let joined_at = async || {
        let ticket = format!("vigie:{{mm}}:ticket:{ADA}");
        let joined = cluster.cli(&["HGET", &ticket, "joined"]).await;
        (!joined.is_empty()).then_some(joined)
    };
    let since = joined_at().await;
    assert!(since.is_some());
    for restart in [false, true] {
        match restart {
            false => drop(cluster.cli(&["FLUSHALL"]).await),
            true => {
                cluster.redis().kill();
                cluster.redis().start_again().await;
            }
        }
        eventually_eq("Ada waits, since the same time", since.clone(), joined_at).await;
    }
    assert_eq!(join(&bob).await, "queued");
    assert_eq!(match_number(&ada, 1).await.1, BOB);
    assert_eq!(match_number(&bob, 1).await.1, ADA);
}
