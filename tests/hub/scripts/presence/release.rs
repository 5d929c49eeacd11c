//! `lua/presence/release.lua`: connections that go.

use serde_json::json;

use super::{LONG_MS, expire, next_transition, presence, register, release};
use crate::harness::{ADA, BOB};
use crate::scripts::{Server, key};

/// Goal: only the last connection to go starts the grace, which ends when it should on Redis's clock;
/// nothing is announced, and what the nodes owe is settled.
/// Method: three connections on two nodes; the time enclosed between readings of the clock.
#[tokio::test]
async fn the_last_release_starts_the_grace() {
    let server = Server::start().await;
    for (node, connection) in [("a.1", 1), ("a.1", 2), ("b.1", 1)] {
        register(&server, ADA, node, connection).await;
    }
    let mut presence = presence(&server).await;
    assert_eq!(release(&server, ADA, "a.1", 1, LONG_MS).await, (2, None));
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "b.1"]);
    assert_eq!(release(&server, ADA, "a.1", 2, LONG_MS).await, (1, None));
    assert_eq!(server.set(&key("nodes")).await, ["b.1"]);
    assert!(server.scores(&key("leaving")).await.is_empty());

    let before = server.now_ms().await;
    let (refcount, due) = release(&server, ADA, "b.1", 1, LONG_MS).await;
    let after = server.now_ms().await;
    let due = due.expect("the grace runs");
    assert_eq!(refcount, 0);
    assert!(
        (before + LONG_MS..=after + LONG_MS).contains(&due),
        "{before} {due} {after}"
    );
    assert_eq!(
        server.scores(&key("leaving")).await,
        [("42".to_owned(), due)]
    );
    assert_eq!(server.set(&key("online")).await, ["42"]);
    assert_eq!(
        server.redis.keys("vigie:{0}:node*").await,
        Vec::<String>::new()
    );
    assert_eq!(
        server.redis.keys("vigie:{0}:conns:*").await,
        Vec::<String>::new()
    );
    presence.hears_nothing().await;
}

/// Goal: a grace that runs is not started over, neither by a release that is repeated nor by one of
/// a connection that never was. Method: the same due time with longer and shorter graces.
#[tokio::test]
async fn releasing_again_changes_nothing() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let (_, due) = release(&server, ADA, "a.1", 1, LONG_MS).await;
    let before = server.contents().await;
    assert_eq!(release(&server, ADA, "a.1", 1, 2 * LONG_MS).await, (0, due));
    assert_eq!(release(&server, ADA, "a.1", 1, 0).await, (0, due));
    assert_eq!(release(&server, ADA, "z.9", 9, 0).await, (0, due));
    assert_eq!(server.contents().await, before);
}

/// Goal: a release concerns one connection of one node only. Method: the same number on another node,
/// another number, another user; each leaves all as it was.
#[tokio::test]
async fn releasing_what_is_not_there_changes_nothing() {
    let server = Server::start().await;
    assert_eq!(release(&server, ADA, "a.1", 1, 0).await, (0, None));
    assert!(
        server.contents().await.is_empty(),
        "{:?}",
        server.contents().await
    );

    register(&server, ADA, "a.1", 1).await;
    let before = server.contents().await;
    assert_eq!(release(&server, ADA, "b.1", 1, 0).await, (1, None));
    assert_eq!(release(&server, ADA, "a.1", 2, 0).await, (1, None));
    assert_eq!(release(&server, BOB, "b.1", 1, 0).await, (0, None));
    assert_eq!(server.contents().await, before);
}

/// Goal: a release that arrives before its registration does no harm: the registration counts.
/// Method: released, registered, released again.
#[tokio::test]
async fn a_release_before_the_registration_is_nothing() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    assert_eq!(release(&server, ADA, "a.1", 1, 0).await, (0, None));
    assert_eq!(register(&server, ADA, "a.1", 1).await, json!(["ok", 1, 1]));
    assert_eq!(expire(&server, 10, LONG_MS).await, (0, None));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (1, vec![ADA], vec![])
    );
    presence.hears_nothing().await;
    assert_eq!(release(&server, ADA, "a.1", 1, 0).await.0, 0);
}

/// Goal: who is back within the grace never left. Method: released, registered on another node, and
/// an expiry that looks far ahead; no transition, and the same number as before.
#[tokio::test]
async fn who_is_back_within_the_grace_never_left() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let mut presence = presence(&server).await;
    release(&server, ADA, "a.1", 1, LONG_MS).await;
    assert_eq!(register(&server, ADA, "b.1", 1).await, json!(["ok", 1, 1]));
    assert!(server.scores(&key("leaving")).await.is_empty());
    assert_eq!(expire(&server, 10, 2 * LONG_MS).await, (0, None));
    presence.hears_nothing().await;
    assert_eq!(server.set(&key("online")).await, ["42"]);
}

/// Goal: who is back after the grace has come anew, even when nobody has said yet that the user left:
/// then nothing is said at all. Method: a grace of 0, registered before and after the expiry.
#[tokio::test]
async fn who_is_back_before_the_offline_is_said_never_left() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let mut presence = presence(&server).await;
    release(&server, ADA, "a.1", 1, 0).await;
    assert_eq!(register(&server, ADA, "a.1", 2).await, json!(["ok", 1, 1]));
    assert_eq!(expire(&server, 10, 0).await, (0, None));
    presence.hears_nothing().await;

    release(&server, ADA, "a.1", 2, 0).await;
    assert_eq!(expire(&server, 10, 0).await, (1, None));
    assert_eq!(register(&server, ADA, "a.1", 3).await, json!(["ok", 1, 3]));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![], vec![ADA])
    );
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (3, vec![ADA], vec![])
    );
}
