//! `lua/matchmaking/expire.lua`: who has waited too long.

use super::{assert_sound, enqueue, enqueue_all, expire_version, key, queue, ticket, timeouts};
use crate::harness::{ADA, BOB};
use crate::scripts::Server;

/// Goal: a ticket expires once, and its user is to be notified; nobody else is concerned.
/// Method: one of two tickets; the keys, and a repeat.
#[tokio::test]
async fn a_ticket_expires() {
    let server = Server::start().await;
    enqueue_all(&server, 1000, &[ADA, BOB]).await;
    let version = ticket(&server, ADA).await.expect("it waits").version;
    assert_eq!(expire_version(&server, ADA, version).await, "expired");
    assert_eq!(queue(&server).await, [BOB]);
    assert_eq!(ticket(&server, ADA).await, None);
    let due = server.scores(&key("timeouts")).await;
    assert_eq!(due, [("42".to_owned(), 0)]);
    assert_sound(&server, "one expired").await;
    let before = server.contents().await;
    assert_eq!(expire_version(&server, ADA, version).await, "kept");
    assert_eq!(server.contents().await, before);
}

/// Goal: a user who has joined again since, or has left, is not told that a ticket expired.
/// Method: the version before the last, and one after leaving; all that Redis holds.
#[tokio::test]
async fn another_version_is_kept() {
    let server = Server::start().await;
    enqueue(&server, ADA, 1000).await;
    let old = ticket(&server, ADA).await.expect("it waits").version;
    enqueue(&server, ADA, 1000).await;
    let before = server.contents().await;
    for (user, version) in [(ADA, old), (ADA, old + 2), (BOB, old)] {
        assert_eq!(expire_version(&server, user, version).await, "kept");
    }
    assert_eq!(server.contents().await, before);
    assert!(timeouts(&server).await.is_empty());
}
