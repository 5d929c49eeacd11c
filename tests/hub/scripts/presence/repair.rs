//! `lua/presence/repair.lua`: what is said about a user, derived anew from the user's connections.

use serde_json::json;

use super::{LONG_MS, expire, next_transition, presence, register, release, repair};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::{LARGEST, Server, key};

/// Goal: what the other scripts leave behind is right, and right is left as it is.
/// Method: users who are online, about to go offline, offline, and never were; nothing changes, nothing is said.
#[tokio::test]
async fn what_is_right_stays() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    register(&server, ADA, "b.1", 1).await;
    register(&server, BOB, "a.1", 2).await;
    release(&server, BOB, "a.1", 2, LONG_MS).await;
    register(&server, EVE, "a.1", 3).await;
    release(&server, EVE, "a.1", 3, 0).await;
    expire(&server, 10, 0).await;
    let mut presence = presence(&server).await;
    let before = server.contents().await;
    for user in [ADA, BOB, EVE, 5] {
        assert_eq!(repair(&server, user, 0).await, 0, "{user}");
    }
    assert_eq!(server.contents().await, before);
    presence.hears_nothing().await;
}

/// Goal: whoever has connections is online, and said to be, once. Method: taken out of the set; twice.
#[tokio::test]
async fn who_is_connected_comes_online() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let mut presence = presence(&server).await;
    server.command(&["SREM", &key("online"), "42"]).await;
    assert_eq!(repair(&server, ADA, 0).await, 1);
    assert_eq!(server.set(&key("online")).await, ["42"]);
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![ADA], vec![])
    );
    assert_eq!(repair(&server, ADA, 0).await, 0);
    presence.hears_nothing().await;
}

/// Goal: whoever is online without connections gets the grace, which is not started over, and then goes
/// offline. Method: put into the set; repaired twice; expired.
#[tokio::test]
async fn who_is_not_connected_goes_offline_after_the_grace() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    server.command(&["SADD", &key("online"), "42"]).await;
    let before = server.now_ms().await;
    assert_eq!(repair(&server, ADA, LONG_MS).await, 1);
    let after = server.now_ms().await;
    let leaving = server.scores(&key("leaving")).await;
    assert_eq!((leaving.len(), leaving[0].0.as_str()), (1, "42"));
    let due = leaving[0].1;
    assert!(
        (before + LONG_MS..=after + LONG_MS).contains(&due),
        "{before} {due} {after}"
    );
    assert_eq!(repair(&server, ADA, 0).await, 0);
    assert_eq!(server.scores(&key("leaving")).await, leaving);
    presence.hears_nothing().await;
    assert_eq!(expire(&server, 10, LONG_MS).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (1, vec![], vec![ADA])
    );
}

/// Goal: nobody is about to go offline who is connected, or who is offline already.
/// Method: both put among those who leave; nothing is said, and nobody goes.
#[tokio::test]
async fn who_does_not_leave_is_not_about_to() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let mut presence = presence(&server).await;
    server
        .command(&["ZADD", &key("leaving"), "5", "42", "5", "7"])
        .await;
    assert_eq!(repair(&server, ADA, 0).await, 1);
    assert_eq!(repair(&server, BOB, 0).await, 1);
    assert_eq!(expire(&server, 10, LONG_MS).await, (0, false));
    assert_eq!(server.set(&key("online")).await, ["42"]);
    presence.hears_nothing().await;
}

/// Goal: a time that cannot be is put right: of a connection to now, of who leaves to the end of the grace.
/// Method: times that are none, and far ahead; repaired twice.
#[tokio::test]
async fn times_can_be() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    register(&server, ADA, "a.1", 2).await;
    register(&server, ADA, "a.1", 3).await;
    let right = server.hash(&key("conns:42")).await;
    let far = (server.now_ms().await + 2 * 24 * 3_600_000).to_string();
    let connections = key("conns:42");
    server
        .command(&["HSET", &connections, "a.1/1", "x", "a.1/2", &far])
        .await;
    server.command(&["SADD", &key("online"), "7"]).await;
    server.command(&["ZADD", &key("leaving"), "inf", "7"]).await;
    let before = server.now_ms().await;
    assert_eq!(repair(&server, ADA, 0).await, 2);
    assert_eq!(repair(&server, BOB, LONG_MS).await, 1);
    let after = server.now_ms().await;
    let connections = server.hash(&key("conns:42")).await;
    assert_eq!(connections["a.1/3"], right["a.1/3"]);
    for connection in ["a.1/1", "a.1/2"] {
        let since: u64 = connections[connection].parse().expect("a time");
        assert!((before..=after).contains(&since), "{since}");
    }
    let due = server.scores(&key("leaving")).await[0].1;
    assert!((before + LONG_MS..=after + LONG_MS).contains(&due), "{due}");
    for user in [ADA, BOB] {
        assert_eq!(repair(&server, user, 0).await, 0);
    }
}

/// Goal: every connection is owed by its node, and the node known, so that reaping finds it.
/// Method: both taken away for one of two nodes; repaired and reaped.
#[tokio::test]
async fn what_is_registered_is_owed() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    register(&server, ADA, "a.1", 2).await;
    register(&server, ADA, "b.1", 1).await;
    let right = server.contents().await;
    server.command(&["DEL", &key("node:a.1")]).await;
    server.command(&["SREM", &key("nodes"), "a.1"]).await;
    assert_eq!(repair(&server, ADA, 0).await, 3);
    assert_eq!(server.set(&key("node:a.1")).await, ["42/1", "42/2"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "b.1"]);
    assert_eq!(server.contents().await.len(), right.len());
    assert_eq!(super::reap(&server, "a.1", 10, 0).await, (2, 0));
    assert_eq!(server.hash(&key("conns:42")).await.len(), 1);
}

/// Goal: the largest ids keep every digit. Method: user, connection and number of the transition.
#[tokio::test]
async fn large_numbers_keep_every_digit() {
    let server = Server::start().await;
    register(&server, LARGEST, "a.1", LARGEST).await;
    let (user, revision) = (LARGEST.to_string(), (LARGEST - 1).to_string());
    server.command(&["SET", &key("rev"), &revision]).await;
    server.command(&["SREM", &key("online"), &user]).await;
    server.command(&["DEL", &key("node:a.1")]).await;
    let mut presence = presence(&server).await;
    assert_eq!(repair(&server, LARGEST, 0).await, 2);
    let message = presence.next().await;
    assert_eq!(
        (&message["rev"], &message["online"]),
        (&json!(LARGEST), &json!([LARGEST]))
    );
    assert_eq!(
        server.set(&key("node:a.1")).await,
        ["9007199254740991/9007199254740991"]
    );
}
