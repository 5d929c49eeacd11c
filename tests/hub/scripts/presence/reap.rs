//! `lua/presence/reap.lua`: what a dead incarnation owed.

use serde_json::json;

use super::{LONG_MS, expire, next_transition, presence, reap, register, release};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::{LARGEST, Server, key};

/// Goal: what a dead incarnation owes is released, and nothing of what others have; whoever has no
/// connection left gets the grace and then goes offline. Nothing is announced before that.
/// Method: one user on the dead node only, one on both its lives, one on another node; then the
/// expiry.
#[tokio::test]
async fn a_dead_incarnation_owes_nothing_after_reaping() {
    let server = Server::start().await;
    for (user, node) in [(ADA, "a.1"), (BOB, "a.1"), (BOB, "a.2"), (EVE, "b.1")] {
        register(&server, user, node, 5).await;
    }
    register(&server, ADA, "a.1", 6).await;
    let mut presence = presence(&server).await;
    let before = server.now_ms().await;
    assert_eq!(reap(&server, "a.1", 100, LONG_MS).await, (3, 0));
    let after = server.now_ms().await;

    assert_eq!(server.set(&key("nodes")).await, ["a.2", "b.1"]);
    let left = server.redis.keys("vigie:{0}:conns:*").await;
    assert_eq!(left, [key("conns:1815"), key("conns:7")]);
    assert_eq!(server.hash(&key("conns:7")).await.len(), 1);
    let leaving = server.scores(&key("leaving")).await;
    assert_eq!((leaving.len(), leaving[0].0.as_str()), (1, "42"));
    let due = leaving[0].1;
    assert!(
        (before + LONG_MS..=after + LONG_MS).contains(&due),
        "{before} {due} {after}"
    );
    presence.hears_nothing().await;

    assert_eq!(expire(&server, 10, LONG_MS).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (4, vec![], vec![ADA])
    );
}

/// Goal: reaping goes on where it stopped, a batch at a time, and is over when nothing is owed.
/// Method: five connections, two at a time; once more at the end; a node that never was.
#[tokio::test]
async fn reaping_takes_batches() {
    let server = Server::start().await;
    for user in 1..=5 {
        register(&server, user, "a.1", user).await;
    }
    assert_eq!(reap(&server, "a.1", 2, 0).await, (2, 3));
    assert_eq!(server.set(&key("nodes")).await, ["a.1"]);
    assert_eq!(server.scores(&key("leaving")).await.len(), 2);
    assert_eq!(reap(&server, "a.1", 2, 0).await, (2, 1));
    assert_eq!(reap(&server, "a.1", 2, 0).await, (1, 0));
    assert!(server.set(&key("nodes")).await.is_empty());
    assert_eq!(
        server.redis.keys("vigie:{0}:conns:*").await,
        Vec::<String>::new()
    );
    let before = server.contents().await;
    assert_eq!(reap(&server, "a.1", 2, 0).await, (0, 0));
    assert_eq!(reap(&server, "z.9", 2, 0).await, (0, 0));
    assert_eq!(server.contents().await, before);
    assert_eq!(expire(&server, 10, 0).await, (5, false));
}

/// Goal: a grace that runs is not started over by reaping, and who is back never left.
/// Method: a connection on a dead node beside one released before; a return in between.
#[tokio::test]
async fn reaping_starts_no_grace_over() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let due = release(&server, ADA, "a.1", 1, LONG_MS).await.1;
    let due = due.expect("the grace runs");
    // Owed although it was released: what a crash may leave.
    server
        .command(&["SADD", &key("node:a.1"), "42/1", "7/9"])
        .await;
    assert_eq!(reap(&server, "a.1", 10, 0).await, (2, 0));
    assert_eq!(
        server.scores(&key("leaving")).await,
        [("42".to_owned(), due)]
    );

    assert_eq!(register(&server, ADA, "b.1", 1).await, json!(["ok", 1, 1]));
    register(&server, ADA, "a.2", 1).await;
    assert_eq!(reap(&server, "a.2", 10, 0).await, (1, 0));
    assert!(server.scores(&key("leaving")).await.is_empty());
}

/// Goal: what a dead incarnation registers late is reaped like the rest.
/// Method: reaped, registered, reaped again.
#[tokio::test]
async fn a_late_registration_is_reaped_too() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    reap(&server, "a.1", 10, 0).await;
    register(&server, ADA, "a.1", 2).await;
    assert_eq!(server.set(&key("nodes")).await, ["a.1"]);
    assert_eq!(reap(&server, "a.1", 10, 0).await, (1, 0));
    assert_eq!(expire(&server, 10, 0).await, (1, false));
}

/// Goal: the largest ids are reaped, too. Method: user and connection with every digit.
#[tokio::test]
async fn large_ids_are_reaped() {
    let server = Server::start().await;
    register(&server, LARGEST, "a.1", LARGEST).await;
    assert_eq!(reap(&server, "a.1", 10, 0).await, (1, 0));
    assert_eq!(expire(&server, 10, 0).await, (1, false));
    assert!(server.set(&key("online")).await.is_empty());
    assert_eq!(
        server.redis.keys("vigie:{0}:conns:*").await,
        Vec::<String>::new()
    );
}
