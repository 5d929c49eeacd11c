//! `vigie check-config`: checks whether a node would start with these settings, and prints them.

use std::fmt::Write;
use std::process::ExitCode;

use crate::app;
use crate::domain::token::TokenVerifier;
use crate::settings::Settings;
use serde_json::Value;

use super::{EXIT_CONFIG, fail, print, warn};

/// Checks what loading does not: files with public keys and certificate authorities, and the details of URLs.
pub(super) fn run(settings: &Settings) -> ExitCode {
    if let Err(error) = TokenVerifier::new(&app::token_options(&settings.auth)) {
        return fail(EXIT_CONFIG, error);
    }
    if let Err(error) = app::check_redis(settings) {
        return fail(EXIT_CONFIG, error);
    }
    if let Err(error) = app::profiles(settings) {
        return fail(EXIT_CONFIG, error);
    }
    for warning in settings.warnings() {
        warn(&warning);
    }
    if settings.development() {
        warn("a published development key is in use; use it on this machine only");
    }
    match serde_json::to_value(settings) {
        Ok(settings) => print(&format!("configuration is valid\n\n{}", as_toml(&settings))),
        Err(error) => fail(1, error),
    }
}

/// Formats settings as TOML: keys outside sections first, unset keys as comments.
fn as_toml(settings: &Value) -> String {
    let mut top = String::new();
    let mut sections = String::new();
    for (name, value) in settings.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(keys) => {
                let _ = writeln!(sections, "\n[{name}]");
                keys.iter()
                    .for_each(|(key, value)| write_key(&mut sections, key, value));
            }
            None => write_key(&mut top, name, value),
        }
    }
    top + &sections
}

fn write_key(text: &mut String, key: &str, value: &Value) {
    // Writing to a `String` cannot fail.
    let _ = match value {
        Value::Null => writeln!(text, "# {key} is not set"),
        value => writeln!(text, "{key} = {value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_as_toml_without_secrets() {
        let environment = [
            ("VIGIE_AUTH__SECRET".to_owned(), "s3cr3t".to_owned()),
            ("VIGIE_REDIS__URL".to_owned(), "redis://:pa55@db".to_owned()),
        ];
        let settings = Settings::load(None, environment).unwrap();
        let shown = as_toml(&serde_json::to_value(&settings).unwrap());
        for line in [
            "engine = \"memory\"",
            "[limits]",
            "message = \"16KiB\"",
            "lease = \"6s\"",
            "url = \"redis://***@db\"",
            "secret = \"***\"",
            "# issuer is not set",
        ] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{line} in {shown}"
            );
        }
        assert!(
            !shown.contains("s3cr3t") && !shown.contains("pa55"),
            "{shown}"
        );
    }
}
