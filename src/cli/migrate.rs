//! `vigie migrate`: creates the tables in Postgres, or brings them up to date.

use std::fmt::Write;
use std::process::ExitCode;

use crate::app;
use crate::settings::Settings;

use super::{EXIT_CONFIG, block_on, fail, print};

/// Applies what is missing and says what that was.
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
        Ok(Ok(applied)) => print(&in_words(&applied)),
        Ok(Err(error)) => fail(1, error),
        Err(code) => code,
    }
}

/// One line for each migration.
fn in_words(applied: &[String]) -> String {
    if applied.is_empty() {
        return "the schema is up to date\n".to_owned();
    }
    let mut text = String::new();
    for name in applied {
        // A string to write into never fails.
        let _ = writeln!(text, "applied {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_is_told() {
        assert_eq!(
            in_words(&["V1__profiles".to_owned()]),
            "applied V1__profiles\n"
        );
        assert_eq!(in_words(&[]), "the schema is up to date\n");
    }
}
