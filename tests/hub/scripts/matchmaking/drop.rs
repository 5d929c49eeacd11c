//! `lua/matchmaking/drop.lua`: who went offline waits no more.

use super::{assert_sound, drop_ticket, enqueue, expire, match_of, queue, ticket, timeouts};
use crate::harness::{ADA, BOB, EVE};
use crate::scripts::Server;

/// Goal: a node that saw an older ticket does not take away one that was asked for since.
/// Method: the version before the last, one that never was, then the right one; all that Redis holds in between.
#[tokio::test]
async fn another_version_is_kept() {
    let server = Server::start().await;
    enqueue(&server, ADA, 1000).await;
    let old = ticket(&server, ADA).await.expect("it waits").version;
    enqueue(&server, ADA, 1000).await;
    let version = ticket(&server, ADA).await.expect("it waits").version;
    let before = server.contents().await;
    for other in [old, version + 1] {
        assert_eq!(drop_ticket(&server, ADA, other).await, "kept");
    }
    assert_eq!(server.contents().await, before);
    assert_eq!(drop_ticket(&server, ADA, version).await, "dropped");
    assert_eq!(drop_ticket(&server, ADA, version).await, "kept");
    assert_sound(&server, "gone").await;
    assert!(queue(&server).await.is_empty());
}

/// Goal: a version means a ticket only, not the match that came of it, nor that it expired.
/// Method: any version once the user is in a match, and once the ticket expired.
#[tokio::test]
async fn a_version_means_no_match() {
    let server = Server::start().await;
    match_of(&server, 1000, [ADA, BOB]).await;
    enqueue(&server, EVE, 1000).await;
    expire(&server, &[EVE]).await;
    assert_eq!(timeouts(&server).await, [EVE].into());
    let before = server.contents().await;
    for user in [ADA, BOB, EVE] {
        for version in 1..5 {
            assert_eq!(drop_ticket(&server, user, version).await, "kept");
        }
    }
    assert_eq!(server.contents().await, before);
}
