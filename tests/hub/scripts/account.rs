//! `lua/account/`: accounts that are deleted, users who are disconnected, tokens that are revoked.

use serde_json::{Value, json};

use super::{LARGEST, Server, key, number, requests};
use crate::harness::{ADA, BOB};

const DISCONNECT: &str = "account/disconnect";
const REVOKE: &str = "account/revoke";
const DELETE: &str = "account/delete";

pub async fn delete(server: &Server, user: u64) -> Value {
    let topic = key(format_args!("user:{user}"));
    server.run(DELETE, [profile(user)], &[topic]).await
}

/// How many nodes listened.
async fn disconnect(server: &Server, request: &str, keep_ms: u64) -> Value {
    let [even, odd] = requests();
    let keys = [even, odd, profile(ADA)];
    let args = [keep_ms.to_string(), key("user:42"), request.to_owned()];
    server.run(DISCONNECT, keys, &args).await
}

/// How many nodes listened, and before when Ada's tokens are refused. Her profile and the revocation are kept for
/// so many milliseconds.
pub async fn revoke(
    server: &Server,
    request: &str,
    (keep_ms, keep_revoked_ms): (u64, u64),
) -> Value {
    let [even, odd] = requests();
    let keys = [even, odd, profile(ADA), key("revoked:42")];
    let args = [
        keep_ms.to_string(),
        keep_revoked_ms.to_string(),
        key("user:42"),
        request.to_owned(),
    ];
    server.run(REVOKE, keys, &args).await
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
    assert_eq!(disconnect(&server, "r1", 60_000).await, json!(["sent", 1]));
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
    assert_eq!(disconnect(&server, "r1", 60_000).await, json!(["sent", 0]));
    server
        .command(&["HSET", &profile(ADA), "disconnected", "1700000000000"])
        .await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, json!(["sent", 0]));
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
    let left_ms = server.answer_left_ms("r1").await;
    assert!((110_000..=120_000).contains(&left_ms), "{left_ms}");

    assert_eq!(disconnect(&server, "r2", 60_000).await, json!(["sent", 1]));
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
    assert_eq!(disconnect(&server, "r1", 60_000).await, json!(["sent", 0]));
    delete(&server, ADA).await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(disconnect(&server, "r1", 60_000).await, json!(["sent", 0]));
    assert_eq!(disconnect(&server, "r2", 60_000).await, json!(["deleted"]));
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
}

/// Goal: revoking keeps from when on tokens count, leaves the mark of a disconnection, and says so once.
/// Method: the answer, what is stored and for how long, the message; Redis's time encloses both.
#[tokio::test]
async fn revoking_is_disconnecting_with_a_memory() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let before = server.now_ms().await;
    let answer = revoke(&server, "r1", (60_000, 90_000)).await;
    let after = server.now_ms().await;
    assert_eq!(answer[1], 1, "{answer}");
    assert_eq!(topic.next().await, json!({ "kind": "disconnect" }));
    topic.hears_nothing().await;

    let revoked = number(&answer[2]);
    // The millisecond that had begun counts as before.
    let within = before + 1..=after + 1;
    assert!(within.contains(&revoked), "{before} {revoked} {after}");
    let stored = server.command(&["GET", &key("revoked:42")]).await;
    assert_eq!(stored, revoked.to_string());
    let fields = server.hash(&profile(ADA)).await;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["disconnected"]);
    assert_eq!(number(&json!(fields["disconnected"])), revoked - 1);
    for (name, kept_ms) in [(profile(ADA), 60_000), (key("revoked:42"), 90_000)] {
        let left_ms = number(&server.command(&["PTTL", &name]).await);
        assert!((kept_ms - 10_000..=kept_ms).contains(&left_ms), "{name}");
    }
}

/// Goal: a request that is repeated revokes nothing that was issued meanwhile: it is answered the same and nothing is
/// said. A new one moves the time on.
/// Method: another time and another day in between.
#[tokio::test]
async fn a_request_revokes_once() {
    let server = Server::start().await;
    let answer = revoke(&server, "r1", (60_000, 60_000)).await;
    assert_eq!(answer[1], 0, "{answer}");
    server
        .command(&["SET", &key("revoked:42"), "1700000000000"])
        .await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(revoke(&server, "r1", (60_000, 60_000)).await, answer);
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
    let left_ms = server.answer_left_ms("r1").await;
    assert!((110_000..=120_000).contains(&left_ms), "{left_ms}");

    let again = revoke(&server, "r2", (60_000, 60_000)).await;
    assert_eq!(again[1], 1, "{again}");
    assert!(number(&again[2]) >= number(&answer[2]), "{again}");
    assert_eq!(topic.next().await, json!({ "kind": "disconnect" }));
}

/// Goal: the time never goes back, also where Redis's clock was set back; how long it is kept begins anew.
/// Method: a time from the year 2100 that has ten seconds left.
#[tokio::test]
async fn a_revocation_moves_forward_only() {
    let server = Server::start().await;
    let later = 4_102_444_800_000_u64;
    let text = later.to_string();
    server
        .command(&["SET", &key("revoked:42"), &text, "PX", "10000"])
        .await;
    let answer = revoke(&server, "r1", (60_000, 60_000)).await;
    assert_eq!(answer, json!(["sent", 0, later]));
    assert_eq!(server.command(&["GET", &key("revoked:42")]).await, text);
    let left_ms = number(&server.command(&["PTTL", &key("revoked:42")]).await);
    assert!(left_ms > 10_000, "{left_ms}");
}

/// Goal: a deleted account has no tokens to revoke; a request answered before keeps its answer.
/// Method: one request before the deletion, repeated after it, and a new one.
#[tokio::test]
async fn a_deleted_account_has_nothing_to_revoke() {
    let server = Server::start().await;
    let answer = revoke(&server, "r1", (60_000, 60_000)).await;
    delete(&server, ADA).await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(revoke(&server, "r1", (60_000, 60_000)).await, answer);
    let refused = revoke(&server, "r2", (60_000, 60_000)).await;
    assert_eq!(refused, json!(["deleted"]));
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
}
