//! Clients that do not keep up: closed, never left with a gap; and nobody else notices.

use serde_json::{Value, json};

use super::{fragile, revisions_of, wait_for_last_revision};
use crate::harness::{ADA, Client, Cluster, Connecting, EVE, Offline, Online};
use crate::harness::{eventually, profile, revision};

/// How many updates the burst has.
const BURST: usize = 5_000;

/// How many clients are stuck at once.
const STUCK: usize = 1_000;

/// How much more memory a node may use with a thousand stuck clients: for each, what may wait for it. One wave takes
/// some 160 MB, so two that added up would not stay below it, and one that the allocator packs badly does.
const MEMORY_BOUND: u64 = 256 * 1024 * 1024;

/// Goal: a client that stops reading is closed, and healthy clients of the same room lose nothing.
/// Method: Eve watches Ada on a bare WebSocket and reads no more; 5,000 updates; three watchers and Ada's
/// own tab get every one of them, in order, and Eve goes offline.
#[tokio::test]
async fn a_stuck_client_costs_the_others_nothing() {
    let cluster = fragile().start().await;
    let mut observer = cluster.connect_guest(0).await;
    let mut healthy = Vec::new();
    for _ in 0..3 {
        let watcher = cluster.connect_guest(0).await;
        watcher.watch(ADA).await;
        healthy.push(watcher);
    }
    healthy.push(cluster.connect(0, ADA).await);
    let stuck = cluster.open_raw(0, Some(EVE), ADA).await;
    cluster.wait_for_refcount(EVE, 1).await;

    let sent = flood(&cluster, BURST, 1500).await;
    for client in &healthy {
        let last = *sent.last().expect("updates were sent");
        eventually_within_a_minute("the last update", client, last).await;
        assert_eq!(revisions_of(client, ADA), sent);
        assert!(
            !client
                .events_so_far()
                .iter()
                .any(|record| matches!(record, crate::harness::Record::Disconnect { .. })),
            "a healthy client was closed"
        );
    }
    cluster.wait_for_refcount(EVE, 0).await;
    assert_eq!(observer.next_status().await, (ADA, Online));
    assert_eq!(observer.next_status().await, (EVE, Online));
    assert_eq!(observer.next_status().await, (EVE, Offline));
    stuck.read_to_the_end().await;
}

/// Tells node 0 of so many updates about Ada, a hundred a request; returns their revisions.
async fn flood(cluster: &Cluster, count: usize, size: usize) -> Vec<u64> {
    let padding = "x".repeat(size);
    let one = json!({ "kind": "profile-update", "userId": ADA, "user": profile(ADA, &padding) });
    let per_request = (200 * 1024 / (size + 300)).clamp(1, 100);
    let mut revisions = Vec::new();
    while revisions.len() < count {
        let batch = vec![one.clone(); per_request.min(count - revisions.len())];
        let answer = cluster
            .post(0, "/api/v1/notifications", &Value::Array(batch))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let results = answer.json.as_array().expect("an array").clone();
        assert!(results.iter().all(|result| result["status"] == 200));
        revisions.extend(results.iter().map(revision));
    }
    revisions
}

async fn eventually_within_a_minute(what: &str, client: &Client, wanted: u64) {
    for _ in 0..4 {
        let there = async || (revisions_of(client, ADA).last() == Some(&wanted)).then_some(());
        let waiting = tokio::time::timeout(crate::harness::DEADLINE, async {
            while there().await.is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        if waiting.await.is_ok() {
            return;
        }
    }
    panic!("not within a minute: {what}");
}

/// Goal: a polling client that is too far behind is closed, comes back by itself and hears updates again; the
/// same for one that has moved from polling to a WebSocket.
/// Method: what the client would read is held back by a proxy until the node has given it up, then let go.
#[tokio::test]
async fn clients_that_overflow_come_back_by_themselves() {
    for transports in [&["polling"][..], &["polling", "websocket"], &["websocket"]] {
        let cluster = fragile().start().await;
        let proxy = cluster.balancer(&[0]).await;
        let connecting = Connecting::user(EVE).transports(transports).steady();
        let mut client = cluster.connect_through(&proxy, connecting).await;
        if transports.len() == 2 {
            assert_eq!(client.next_upgrade().await, "websocket");
        }
        client.follow(ADA);
        let first = cluster.notify_profile(0, ADA, profile(ADA, "v1")).await;
        eventually("the first update, as an answer or an event", async || {
            heard(&client).contains(&first).then_some(())
        })
        .await;

        proxy.stall();
        let closed = async || {
            cluster
                .metric(0, "vigie_connections_overflowed_total")
                .await
        };
        // No fixed number is enough: a node that falls behind on a busy machine sends the newest update only.
        for _ in 0..100 {
            if closed().await > 0.0 {
                break;
            }
            flood(&cluster, 200, 3000).await;
        }
        eventually(&format!("{transports:?} to be given up"), async || {
            (closed().await > 0.0).then_some(())
        })
        .await;
        proxy.flow();
        client.next_disconnect().await;
        assert_eq!(client.next_verdict().await, Ok(()));
        cluster.wait_for_refcount(EVE, 1).await;
        let last = cluster.notify_profile(0, ADA, profile(ADA, "last")).await;
        eventually("the last update", async || {
            (heard(&client).last() == Some(&last)).then_some(())
        })
        .await;
        let heard = heard(&client);
        assert!(heard.is_sorted(), "{transports:?} {heard:?}");
    }
}

/// The revisions of Ada's profile that a steady client has been told, in order: in answers and in events.
fn heard(client: &Client) -> Vec<u64> {
    let records = client.events_so_far();
    let told = records.iter().filter_map(|record| match record {
        crate::harness::Record::Event { name, args } if name == "profile-update" => {
            args.first()?["revision"].as_u64()
        }
        crate::harness::Record::Ack { event, args, .. } if event == "watch-profile" => {
            args.first()?["revisions"]["profile"].as_u64()
        }
        _ => None,
    });
    told.collect()
}

/// Goal: a thousand stuck clients cost a bounded amount of memory, and nobody else anything; a thousand more cost
/// nothing on top of that.
/// Method: a thousand bare WebSockets watch Ada and read no more, during a stream of updates that lasts until
/// all are closed; then as many again. All the time the node's memory stays below one bound and it stays healthy, and
/// healthy watchers get every update; after each wave connections and files are back.
#[tokio::test]
async fn thousands_of_stuck_clients_cost_little() {
    let cluster = fragile().start().await;
    let mut healthy = Vec::new();
    for _ in 0..2 {
        let watcher = cluster.connect_guest(0).await;
        watcher.watch(ADA).await;
        healthy.push(watcher);
    }
    let memory_before = cluster.resident_memory(0);
    let mut sent = Vec::new();
    for wave in 1..=2 {
        let most = wave_of_stuck_clients(&cluster, &healthy, memory_before, &mut sent).await;
        eprintln!(
            "wave {wave}: {memory_before} + {most} bytes, {} updates so far",
            sent.len()
        );
    }
    let last = cluster.notify_profile(0, ADA, profile(ADA, "last")).await;
    wait_for_last_revision(&healthy[0], ADA, last).await;
}

/// One wave, from the first client to the last that is closed. Returns by how much the node's memory grew at most.
async fn wave_of_stuck_clients(
    cluster: &Cluster,
    healthy: &[Client],
    memory_before: u64,
    sent: &mut Vec<u64>,
) -> u64 {
    let connections = async || cluster.metric(0, "vigie_connections").await;
    let (connections_before, files_before) = (connections().await, cluster.open_files(0));
    let sent_before = sent.len();
    let mut stuck = Vec::new();
    for _ in 0..STUCK / 50 {
        let opening = (0..50).map(|_| cluster.open_raw(0, None, ADA));
        stuck.extend(futures_util::future::join_all(opening).await);
    }
    assert_eq!(connections().await, connections_before + STUCK as f64);

    let mut most = 0;
    while connections().await > connections_before {
        sent.extend(flood(cluster, 50, 800).await);
        // No faster than a healthy client hears it: a stream, not a backlog.
        let last = *sent.last().expect("updates were sent");
        eventually_within_a_minute("an update", &healthy[0], last).await;
        most = most.max(cluster.resident_memory(0).saturating_sub(memory_before));
        assert!(most < MEMORY_BOUND, "grown by {most} bytes");
        assert_eq!(cluster.get_public(0, "/healthz").await.status, 200);
        let count = sent.len() - sent_before;
        assert!(count < 40_000, "the stuck clients are not closed");
    }
    for client in healthy {
        let last = *sent.last().expect("updates were sent");
        eventually_within_a_minute("the last update", client, last).await;
        assert_eq!(revisions_of(client, ADA), *sent);
    }
    eventually("files are closed", async || {
        (cluster.open_files(0) <= files_before + 10).then_some(())
    })
    .await;
    most
}
