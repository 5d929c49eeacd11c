//! `lua/matchmaking/cancel.lua`: who waits no more.

use serde_json::json;

use super::{
    RULES, Rules, assert_sound, cancel, due, enqueue, enqueue_all, key, match_of, matches, pair,
    playing, queue, requeue, tell, ticket, timeouts,
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
    assert_eq!(cancel(&server, ADA, 0).await, 1);
    assert_eq!(queue(&server).await, [BOB]);
    assert_eq!(ticket(&server, BOB).await, kept);
    assert_sound(&server, "one is gone").await;
    let before = server.contents().await;
    assert_eq!(cancel(&server, ADA, 0).await, 0);
    assert_eq!(cancel(&server, EVE, 0).await, 0);
    assert_eq!(server.contents().await, before);
    cancel(&server, BOB, 0).await;
    assert_eq!(server.redis.keys("*").await, [key("count")]);
}

/// Goal: whoever means a ticket of a certain version does not take away one that was asked for since.
/// Method: the version before the last, one that never was, then the right one; all that Redis holds in between.
#[tokio::test]
async fn another_version_is_not_meant() {
    let server = Server::start().await;
    enqueue(&server, ADA, 1000).await;
    let old = ticket(&server, ADA).await.expect("it waits").version;
    enqueue(&server, ADA, 1000).await;
    let version = ticket(&server, ADA).await.expect("it waits").version;
    let before = server.contents().await;
    for other in [old, version + 1] {
        assert_eq!(cancel(&server, ADA, other).await, 0);
    }
    assert_eq!(server.contents().await, before);
    assert_eq!(cancel(&server, ADA, version).await, 1);
    assert_sound(&server, "gone").await;
    assert!(queue(&server).await.is_empty());
}

/// Goal: a version means a ticket only, not the match that came of it, nor that it ran out.
/// Method: any version once the user is in a match, and once the ticket ran out.
#[tokio::test]
async fn a_version_means_no_match() {
    let server = Server::start().await;
    match_of(&server, 1000, [ADA, BOB]).await;
    enqueue(&server, EVE, 1000).await;
    pair(
        &server,
        Rules {
            max_wait_ms: 0,
            ..RULES
        },
    )
    .await;
    assert_eq!(timeouts(&server).await, [EVE].into());
    let before = server.contents().await;
    for user in [ADA, BOB, EVE] {
        for version in 1..5 {
            assert_eq!(cancel(&server, user, version).await, 0);
        }
    }
    assert_eq!(server.contents().await, before);
}

/// Goal: before anybody is told of a match a player can leave it; whoever tells matches learns of that at once.
/// Method: the match was just given out for a long time; the mark, the claims and what is due.
#[tokio::test]
async fn a_match_is_left_before_it_is_told() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    due(&server, 10, 600_000).await;
    assert_eq!(due(&server, 10, 0).await, json!([[], []]));
    assert_eq!(cancel(&server, ADA, 0).await, 1);
    assert_eq!(matches(&server).await[&id]["left"], true);
    assert_eq!(playing(&server).await, [(BOB, id.clone())].into());
    let answer = due(&server, 10, 600_000).await;
    assert_eq!(answer, json!([[id, "42", "7"], []]));
    assert_eq!(tell(&server, &id, &["7@b.1"]).await, json!(["left"]));
    assert_sound(&server, "left").await;
    let before = server.contents().await;
    assert_eq!(cancel(&server, ADA, 0).await, 0);
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
    tell(&server, &id, &["42@a.1", "7@b.1"]).await;
    let before = matches(&server).await;
    let pending = server.scores(&key("pending")).await;
    assert_eq!(cancel(&server, ADA, 0).await, 0);
    let mut left = before.clone();
    left.get_mut(&id).expect("it is there")["quit"] = json!({ "42": true });
    assert_eq!(matches(&server).await, left);
    assert_eq!(server.scores(&key("pending")).await, pending);
    let claims = [(ADA, id.clone()), (BOB, id.clone())];
    assert_eq!(playing(&server).await, claims.into());
    assert_sound(&server, "told").await;

    assert_eq!(
        enqueue(&server, ADA, 1000).await,
        json!(["already_queued", 0])
    );
    assert_eq!(matches(&server).await, before);
    assert_eq!(cancel(&server, ADA, 0).await, 0);
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
    pair(
        &server,
        Rules {
            max_wait_ms: 0,
            ..RULES
        },
    )
    .await;
    assert_eq!(cancel(&server, ADA, 0).await, 1);
    assert_eq!(timeouts(&server).await, [BOB].into());
    assert_eq!(cancel(&server, ADA, 0).await, 0);
    assert_eq!(due(&server, 10, 0).await, json!([[], ["7"]]));
}
