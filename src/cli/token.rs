//! `vigie token`: prints a token for development.

use std::process::ExitCode;
use std::time::Duration;

use crate::app;
use crate::domain::token;
use crate::ids::UserId;
use crate::settings::Settings;
use clap::Args;

use super::{EXIT_CONFIG, fail, print};

#[derive(Args)]
pub(super) struct TokenArgs {
    /// Account that the token identifies
    #[arg(long, value_name = "ID")]
    user: UserId,
    /// Time to live: 30s, 1h, 7days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// Prints only the token, so that `TOKEN=$(vigie token --user 42)` works.
pub(super) fn run(settings: &Settings, args: &TokenArgs) -> ExitCode {
    match token::issue(&app::token_options(&settings.auth), args.user, args.ttl) {
        Ok(token) => print(&format!("{token}\n")),
        Err(error) => fail(EXIT_CONFIG, error),
    }
}
