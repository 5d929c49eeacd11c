//! `lua/matchmaking/due.lua`: who is to be told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{LONG_MS, assert_sound, due, enqueue_all, expire, key, match_of, matches, timeouts};
use crate::harness::{ADA, BOB};
use crate::scripts::Server;

/// Goal: a match is given out once until the time is over for which it is kept, then again.
/// Method: a long time and none; when it is due next is read off Redis's clock.
#[tokio::test]
async fn a_match_is_kept_from_others() {
    let server = Server::start().await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    let given = json!([[id, "42", "7"], []]);
    assert_eq!(due(&server, 10, 0).await, given);
    let before = server.now_ms().await;
    assert_eq!(due(&server, 10, LONG_MS).await, given);
    let after = server.now_ms().await;
    let pending = server.scores(&key("pending")).await;
    let (again, at) = &pending[0];
    assert_eq!((pending.len(), again), (1, &id));
    let expected = before + LONG_MS..=after + LONG_MS;
    assert!(expected.contains(at), "{before} {at} {after}");
    let contents = server.contents().await;
    assert_eq!(due(&server, 10, LONG_MS).await, json!([[], []]));
    assert_eq!(server.contents().await, contents);

    let now = server.now_ms().await.to_string();
    server.command(&["ZADD", &key("pending"), &now, &id]).await;
    assert_eq!(due(&server, 10, LONG_MS).await, given);
}

/// Goal: a user whose ticket ran out is given out once until the time is over, like a match.
/// Method: two users, none kept and then long.
#[tokio::test]
async fn a_timeout_is_kept_from_others() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    expire(&server, &[ADA, BOB]).await;
    for keep_ms in [0, LONG_MS] {
        let answer = due(&server, 10, keep_ms).await;
        assert_eq!(answer[0], json!([]));
        let users: BTreeSet<&str> = answer[1]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(users, ["42", "7"].into());
    }
    assert_eq!(due(&server, 10, 0).await, json!([[], []]));
    assert_eq!(timeouts(&server).await, [ADA, BOB].into());
}

/// Goal: no call gives out more than a batch of each, and the next one goes on.
/// Method: five matches and five timeouts, two at a time.
#[tokio::test]
async fn a_batch_is_given_out_at_a_time() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[11, 12, 13, 14, 15]).await;
    expire(&server, &[11, 12, 13, 14, 15]).await;
    for pair in 0..5 {
        match_of(&server, 0, [20 + pair, 30 + pair]).await;
    }
    let (mut given, mut ran_out) = (BTreeSet::new(), BTreeSet::new());
    for expected in [2, 2, 1, 0] {
        let answer = due(&server, 2, LONG_MS).await;
        let words = answer[0].as_array().expect("a list");
        assert_eq!(words.len(), 3 * expected, "{answer}");
        given.extend(words.chunks_exact(3).map(|words| words[0].to_string()));
        let users = answer[1].as_array().expect("a list");
        assert_eq!(users.len(), expected, "{answer}");
        ran_out.extend(users.iter().map(Value::to_string));
    }
    assert_eq!((given.len(), ran_out.len()), (5, 5));
    assert_sound(&server, "given out").await;
}

/// Goal: what is due without a record, as a loss may leave it, is dropped and holds up nobody.
/// Method: one such id before a match.
#[tokio::test]
async fn a_match_without_a_record_is_dropped() {
    let server = Server::start().await;
    server.command(&["ZADD", &key("pending"), "-5", "x"]).await;
    let id = match_of(&server, 1000, [ADA, BOB]).await;
    let answer = due(&server, 10, 0).await;
    assert_eq!(answer, json!([[id, "42", "7"], []]));
    assert_eq!(matches(&server).await.len(), 1);
    assert_sound(&server, "dropped").await;
}
