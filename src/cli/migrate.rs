//! `vigie migrate`: creates or migrates the tables in Postgres.

use std::fmt::Write;
use std::process::ExitCode;

use crate::app;
use crate::settings::Settings;

use super::{EXIT_CONFIG, block_on, fail, print};

/// Applies the missing migrations and lists them.
pub(super) fn run(settings: &Settings) -> ExitCode {
    let profiles = match app::profiles(settings) {
        Ok(Some(profiles)) => profiles,
        Ok(None) => {
            return fail(
                EXIT_CONFIG,
                "postgres.url is not set, so there is nothing to migrate; set it (VIGIE_POSTGRES__URL)",
            );
        }
        Err(error) => return fail(EXIT_CONFIG, error),
    };
    match block_on(profiles.migrate(), 1) {
        Ok(Ok(applied)) => print(&as_text(&applied)),
        Ok(Err(error)) => fail(1, error),
        Err(code) => code,
    }
}

fn as_text(applied: &[String]) -> String {
    if applied.is_empty() {
        return "the schema is up to date\n".to_owned();
    }
    let mut text = String::new();
    for name in applied {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "applied {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_is_listed() {
        assert_eq!(
            as_text(&["V1__profiles".to_owned()]),
            "applied V1__profiles\n"
        );
        assert_eq!(as_text(&[]), "the schema is up to date\n");
    }
}
