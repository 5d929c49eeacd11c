//! Matchmaking: one queue for all nodes, each match told once to every connection of both players.

mod faults;
mod queue;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Client, Cluster, eventually, eventually_eq};

/// Sends `join-matchmaking`, which must succeed; returns the status.
async fn join(client: &Client) -> String {
    let answer = client.emit_args_ack("join-matchmaking", vec![]).await;
    assert_eq!(answer["ok"], true, "{answer}");
    let status = answer["status"].as_str();
    status.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Sends `leave-matchmaking`, which must succeed.
async fn leave(client: &Client) {
    let answer = client.emit_args_ack("leave-matchmaking", vec![]).await;
    assert_eq!(answer, json!({ "ok": true }));
}

/// The matches that a client has been told of so far: which, and against whom.
fn matches_of(client: &Client) -> Vec<(String, u64)> {
    let told = client.payloads("match-found");
    let read = |payload: &Value| {
        let id = payload["matchId"].as_str()?.to_owned();
        Some((id, payload["opponent"]["userId"].as_u64()?))
    };
    let read = |payload: &Value| read(payload).unwrap_or_else(|| panic!("match-found {payload}"));
    told.iter().map(read).collect()
}

/// Waits until a client has been told of its `count`th match; returns it.
async fn match_number(client: &Client, count: usize) -> (String, u64) {
    eventually(&format!("match number {count}"), async || {
        matches_of(client).into_iter().nth(count - 1)
    })
    .await
}

/// How the queue is, as a node tells it.
async fn queue(cluster: &Cluster, node: usize) -> Value {
    let answer = cluster.get(node, "/api/v1/matchmaking").await;
    assert_eq!(answer.status, 200, "{answer:#?}");
    answer.json
}

/// Waits until so many users wait, and every match has been shown wherever it is to be shown.
async fn wait_for_queue(cluster: &Cluster, node: usize, length: u64) {
    eventually_eq(
        "who waits, and what is not shown yet",
        (length, 0),
        async || {
            let queue = queue(cluster, node).await;
            let number = |name: &str| queue[name].as_u64().unwrap_or_else(|| panic!("{queue}"));
            (number("queueLength"), number("pendingMatches"))
        },
    )
    .await;
}

/// Asks a node to put a user in the queue.
async fn ticket(cluster: &Cluster, node: usize, body: Value) -> Value {
    let answer = cluster
        .post(node, "/api/v1/matchmaking/tickets", &body)
        .await;
    assert_eq!(answer.status, 200, "{answer:#?}");
    answer.json
}

/// Fails unless every user was told of exactly one match, on every connection once, and so was the opponent of the
/// same one; returns the pairs.
fn disjoint_pairs(clients: &BTreeMap<u64, Vec<Client>>) -> BTreeSet<BTreeSet<u64>> {
    let mut told = BTreeMap::new();
    for (user, tabs) in clients {
        let each: BTreeSet<_> = tabs.iter().map(matches_of).collect();
        assert_eq!(each.len(), 1, "the tabs of {user} were told {each:?}");
        let matches = each.into_iter().next().unwrap_or_default();
        assert_eq!(matches.len(), 1, "user {user} was told {matches:?}");
        told.insert(*user, matches[0].clone());
    }
    let mut ids = BTreeMap::new();
    for (user, (id, opponent)) in &told {
        assert_eq!(
            told[opponent],
            (id.clone(), *user),
            "the opponent of {user}"
        );
        ids.entry(id).or_insert_with(BTreeSet::new).insert(*user);
    }
    assert!(ids.values().all(|users| users.len() == 2), "{ids:?}");
    ids.into_values().collect()
}

/// Waits until every connection was told of a match.
async fn wait_until_all_are_told(clients: &BTreeMap<u64, Vec<Client>>) {
    eventually_eq("connections without a match", 0, async || {
        let tabs = clients.values().flatten();
        tabs.filter(|tab| matches_of(tab).is_empty()).count()
    })
    .await;
}
