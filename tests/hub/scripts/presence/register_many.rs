//! `lua/presence/register_many.lua`: connections of one node that are registered again.

use serde_json::json;

use super::{
    LONG_MS, expire, next_transition, position, presence, register, register_many, release,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::account::{delete, revoke};
use crate::scripts::{LARGEST, Server, key, number};

/// Goal: connections of several users are recorded where they belong, and all who came are announced in one transition.
/// Method: two connections of one user and one of another; every key, and the message to the letter.
#[tokio::test]
async fn all_who_come_are_announced_at_once() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    let before = server.now_ms().await;
    let connections = [(ADA, 1), (BOB, 2), (ADA, 3)];
    assert_eq!(register_many(&server, "a.1", &connections).await, 3);
    let after = server.now_ms().await;

    let (adas, bobs) = (
        server.hash(&key("conns:42")).await,
        server.hash(&key("conns:7")).await,
    );
    assert_eq!(adas.keys().collect::<Vec<_>>(), ["a.1/1", "a.1/3"]);
    assert_eq!(bobs.keys().collect::<Vec<_>>(), ["a.1/2"]);
    for since in adas.values().chain(bobs.values()) {
        let since = number(&json!(since));
        assert!(
            (before..=after).contains(&since),
            "{before} {since} {after}"
        );
    }
    assert_eq!(server.set(&key("node:a.1")).await, ["42/1", "42/3", "7/2"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1"]);
    assert_eq!(server.set(&key("online")).await, ["42", "7"]);
    assert!(server.scores(&key("leaving")).await.is_empty());

    let (epoch, revision) = position(&server).await;
    assert_eq!(revision, 1);
    let message = format!(r#"{{"epoch":"{epoch}","rev":1,"online":[42,7],"offline":[]}}"#);
    assert_eq!(presence.next_text().await, message);
    presence.hears_nothing().await;
}

/// Goal: connections that are registered count once, keep their times and announce nothing, however they were
/// registered. Method: registered one by one at another time, then twice together; the whole of Redis.
#[tokio::test]
async fn registering_again_changes_nothing() {
    let server = Server::start().await;
    let connections = [(ADA, 1), (ADA, 2), (BOB, 3)];
    for (user, connection) in connections {
        register(&server, user, "a.1", connection).await;
    }
    server
        .command(&["HSET", &key("conns:42"), "a.1/1", "1700000000000"])
        .await;
    let before = server.contents().await;
    let mut presence = presence(&server).await;
    for _ in 0..2 {
        assert_eq!(register_many(&server, "a.1", &connections).await, 3);
        assert_eq!(server.contents().await, before);
    }
    presence.hears_nothing().await;
}

/// Goal: only those are announced who were offline, and whoever is back within the grace never left.
/// Method: one who is online by another node, one whose grace runs, one who is new.
#[tokio::test]
async fn only_who_was_offline_is_announced() {
    let server = Server::start().await;
    register(&server, ADA, "b.1", 1).await;
    register(&server, BOB, "a.1", 2).await;
    release(&server, BOB, "a.1", 2, LONG_MS).await;
    let mut presence = presence(&server).await;
    let connections = [(ADA, 1), (BOB, 2), (EVE, 3)];
    assert_eq!(register_many(&server, "a.1", &connections).await, 3);
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (3, vec![EVE], vec![])
    );
    assert_eq!(server.hash(&key("conns:42")).await.len(), 2);
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "b.1"]);
    assert_eq!(expire(&server, 10, 2 * LONG_MS).await, (0, false));
    presence.hears_nothing().await;
}

/// Goal: a deleted account is left out, and where nobody else is there nothing happens.
/// Method: one deleted account beside another user, then two deleted accounts, one of which has a connection.
#[tokio::test]
async fn a_deleted_account_is_left_out() {
    let server = Server::start().await;
    delete(&server, BOB).await;
    let mut presence = presence(&server).await;
    let connections = [(BOB, 1), (ADA, 2), (BOB, 3)];
    assert_eq!(register_many(&server, "a.1", &connections).await, 1);
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (1, vec![ADA], vec![])
    );
    assert!(server.hash(&key("conns:7")).await.is_empty());
    assert_eq!(server.set(&key("node:a.1")).await, ["42/2"]);
    assert_eq!(server.set(&key("online")).await, ["42"]);

    delete(&server, ADA).await;
    let before = server.contents().await;
    let connections = [(ADA, 2), (BOB, 1), (ADA, 4)];
    assert_eq!(register_many(&server, "a.1", &connections).await, 0);
    assert_eq!(register_many(&server, "c.1", &connections).await, 0);
    assert_eq!(server.contents().await, before);
    presence.hears_nothing().await;
}

/// Goal: every record about a connection that is registered is made right, also of a user who has others.
/// Method: of users with two connections one is missing among those online, one is among those who leave, and one is
/// both; nothing is owed, and the node is unknown; a connection is missing. Then once more.
#[tokio::test]
async fn what_is_wrong_is_made_right() {
    let server = Server::start().await;
    let connections = [ADA, BOB, EVE].map(|user| (user, user));
    for (user, connection) in connections {
        register(&server, user, "a.1", connection).await;
        register(&server, user, "b.1", connection).await;
    }
    server
        .command(&["SREM", &key("online"), "42", "1815"])
        .await;
    server
        .command(&["ZADD", &key("leaving"), "5", "7", "5", "1815"])
        .await;
    server.command(&["DEL", &key("node:a.1")]).await;
    server.command(&["SREM", &key("nodes"), "a.1"]).await;
    server.command(&["HDEL", &key("conns:7"), "a.1/7"]).await;
    let mut presence = presence(&server).await;
    assert_eq!(register_many(&server, "a.1", &connections).await, 3);
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (4, vec![ADA, EVE], vec![])
    );
    assert_eq!(server.set(&key("online")).await, ["1815", "42", "7"]);
    assert!(server.scores(&key("leaving")).await.is_empty());
    let owed = server.set(&key("node:a.1")).await;
    assert_eq!(owed, ["1815/1815", "42/42", "7/7"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "b.1"]);
    assert_eq!(server.hash(&key("conns:7")).await.len(), 2);

    let before = server.contents().await;
    assert_eq!(register_many(&server, "a.1", &connections).await, 3);
    assert_eq!(server.contents().await, before);
    assert_eq!(expire(&server, 10, LONG_MS).await, (0, false));
    presence.hears_nothing().await;
}

/// Goal: a connection that was admitted registers again after a revocation, and beyond the number that a user may have.
/// Method: a token revoked, and as many connections as fit into one call.
#[tokio::test]
async fn what_was_admitted_is_not_refused() {
    let server = Server::start().await;
    revoke(&server, "r1", (60_000, 60_000)).await;
    let connections: Vec<(u64, u64)> = (1..=100).map(|connection| (ADA, connection)).collect();
    assert_eq!(register_many(&server, "a.1", &connections).await, 100);
    assert_eq!(server.hash(&key("conns:42")).await.len(), 100);
    assert_eq!(server.set(&key("node:a.1")).await.len(), 100);
}

/// Goal: after Redis was emptied, what a node holds begins another life of the data.
/// Method: FLUSHALL between two calls.
#[tokio::test]
async fn an_emptied_redis_begins_another_life() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    let connections = [(ADA, 1), (BOB, 2)];
    let mut lives = Vec::new();
    for _ in 0..2 {
        server.command(&["FLUSHALL"]).await;
        assert_eq!(register_many(&server, "a.1", &connections).await, 2);
        assert_eq!(
            next_transition(&server, &mut presence).await,
            (1, vec![ADA, BOB], vec![])
        );
        lives.push(position(&server).await.0);
    }
    assert_ne!(lives[0], lives[1]);
}

/// Goal: the largest ids and numbers keep every digit. Method: user, connection and number of the transition.
#[tokio::test]
async fn large_numbers_keep_every_digit() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    let revision = (LARGEST - 1).to_string();
    server.command(&["SET", &key("rev"), &revision]).await;
    let connections = [(LARGEST, LARGEST)];
    assert_eq!(register_many(&server, "a.1", &connections).await, 1);
    let text = presence.next_text().await;
    assert!(
        text.contains(r#""rev":9007199254740991,"online":[9007199254740991],"#),
        "{text}"
    );
    assert_eq!(
        server.set(&key("node:a.1")).await,
        ["9007199254740991/9007199254740991"]
    );
}
