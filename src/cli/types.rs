//! `vigie types`: prints TypeScript types of the socket events.

use std::process::ExitCode;

use crate::transport::protocol;

use super::print;

pub(super) fn run() -> ExitCode {
    print(&protocol::typescript())
}
