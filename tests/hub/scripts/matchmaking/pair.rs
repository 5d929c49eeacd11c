//! `lua/matchmaking/pair.lua`: who plays whom.

use serde_json::{Value, json};

use super::{
    LONG_MS, RULES, Rules, assert_sound, cancel, enqueue, enqueue_all, key, matches, pair, pairs,
    playing, queue, restore, scan, ticket,
};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::{Server, number};

/// Queues users with these ratings, one after the other, and looks at all of them once.
async fn paired(users: &[(u64, i64)], window: u64) -> Vec<(u64, u64)> {
    let server = Server::start().await;
    for (user, rating) in users {
        assert_eq!(enqueue(&server, *user, *rating).await[0], "queued");
    }
    pair(&server, Rules { window, ..RULES }).await;
    assert_sound(&server, "paired").await;
    pairs(&server).await.into_iter().collect()
}

/// Goal: two equals are in a match, out of the queue, and due to be told.
/// Method: the answer, the record and each key whole.
#[tokio::test]
async fn two_equals_are_paired() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    let of_ada = ticket(&server, ADA).await.expect("it waits");
    let of_bob = ticket(&server, BOB).await.expect("it waits");
    assert_eq!(pair(&server, RULES).await, json!([1, 0, "more", []]));
    let found = matches(&server).await;
    let (id, found) = found.first_key_value().expect("a match");
    let expected = [
        ("state", "made".to_owned()),
        ("player1", "42".to_owned()),
        ("rating1", "1000".to_owned()),
        ("joined1", of_ada.joined_ms.to_string()),
        ("player2", "7".to_owned()),
        ("rating2", "1000".to_owned()),
        ("joined2", of_bob.joined_ms.to_string()),
    ];
    let expected = expected.map(|(field, value)| (field.to_owned(), value));
    assert_eq!(*found, expected.into());
    let claims = [(ADA, id.clone()), (BOB, id.clone())];
    assert_eq!(playing(&server).await, claims.into());
    let pending = server.scores(&key("pending")).await;
    assert_eq!(pending, [(id.clone(), 0)]);
    let mut keys = server.redis.keys("*").await;
    keys.sort();
    let record = format!("match:{id}");
    let names = ["count", "made", &record, "pending", "playing", "scan"];
    assert_eq!(keys, names.map(key));
    assert_eq!(pair(&server, RULES).await, json!([0, 0, "done", []]));
    assert_eq!(matches(&server).await.len(), 1);
}

/// Goal: nobody plays alone. Method: one who waits is looked at often, with a window for everybody.
#[tokio::test]
async fn nobody_plays_against_oneself() {
    let server = Server::start().await;
    enqueue(&server, ADA, 0).await;
    let rules = Rules {
        window: 1_000_000,
        widen: 1000,
        rest_ms: 0,
        ..RULES
    };
    let waiting = json!([ADA.to_string(), "1"]);
    assert_eq!(pair(&server, rules).await, json!([0, 1, "more", waiting]));
    for _ in 0..3 {
        assert_eq!(pair(&server, rules).await, json!([0, 1, "done", waiting]));
    }
    assert!(playing(&server).await.is_empty());
}

/// Goal: among equals the oldest play first, and of an odd number the youngest is left.
/// Method: five and twelve of one rating.
#[tokio::test]
async fn the_oldest_play_first() {
    let five = [1, 2, 3, 4, 5].map(|user| (user, 1000));
    assert_eq!(paired(&five, 0).await, [(1, 2), (3, 4)]);
    let twelve = [30, 1, 29, 2, 28, 3, 27, 4, 26, 5, 25, 6].map(|user| (user, 0));
    let pairs = [(1, 30), (2, 29), (3, 28), (4, 27), (5, 26), (6, 25)];
    assert_eq!(paired(&twelve, 0).await, pairs);
}

/// Goal: the closest rating is taken, not the oldest ticket; of those with it, the oldest one.
/// Method: ratings above and below in the window of the first one, several alike, negative ones among them.
#[tokio::test]
async fn the_closest_rating_is_taken() {
    for sign in [1, -1] {
        let users = [(1, 100), (2, 130), (3, 81), (4, 119), (5, 75)];
        let users = users.map(|(user, rating)| (user, sign * rating));
        // 3 and 4 are equally close to 1, 3 is older; then 2 and 4.
        assert_eq!(paired(&users, 30).await, [(1, 3), (2, 4)]);
        let users = [(1, 0), (2, 30), (3, 10), (4, 10), (5, -20), (6, -20)];
        let users = users.map(|(user, rating)| (user, sign * rating));
        assert_eq!(paired(&users, 50).await, [(1, 3), (2, 4), (5, 6)]);
        let users = [(1, 0), (2, 30), (3, -20), (4, -20)];
        let users = users.map(|(user, rating)| (user, sign * rating));
        assert_eq!(paired(&users, 50).await, [(1, 3), (2, 4)]);
    }
}

/// Goal: of two who are as far above as below, the older one is taken.
/// Method: both orders, and several of each rating.
#[tokio::test]
async fn above_or_below_the_older_one_is_taken() {
    assert_eq!(paired(&[(1, 0), (2, 5), (3, -5)], 5).await, [(1, 2)]);
    assert_eq!(paired(&[(1, 0), (2, -5), (3, 5)], 5).await, [(1, 2)]);
    let users = [(1, 0), (2, -5), (3, 5), (4, -5), (5, 5)];
    assert_eq!(paired(&users, 5).await, [(1, 2), (3, 5)]);
}

/// Goal: a rating at the edge of the window is fine, one beyond it is not.
/// Method: windows around the distance, above, below, across nought.
#[tokio::test]
async fn nobody_plays_outside_the_window() {
    for (low, high) in [(0, 100), (-50, 50), (-1100, -1000), (1000, 1100)] {
        for (first, second) in [(low, high), (high, low)] {
            let users = [(1, first), (2, second)];
            assert_eq!(paired(&users, 100).await, [(1, 2)]);
            assert_eq!(paired(&users, 99).await, []);
            assert_eq!(paired(&users, 0).await, []);
        }
    }
}

/// Goal: the window widens with each second of waiting, for the one who waits.
/// Method: a ticket of ten seconds ago, and ratings at what that makes, and far beyond.
#[tokio::test]
async fn the_window_widens() {
    let rules = Rules {
        window: 50,
        widen: 10,
        ..RULES
    };
    for (other, matches) in [(150, 1), (-150, 1), (1000, 0), (-1000, 0)] {
        let server = Server::start().await;
        let joined_ms = server.now_ms().await - 10_000;
        restore(&server, ADA, 0, joined_ms).await;
        enqueue(&server, BOB, other).await;
        assert_eq!(pair(&server, rules).await[0], matches, "{other}");
    }
    let server = Server::start().await;
    enqueue_all(&server, 0, &[ADA]).await;
    enqueue(&server, BOB, 150).await;
    assert_eq!(pair(&server, rules).await[0], 0);
    // A clock that was set back makes no window narrower.
    let server = Server::start().await;
    let joined_ms = server.now_ms().await + LONG_MS;
    restore(&server, ADA, 0, joined_ms).await;
    restore(&server, BOB, 50, joined_ms).await;
    assert_eq!(pair(&server, rules).await[0], 1);
}

/// Goal: those who wait on are named with their versions, and only those, though one looked at later may have a wider
/// window and take one who was named.
/// Method: the second joined long ago, as after a loss; a third one waits on.
#[tokio::test]
async fn who_was_taken_later_does_not_wait() {
    let server = Server::start().await;
    enqueue(&server, ADA, 0).await;
    let joined_ms = server.now_ms().await - 100_000;
    restore(&server, BOB, 100, joined_ms).await;
    enqueue(&server, EVE, 5000).await;
    enqueue(&server, EVE, 5000).await;
    let rules = Rules { widen: 5, ..RULES };
    let waiting = json!([EVE.to_string(), "4"]);
    assert_eq!(pair(&server, rules).await, json!([1, 1, "more", waiting]));
    assert_eq!(pairs(&server).await, [(BOB, ADA)].into());
}

/// Goal: a call looks at a batch and says that there is more; the next one goes on, and a round ends.
/// Method: five with ratings far apart, two at a time, first fresh and then again; nobody rests.
#[tokio::test]
async fn a_batch_is_looked_at_at_a_time() {
    let server = Server::start().await;
    for user in 1..=5 {
        enqueue(&server, user, 1000 * user as i64).await;
    }
    let rules = Rules {
        batch_max: 2,
        rest_ms: 0,
        ..RULES
    };
    // A fresh batch says that there is more: those who were looked at before.
    let more = ["more", "more", "more", "more", "more", "done", "more"];
    let rounds = [1, 3, 5, 1, 3, 5, 1].into_iter().zip(more);
    for (first, more) in rounds {
        let users: &[u64] = if first == 5 {
            &[5]
        } else {
            &[first, first + 1]
        };
        let waiting: Vec<String> = users
            .iter()
            .flat_map(|user| [user.to_string(), user.to_string()])
            .collect();
        let answer = pair(&server, rules).await;
        assert_eq!(answer, json!([0, 5, more, waiting]));
    }
    // Their opponents may be anywhere.
    assert_eq!(enqueue(&server, 6, 1000).await[0], "queued");
    let rules = Rules {
        batch_max: 1,
        ..rules
    };
    assert_eq!(pair(&server, rules).await, json!([1, 4, "more", []]));
    assert_eq!(pairs(&server).await, [(1, 6)].into());
}

/// Goal: a fresh ticket is looked at at once, while those who found nobody rest; after the rest they are looked at.
/// Method: a long rest; the end of the rest is set to now.
#[tokio::test]
async fn fresh_tickets_do_not_rest() {
    let server = Server::start().await;
    enqueue(&server, ADA, 0).await;
    let waits = |user: u64, version: &str| json!([user.to_string(), version]);
    assert_eq!(pair(&server, RULES).await[3], waits(ADA, "1"));
    let before = server.now_ms().await;
    assert_eq!(pair(&server, RULES).await[3], waits(ADA, "1"));
    let after = server.now_ms().await;
    let next = number(&json!(server.hash(&key("scan")).await["next"]));
    let rested = before + LONG_MS..=after + LONG_MS;
    assert!(rested.contains(&next), "{before} {next}");
    let rests = json!([0, 1, "done", []]);
    assert_eq!(pair(&server, RULES).await, rests);

    enqueue(&server, BOB, 500).await;
    let answer = pair(&server, RULES).await;
    assert_eq!(answer, json!([0, 2, "more", waits(BOB, "2")]));
    assert_eq!(pair(&server, RULES).await, json!([0, 2, "done", []]));
    enqueue(&server, EVE, 0).await;
    assert_eq!(pair(&server, RULES).await, json!([1, 1, "more", []]));
    assert_eq!(pairs(&server).await, [(ADA, EVE)].into());

    let now = server.now_ms().await.to_string();
    server.command(&["HSET", &key("scan"), "next", &now]).await;
    let answer = pair(&server, RULES).await;
    assert_eq!(answer, json!([0, 1, "done", waits(BOB, "2")]));
}

/// Goal: those who wait have their turn although others keep coming. Method: one who found nobody; before each call
/// somebody else joins, far away from everybody.
#[tokio::test]
async fn those_who_wait_have_their_turn() {
    let server = Server::start().await;
    enqueue(&server, ADA, 0).await;
    let waited = |answer: &Value| answer[3][0] == json!(ADA.to_string());
    assert!(waited(&pair(&server, RULES).await));
    let mut turns = 0;
    for user in 101..=140 {
        enqueue(&server, user, user as i64 * 100_000).await;
        let rules = Rules {
            rest_ms: 0,
            ..RULES
        };
        turns += u64::from(waited(&pair(&server, rules).await));
    }
    assert!(turns >= 3, "{turns}");
}

/// Goal: a ticket that somebody deleted by hand loses nobody else. Method: DEL of an opponent's ticket; then of all.
#[tokio::test]
async fn a_missing_ticket_harms_nobody() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    server.command(&["DEL", &key("ticket:7")]).await;
    for _ in 0..3 {
        assert_eq!(
            pair(
                &server,
                Rules {
                    rest_ms: 0,
                    ..RULES
                }
            )
            .await[0],
            0
        );
    }
    assert_eq!(queue(&server).await, [ADA]);
    server.command(&["DEL", &key("ticket:42")]).await;
    enqueue(&server, ADA, 1000).await;
    for _ in 0..3 {
        assert_eq!(
            pair(
                &server,
                Rules {
                    rest_ms: 0,
                    ..RULES
                }
            )
            .await[0],
            0
        );
    }
    enqueue(&server, EVE, 1000).await;
    assert_eq!(pair(&server, RULES).await[0], 1);
    assert_eq!(pairs(&server).await, [(ADA, EVE)].into());
}

/// Goal: a node learns how long those who wait on have waited, by which it decides whether a ticket has expired.
/// Method: a ticket of ten seconds ago, and one of a clock that was set back since.
#[tokio::test]
async fn who_waits_on_has_waited_so_long() {
    let server = Server::start().await;
    let joined_ms = server.now_ms().await - 10_000;
    restore(&server, ADA, 0, joined_ms).await;
    restore(&server, BOB, 9000, joined_ms + LONG_MS).await;
    let answer = scan(&server, RULES).await;
    let longest_ms = server.now_ms().await - joined_ms;
    let waited_ms = number(&answer[3][2]);
    assert!((10_000..=longest_ms).contains(&waited_ms), "{answer}");
    assert_eq!(answer[3], json!(["42", "1", waited_ms, "7", "2", 0]));
}

/// Goal: no two matches have one id, also after Redis has lost its data.
/// Method: many matches in one call, and as many after FLUSHALL.
#[tokio::test]
async fn ids_are_never_used_again() {
    let server = Server::start().await;
    let users: Vec<u64> = (1..=60).collect();
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..2 {
        enqueue_all(&server, 1000, &users).await;
        assert_eq!(pair(&server, RULES).await[0], 30);
        ids.extend(matches(&server).await.into_keys());
        server.command(&["FLUSHALL"]).await;
    }
    let many = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), many), (60, 60));
}

/// Goal: matches are counted by the second in which they were made, and seconds that no longer count are removed.
/// Method: two calls; all entries added up, beside one of long ago, one of the future, and one of half a minute ago.
#[tokio::test]
async fn matches_made_are_counted() {
    let server = Server::start().await;
    let now = server.now_ms().await / 1000;
    for second in [1_700_000_000, now + 3600, now - 30] {
        let field = second.to_string();
        server.command(&["HSET", &key("made"), &field, "9"]).await;
    }
    enqueue_all(&server, 1000, &[1, 2, 3, 4]).await;
    pair(&server, RULES).await;
    enqueue_all(&server, 1000, &[5, 6]).await;
    pair(&server, RULES).await;
    let made = server.hash(&key("made")).await;
    let counts = made.values().map(|many| number(&json!(many)));
    assert_eq!(counts.sum::<u64>(), 9 + 3, "{made:?}");
    assert!(made.contains_key(&(now - 30).to_string()), "{made:?}");
}

/// Goal: somebody who has left is in nobody's way. Method: the closest one leaves before anybody looks.
#[tokio::test]
async fn who_has_left_is_not_paired() {
    let server = Server::start().await;
    for (user, rating) in [(ADA, 0), (BOB, 1), (EVE, 2)] {
        enqueue(&server, user, rating).await;
    }
    cancel(&server, BOB).await;
    let answer = pair(
        &server,
        Rules {
            window: 10,
            ..RULES
        },
    )
    .await;
    assert_eq!(answer[3], Value::Array(Vec::new()));
    assert_eq!(pairs(&server).await, [(ADA, EVE)].into());
}
