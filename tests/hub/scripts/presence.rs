//! `lua/presence/`: who is online. Here is what concerns all of its scripts; each has a file besides.

mod expire;
mod pulse;
mod reap;
mod register;
mod register_many;
mod release;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Dice, LARGEST, Listener, Server, key, number};
use crate::harness::ADA;

const REGISTER: &str = "presence/register";
const REGISTER_MANY: &str = "presence/register_many";
const RELEASE: &str = "presence/release";
const EXPIRE: &str = "presence/expire";
const REAP: &str = "presence/reap";
const REPAIR: &str = "presence/repair";
const PULSE: &str = "presence/pulse";
const POSITION: &str = "presence/position";

/// Connections that a user may have where a test does not care.
const MANY: u64 = 50;
/// A grace that no test outlives.
const LONG_MS: u64 = 600_000;

/// Registers a connection. That the answer ends with the time which is stored is held here, for all
/// tests; they see what is before it.
async fn register(server: &Server, user: u64, node: &str, connection: u64) -> Value {
    register_up_to(server, MANY, user, node, connection).await
}

async fn register_up_to(
    server: &Server,
    connections_max: u64,
    user: u64,
    node: &str,
    connection: u64,
) -> Value {
    register_with(server, (connections_max, None), user, node, connection).await
}

/// Registers a connection with so many allowed, and a token issued at that time (ms), or one that does not say when.
async fn register_with(
    server: &Server,
    (connections_max, issued_at_ms): (u64, Option<u64>),
    user: u64,
    node: &str,
    connection: u64,
) -> Value {
    let keys = [
        key(format_args!("conns:{user}")),
        key(format_args!("node:{node}")),
        key("nodes"),
        key("online"),
        key("leaving"),
        key("rev"),
        key("epoch"),
        key(format_args!("profile:{user}")),
        key(format_args!("revoked:{user}")),
    ];
    let args = [
        user.to_string(),
        node.to_owned(),
        connection.to_string(),
        connections_max.to_string(),
        key("presence"),
        issued_at_ms.map_or_else(String::new, |at_ms| at_ms.to_string()),
    ];
    let mut answer = server.run(REGISTER, keys, &args).await;
    let words = answer.as_array_mut().expect("a list");
    if words[0] == "ok" {
        let since = words.pop().expect("an answer says since when");
        let stored = server.hash(&key(format_args!("conns:{user}"))).await;
        assert_eq!(stored[&format!("{node}/{connection}")], since.to_string());
    }
    answer
}

/// Registers connections of a node again, each of a user: how many were.
async fn register_many(server: &Server, node: &str, connections: &[(u64, u64)]) -> u64 {
    let mut keys = vec![key(format_args!("node:{node}"))];
    keys.extend(["nodes", "online", "leaving", "rev", "epoch"].map(key));
    let mut args = vec![node.to_owned(), key("presence")];
    for (user, connection) in connections {
        keys.push(key(format_args!("conns:{user}")));
        keys.push(key(format_args!("profile:{user}")));
        args.extend([user.to_string(), connection.to_string()]);
    }
    number(&server.run(REGISTER_MANY, keys, &args).await)
}

/// Releases a connection: the connections that its user has left, and when the user goes offline, as Redis holds them
/// afterwards. That the answer agrees is held here, for all tests.
async fn release(
    server: &Server,
    user: u64,
    node: &str,
    connection: u64,
    grace_ms: u64,
) -> (u64, Option<u64>) {
    let departing = release_many(server, node, &[(user, connection)], grace_ms).await;
    let connections = key(format_args!("conns:{user}"));
    let refcount = number(&server.command(&["HLEN", &connections]).await);
    let due = server
        .command(&["ZSCORE", &key("leaving"), &user.to_string()])
        .await;
    let due = (!due.is_null()).then(|| number(&due));
    assert_eq!(departing, u64::from(refcount == 0 && due.is_some()));
    (refcount, due)
}

/// Releases connections of a node, each of a user: how many users are about to go offline.
async fn release_many(
    server: &Server,
    node: &str,
    connections: &[(u64, u64)],
    grace_ms: u64,
) -> u64 {
    let mut keys = vec![key(format_args!("node:{node}"))];
    keys.extend(["nodes", "leaving"].map(key));
    let mut args = vec![node.to_owned(), grace_ms.to_string()];
    for (user, connection) in connections {
        keys.push(key(format_args!("conns:{user}")));
        args.extend([user.to_string(), connection.to_string()]);
    }
    number(&server.run(RELEASE, keys, &args).await)
}

/// For how long nobody is taken offline after a restart.
const PATIENCE_MS: u64 = 300;

/// Takes offline at most `batch_max` of those who are due within `ahead_ms`: how many were, and whether more may be due.
async fn expire(server: &Server, batch_max: u64, ahead_ms: u64) -> (u64, bool) {
    let keys = ["leaving", "online", "rev", "epoch", "server"].map(key);
    let args = [
        batch_max.to_string(),
        key("presence"),
        ahead_ms.to_string(),
        PATIENCE_MS.to_string(),
    ];
    let answer = server.run(EXPIRE, keys, &args).await;
    let offline = answer[0].as_array().unwrap_or_else(|| panic!("{answer}"));
    let more = !answer[1].is_null();
    assert!(!more || answer[1] == 1, "{answer}");
    (offline.len() as u64, more)
}

/// Releases at most `batch_max` of what a dead incarnation owes: how many were, how many are left.
async fn reap(server: &Server, dead: &str, batch_max: u64, grace_ms: u64) -> (u64, u64) {
    let keys = [
        key(format_args!("node:{dead}")),
        key("nodes"),
        key("online"),
        key("leaving"),
    ];
    let args = [
        dead.to_owned(),
        key("conns:"),
        batch_max.to_string(),
        grace_ms.to_string(),
    ];
    let answer = server.run(REAP, keys, &args).await;
    (number(&answer[0]), number(&answer[1]))
}

/// How many things were wrong.
async fn repair(server: &Server, user: u64, grace_ms: u64) -> u64 {
    let keys = [
        key(format_args!("conns:{user}")),
        key("nodes"),
        key("online"),
        key("leaving"),
        key("rev"),
        key("epoch"),
    ];
    let args = [
        user.to_string(),
        key("node:"),
        "1000".to_owned(),
        grace_ms.to_string(),
        key("presence"),
    ];
    number(&server.run(REPAIR, keys, &args).await)
}

async fn position(server: &Server) -> (String, u64) {
    let answer = server.run(POSITION, [key("rev"), key("epoch")], &[]).await;
    (
        answer[0].as_str().expect("a name").to_owned(),
        number(&answer[1]),
    )
}

async fn presence(server: &Server) -> Listener {
    server.listen(&key("presence")).await
}

/// The next transition: its number, who came, who went. It names the life of the data.
async fn next_transition(server: &Server, presence: &mut Listener) -> (u64, Vec<u64>, Vec<u64>) {
    let message = presence.next().await;
    let fields = message.as_object().expect("an object").keys();
    assert_eq!(
        fields.collect::<Vec<_>>(),
        ["epoch", "offline", "online", "rev"]
    );
    assert_eq!(
        message["epoch"],
        server.command(&["GET", &key("epoch")]).await
    );
    let users = |field: &str| -> Vec<u64> {
        let users = message[field]
            .as_array()
            .unwrap_or_else(|| panic!("{message}"));
        users.iter().map(number).collect()
    };
    (number(&message["rev"]), users("online"), users("offline"))
}

/// Goal: the position names a life of the data and a number, the same until something happens; after
/// Redis was emptied it is another life, numbered from the start.
/// Method: read before and after a transition and FLUSHALL; the messages carry the same name.
#[tokio::test]
async fn a_position_belongs_to_one_life_of_the_data() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    let (life, revision) = position(&server).await;
    assert_eq!(revision, 0);
    assert!(
        !life.is_empty() && life.chars().all(|c| c.is_ascii_hexdigit()),
        "{life}"
    );
    assert_eq!(position(&server).await, (life.clone(), 0));
    register(&server, ADA, "a.1", 1).await;
    assert_eq!(presence.next().await["epoch"], life);
    assert_eq!(position(&server).await, (life.clone(), 1));

    server.command(&["FLUSHALL"]).await;
    assert_eq!(register(&server, ADA, "a.1", 1).await, json!(["ok", 1, 1]));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (1, vec![ADA], vec![])
    );
    let (next_life, revision) = position(&server).await;
    assert_eq!(revision, 1);
    assert_ne!(next_life, life);
}

/// Goal: the largest ids and numbers keep every digit, wherever they go.
/// Method: the largest user id, a large connection, transitions numbered close to the limit.
#[tokio::test]
async fn large_numbers_keep_every_digit() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    server
        .command(&["SET", &key("rev"), &(LARGEST - 2).to_string()])
        .await;
    let answer = register(&server, LARGEST, "a.1", LARGEST).await;
    assert_eq!(answer, json!(["ok", 1, LARGEST - 1]));
    let text = presence.next_text().await;
    assert!(
        text.contains(r#""rev":9007199254740990,"online":[9007199254740991],"#),
        "{text}"
    );
    let again = register(&server, LARGEST, "a.1", LARGEST).await;
    assert_eq!(again, json!(["ok", 1, LARGEST - 1]));
    assert_eq!(
        server.set(&key("node:a.1")).await,
        ["9007199254740991/9007199254740991"]
    );

    release(&server, LARGEST, "a.1", LARGEST, 0).await;
    assert_eq!(expire(&server, 10, 0).await, (1, false));
    let text = presence.next_text().await;
    assert!(text.ends_with(r#""rev":9007199254740991,"online":[],"offline":[9007199254740991]}"#));
    assert_eq!(position(&server).await.1, LARGEST);
}

/// Goal: in whatever order calls come and however often they are repeated, refcounts are right, the
/// transitions are numbered without a gap, and added up they are the set of online users.
/// Method: 600 calls drawn from a fixed seed, held against a model in this test after each call.
#[tokio::test]
async fn any_order_of_calls_adds_up() {
    let server = Server::start().await;
    let mut presence = presence(&server).await;
    let mut connections: BTreeMap<u64, BTreeSet<(&str, u64)>> = BTreeMap::new();
    let (mut online, mut announced) = (BTreeSet::new(), BTreeSet::new());
    let mut transitions = 0;
    let mut dice = Dice(42);
    for step in 0..600 {
        let user = 1 + dice.roll(3);
        let node = ["a.1", "b.1"][dice.roll(2) as usize];
        let connection = user;
        let everybody = [1, 2, 3].map(|user| (user, user));
        let own = connections.entry(user).or_default();
        match dice.roll(8) {
            0 | 1 => {
                own.insert((node, connection));
                transitions += u64::from(online.insert(user));
                let answer = register(&server, user, node, connection).await;
                assert_eq!(answer, json!(["ok", own.len(), transitions]), "step {step}");
            }
            2 | 3 => {
                own.remove(&(node, connection));
                let (refcount, due) = release(&server, user, node, connection, 0).await;
                assert_eq!(refcount, own.len() as u64, "step {step}");
                assert_eq!(
                    due.is_some(),
                    own.is_empty() && online.contains(&user),
                    "step {step}"
                );
            }
            4 => {
                let entry = |own: &BTreeSet<(&str, u64)>| own.iter().any(|(name, _)| *name == node);
                let owed = connections.values().filter(|own| entry(own)).count() as u64;
                connections
                    .values_mut()
                    .for_each(|own| own.retain(|(name, _)| *name != node));
                assert_eq!(reap(&server, node, 10, 0).await, (owed, 0), "step {step}");
            }
            5 => {
                let mut came = 0;
                for (user, connection) in everybody {
                    let own = connections.entry(user).or_default();
                    own.insert((node, connection));
                    came += u64::from(online.insert(user));
                }
                transitions += u64::from(came > 0);
                let registered = register_many(&server, node, &everybody).await;
                assert_eq!(registered, 3, "step {step}");
            }
            6 => {
                let mut departing = 0;
                for (user, connection) in everybody {
                    let own = connections.entry(user).or_default();
                    own.remove(&(node, connection));
                    departing += u64::from(own.is_empty() && online.contains(&user));
                }
                let left = release_many(&server, node, &everybody, 0).await;
                assert_eq!(left, departing, "step {step}");
            }
            _ => {
                let before = online.len();
                online.retain(|user| connections.get(user).is_some_and(|own| !own.is_empty()));
                let gone = before - online.len();
                transitions += u64::from(gone > 0);
                assert_eq!(
                    expire(&server, 10, 0).await,
                    (gone as u64, false),
                    "step {step}"
                );
            }
        }
        assert_eq!(position(&server).await.1, transitions, "step {step}");
    }
    for number in 1..=transitions {
        let (revision, came, went) = next_transition(&server, &mut presence).await;
        assert_eq!(revision, number);
        for user in came {
            assert!(announced.insert(user), "{user} came twice, at {number}");
        }
        for user in went {
            assert!(announced.remove(&user), "{user} left twice, at {number}");
        }
    }
    presence.hears_nothing().await;
    assert_eq!(announced, online);
    let told: Vec<String> = online.iter().map(u64::to_string).collect();
    assert_eq!(server.set(&key("online")).await, told);
    assert!(
        transitions > 50,
        "the calls drawn lead to {transitions} transitions only"
    );
}
