//! Nodes that are told to stop: clients go elsewhere by themselves, and nobody hears of it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{fragile, incarnation_of, observers, times_offline, traces_of, wait_for_last_revision};
use crate::harness::{ADA, BOB, Client, Cluster, Connecting, Offline, Record};
use crate::harness::{eventually, eventually_eq, profile};

/// Goal: a deploy under load: clients of the node that stops come back on the other, nobody is said to be
/// offline, the node is not ready meanwhile, ends well and owes nothing.
/// Method: forty users through a balancer that knows nothing but TCP, ten of them polling, or upgraded from it,
/// through one that keeps them on a node as long as it answers; updates all the time; SIGTERM of one of two
/// nodes.
#[tokio::test]
async fn a_node_that_stops_under_load_loses_nobody() {
    let cluster = fragile().nodes(2).grace("5s").start().await;
    let others = observers(&cluster, &[1]).await;
    let balancer = cluster.balancer(&[0, 1]).await;
    let sticky = cluster.sticky_balancer(&[0, 1]).await;
    let users: Vec<u64> = (1..=40).collect();
    let mut clients = Vec::new();
    for user in &users {
        let (balancer, transports): (_, &[&str]) = match user % 8 {
            0 => (&sticky, &["polling"]),
            1 => (&sticky, &["polling", "websocket"]),
            _ => (&balancer, &["websocket"]),
        };
        let connecting = Connecting::user(*user).transports(transports);
        clients.push(cluster.connect_through(balancer, connecting).await);
    }
    cluster.wait_until_all_see(&users).await;
    let leaving = incarnation_of(&cluster, 0).await;
    let staying = incarnation_of(&cluster, 1).await;
    let owed = async |incarnation: &str| {
        let key = format!("vigie:{{0}}:node:{incarnation}");
        cluster.redis().number(&["SCARD", &key]).await
    };
    assert!(owed(&leaving).await >= 10, "the balancer takes turns");

    let ended = AtomicBool::new(false);
    let stopping = async {
        cluster.terminate(0);
        eventually("the node says that it is not ready", async || {
            (cluster.try_get_public(0, "/readyz").await == Some(503)).then_some(())
        })
        .await;
        let status = eventually("the node ends", async || cluster.ended(0)).await;
        assert_eq!(status.code(), Some(0), "{status}");
        eventually_eq("all are on the other node", 40, async || {
            owed(&staying).await
        })
        .await;
        ended.store(true, Ordering::Relaxed);
    };
    tokio::join!(stopping, load(&cluster, &users, &ended));

    assert_eq!(traces_of(&cluster, &leaving).await, Vec::<String>::new());
    for (user, client) in users.iter().zip(&clients) {
        cluster.wait_for_refcount(*user, 1).await;
        let last = cluster
            .notify_profile(1, *user, profile(*user, "after"))
            .await;
        wait_for_last_revision(client, *user, last).await;
        assert!(comes_back_by_itself(client), "user {user} was sent away");
    }
    let users: [u64; 40] = users.try_into().expect("forty");
    assert_eq!(times_offline(&cluster, &others, users).await, [[0; 40]]);
}

async fn load(cluster: &Cluster, users: &[u64], ended: &AtomicBool) {
    for user in users.iter().cycle() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        cluster
            .notify_profile(1, *user, profile(*user, "load"))
            .await;
    }
}

/// The official client stays away after a Socket.IO disconnect packet.
fn comes_back_by_itself(client: &Client) -> bool {
    let records = client.events_so_far();
    let mut reasons = records.iter().filter_map(|record| match record {
        Record::Disconnect { reason } => Some(reason.as_str()),
        _ => None,
    });
    reasons.all(|reason| reason != "io server disconnect")
}

/// Goal: a user whose node drains has the time that the official client takes to come back, however short the grace is;
/// a user who does not come back goes offline all the same.
/// Method: a grace of 300 ms, which is shorter than the client's first pause; two users on one of two nodes, one of which
/// stays away; SIGTERM of that node. An observer is on the other one.
#[tokio::test]
async fn a_drain_leaves_the_time_to_come_back() {
    let cluster = fragile().nodes(2).start().await;
    let mut observer = cluster.connect_guest(1).await;
    let balancer = cluster.balancer(&[0, 1]).await;
    let patient = Connecting::user(ADA).with_own_backoff();
    let mut ada = cluster.connect_through(&balancer, patient).await;
    let _bob = cluster.connect_with(0, Connecting::user(BOB).once()).await;
    cluster.wait_until_all_see(&[BOB, ADA]).await;

    cluster.stop(0).await;
    ada.next_disconnect().await;
    while observer.next_status().await != (BOB, Offline) {}
    assert_eq!(ada.next_verdict().await, Ok(()));
    cluster.wait_until_all_see(&[ADA]).await;
    assert_eq!(observer.times_said(ADA, Offline), 0);
}

/// Goal: a second signal ends a node that drains at once.
/// Method: a drain of ten minutes with three connections; the second SIGTERM ends it, and the exit code says so.
#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let cluster = fragile().env("VIGIE_NODE__DRAIN", "10m").start().await;
    let _tabs = [
        cluster.connect(0, 1).await,
        cluster.connect(0, 2).await,
        cluster.connect(0, 3).await,
    ];
    cluster.terminate(0);
    eventually("the node drains", async || {
        cluster
            .log(0)
            .contains("a second signal exits at once")
            .then_some(())
    })
    .await;
    assert_eq!(cluster.ended(0), None, "the drain takes ten minutes");
    cluster.terminate(0);
    let status = eventually("the node ends", async || cluster.ended(0)).await;
    assert_eq!(status.code(), Some(143), "{status}");
}
