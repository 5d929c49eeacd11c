//! `vigie man`: manual pages, one per command.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;

use super::{EXIT_CONFIG, fail, print};

#[derive(Args)]
pub(super) struct ManArgs {
    /// A command, such as `inspect` or `inspect user` [default: the page of the program]
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

/// Prints a page as roff, for `man -l -`.
pub(super) fn run(mut command: Command, args: &ManArgs) -> ExitCode {
    command.build();
    let mut page = command;
    for word in &args.words {
        match page.find_subcommand(word) {
            Some(found) => page = found.clone(),
            None => {
                return fail(
                    EXIT_CONFIG,
                    format_args!("there is no command {word:?}; `vigie --help` lists them"),
                );
            }
        }
    }
    // Named by the command's words, joined with hyphens: vigie-inspect-user(1).
    let mut text = Vec::new();
    let version = format!("vigie {}", env!("CARGO_PKG_VERSION"));
    match Man::new(page).source(version).render(&mut text) {
        Ok(()) => print(&String::from_utf8_lossy(&text)),
        Err(error) => fail(1, format_args!("cannot write the page: {error}")),
    }
}
