//! `vigie completions`: shell completions.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::print;

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell that reads it
    shell: Shell,
}

pub(super) fn run(mut command: Command, args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "vigie", &mut script);
    print(&String::from_utf8_lossy(&script))
}
