//! `lua/matchmaking/restore.lua`: who waited before Redis lost data.

use serde_json::json;

use super::{enqueue, restore, ticket};
use crate::harness::ADA;
use crate::scripts::Server;

/// Goal: a ticket that was lost comes back with the time at which the user joined first.
/// Method: a time of another day; asked once more.
#[tokio::test]
async fn a_lost_ticket_keeps_its_time() {
    let server = Server::start().await;
    let since_ms = 1_700_000_000_000_u64;
    let answer = restore(&server, ADA, 1000, since_ms).await;
    assert_eq!(answer, json!(["queued", since_ms]));
    let joined_ms = ticket(&server, ADA).await.expect("it waits").joined_ms;
    assert_eq!(joined_ms, since_ms);
    let answer = enqueue(&server, ADA, 1000).await;
    assert_eq!(answer, json!(["already_queued", since_ms]));
}
