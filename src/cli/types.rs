//! `vigie types`: TypeScript for front ends.

use std::process::ExitCode;

use crate::transport::protocol;

use super::print;

/// Prints the types of all events.
pub(super) fn run() -> ExitCode {
    print(&protocol::typescript())
}
