//! `lua/matchmaking/notify.lua`: players are being notified.

use serde_json::json;

use super::{
    Match, acked, assert_sound, cancel, confirm, enqueue, match_of, matches, nodes, notify,
    players, playing,
};
use crate::harness::{ADA, BOB};
use crate::scripts::{Server, key as presence_key};

fn waiting(found: &Match) -> Vec<&str> {
    nodes(found, "waiting")
}

/// Goal: the players with connections are to be told, each once, and it is recorded on which nodes.
/// Method: one player on two nodes; the record whole, also after a repeat.
#[tokio::test]
async fn a_match_is_told_on_every_node() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    let asked = ["42@a.1", "42@b.1", "7@b.1"];
    for _ in 0..2 {
        let answer = notify(&server, &id, &asked).await;
        assert_eq!(answer, json!(["notify", "42", "7"]));
        let found = &matches(&server).await[&id];
        assert_eq!(waiting(found), asked);
        assert_eq!(players(found), [ADA, BOB]);
        assert_eq!(found["state"], "notified");
        assert!(acked(found).is_empty());
    }
    assert_eq!(playing(&server).await.len(), 2);
    assert_sound(&server, "told").await;
    // Where the topics are is nothing that this script knows.
    assert!(server.redis.keys(&presence_key("*")).await.is_empty());
}

/// Goal: who has taken the match everywhere is not told again, who has on one of two nodes is.
/// Method: confirmations between calls; nodes that come and go.
#[tokio::test]
async fn who_took_it_is_not_told_again() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    let asked = ["42@a.1", "42@b.1", "7@b.1"];
    notify(&server, &id, &asked).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    let answer = notify(&server, &id, &asked).await;
    assert_eq!(answer, json!(["notify", "42", "7"]));
    let found = &matches(&server).await[&id];
    assert_eq!(waiting(found), ["42@b.1", "7@b.1"]);

    assert_eq!(confirm(&server, &id, ADA, "b.1").await, "pending");
    assert_eq!(notify(&server, &id, &asked).await, json!(["notify", "7"]));
    let found = &matches(&server).await[&id];
    assert_eq!(waiting(found), ["7@b.1"]);
    // A connection on another node has not seen it.
    let answer = notify(&server, &id, &["42@c.1", "42@a.1", "7@b.1"]).await;
    assert_eq!(answer, json!(["notify", "42", "7"]));
}

/// Goal: also who has taken the match on a node that was not asked, because the connection came while others were told,
/// is not told again there.
/// Method: a confirmation from a third node, repeated; then that node is named.
#[tokio::test]
async fn a_node_that_was_not_asked_is_not_asked_later() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    for node in ["c.1", "a.1", "c.1"] {
        assert_eq!(confirm(&server, &id, ADA, node).await, "pending");
    }
    let found = &matches(&server).await[&id];
    assert_eq!(nodes(found, "acked"), ["42@a.1", "42@c.1"]);
    let asked = ["42@a.1", "42@c.1", "7@b.1"];
    assert_eq!(notify(&server, &id, &asked).await, json!(["notify", "7"]));
}

/// Goal: a match that a player has left is told to nobody. Method: nothing changes, however often it is asked.
#[tokio::test]
async fn a_match_that_was_left_is_not_told() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    cancel(&server, BOB).await;
    let before = server.contents().await;
    for _ in 0..2 {
        let answer = notify(&server, &id, &["42@a.1", "7@b.1"]).await;
        assert_eq!(answer, json!(["cancelled"]));
    }
    assert_eq!(server.contents().await, before);
}

/// Goal: there is nothing to tell of a match that is over, or never was. Method: an unknown id.
#[tokio::test]
async fn an_unknown_match_is_over() {
    let server = Server::start().await;
    match_of(&server, 1000, [ADA, BOB]).await;
    let before = server.contents().await;
    assert_eq!(notify(&server, "x", &["42@a.1"]).await, json!(["over"]));
    assert_eq!(server.contents().await, before);
}

/// Goal: a match which both have taken is over when the node that had not is gone; who waits again meanwhile, goes on
/// waiting.
/// Method: a player on two nodes, one of which never confirms; the other player has joined again.
#[tokio::test]
async fn a_match_ends_when_the_last_node_is_gone() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "42@b.1", "7@b.1"]).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    // Nobody is left to ask, but one of them has not taken it.
    assert_eq!(notify(&server, &id, &["42@a.1"]).await, json!(["notify"]));
    assert_eq!(matches(&server).await.len(), 1);
    notify(&server, &id, &["42@a.1", "42@b.1", "7@b.1"]).await;
    assert_eq!(confirm(&server, &id, BOB, "b.1").await, "pending");
    assert_eq!(enqueue(&server, BOB, 1000).await[0], "queued");

    let answer = notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    assert_eq!(answer, json!(["over"]));
    assert!(matches(&server).await.is_empty());
    assert!(playing(&server).await.is_empty());
    assert_sound(&server, "over").await;
}
