//! The harness: a private Redis, N nodes, one Node process with the official client.
//!
//! Nothing here sleeps for a fixed time. A wait is a condition with a deadline ([`eventually`]),
//! and silence is proved by order: something sent afterwards arrives first.

mod balancer;
mod bridge;
mod certificates;
mod client;
mod cluster;
mod connecting;
mod http;
mod keys;
mod node;
mod postgres;
mod process;
mod proxy;
mod raw;
mod redis;
mod redis_cluster;
mod samples;
mod servers;
mod waiting;
mod wire;

use std::time::{Duration, Instant};

pub use balancer::{Balancer, Program};
pub use certificates::Authority;
pub use client::{Client, Record, Status::Offline, Status::Online};
pub use cluster::{Builder, Cluster, NODE_KEY, SECRET};
pub use connecting::{Connecting, TRANSPORTS, issued, now_seconds, sign, token};
pub use http::Answer;
pub use keys::{EC_PRIVATE, EC_PUBLIC, ED_PRIVATE, ED_PUBLIC, FOREIGN_PRIVATE, FOREIGN_X};
pub use keys::{Signer, base64url, file};
pub use postgres::{Postgres, profiles};
pub use process::{project_root, run, run_within, scratch, tethered, vigie};
#[cfg(feature = "bench")]
pub use process::{signal, vigie_bench};
pub use redis::Redis;
pub use samples::{kinds, profile, public, revision};
pub use servers::Servers;
pub use wire::{Heard, WEBSOCKET, Wire, announcing, frame};

/// Users that tests are about.
pub const ADA: u64 = 42;
/// Another one.
pub const BOB: u64 = 7;
/// A third one.
pub const EVE: u64 = 1815;
/// Somebody whose coming or update shows that nothing else was under way before.
pub const MARKER: u64 = 999;

/// How long a condition may take to come true; generous, since nothing is timed.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Asks `probe` until it answers, and fails the test when it has not by the deadline.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Like [`eventually`], for a value that must become `wanted`; a failure shows the last one seen.
pub async fn eventually_eq<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: T,
    mut probe: impl AsyncFnMut() -> T,
) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = probe().await;
        if seen == wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not within {DEADLINE:?}: {what}\n wanted {wanted:?}\n   seen {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
