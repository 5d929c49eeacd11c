//! `lua/account/`: accounts that are deleted.

use serde_json::{Value, json};

use super::{LARGEST, Server, key, number};
use crate::harness::{ADA, BOB};

const DISCONNECT: &str = include_str!("../../../lua/account/disconnect.lua");
const DELETE: &str = include_str!("../../../lua/account/delete.lua");

pub async fn delete(server: &Server, user: u64) -> Value {
    let topic = key(format_args!("user:{user}"));
    server.run(DELETE, [profile(user)], &[topic]).await
}

/// Nodes that listened, or -1.
async fn disconnect(server: &Server, request: &str, keep_ms: u64) -> Value {
    let keys = [key(format_args!("request:{request}")), profile(ADA)];
    let args = [keep_ms.to_string(), key("user:42")];
    server.run(DISCONNECT, keys, &args).await
}

fn profile(user: u64) -> String {
    key(format_args!("profile:{user}"))
}

/// Goal: a deleted account keeps nothing but the mark, for ever, and whoever listens is told.
/// Method: updates that would expire are there before; the hash, its time to live and the message.
#[tokio::test]
async fn only_the_mark_stays() {
    let server = Server::start().await;
    server
        .command(&["HSET", &profile(ADA), "profile.full", "{}"])
        .await;
    server.command(&["PEXPIRE", &profile(ADA), "100000"]).await;
    let mut topic = server.listen(&key("user:42")).await;

    let before = server.now_ms().await;
    assert_eq!(delete(&server, ADA).await, 1);
    let after = server.now_ms().await;

    let fields = server.hash(&profile(ADA)).await;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["deleted"]);
    let since = number(&json!(fields["deleted"]));
    assert!(
        (before..=after).contains(&since),
        "{before} {since} {after}"
    );
    assert_eq!(server.command(&["PTTL", &profile(ADA)]).await, -1);
    assert_eq!(topic.next().await, json!({ "kind": "account-deleted" }));
    topic.hears_nothing().await;
}

/// Goal: deleting again changes nothing; it is said again, which hurts nobody.
/// Method: a mark of another day, another call.
#[tokio::test]
async fn an_account_is_deleted_since_the_first_time() {
    let server = Server::start().await;
    delete(&server, ADA).await;
    server
        .command(&["HSET", &profile(ADA), "deleted", "1700000000000"])
        .await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(delete(&server, ADA).await, 1);
    assert_eq!(server.contents().await, before);
    assert_eq!(topic.next().await, json!({ "kind": "account-deleted" }));
    topic.hears_nothing().await;
}

/// Goal: deleting concerns one user. Method: somebody else, and the largest id, nobody listening.
#[tokio::test]
async fn nobody_else_is_deleted() {
    let server = Server::start().await;
    server
        .command(&["HSET", &profile(BOB), "profile.full", "{}"])
        .await;
    let mut other = server.listen(&key("user:7")).await;
    assert_eq!(delete(&server, LARGEST).await, 0);
    assert_eq!(server.hash(&profile(BOB)).await["profile.full"], "{}");
    let marked = server.command(&["HEXISTS", "vigie:{0}:profile:9007199254740991", "deleted"]);
    assert_eq!(marked.await, 1);
    other.hears_nothing().await;
}

/// Goal: disconnecting is said once, and leaves a mark with the time for nodes that did not hear it.
/// Method: the message, the hash and its time to live; Redis's time encloses the mark.
#[tokio::test]
async fn disconnecting_leaves_a_mark() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let before = server.now_ms().await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, 1);
    let after = server.now_ms().await;
    assert_eq!(topic.next().await, json!({ "kind": "disconnect" }));
    topic.hears_nothing().await;

    let fields = server.hash(&profile(ADA)).await;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["disconnected"]);
    let at = number(&json!(fields["disconnected"]));
    assert!((before..=after).contains(&at), "{before} {at} {after}");
    let left_ms = number(&server.command(&["PTTL", &profile(ADA)]).await);
    assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");
}

/// Goal: a request that is repeated, because its answer was lost, closes nobody who came meanwhile:
/// it is answered the same, the mark stays, nothing is said. A new request is a new one.
/// Method: a mark of another day between the request and its repetition.
#[tokio::test]
async fn a_request_disconnects_once() {
    let server = Server::start().await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, 0);
    server
        .command(&["HSET", &profile(ADA), "disconnected", "1700000000000"])
        .await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, 0);
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
    let left_ms = number(&server.command(&["PTTL", &key("request:r1")]).await);
    assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");

    assert_eq!(disconnect(&server, "r2", 60_000).await, 1);
    assert_eq!(topic.next().await, json!({ "kind": "disconnect" }));
    let fields = server.hash(&profile(ADA)).await;
    assert!(number(&json!(fields["disconnected"])) > 1_700_000_000_000);
}

/// Goal: disconnecting leaves last updates as they are, and is remembered as long as one.
/// Method: an update that has half a minute left.
#[tokio::test]
async fn last_updates_survive_disconnecting() {
    let server = Server::start().await;
    server
        .command(&["HSET", &profile(ADA), "profile.full", "{}"])
        .await;
    server.command(&["PEXPIRE", &profile(ADA), "30000"]).await;
    disconnect(&server, "r1", 60_000).await;
    assert_eq!(server.hash(&profile(ADA)).await["profile.full"], "{}");
    assert!(number(&server.command(&["PTTL", &profile(ADA)]).await) > 30_000);
}

/// Goal: a deleted account has nobody to disconnect; a request answered before keeps its answer.
/// Method: one request before the deletion, repeated after it, and a new one.
#[tokio::test]
async fn a_deleted_account_is_not_disconnected() {
    let server = Server::start().await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, 0);
    delete(&server, ADA).await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, 0);
    assert_eq!(disconnect(&server, "r2", 60_000).await, -1);
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
}
