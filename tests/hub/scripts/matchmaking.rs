//! `lua/matchmaking/`: the queue and its matches. Here is what concerns all of its scripts; each has a file besides.
//!
//! Nobody sleeps here: who has waited for long joined in the past, which a node may say that asks again after a loss.

mod cancel;
mod confirm;
mod drop;
mod due;
mod enqueue;
mod expire;
mod notify;
mod pair;
mod requeue;
mod restore;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Dice, LARGEST, Server, number};

const ENQUEUE: &str = "matchmaking/enqueue";
const RESTORE: &str = "matchmaking/restore";
const DROP: &str = "matchmaking/drop";
const EXPIRE: &str = "matchmaking/expire";
const CANCEL: &str = "matchmaking/cancel";
const PAIR: &str = "matchmaking/pair";
const DUE: &str = "matchmaking/due";
const NOTIFY: &str = "matchmaking/notify";
const CONFIRM: &str = "matchmaking/confirm";
const REQUEUE: &str = "matchmaking/requeue";
const STATUS: &str = "matchmaking/status";

/// A time that no test outlives.
const LONG_MS: u64 = 600_000;

/// How tickets are looked at where a test does not care: all of them, only equals, again after a long rest.
const RULES: Rules = Rules {
    batch_max: 100,
    window: 0,
    widen: 0,
    rest_ms: LONG_MS,
};

#[derive(Clone, Copy)]
struct Rules {
    batch_max: u64,
    window: u64,
    widen: u64,
    rest_ms: u64,
}

/// The ticket of a user who waits.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticket {
    place: i64,
    rating: i64,
    joined_ms: u64,
    version: u64,
}

/// A key of matchmaking, which has a hash tag of its own.
fn key(name: &str) -> String {
    format!("vigie:{{mm}}:{name}")
}

fn keys<const K: usize>(names: [&str; K]) -> [String; K] {
    names.map(key)
}

async fn enqueue(server: &Server, user: u64, rating: i64) -> Value {
    let args = [user.to_string(), rating.to_string(), key("match:")];
    server.run(ENQUEUE, join_keys(user), &args).await
}

/// As a node does that asks again after Redis lost data.
async fn restore(server: &Server, user: u64, rating: i64, joined_ms: u64) -> Value {
    let args = [
        user.to_string(),
        rating.to_string(),
        joined_ms.to_string(),
        key("match:"),
    ];
    server.run(RESTORE, join_keys(user), &args).await
}

fn join_keys(user: u64) -> [String; 6] {
    let ticket = format!("ticket:{user}");
    keys(["queue", "ratings", &ticket, "playing", "timeouts", "count"])
}

/// Queues users with one rating, one after the other.
async fn enqueue_all(server: &Server, rating: i64, users: &[u64]) {
    for user in users {
        assert_eq!(enqueue(server, *user, rating).await[0], "queued");
    }
}

async fn cancel(server: &Server, user: u64) -> Value {
    let ticket = format!("ticket:{user}");
    let keys = keys([
        "queue", "ratings", &ticket, "playing", "pending", "timeouts",
    ]);
    let args = [user.to_string(), key("match:")];
    server.run(CANCEL, keys, &args).await
}

/// Drops the ticket with this version.
async fn drop_ticket(server: &Server, user: u64, version: u64) -> Value {
    let ticket = format!("ticket:{user}");
    let keys = keys(["queue", "ratings", &ticket]);
    let args = [user.to_string(), version.to_string()];
    server.run(DROP, keys, &args).await
}

/// Expires the ticket with this version.
async fn expire_version(server: &Server, user: u64, version: u64) -> Value {
    let ticket = format!("ticket:{user}");
    let keys = keys(["queue", "ratings", &ticket, "timeouts"]);
    let args = [user.to_string(), version.to_string()];
    server.run(EXPIRE, keys, &args).await
}

/// Expires the tickets of these users.
async fn expire(server: &Server, users: &[u64]) {
    for user in users {
        let version = ticket(server, *user).await.expect("it waits").version;
        assert_eq!(expire_version(server, *user, version).await, "expired");
    }
}

/// Without how long those who wait on have waited; one test reads that.
async fn pair(server: &Server, rules: Rules) -> Value {
    let mut answer = scan(server, rules).await;
    let waiting = answer[3].as_array().expect("a list");
    let pairs = waiting.chunks_exact(3).flat_map(|entry| &entry[..2]);
    answer[3] = pairs.cloned().collect();
    answer
}

/// The whole answer of `pair.lua`.
async fn scan(server: &Server, rules: Rules) -> Value {
    let keys = keys([
        "queue", "ratings", "playing", "pending", "count", "scan", "made",
    ]);
    let args = [
        rules.batch_max.to_string(),
        rules.window.to_string(),
        rules.widen.to_string(),
        rules.rest_ms.to_string(),
        key("ticket:"),
        key("match:"),
    ];
    server.run(PAIR, keys, &args).await
}

async fn due(server: &Server, batch_max: u64, keep_ms: u64) -> Value {
    let keys = keys(["pending", "timeouts"]);
    let args = [batch_max.to_string(), keep_ms.to_string(), key("match:")];
    let before = server.now_ms().await;
    let mut answer = server.run(DUE, keys, &args).await;
    let after = server.now_ms().await;
    // The last word is what the clock shows; tests see what is before it.
    let now = answer.as_array_mut().and_then(Vec::pop);
    let now = now.and_then(|now| now.as_u64()).unwrap_or_default();
    assert!((before..=after).contains(&now), "{before} {now} {after}");
    answer
}

/// Begins to notify those who have connections on these nodes, "<user>@<incarnation>".
async fn notify(server: &Server, id: &str, nodes: &[&str]) -> Value {
    let keys = keys([&format!("match:{id}"), "pending", "playing"]);
    let args = [id.to_owned(), nodes.join(" ")];
    server.run(NOTIFY, keys, &args).await
}

async fn confirm(server: &Server, id: &str, user: u64, incarnation: &str) -> Value {
    let keys = keys([&format!("match:{id}"), "pending", "playing"]);
    let args = [id.to_owned(), user.to_string(), incarnation.to_owned()];
    server.run(CONFIRM, keys, &args).await
}

async fn requeue(server: &Server, id: &str, there: &[u64]) -> Value {
    let found = format!("match:{id}");
    let keys = keys([
        "queue", "ratings", &found, "playing", "pending", "count", "scan",
    ]);
    let there: Vec<String> = there.iter().map(u64::to_string).collect();
    let args = [id.to_owned(), there.join(" "), key("ticket:")];
    server.run(REQUEUE, keys, &args).await
}

async fn status(server: &Server) -> Value {
    let keys = keys(["queue", "pending", "made"]);
    server.run(STATUS, keys, &[key("ticket:")]).await
}

/// Makes a match of two users, who must be the only ones with their rating.
async fn match_of(server: &Server, rating: i64, users: [u64; 2]) -> String {
    enqueue_all(server, rating, &users).await;
    assert_eq!(pair(server, RULES).await[0], 1);
    let playing = playing(server).await;
    assert_eq!(playing[&users[0]], playing[&users[1]]);
    playing[&users[0]].clone()
}

/// The users in the queue, in order.
async fn queue(server: &Server) -> Vec<u64> {
    let answer = server.command(&["ZRANGE", &key("queue"), "0", "-1"]).await;
    let users = answer.as_array().expect("a list");
    users.iter().map(number).collect()
}

async fn ticket(server: &Server, user: u64) -> Option<Ticket> {
    let fields = server.hash(&key(&format!("ticket:{user}"))).await;
    if fields.is_empty() {
        return None;
    }
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["joined", "place", "rating", "version"]);
    Some(Ticket {
        place: fields["place"].parse().expect("a place"),
        rating: fields["rating"].parse().expect("a rating"),
        joined_ms: fields["joined"].parse().expect("a time"),
        version: fields["version"].parse().expect("a version"),
    })
}

/// The match that has a claim on each user.
async fn playing(server: &Server) -> BTreeMap<u64, String> {
    let fields = server.hash(&key("playing")).await;
    let fields = fields.into_iter();
    fields
        .map(|(user, id)| (user.parse().expect("an id"), id))
        .collect()
}

/// The fields of a match.
type Match = BTreeMap<String, String>;

/// The fields of each match.
async fn matches(server: &Server) -> BTreeMap<String, Match> {
    let prefix = key("match:");
    let mut matches = BTreeMap::new();
    for name in server.redis.keys(&format!("{prefix}*")).await {
        let id = name.trim_start_matches(&prefix).to_owned();
        matches.insert(id, server.hash(&name).await);
    }
    matches
}

/// The nodes of a match in this state, "<user>@<incarnation>", in order.
fn nodes<'a>(found: &'a Match, state: &str) -> Vec<&'a str> {
    let nodes = found.iter().filter(|(_, value)| *value == state);
    nodes
        .filter_map(|(field, _)| field.strip_prefix("node:"))
        .collect()
}

/// The users whom the match was shown to on any node.
fn acked(found: &Match) -> Vec<&str> {
    let fields = found.keys();
    fields
        .filter_map(|field| field.strip_prefix("acked:"))
        .collect()
}

/// The players of every match, the smaller id first.
async fn pairs(server: &Server) -> BTreeSet<(u64, u64)> {
    let matches = matches(server).await;
    let pairs = matches.values().map(|found| {
        let [a, b] = players(found);
        (a.min(b), a.max(b))
    });
    pairs.collect()
}

fn players(found: &Match) -> [u64; 2] {
    ["player1", "player2"].map(|field| found[field].parse().expect("an id"))
}

/// The users whose timeout is pending.
async fn timeouts(server: &Server) -> BTreeSet<u64> {
    let timeouts = server.scores(&key("timeouts")).await;
    let users = timeouts.iter();
    users
        .map(|(user, _)| user.parse().expect("an id"))
        .collect()
}

/// Asserts that all that is stored fits together.
async fn assert_sound(server: &Server, context: &str) {
    let queue = queue(server).await;
    let mut places = BTreeSet::new();
    let mut ratings = BTreeSet::new();
    for user in &queue {
        let ticket = ticket(server, *user).await;
        let ticket = ticket.unwrap_or_else(|| panic!("{context}: {user}"));
        places.insert((ticket.place, *user));
        ratings.insert((ticket.rating, ticket.place, *user));
    }
    let tickets = server.redis.keys(&key("ticket:*")).await;
    assert_eq!(tickets.len(), queue.len(), "{context}");
    assert_eq!(stored_places(server).await, places, "{context}");
    assert_eq!(stored_ratings(server).await, ratings, "{context}");

    let (matches, playing) = (matches(server).await, playing(server).await);
    let timeouts = timeouts(server).await;
    for user in &queue {
        assert!(!playing.contains_key(user), "{context}: {user} has a match");
        assert!(!timeouts.contains(user), "{context}: {user} ran out");
    }
    for (user, id) in &playing {
        let found = matches.get(id);
        let found = found.unwrap_or_else(|| panic!("{context}: {id} is gone"));
        assert!(players(found).contains(user), "{context}: {id} {user}");
    }
    for (id, found) in &matches {
        let [a, b] = players(found);
        assert_ne!(a, b, "{context}: {id}");
        // Until a player is notified, or cancels, or was shown it, a match holds both, and so nobody else does.
        let is_open = found["state"] == "made";
        for user in [a, b] {
            let has_taken = found.contains_key(&format!("acked:{user}"));
            let held = playing.get(&user) == Some(id);
            assert!(held || has_taken || !is_open, "{context}: {id} {user}");
        }
    }
    let pending = server.scores(&key("pending")).await;
    let pending: BTreeSet<&String> = pending.iter().map(|(id, _)| id).collect();
    assert_eq!(pending, matches.keys().collect(), "{context}");
}

async fn stored_places(server: &Server) -> BTreeSet<(i64, u64)> {
    let answer = server
        .command(&["ZRANGE", &key("queue"), "0", "-1", "WITHSCORES"])
        .await;
    let words: Vec<String> = serde_json::from_value(answer).expect("a list of texts");
    let entries = words.chunks_exact(2);
    entries
        .map(|entry| {
            let place = entry[1].parse().expect("a place");
            (place, entry[0].parse().expect("an id"))
        })
        .collect()
}

/// Rating, place and user of each entry.
async fn stored_ratings(server: &Server) -> BTreeSet<(i64, i64, u64)> {
    let answer = server
        .command(&["ZRANGE", &key("ratings"), "0", "-1", "WITHSCORES"])
        .await;
    let words: Vec<String> = serde_json::from_value(answer).expect("a list of texts");
    let entries = words.chunks_exact(2);
    entries
        .map(|entry| {
            let (padded, user) = entry[0].split_once(':').expect("a place and a user");
            // As texts they have the order of the numbers only where all are of one length.
            assert_eq!(padded.len(), 16, "{padded}");
            let place = padded.parse::<i64>().expect("a place") - (1 << 52);
            let rating = entry[1].parse().expect("a rating");
            (rating, place, user.parse().expect("an id"))
        })
        .collect()
}

/// Goal: ids keep every digit, wherever they go from joining to the end of a match.
/// Method: the largest id and the one below, which a rounded number would be; each script's answer and all keys.
#[tokio::test]
async fn large_ids_keep_every_digit() {
    let server = Server::start().await;
    let (largest, next) = (LARGEST.to_string(), (LARGEST - 1).to_string());
    let id = match_of(&server, 1000, [LARGEST, LARGEST - 1]).await;
    assert_eq!(pairs(&server).await, [(LARGEST - 1, LARGEST)].into());
    let answer = due(&server, 10, 0).await;
    assert_eq!(answer, json!([[id, largest, next], []]));
    let (first, second) = (format!("{largest}@a.1"), format!("{next}@a.1"));
    let answer = notify(&server, &id, &[&first, &second]).await;
    assert_eq!(answer, json!(["notify", largest, next]));
    assert_eq!(confirm(&server, &id, LARGEST, "a.1").await, "pending");
    let found = &matches(&server).await[&id];
    assert_eq!(nodes(found, "acked"), [&first]);
    assert_eq!(nodes(found, "waiting"), [&second]);
    assert_sound(&server, "told").await;

    assert_eq!(requeue(&server, &id, &[LARGEST, LARGEST - 1]).await, 2);
    assert_sound(&server, "sent back").await;
    assert_eq!(cancel(&server, LARGEST).await, "cancelled");
    assert_eq!(queue(&server).await, [LARGEST - 1]);
    let version = ticket(&server, LARGEST - 1)
        .await
        .expect("it waits")
        .version;
    let rules = Rules {
        rest_ms: 0,
        ..RULES
    };
    pair(&server, rules).await;
    let answer = pair(&server, rules).await;
    assert_eq!(answer, json!([0, 1, "done", [next, version.to_string()]]));
    expire(&server, &[LARGEST - 1]).await;
    assert_eq!(due(&server, 10, 0).await, json!([[], [next]]));
    assert_sound(&server, "ran out").await;
}

/// Goal: places, times and versions keep every digit when numbers given are large, and the order stays right.
/// Method: the last number given is set to just below a power of ten, and to 2^51.
#[tokio::test]
async fn large_places_keep_their_order() {
    for last in [999_999_998, (1_u64 << 51) - 1] {
        let server = Server::start().await;
        server
            .command(&["SET", &key("count"), &last.to_string()])
            .await;
        enqueue_all(&server, 1000, &[1, 2, 3]).await;
        let last = last as i64;
        let places = [(last + 1, 1), (last + 2, 2), (last + 3, 3)];
        assert_eq!(stored_places(&server).await, places.into());
        assert_sound(&server, "queued").await;
        assert_eq!(pair(&server, RULES).await[0], 1);
        assert_eq!(pairs(&server).await, [(1, 2)].into());
        assert_sound(&server, "paired").await;
    }
}

/// Goal: in whatever order calls come, nobody waits twice, or waits while a match has a claim, or is in two of those,
/// and no key keeps what belongs to nobody.
/// Method: 900 calls drawn from a fixed seed among a few users and matches; all keys are held against each other after
/// each call.
#[tokio::test]
async fn any_order_of_calls_adds_up() {
    let server = Server::start().await;
    let mut dice = Dice(42);
    let mut seen = BTreeMap::<&str, u64>::new();
    let mut ids = BTreeSet::new();
    for step in 0..900 {
        let user = 1 + dice.roll(12);
        let rating = 100 * dice.roll(9) as i64 - 200;
        let known: Vec<String> = matches(&server).await.into_keys().collect();
        let id = known.get(dice.roll(known.len().max(1) as u64) as usize);
        let id = id.map_or("none", String::as_str);
        let users = matches(&server).await.get(id).map_or([1, 2], players);
        let node = ["a.1", "b.1"][dice.roll(2) as usize];
        let (call, outcome) = match dice.roll(17) {
            0..=3 => ("enqueue", enqueue(&server, user, rating).await[0].clone()),
            4..=6 => {
                let since = server.now_ms().await - 1000 * dice.roll(9);
                let answer = restore(&server, user, rating, since).await;
                ("restore", answer[0].clone())
            }
            7 => ("cancel", cancel(&server, user).await),
            8 => {
                let version = ticket(&server, user).await.map_or(1, |own| own.version);
                let version = version + dice.roll(3) / 2;
                ("drop", drop_ticket(&server, user, version).await)
            }
            9 => {
                let version = ticket(&server, user).await.map_or(1, |own| own.version);
                let version = version + dice.roll(3) / 2;
                ("expire", expire_version(&server, user, version).await)
            }
            10..=12 => {
                let rules = Rules {
                    batch_max: 1 + dice.roll(4),
                    window: 100 * dice.roll(2),
                    widen: 10 * dice.roll(4),
                    rest_ms: 0,
                };
                let answer = pair(&server, rules).await;
                assert_eq!(number(&answer[1]), queue(&server).await.len() as u64);
                let waiting = answer[3].as_array().expect("a list");
                for entry in waiting.chunks_exact(2) {
                    let own = ticket(&server, number(&entry[0])).await;
                    let version = own.map(|own| own.version);
                    assert_eq!(version, Some(number(&entry[1])), "step {step}: {answer}");
                }
                ("pair", answer[0].clone())
            }
            13 => {
                let answer = due(&server, 1 + dice.roll(3), 0).await;
                ("due", json!(answer[0] != json!([])))
            }
            14 => {
                let nodes = [format!("{}@{node}", users[0]), format!("{}@b.1", users[1])];
                let nodes = &[nodes[0].as_str(), nodes[1].as_str()][dice.roll(3).min(1) as usize..];
                ("notify", notify(&server, id, nodes).await[0].clone())
            }
            15 => {
                let player = users[dice.roll(2) as usize];
                ("confirm", confirm(&server, id, player, node).await)
            }
            _ => {
                let there = &users[..dice.roll(3) as usize];
                ("requeue", requeue(&server, id, there).await)
            }
        };
        let nothing = ["over", "nothing", "kept"].map(Value::from);
        let is_something =
            ![json!(0), json!(false)].contains(&outcome) && !nothing.contains(&outcome);
        *seen.entry(call).or_default() += u64::from(is_something);
        ids.extend(matches(&server).await.into_keys());
        assert_sound(&server, &format!("step {step}, {call}: {outcome}")).await;
    }
    // Every kind of call was drawn where it had something to do.
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(seen.values().all(|times| *times >= 5), "{seen:?}");
    assert!(
        ids.len() >= 30,
        "the calls drawn lead to {} matches",
        ids.len()
    );
}
