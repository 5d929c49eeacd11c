//! `lua/matchmaking/confirm.lua`: a match was shown.

use serde_json::json;

use super::{
    acked, assert_sound, confirm, enqueue, key, match_of, matches, nodes, notify, playing, queue,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::Server;

/// Goal: a match is over when every node has shown it that was asked, and not before.
/// Method: three nodes to ask, one after the other; what is waited for after each.
#[tokio::test]
async fn a_match_is_over_after_the_last_node() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    let other = match_of(&server, 1000, [EVE, 5]).await;
    notify(&server, &id, &["42@a.1", "42@b.1", "7@b.1"]).await;
    assert_eq!(confirm(&server, &id, ADA, "b.1").await, "pending");
    let found = &matches(&server).await[&id];
    assert_eq!(nodes(found, "waiting"), ["42@a.1", "7@b.1"]);
    assert_eq!(nodes(found, "acked"), ["42@b.1"]);
    assert_eq!(acked(found), ["42"]);
    assert_eq!(confirm(&server, &id, BOB, "b.1").await, "pending");
    assert_sound(&server, "all but one").await;

    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "over");
    let left: Vec<String> = matches(&server).await.into_keys().collect();
    assert_eq!(left, std::slice::from_ref(&other));
    let claims = [(EVE, other.clone()), (5, other)];
    assert_eq!(playing(&server).await, claims.into());
    assert_eq!(server.scores(&key("pending")).await.len(), 1);
    assert_sound(&server, "over").await;
}

/// Goal: a node has shown it or not, however often it says so; of what is over, all is known.
/// Method: repeats before and after the end, and a match that never was; all that Redis holds.
#[tokio::test]
async fn a_repeat_changes_nothing() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "7@a.1"]).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    let before = matches(&server).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    assert_eq!(matches(&server).await, before);
    assert_eq!(confirm(&server, &id, BOB, "a.1").await, "over");
    let before = server.contents().await;
    assert_eq!(confirm(&server, &id, BOB, "a.1").await, "over");
    assert_eq!(confirm(&server, "x", ADA, "a.1").await, "over");
    assert_eq!(server.contents().await, before);
}

/// Goal: a node that nobody asked counts for its player, and ends nothing while others are waited for.
/// Method: both players confirm from such nodes, then from those that were asked.
#[tokio::test]
async fn a_node_that_was_not_asked_ends_nothing() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    assert_eq!(confirm(&server, &id, ADA, "c.1").await, "pending");
    assert_eq!(confirm(&server, &id, BOB, "a.1").await, "pending");
    let found = &matches(&server).await[&id];
    assert_eq!(acked(found), ["42", "7"]);
    assert_eq!(nodes(found, "waiting"), ["42@a.1", "7@b.1"]);
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    assert_eq!(confirm(&server, &id, BOB, "b.1").await, "over");
    assert_sound(&server, "over").await;
}

/// Goal: a match is not over while a player has it nowhere, though no node is waited for.
/// Method: only one player had connections when it was told.
#[tokio::test]
async fn both_players_are_needed() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1"]).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    assert_eq!(playing(&server).await.len(), 2);
    assert_eq!(confirm(&server, &id, BOB, "b.1").await, "over");
    assert!(matches(&server).await.is_empty());
}

/// Goal: the end of a match leaves a later one of the same player alone.
/// Method: a player has taken it, joins again and is in another match when the first ends.
#[tokio::test]
async fn a_later_match_goes_on() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    confirm(&server, &id, BOB, "b.1").await;
    let later = match_of(&server, 1000, [EVE, BOB]).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "over");
    let claims = [(EVE, later.clone()), (BOB, later)];
    assert_eq!(playing(&server).await, claims.into());
    assert_eq!(enqueue(&server, BOB, 1000).await, json!(["matched"]));
    assert!(queue(&server).await.is_empty());
    assert_sound(&server, "the first is over").await;
}
