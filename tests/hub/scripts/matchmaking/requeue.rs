//! `lua/matchmaking/requeue.lua`: a match does not take place.

use serde_json::json;

use super::{
    RULES, Ticket, assert_sound, cancel, confirm, enqueue, enqueue_all, key, match_of, matches,
    notify, pair, pairs, playing, queue, requeue, restore, ticket,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::Server;

/// Goal: who is still there waits before everybody, with the rating and the time of the first ticket and a new version.
/// Method: others wait; one of two players is there, who joined in the past; a repeat.
#[tokio::test]
async fn who_is_there_goes_to_the_front() {
    let server = Server::start().await;
    let since_ms = server.now_ms().await - 5000;
    restore(&server, ADA, -20, since_ms).await;
    enqueue(&server, BOB, -20).await;
    pair(&server, RULES).await;
    let id = playing(&server).await[&ADA].clone();
    enqueue(&server, 11, 500).await;
    enqueue(&server, 12, 700).await;

    assert_eq!(requeue(&server, &id, &[ADA]).await, 1);
    assert_eq!(queue(&server).await, [ADA, 11, 12]);
    let first = ticket(&server, 11).await.expect("it waits");
    let expected = Ticket {
        place: first.place - 1,
        rating: -20,
        joined_ms: since_ms,
        version: 6,
    };
    assert_eq!(ticket(&server, ADA).await, Some(expected));
    assert!(matches(&server).await.is_empty());
    assert!(playing(&server).await.is_empty());
    assert_sound(&server, "sent back").await;
    let before = server.contents().await;
    assert_eq!(requeue(&server, &id, &[ADA, BOB]).await, 0);
    assert_eq!(requeue(&server, "x", &[ADA, BOB]).await, 0);
    assert_eq!(server.contents().await, before);
}

/// Goal: both go to the front, often enough that places are below nought, and into an empty queue, too.
/// Method: a match is made and given up many times, with somebody behind and without.
#[tokio::test]
async fn both_go_to_the_front_again_and_again() {
    for others in [&[][..], &[EVE]] {
        let server = Server::start().await;
        for user in others {
            enqueue(&server, *user, 9000).await;
        }
        enqueue_all(&server, 1000, &[ADA, BOB]).await;
        for round in 0..20 {
            // The fresh ones, if any, and then those who came back.
            for _ in 0..2 {
                pair(&server, RULES).await;
            }
            let id = playing(&server).await[&ADA].clone();
            assert_eq!(requeue(&server, &id, &[BOB, ADA]).await, 2);
            let queue = queue(&server).await;
            assert_eq!(queue.len(), 2 + others.len());
            assert_eq!(queue[2..], *others, "round {round}");
            assert_sound(&server, "sent back").await;
        }
        assert!(others.is_empty() || ticket(&server, ADA).await.expect("it waits").place < 0);
    }
}

/// Goal: who comes back is the first to be looked at, and at once, though everybody rests.
/// Method: two rest with nobody found; the one who comes back is an equal of both and older than both by now.
#[tokio::test]
async fn who_comes_back_does_not_rest() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    enqueue(&server, 11, 1000).await;
    enqueue(&server, 12, 5000).await;
    for _ in 0..2 {
        pair(&server, RULES).await;
    }
    assert_eq!(pair(&server, RULES).await[3], json!([]));
    assert_eq!(requeue(&server, &id, &[BOB]).await, 1);
    assert_eq!(server.hash(&key("scan")).await["next"], "0");
    assert_eq!(pair(&server, RULES).await[0], 1);
    assert_eq!(pairs(&server).await, [(BOB, 11)].into());
    assert_eq!(queue(&server).await, [12]);
    assert_sound(&server, "paired again").await;
}

/// Goal: nobody is sent back who has left the match, before or after it was told.
/// Method: both are said to be there.
#[tokio::test]
async fn who_left_is_not_sent_back() {
    for is_told in [false, true] {
        let server = Server::start().await;
        let id = match_of(&server, 1000, [ADA, BOB]).await;
        if is_told {
            notify(&server, &id, &["42@a.1", "7@b.1"]).await;
        }
        cancel(&server, ADA).await;
        assert_eq!(requeue(&server, &id, &[ADA, BOB]).await, 1);
        assert_eq!(queue(&server).await, [BOB]);
        assert!(playing(&server).await.is_empty());
        assert_sound(&server, "sent back").await;
    }
}

/// Goal: who queued again meanwhile keeps that ticket, and who is in a later match stays there.
/// Method: a player has taken the match and joined again, in the queue and then in another match.
#[tokio::test]
async fn who_queued_again_is_not_sent_back() {
    for is_in_a_match in [false, true] {
        let server = Server::start().await;
        let id = match_of(&server, 1000, [ADA, BOB]).await;
        notify(&server, &id, &["42@a.1", "7@b.1"]).await;
        confirm(&server, &id, BOB, "b.1").await;
        enqueue(&server, BOB, 2000).await;
        if is_in_a_match {
            enqueue(&server, EVE, 2000).await;
            assert_eq!(pair(&server, RULES).await[0], 1);
        }
        let (own, playing_before) = (ticket(&server, BOB).await, playing(&server).await);
        assert_eq!(requeue(&server, &id, &[BOB]).await, 0);
        assert_eq!(ticket(&server, BOB).await, own);
        assert_eq!(playing(&server).await.get(&BOB), playing_before.get(&BOB));
        assert_eq!(queue(&server).await.is_empty(), is_in_a_match);
        assert_sound(&server, "given up").await;
    }
}

/// Goal: a match that takes place nowhere can leave nobody behind. Method: nobody is there.
#[tokio::test]
async fn nobody_may_be_there() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    assert_eq!(requeue(&server, &id, &[]).await, 0);
    assert!(queue(&server).await.is_empty());
    assert_sound(&server, "over").await;
    assert_eq!(enqueue(&server, ADA, 1000).await[0], "queued");
}

/// Goal: a match of which both were told takes place, whoever else it waits for: nobody is sent back.
/// Method: a node of a player is gone without confirming; then the opponent is.
#[tokio::test]
async fn a_match_that_both_were_told_of_takes_place() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "42@gone.1", "7@b.1"]).await;
    assert_eq!(confirm(&server, &id, ADA, "a.1").await, "pending");
    assert_eq!(confirm(&server, &id, BOB, "b.1").await, "pending");
    assert_eq!(requeue(&server, &id, &[ADA]).await, 0);
    assert!(queue(&server).await.is_empty() && playing(&server).await.is_empty());
    assert!(matches(&server).await.is_empty());
    assert_sound(&server, "over").await;
}
