//! Nodes that are killed: nobody stays online because of them, and nobody else goes.

use super::{fragile, incarnation_of, observers, times_offline, wait_until_forgotten};
use crate::harness::{ADA, BOB, Connecting, EVE};
use crate::harness::{eventually, eventually_eq};

/// Goal: whoever was connected to a killed node only is announced offline, once; whoever has a tab
/// elsewhere never is; nothing of the node is left in Redis.
/// Method: three nodes and three partitions; SIGKILL of the node that holds Ada, two tabs of Eve, and one of
/// Bob's two; observers on the other nodes count what is said until a marker has come and gone.
#[tokio::test]
async fn a_killed_node_takes_only_its_own_users_offline() {
    let cluster = fragile().nodes(3).partitions(3).start().await;
    let others = observers(&cluster, &[1, 2]).await;
    let mut lost = Vec::new();
    for user in [ADA, BOB, EVE, EVE] {
        lost.push(cluster.connect_with(0, Connecting::user(user).once()).await);
    }
    let _elsewhere = cluster.connect(1, BOB).await;
    for (user, refcount) in [(ADA, 1), (BOB, 2), (EVE, 2)] {
        cluster.wait_for_refcount(user, refcount).await;
    }
    cluster.wait_until_all_see(&[BOB, ADA, EVE]).await;
    let dead = incarnation_of(&cluster, 0).await;

    cluster.kill(0);
    cluster.wait_until_all_see(&[BOB]).await;
    wait_until_forgotten(&cluster, &dead).await;
    cluster.wait_for_online(&[BOB]).await;
    cluster.wait_for_refcount(BOB, 1).await;
    let said = times_offline(&cluster, &others, [ADA, BOB, EVE]).await;
    assert_eq!(said, [[1, 0, 1], [1, 0, 1]]);
}

/// Goal: many connections of a killed node are all released, in batches.
/// Method: 450 connections of 45 users, more than one call of the reaper takes; one of those users has a tab
/// elsewhere.
#[tokio::test]
async fn a_node_with_many_connections_is_reaped_in_batches() {
    let cluster = fragile().nodes(2).start().await;
    let users: Vec<u64> = (1..=45).collect();
    let mut lost = Vec::new();
    for user in users.iter().cycle().take(450) {
        lost.push(cluster.open(0, Connecting::user(*user).once()));
    }
    for client in &mut lost {
        assert_eq!(client.next_verdict().await, Ok(()));
    }
    let _elsewhere = cluster.connect(1, 7).await;
    cluster.wait_until_all_see(&users).await;
    let dead = incarnation_of(&cluster, 0).await;
    cluster.kill(0);
    cluster.wait_until_all_see(&[7]).await;
    wait_until_forgotten(&cluster, &dead).await;
    cluster.wait_for_refcount(7, 1).await;
    eventually("the survivor has counted them", async || {
        (cluster.metric(1, "vigie_reaped_connections_total").await >= 450.0).then_some(())
    })
    .await;
}

/// Goal: clients of a killed node come back on another one by themselves, and nobody hears of it.
/// Method: eight users through a balancer on two nodes, one of which is killed; afterwards all are
/// registered on the other, and the observer there has heard of no departure.
#[tokio::test]
async fn clients_of_a_killed_node_come_back_elsewhere() {
    let cluster = fragile().nodes(2).start().await;
    let others = observers(&cluster, &[1]).await;
    let balancer = cluster.balancer(&[0, 1]).await;
    let users = [1, 2, 3, 4, 5, 6, 7, 8];
    let mut clients = Vec::new();
    for user in users {
        let connecting = Connecting::user(user);
        clients.push(cluster.connect_through(&balancer, connecting).await);
    }
    cluster.wait_until_all_see(&users).await;
    let dead = incarnation_of(&cluster, 0).await;
    let owed = format!("vigie:{{0}}:node:{dead}");
    assert_eq!(cluster.redis().number(&["SCARD", &owed]).await, 4);

    cluster.kill(0);
    let survivor = incarnation_of(&cluster, 1).await;
    let owed = format!("vigie:{{0}}:node:{survivor}");
    eventually_eq("all are on the other node", 8, async || {
        cluster.redis().number(&["SCARD", &owed]).await
    })
    .await;
    wait_until_forgotten(&cluster, &dead).await;
    for user in users {
        cluster.wait_for_refcount(user, 1).await;
    }
    let said = times_offline(&cluster, &others, users).await;
    assert_eq!(said, [[0; 8]]);
}

/// Goal: a node that is killed and comes back under its own name is a new one.
/// Method: SIGKILL, started again at once on the same ports; its client returns, the old incarnation is
/// forgotten, and the user was never offline.
#[tokio::test]
async fn a_node_that_comes_back_under_its_name_owes_nothing_of_before() {
    let mut cluster = fragile().nodes(2).start().await;
    let others = observers(&cluster, &[1]).await;
    let mut tab = cluster.connect(0, ADA).await;
    let dead = incarnation_of(&cluster, 0).await;
    cluster.kill(0);
    cluster.start_again(0).await;
    assert_eq!(tab.next_disconnect().await, "transport close");
    tab.settle().await;
    wait_until_forgotten(&cluster, &dead).await;
    cluster.wait_for_refcount(ADA, 1).await;
    cluster.wait_until_all_see(&[ADA]).await;
    assert_eq!(times_offline(&cluster, &others, [ADA]).await, [[0]]);
}
