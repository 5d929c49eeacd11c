//! `lua/matchmaking/status.lua`: how the queue is.

use serde_json::json;

use super::{confirm, enqueue, key, match_of, notify, restore, status};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::{Server, number};

/// Goal: the status of nothing is zeros. Method: an empty Redis, which stays empty.
#[tokio::test]
async fn an_empty_queue_has_a_status() {
    let server = Server::start().await;
    assert_eq!(status(&server).await, json!([0, 0, 0, 0]));
    assert!(server.redis.keys("*").await.is_empty());
}

/// Goal: it tells how many wait, how long the first one has, which matches are not over, and how many were made.
/// Method: three wait, the first for five seconds; of two matches one is over; nothing changes.
#[tokio::test]
async fn the_status_counts() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [11, 12]).await;
    match_of(&server, 1000, [13, 14]).await;
    notify(&server, &id, &["11@a.1", "12@a.1"]).await;
    confirm(&server, &id, 11, "a.1").await;
    confirm(&server, &id, 12, "a.1").await;
    let joined_ms = server.now_ms().await - 5000;
    restore(&server, ADA, 1, joined_ms).await;
    restore(&server, BOB, 500, joined_ms - 5000).await;
    enqueue(&server, EVE, 1000).await;

    let contents = server.contents().await;
    let answer = status(&server).await;
    let longest_ms = server.now_ms().await - joined_ms;
    let waited_ms = number(&answer[1]);
    assert!((5000..=longest_ms).contains(&waited_ms), "{answer}");
    assert_eq!(answer, json!([3, waited_ms, 1, 2]));
    assert_eq!(server.contents().await, contents);
}

/// Goal: only the last minute counts for the matches made, and who joins in the future has not waited yet.
/// Method: an entry of a minute ago, one of the second after it, and one of another day.
#[tokio::test]
async fn a_minute_is_counted() {
    let server = Server::start().await;
    let now = server.now_ms().await / 1000;
    for (second, many) in [(now - 60, "5"), (now - 30, "7"), (now - 86_400, "9")] {
        let field = second.to_string();
        server.command(&["HSET", &key("made"), &field, many]).await;
    }
    restore(&server, ADA, 1, 1000 * now + 60_000).await;
    assert_eq!(status(&server).await, json!([1, 0, 0, 7]));
}
