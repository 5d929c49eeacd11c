//! `lua/matchmaking/cancel.lua`: who waits no more.

use serde_json::json;

use super::{
    assert_sound, cancel, due, enqueue, enqueue_all, expire, key, match_of, matches, notify,
    playing, queue, requeue, ticket, timeouts,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::Server;

/// Goal: a ticket is taken out of all keys; a repeat finds none, and nobody else is concerned.
/// Method: two of one rating; all that Redis holds before and after the repeat.
#[tokio::test]
async fn a_ticket_leaves_nothing_behind() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    let kept = ticket(&server, BOB).await;
    assert_eq!(cancel(&server, ADA).await, "cancelled");
    assert_eq!(queue(&server).await, [BOB]);
    assert_eq!(ticket(&server, BOB).await, kept);
    assert_sound(&server, "one is gone").await;
    let before = server.contents().await;
    assert_eq!(cancel(&server, ADA).await, "nothing");
    assert_eq!(cancel(&server, EVE).await, "nothing");
    assert_eq!(server.contents().await, before);
    cancel(&server, BOB).await;
    assert_eq!(server.redis.keys("*").await, [key("count")]);
}

/// Goal: before anybody is told of a match a player can leave it; whoever tells matches learns of that at once.
/// Method: the match was just given out for a long time; the mark, the claims and what is due.
#[tokio::test]
async fn a_match_is_left_before_it_is_told() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    due(&server, 10, 600_000).await;
    assert_eq!(due(&server, 10, 0).await, json!([[], []]));
    assert_eq!(cancel(&server, ADA).await, "cancelled");
    assert_eq!(matches(&server).await[&id]["state"], "cancelled");
    assert_eq!(playing(&server).await, [(BOB, id.clone())].into());
    let answer = due(&server, 10, 600_000).await;
    assert_eq!(answer, json!([[id, "42", "7"], []]));
    assert_eq!(notify(&server, &id, &["7@b.1"]).await, json!(["cancelled"]));
    assert_sound(&server, "left").await;
    let before = server.contents().await;
    assert_eq!(cancel(&server, ADA).await, "nothing");
    assert_eq!(server.contents().await, before);
}

/// Goal: once players are being told it is too late to leave: the match stays as it is, only it sends the one who left
/// back to no queue; who changes their mind is about to be told of it.
/// Method: the record before and after, and the claims; joining again, leaving again, and the end of the match.
#[tokio::test]
async fn a_match_that_is_told_is_not_left() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    due(&server, 10, 600_000).await;
    notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    let before = matches(&server).await;
    let pending = server.scores(&key("pending")).await;
    assert_eq!(cancel(&server, ADA).await, "nothing");
    let mut left = before.clone();
    let found = left.get_mut(&id).expect("it is there");
    found.insert("withdrawn:42".to_owned(), "yes".to_owned());
    assert_eq!(matches(&server).await, left);
    assert_eq!(server.scores(&key("pending")).await, pending);
    let claims = [(ADA, id.clone()), (BOB, id.clone())];
    assert_eq!(playing(&server).await, claims.into());
    assert_sound(&server, "told").await;

    assert_eq!(enqueue(&server, ADA, 1000).await, json!(["matched"]));
    assert_eq!(matches(&server).await, before);
    assert_eq!(cancel(&server, ADA).await, "nothing");
    assert_eq!(requeue(&server, &id, &[ADA, BOB]).await, 1);
    assert_eq!(queue(&server).await, [BOB]);
    assert_sound(&server, "called off").await;
}

/// Goal: who leaves is not told that a ticket ran out; another user is.
/// Method: two tickets ran out, one user leaves, twice.
#[tokio::test]
async fn who_leaves_is_told_of_no_timeout() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    expire(&server, &[ADA, BOB]).await;
    assert_eq!(cancel(&server, ADA).await, "cancelled");
    assert_eq!(timeouts(&server).await, [BOB].into());
    assert_eq!(cancel(&server, ADA).await, "nothing");
    assert_eq!(due(&server, 10, 0).await, json!([[], ["7"]]));
}

/// Goal: a match that both players leave sends nobody back to the queue.
/// Method: one after the other, before anybody is notified; both are said to be online.
#[tokio::test]
async fn both_may_leave_a_match() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    for user in [ADA, BOB] {
        assert_eq!(cancel(&server, user).await, "cancelled");
    }
    assert_eq!(requeue(&server, &id, &[ADA, BOB]).await, 0);
    assert!(queue(&server).await.is_empty());
    assert_sound(&server, "called off").await;
}
