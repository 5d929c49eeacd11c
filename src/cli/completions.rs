//! `vigie completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::print;

/// For which shell.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell that reads it
    shell: Shell,
}

/// Prints the script for the shell.
pub(super) fn run(mut command: Command, args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "vigie", &mut script);
    print(&String::from_utf8_lossy(&script))
}
