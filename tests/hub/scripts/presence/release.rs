//! `lua/presence/release.lua`: connections that go.

use serde_json::json;

use super::{
    LONG_MS, expire, next_transition, position, presence, register, register_many, release,
    release_many,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::{LARGEST, Server, key};

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

/// Goal: one call releases connections of several users; those who have none left get the same grace, and are counted
/// once. Repeated it changes nothing and answers the same.
/// Method: of one user both connections, of one both on this node but not that on another, of one one of two, of one the
/// only one; every key; then twice again with other graces.
#[tokio::test]
async fn a_call_releases_connections_of_several_users() {
    let server = Server::start().await;
    let connections = [(ADA, 1), (BOB, 2), (EVE, 3), (5, 4), (ADA, 5), (BOB, 6)];
    register_many(&server, "a.1", &connections).await;
    register(&server, BOB, "b.1", 2).await;
    register(&server, EVE, "a.1", 7).await;
    let mut presence = presence(&server).await;
    let before = server.now_ms().await;
    assert_eq!(release_many(&server, "a.1", &connections, LONG_MS).await, 2);
    let after = server.now_ms().await;

    let leaving = server.scores(&key("leaving")).await;
    let users: Vec<&str> = leaving.iter().map(|(user, _)| user.as_str()).collect();
    assert_eq!(users, ["42", "5"]);
    let (due, others) = (leaving[0].1, leaving[1].1);
    assert_eq!(due, others);
    assert!(
        (before + LONG_MS..=after + LONG_MS).contains(&due),
        "{before} {due} {after}"
    );
    let left = server.redis.keys("vigie:{0}:conns:*").await;
    assert_eq!(left, [key("conns:1815"), key("conns:7")]);
    for (user, connection) in [(BOB, "b.1/2"), (EVE, "a.1/7")] {
        let fields = server.hash(&key(format_args!("conns:{user}"))).await;
        assert_eq!(fields.keys().collect::<Vec<_>>(), [connection]);
    }
    assert_eq!(server.set(&key("node:a.1")).await, ["1815/7"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "b.1"]);
    assert_eq!(server.set(&key("online")).await, ["1815", "42", "5", "7"]);
    presence.hears_nothing().await;

    let before = server.contents().await;
    for grace_ms in [0, 2 * LONG_MS] {
        let departing = release_many(&server, "a.1", &connections, grace_ms).await;
        assert_eq!(departing, 2);
        assert_eq!(server.contents().await, before);
    }
    assert_eq!(expire(&server, 10, LONG_MS).await, (2, false));
    let (_, _, mut went) = next_transition(&server, &mut presence).await;
    went.sort_unstable();
    assert_eq!(went, [5, ADA]);
    // Nobody of them is about to go offline any more.
    let departing = release_many(&server, "a.1", &connections, 0).await;
    assert_eq!(departing, 0);
}

/// Goal: in one call, what is registered is released whatever else is named, and only users whose grace runs count.
/// Method: a last connection before and after unknown ones: of the same user, of a user who has others, of a user whose
/// grace runs already, of one who was never there, and the same number on another node.
#[tokio::test]
async fn a_call_releases_what_is_there_among_what_is_not() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    register(&server, BOB, "a.1", 2).await;
    register(&server, EVE, "b.1", 3).await;
    register(&server, 5, "a.1", 4).await;
    let due = release(&server, 5, "a.1", 4, LONG_MS).await.1;
    let known = [(ADA, 1), (ADA, 9)];
    let unknown = [(BOB, 9), (EVE, 3), (5, 4), (5, 9), (6, 9)];
    let connections = [&known[1..], &unknown[..], &known[..]].concat();
    assert_eq!(
        release_many(&server, "a.1", &connections, 2 * LONG_MS).await,
        2
    );
    let leaving = server.scores(&key("leaving")).await;
    let users: Vec<&str> = leaving.iter().map(|(user, _)| user.as_str()).collect();
    assert_eq!(users, ["5", "42"]);
    assert_eq!(Some(leaving[0].1), due);
    let left = server.redis.keys("vigie:{0}:conns:*").await;
    assert_eq!(left, [key("conns:1815"), key("conns:7")]);
    assert_eq!(server.set(&key("node:a.1")).await, ["7/2"]);
    assert_eq!(server.set(&key("node:b.1")).await, ["1815/3"]);
    assert_eq!(server.set(&key("nodes")).await, ["a.1", "b.1"]);

    let before = server.contents().await;
    assert_eq!(release_many(&server, "a.1", &unknown[..2], 0).await, 0);
    assert_eq!(release_many(&server, "z.9", &unknown[4..], 0).await, 0);
    assert_eq!(server.contents().await, before);
}

/// Goal: as many connections as a node releases at once are released, the largest ids, too, and then the node owes
/// nothing. Method: 99 users beside the largest; expired together.
#[tokio::test]
async fn a_hundred_connections_are_released_at_once() {
    let server = Server::start().await;
    let users = (1..100).chain([LARGEST]);
    let connections: Vec<(u64, u64)> = users.map(|user| (user, user)).collect();
    register_many(&server, "a.1", &connections).await;
    assert_eq!(release_many(&server, "a.1", &connections, 0).await, 100);
    let left = server.redis.keys("vigie:{0}:[cn]o*").await;
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(expire(&server, 100, 0).await, (100, true));
    assert_eq!(expire(&server, 100, 0).await, (0, false));
    assert!(server.set(&key("online")).await.is_empty());
    assert_eq!(position(&server).await.1, 2);
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
    assert_eq!(expire(&server, 10, LONG_MS).await, (0, false));
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
    assert_eq!(expire(&server, 10, 2 * LONG_MS).await, (0, false));
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
    assert_eq!(expire(&server, 10, 0).await, (0, false));
    presence.hears_nothing().await;

    release(&server, ADA, "a.1", 2, 0).await;
    assert_eq!(expire(&server, 10, 0).await, (1, false));
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
