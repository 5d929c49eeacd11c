//! The same guarantees, whichever transport carries a connection. Clients use a WebSocket unless a test says otherwise;
//! here the tests of what clients see run again, over polling and over sessions that are upgraded.

use std::process::Command;
use std::time::Duration;

use crate::harness::{TRANSPORTS, run_within};

/// The tests that run again.
const TESTS: &[&str] = &[
    "abuse::events::",
    "abuse::values::",
    "connections::",
    "frontend::",
    "matchmaking::",
    "notifications::",
    "order::",
    "payloads::",
    "presence::",
    "revocation::",
    "tokens::",
    "visibility::",
    "watch::",
];

/// Tests with one of these names do not run again: they are about raw connections or scripts, or need a WebSocket.
const SKIPPED: &[&str] = &[
    "abuse::connections::",
    "abuse::tokens::",
    "scripts::",
    "transports::",
    // Its balancer is not sticky, so polls reach nodes that do not have the session.
    "a_node_is_killed_while_they_wait",
    // With a queue of 100 packets, of which a poll takes 16.
    "everybody_may_sign_in_at_once",
];

/// How long all of them may take.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// Goal: a client that only polls sees what one with a WebSocket sees.
/// Method: this program runs itself with another default.
#[tokio::test]
async fn the_same_over_polling() {
    passes_over("polling").await;
}

/// Goal: the same for sessions that begin by polling and are upgraded.
/// Method: the same.
#[tokio::test]
async fn the_same_over_upgraded_sessions() {
    passes_over("polling,websocket").await;
}

async fn passes_over(transports: &str) {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args(TESTS).env(TRANSPORTS, transports);
    program.args(["--test-threads", "2"]);
    program.args(SKIPPED.iter().flat_map(|name| ["--skip", name]));
    let output = run_within(TIME_LIMIT, program).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "over {transports}:\n{said}");
}
