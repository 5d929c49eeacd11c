//! `lua/matchmaking/enqueue.lua`: who begins to wait.

use serde_json::json;

use super::{
    Ticket, assert_sound, confirm, enqueue, enqueue_all, expire, key, match_of, matches, notify,
    playing, queue, restore, ticket, timeouts,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::{Server, number};

/// Goal: who is not in the queue gets the last place, with the rating and the time on Redis's clock.
/// Method: the answer, the ticket, and nothing else in any key.
#[tokio::test]
async fn a_user_is_queued_last() {
    let server = Server::start().await;
    let before = server.now_ms().await;
    let answer = enqueue(&server, ADA, -17).await;
    let after = server.now_ms().await;
    assert_eq!(answer[0], "queued");
    let joined_ms = number(&answer[1]);
    assert!((before..=after).contains(&joined_ms), "{before} {answer}");
    let expected = Ticket {
        place: 1,
        rating: -17,
        joined_ms,
        version: 1,
    };
    assert_eq!(ticket(&server, ADA).await, Some(expected));
    let mut keys = server.redis.keys("*").await;
    keys.sort();
    let names = ["count", "queue", "ratings", "ticket:42"];
    assert_eq!(keys, names.map(key));

    enqueue(&server, BOB, 5).await;
    enqueue(&server, EVE, -30).await;
    assert_eq!(queue(&server).await, [ADA, BOB, EVE]);
    assert_sound(&server, "three wait").await;
}

/// Goal: joining again, also after a loss of data, keeps place, rating and time; only the version says that it is wanted
/// still.
/// Method: other ratings and an older time, somebody behind.
#[tokio::test]
async fn joining_again_keeps_the_place() {
    let server = Server::start().await;
    let joined = enqueue(&server, ADA, 1000).await;
    enqueue(&server, BOB, 5).await;
    let first = ticket(&server, ADA).await.expect("it waits");
    for version in [3, 4] {
        let again = match version {
            3 => enqueue(&server, ADA, 2000).await,
            _ => restore(&server, ADA, 2000, 1_700_000_000_000).await,
        };
        assert_eq!(again, json!(["already_queued", joined[1]]));
        assert_eq!(
            ticket(&server, ADA).await,
            Some(Ticket { version, ..first })
        );
        assert_eq!(queue(&server).await, [ADA, BOB]);
        assert_sound(&server, "asked again").await;
    }
}

/// Goal: who was found a match is about to be told and does not begin to wait again, not even when others have taken it.
/// Method: asked before and after it is told, and after the other player has it; nothing changes.
#[tokio::test]
async fn who_is_about_to_be_told_does_not_wait() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    let about_to = json!(["matched"]);
    let before = server.contents().await;
    assert_eq!(enqueue(&server, ADA, 1000).await, about_to);
    assert_eq!(enqueue(&server, BOB, 1000).await, about_to);
    assert_eq!(restore(&server, BOB, 1000, 1).await, about_to);
    assert_eq!(server.contents().await, before);

    notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    confirm(&server, &id, BOB, "b.1").await;
    let before = server.contents().await;
    assert_eq!(enqueue(&server, ADA, 1000).await, about_to);
    assert_eq!(server.contents().await, before);
}

/// Goal: who has taken a match can have another one while the first is still shown to the other player; a node that
/// only asks again after a loss does not mean that.
/// Method: one of two players takes it; both ways of asking; the first match stays for the other player.
#[tokio::test]
async fn who_has_taken_a_match_can_wait_again() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    notify(&server, &id, &["42@a.1", "7@b.1"]).await;
    assert_eq!(confirm(&server, &id, BOB, "b.1").await, "pending");
    let before = server.contents().await;
    let answer = restore(&server, BOB, 1000, 1_700_000_000_000).await;
    assert_eq!(answer, json!(["matched"]));
    assert_eq!(server.contents().await, before);

    assert_eq!(enqueue(&server, BOB, 1000).await[0], "queued");
    assert_eq!(queue(&server).await, [BOB]);
    assert_eq!(playing(&server).await, [(ADA, id.clone())].into());
    assert!(matches(&server).await.contains_key(&id));
    assert_sound(&server, "one of them waits again").await;
}

/// Goal: an entry that points to a match which is gone, as a loss may leave it, keeps nobody from waiting.
/// Method: the entry without a record.
#[tokio::test]
async fn a_claim_of_no_match_is_none() {
    let server = Server::start().await;
    server.command(&["HSET", &key("playing"), "42", "x"]).await;
    assert_eq!(restore(&server, ADA, 1000, 5).await[0], "queued");
    assert_sound(&server, "queued").await;
}

/// Goal: who waits again is not told any more that the ticket before ran out.
/// Method: two tickets run out, one of the users is back.
#[tokio::test]
async fn who_is_back_has_not_run_out() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    expire(&server, &[ADA, BOB]).await;
    assert_eq!(timeouts(&server).await, [ADA, BOB].into());
    assert_eq!(enqueue(&server, ADA, 1000).await[0], "queued");
    assert_eq!(timeouts(&server).await, [BOB].into());
    assert_sound(&server, "one is back").await;
}
