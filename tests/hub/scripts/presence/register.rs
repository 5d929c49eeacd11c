//! `lua/presence/register.lua`: connections that come.

use serde_json::json;

use super::{
    LONG_MS, MANY, expire, next_transition, position, presence, register, register_up_to,
    register_with, release,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::account::{delete, revoke};
use crate::scripts::{LARGEST, Server, key, number};

/// Goal: the first connection of a user puts the user online, is recorded where it belongs, and is
/// announced as documented. Method: every key, and the message to the letter.
#[tokio::test]
async fn the_first_connection_announces_the_user() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    let before = server.now_ms().await;
    assert_eq!(register(&server, ADA, "a.1", 3).await, json!(["ok", 1, 1]));
    let after = server.now_ms().await;

    let connections = server.hash(&key("conns:42")).await;
    assert_eq!(connections.keys().collect::<Vec<_>>(), ["a.1/3"]);
    let since = number(&json!(connections["a.1/3"]));
    assert!(
        (before..=after).contains(&since),
        "{before} {since} {after}"
    );
    assert_eq!(server.set(&key("node:a.1")).await, ["42/3"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1"]);
    assert_eq!(server.set(&key("online")).await, ["42"]);
    assert!(server.scores(&key("leaving")).await.is_empty());

    let (epoch, revision) = position(&server).await;
    assert_eq!(revision, 1);
    let message = format!(r#"{{"epoch":"{epoch}","rev":1,"online":[42],"offline":[]}}"#);
    assert_eq!(presence.next_text().await, message);
    presence.hears_nothing().await;
}

/// Goal: a connection that is registered again counts once, keeps its time and announces nothing.
/// Method: the whole of Redis before and after.
#[tokio::test]
async fn registering_again_changes_nothing() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 3).await;
    server
        .command(&["HSET", &key("conns:42"), "a.1/3", "1700000000000"])
        .await;
    let before = server.contents().await;
    let mut presence = presence(&server).await;
    assert_eq!(register(&server, ADA, "a.1", 3).await, json!(["ok", 1, 1]));
    assert_eq!(server.contents().await, before);
    presence.hears_nothing().await;
}

/// Goal: further connections count, on the same and on other nodes, and announce nothing; the answer
/// tells where the transitions stand. Method: four connections, somebody else in between.
#[tokio::test]
async fn further_connections_only_count() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let mut presence = presence(&server).await;
    assert_eq!(register(&server, ADA, "a.1", 2).await, json!(["ok", 2, 1]));
    assert_eq!(register(&server, ADA, "b.1", 1).await, json!(["ok", 3, 1]));
    presence.hears_nothing().await;
    assert_eq!(register(&server, BOB, "a.1", 4).await, json!(["ok", 1, 2]));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![BOB], vec![])
    );
    assert_eq!(register(&server, ADA, "a.2", 1).await, json!(["ok", 4, 2]));
    presence.hears_nothing().await;
    assert_eq!(server.set(&key("node:a.1")).await, ["42/1", "42/2", "7/4"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "a.2", "b.1"]);
}

/// Goal: a connection of a user who has another one leaves the records of who is online and who leaves as they are; the
/// only one makes them right. Method: both changed by hand before a second connection; it goes, and the first registers
/// again.
#[tokio::test]
async fn a_second_connection_leaves_who_is_online_as_it_is() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    server.command(&["SREM", &key("online"), "42"]).await;
    server.command(&["ZADD", &key("leaving"), "5", "42"]).await;
    let mut presence = presence(&server).await;
    assert_eq!(register(&server, ADA, "a.1", 2).await, json!(["ok", 2, 1]));
    assert_eq!(register(&server, ADA, "a.1", 1).await, json!(["ok", 2, 1]));
    assert!(server.set(&key("online")).await.is_empty());
    assert_eq!(server.scores(&key("leaving")).await, [("42".to_owned(), 5)]);
    presence.hears_nothing().await;

    release(&server, ADA, "a.1", 2, LONG_MS).await;
    assert_eq!(register(&server, ADA, "a.1", 1).await, json!(["ok", 1, 2]));
    assert_eq!(server.set(&key("online")).await, ["42"]);
    assert!(server.scores(&key("leaving")).await.is_empty());
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![ADA], vec![])
    );
}

/// Goal: at the limit a new connection is refused and leaves no trace; one that is registered may say
/// so again, and one that goes makes room. Method: a limit of two, and of none for a user who has none.
#[tokio::test]
async fn the_limit_counts_connections_on_all_nodes() {
    let server = Server::start().await;
    let up_to_two =
        async |node, connection| register_up_to(&server, 2, ADA, node, connection).await;
    up_to_two("a.1", 1).await;
    up_to_two("b.1", 1).await;
    let before = server.contents().await;
    let mut presence = presence(&server).await;
    assert_eq!(up_to_two("a.1", 2).await, json!(["full"]));
    assert_eq!(up_to_two("c.1", 1).await, json!(["full"]));
    assert_eq!(up_to_two("b.1", 1).await, json!(["ok", 2, 1]));
    let none = register_up_to(&server, 0, EVE, "c.1", 1).await;
    assert_eq!(none, json!(["full"]));
    assert_eq!(server.contents().await, before);
    assert_eq!(
        register_up_to(&server, 2, BOB, "a.1", 2).await,
        json!(["ok", 1, 2])
    );
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![BOB], vec![])
    );

    assert_eq!(release(&server, ADA, "a.1", 1, LONG_MS).await, (1, None));
    assert_eq!(up_to_two("c.1", 1).await, json!(["ok", 2, 2]));
    presence.hears_nothing().await;
}

/// Goal: a deleted account registers nothing; connections that it has can still be released.
/// Method: deleted while online; another connection; the end of the first.
#[tokio::test]
async fn a_deleted_account_stays_out() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    delete(&server, ADA).await;
    let before = server.contents().await;
    let mut presence = presence(&server).await;
    assert_eq!(register(&server, ADA, "a.1", 2).await, json!(["deleted"]));
    assert_eq!(register(&server, ADA, "a.1", 1).await, json!(["deleted"]));
    assert_eq!(server.contents().await, before);
    presence.hears_nothing().await;

    assert_eq!(release(&server, ADA, "a.1", 1, 0).await.0, 0);
    assert_eq!(expire(&server, 10, 0).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![], vec![ADA])
    );
}

/// Goal: after a revocation a connection registers only with a token that is not older, also one that is registered.
/// Method: a connection from before; tokens without a time, from before, from that very millisecond and from after;
/// the same by repetition; the largest time.
#[tokio::test]
async fn a_revoked_token_stays_out() {
    let server = Server::start().await;
    let with = async |issued_at_ms, user, connection| {
        register_with(&server, (MANY, issued_at_ms), user, "a.1", connection).await
    };
    assert_eq!(
        with(None, ADA, 1).await,
        json!(["ok", 1, 1]),
        "nothing revoked"
    );
    let revoked = number(&revoke(&server, "r1", (60_000, 60_000)).await[2]);
    let before = server.contents().await;
    let mut presence = presence(&server).await;
    for issued_at_ms in [None, Some(0), Some(1), Some(revoked - 1)] {
        assert_eq!(with(issued_at_ms, ADA, 2).await, json!(["revoked"]));
        assert_eq!(with(issued_at_ms, ADA, 1).await, json!(["revoked"]));
    }
    assert_eq!(server.contents().await, before);
    assert_eq!(with(Some(LARGEST), ADA, 1).await, json!(["ok", 1, 1]));
    assert_eq!(server.contents().await, before, "registered again");
    presence.hears_nothing().await;

    assert_eq!(with(Some(revoked), ADA, 2).await, json!(["ok", 2, 1]));
    assert_eq!(with(Some(revoked + 1), ADA, 3).await, json!(["ok", 3, 1]));
    assert_eq!(with(None, BOB, 4).await, json!(["ok", 1, 2]), "nobody else");
    delete(&server, ADA).await;
    assert_eq!(with(None, ADA, 5).await, json!(["deleted"]));
}

/// Goal: a revocation is not refused for the number of connections, and the other way round.
/// Method: at the limit, tokens from before and after.
#[tokio::test]
async fn a_revoked_token_is_told_before_the_limit() {
    let server = Server::start().await;
    let revoked = number(&revoke(&server, "r1", (60_000, 60_000)).await[2]);
    let with = async |issued_at_ms, connection| {
        register_with(&server, (1, Some(issued_at_ms)), ADA, "a.1", connection).await
    };
    assert_eq!(with(revoked, 1).await, json!(["ok", 1, 1]));
    assert_eq!(with(revoked - 1, 2).await, json!(["revoked"]));
    assert_eq!(with(revoked, 2).await, json!(["full"]));
}
