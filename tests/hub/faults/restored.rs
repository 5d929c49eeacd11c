//! Redis comes back with data that is older than what nodes and clients know: a dump, a replica that was behind.

use std::time::Duration;

use super::{
    fragile, incarnation_of, leases, observers, times_offline, wait_until_everybody_agrees,
};
use crate::harness::{ADA, BOB, Builder, Cluster, Connecting};
use crate::harness::{eventually, eventually_eq, profile, revision};

/// No audit comes in time to put anything right.
fn without_audits() -> Builder {
    fragile().nodes(2).env("VIGIE_NODE__AUDIT", "1h")
}

/// Has Redis write down what it holds; this is what it comes back with.
async fn dump(cluster: &Cluster) {
    assert_eq!(cluster.cli(&["SAVE"]).await, "OK");
}

/// Goal: connections that had ended are no ghosts when Redis comes back with data that still has them.
/// Method: a dump while Ada has two connections and Bob one; Bob and one of Ada's leave; SIGKILL; the dump.
#[tokio::test]
async fn old_data_brings_no_ghosts() {
    let cluster = without_audits().start().await;
    let ada = cluster.connect(0, ADA).await;
    let second = cluster.connect(0, ADA).await;
    let bob = cluster.connect(1, BOB).await;
    dump(&cluster).await;
    second.close().await;
    bob.close().await;
    cluster.wait_for_online(&[ADA]).await;
    cluster.redis().kill();
    cluster.redis().start_again().await;
    eventually_eq("Ada's connections", 1, async || {
        cluster
            .redis()
            .number(&["HLEN", &cluster.key(ADA, "conns")])
            .await
    })
    .await;
    wait_until_everybody_agrees(&cluster, &[&ada], &[ADA]).await;
}

/// Goal: watchers agree on the last update, although Redis came back without it.
/// Method: a dump after the first of two updates that a guest is told; SIGKILL; the dump; the same guest watches
/// anew, and another one on the other node does.
#[tokio::test]
async fn an_update_that_redis_lost_is_not_lost() {
    let cluster = without_audits().start().await;
    let mut old = cluster.connect_guest(0).await;
    old.watch(ADA).await;
    cluster.notify_profile(0, ADA, profile(ADA, "first")).await;
    old.next_event("profile-update").await;
    dump(&cluster).await;
    let last = cluster.notify_profile(1, ADA, profile(ADA, "second")).await;
    assert_eq!(revision(&old.next_event("profile-update").await), last);
    cluster.redis().kill();
    cluster.redis().start_again().await;
    let key = cluster.key(ADA, "profile");
    eventually_eq("what Redis knows", last.to_string(), async || {
        cluster.cli(&["HGET", &key, "profile.revision"]).await
    })
    .await;
    let new = cluster.connect_guest(1).await;
    for guest in [&new, &old] {
        guest.unwatch(ADA).await;
        assert_eq!(guest.watch(ADA).await["revisions"]["profile"], last);
    }
}

/// Goal: the list of leases may be lost alone (in a cluster it is on a server of its own): nobody is taken for
/// dead because of that.
/// Method: the list deleted, five times, with a lease of quiet in between; nobody is said to be offline.
#[tokio::test]
async fn without_leases_nobody_is_dead() {
    let cluster = without_audits().grace("1ms").start().await;
    let observers = observers(&cluster, &[0, 1]).await;
    let ada = cluster.connect(0, ADA).await;
    let bob = cluster.connect(1, BOB).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = incarnation_of(&cluster, 1).await;
        cluster.cli(&["DEL", "vigie:nodes"]).await;
        eventually("the node starts over", async || {
            (incarnation_of(&cluster, 1).await != before).then_some(())
        })
        .await;
    }
    wait_until_everybody_agrees(&cluster, &[&ada, &bob], &[BOB, ADA]).await;
    let said = times_offline(&cluster, &observers, [ADA, BOB]).await;
    assert_eq!(said, [[0, 0]; 2]);
}

/// Goal: after Redis stood still, what was asked of it before takes nobody for dead.
/// Method: SIGSTOP of Redis for two leases, while commands may take longer than that, three times.
#[tokio::test]
async fn a_late_command_takes_nobody_for_dead() {
    let cluster = without_audits()
        .grace("1ms")
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "10s")
        .start()
        .await;
    let observers = observers(&cluster, &[0, 1]).await;
    let ada = cluster.connect(0, ADA).await;
    let bob = cluster.connect(1, BOB).await;
    let incarnations = leases(&cluster).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.redis().pause();
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.redis().resume();
    }
    wait_until_everybody_agrees(&cluster, &[&ada, &bob], &[BOB, ADA]).await;
    let said = times_offline(&cluster, &observers, [ADA, BOB]).await;
    assert_eq!(said, [[0, 0]; 2]);
    assert_eq!(leases(&cluster).await, incarnations);
}

/// Goal: a node with so many connections that registering them again takes longer than a lease keeps its lease.
/// Method: 1,500 users on a node; FLUSHALL, after which Redis takes a breath every 100 ms only, for many leases.
/// The lease is lost once, by the flush.
#[tokio::test]
async fn registering_again_may_take_longer_than_a_lease() {
    let cluster = without_audits()
        .env("VIGIE_NODE__LEASE", "1s")
        .env("VIGIE_NODE__HEARTBEAT", "300ms")
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "20s")
        .env("VIGIE_PRESENCE__AUDIENCE", "watchers")
        .without_lookouts()
        .start()
        .await;
    let mut users = Vec::new();
    for begin in (1..=1500).step_by(50) {
        let websocket = |user| Connecting::user(user).transports(&["websocket"]);
        let mut some: Vec<_> = (begin..begin + 50)
            .map(|user| cluster.open(1, websocket(user)))
            .collect();
        for user in &mut some {
            assert_eq!(user.next_verdict().await, Ok(()));
        }
        users.extend(some);
    }
    assert_eq!(cluster.cli(&["FLUSHALL"]).await, "OK");
    cluster
        .cli(&["-r", "120", "CLIENT", "PAUSE", "100", "ALL"])
        .await;
    eventually_eq("everybody is online", 1500, async || {
        cluster.redis().number(&["SCARD", "vigie:{0}:online"]).await
    })
    .await;
    assert_eq!(cluster.metric(1, "vigie_lease_losses_total").await, 1.0);
}
