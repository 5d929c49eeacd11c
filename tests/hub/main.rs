//! The hub as its users meet it: real nodes, a real Redis, the official client.
//!
//! `tests/README.md` says how the harness works and which file covers what.

// Modules of a test program are reachable from nowhere; `pub` marks here what a file offers to the
// others.
#![allow(unreachable_pub)]
#![allow(clippy::panic, reason = "a test fails by it, in the harness too")]

mod harness;

mod abuse;
mod admin;
mod balancers;
#[cfg(feature = "bench")]
mod bench;
mod cli;
mod conformance;
mod connections;
#[cfg(feature = "bench")]
mod deployment;
mod doctor;
mod engines;
mod faults;
mod frontend;
mod inspect;
mod internal_api;
mod limits;
mod logs;
mod matchmaking;
mod metrics;
mod notifications;
mod order;
mod payloads;
mod playground;
mod polling;
mod postgres;
mod presence;
mod profiles;
mod readiness;
mod revocation;
mod scripts;
mod tls;
mod tokens;
mod transports;
mod types;
mod visibility;
mod watch;
