//! Nodes that stand still and go on: a new life if theirs was over, and nobody lost.

use super::{
    fragile, incarnation_of, leases, observers, times_offline, update_when_possible,
    wait_for_last_revision, wait_until_everybody_agrees, wait_until_forgotten,
};
use crate::harness::{ADA, BOB, EVE};
use crate::harness::{eventually, eventually_eq};

/// Goal: a node that stood still beyond its lease starts a new life in which its connections count again.
/// Method: SIGSTOP until the others have released what it owed, then SIGCONT. Bob, with a tab elsewhere, is
/// never said to be offline, nor is Eve, who was never on that node; Redis knows the new incarnation only;
/// the node's own clients hear updates and see who is online.
#[tokio::test]
async fn a_node_that_slept_beyond_its_lease_starts_over() {
    let cluster = fragile().nodes(3).partitions(2).start().await;
    let others = observers(&cluster, &[1, 2]).await;
    let here = observers(&cluster, &[0]).await;
    let ada = cluster.connect(0, ADA).await;
    let bob = cluster.connect(0, BOB).await;
    let elsewhere = cluster.connect(1, BOB).await;
    let eve = cluster.connect(2, EVE).await;
    ada.watch(EVE).await;
    let old = incarnation_of(&cluster, 0).await;

    cluster.pause(0);
    cluster.wait_until_all_see(&[BOB, EVE]).await;
    cluster.wait_for_refcount(ADA, 0).await;
    cluster.wait_for_refcount(BOB, 1).await;
    let missed = cluster
        .notify_profile(1, EVE, crate::harness::profile(EVE, "missed"))
        .await;
    cluster.resume(0);

    wait_for_last_revision(&ada, EVE, missed).await;
    let all = [BOB, ADA, EVE];
    wait_until_everybody_agrees(&cluster, &[&ada, &bob, &elsewhere, &eve], &all).await;
    for (user, refcount) in [(ADA, 1), (BOB, 2), (EVE, 1)] {
        cluster.wait_for_refcount(user, refcount).await;
    }
    wait_until_forgotten(&cluster, &old).await;
    assert_ne!(incarnation_of(&cluster, 0).await, old);
    assert_eq!(leases(&cluster).await.len(), 3);
    let said = times_offline(&cluster, &others, [ADA, BOB, EVE]).await;
    assert_eq!(said, [[1, 0, 0], [1, 0, 0]]);
    let said = times_offline(&cluster, &here, [BOB, EVE]).await;
    assert_eq!(said, [[0, 0]]);

    for (user, own) in [(ADA, &ada), (BOB, &bob)] {
        let last = update_when_possible(&cluster, 2, user, "afterwards").await;
        wait_for_last_revision(own, user, last).await;
    }
    let last = update_when_possible(&cluster, 1, EVE, "afterwards").await;
    wait_for_last_revision(&ada, EVE, last).await;
}

/// Goal: the same again and again leaves nothing behind.
/// Method: three pauses beyond the lease of a node in turn, on different nodes.
#[tokio::test]
async fn nodes_that_sleep_in_turn_leave_nothing_behind() {
    let cluster = fragile().nodes(3).start().await;
    let mut tabs = Vec::new();
    for node in 0..3 {
        tabs.push(cluster.connect(node, ADA).await);
    }
    let others = observers(&cluster, &[0, 1, 2]).await;
    for node in 0..3 {
        let old = incarnation_of(&cluster, node).await;
        cluster.pause(node);
        cluster.wait_for_refcount(ADA, 2).await;
        cluster.resume(node);
        cluster.wait_for_refcount(ADA, 3).await;
        wait_until_forgotten(&cluster, &old).await;
    }
    cluster.wait_until_all_see(&[ADA]).await;
    assert_eq!(leases(&cluster).await.len(), 3);
    let said = times_offline(&cluster, &others, [ADA]).await;
    assert_eq!(said, [[0]; 3]);
}

/// Goal: a node that nobody could bury goes on as if nothing had been.
/// Method: the only node is stopped until its lease is over on Redis's clock, then goes on; its users were
/// never away.
#[tokio::test]
async fn the_only_node_wakes_to_its_users() {
    let cluster = fragile().start().await;
    let here = observers(&cluster, &[0]).await;
    let tab = cluster.connect(0, ADA).await;
    let before = leases(&cluster).await;
    cluster.pause(0);
    eventually("its lease is over", async || {
        let script = "local t = redis.call('TIME') \
                      return redis.call('ZCOUNT', 'vigie:nodes', '-inf', t[1] * 1000)";
        (cluster.redis().number(&["EVAL", script, "0"]).await == 1).then_some(())
    })
    .await;
    cluster.resume(0);
    let last = update_when_possible(&cluster, 0, ADA, "awake").await;
    wait_for_last_revision(&tab, ADA, last).await;
    eventually_eq("the node is ready", 200, async || {
        cluster.get_public(0, "/readyz").await.status
    })
    .await;
    assert_eq!(tab.online().await, [ADA]);
    assert_eq!(leases(&cluster).await, before);
    assert_eq!(times_offline(&cluster, &here, [ADA]).await, [[0]]);
}
