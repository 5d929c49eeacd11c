//! Nodes that have left, and requests without effect, leave nothing behind.

use super::leases;
use crate::harness::{ADA, Cluster};

/// Goal: a node that has given its lease back does not take a new one.
/// Method: one that renews its lease every millisecond stops; nothing of it is left, and nobody is online.
#[tokio::test]
async fn a_node_that_says_goodbye_stays_away() {
    for _ in 0..5 {
        let cluster = Cluster::builder()
            .grace("1m")
            .env("VIGIE_NODE__HEARTBEAT", "1ms")
            .env("VIGIE_NODE__LEASE", "1m")
            .without_lookouts()
            .start()
            .await;
        let _ada = cluster.connect(0, ADA).await;
        cluster.stop(0).await;
        assert!(leases(&cluster).await.is_empty());
        cluster.wait_for_online(&[]).await;
    }
}

/// Goal: requests that name sessions which are none leave nothing behind.
/// Method: 8,000 requests to upgrade, each with another name of 6,000 letters, over connections that stay open and may
/// send as much.
#[tokio::test]
async fn sessions_that_are_none_leave_nothing_behind() {
    let cluster = Cluster::builder()
        .memory()
        .env("VIGIE_LIMITS__INBOUND_RATE", "1GiB")
        .env("VIGIE_LIMITS__INBOUND_BURST", "1GiB")
        .start()
        .await;
    let request = async |number: usize| {
        let sid = format!("{number:06000}");
        let path = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
        let answer = cluster.get_public(0, &path).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    };
    for number in 0..500 {
        request(number).await;
    }
    let before = cluster.resident_memory(0);
    for number in 500..8_500 {
        request(number).await;
    }
    let grown = cluster.resident_memory(0).saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "grew by {} KiB", grown / 1024);
}
