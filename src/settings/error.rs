//! Errors of loading settings.

use std::io;
use std::path::PathBuf;

use super::reference::variable;

/// Why settings are unusable. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A named file cannot be read.
    #[error("cannot read {}, which {asked_by} names: {source}", path.display())]
    Unreadable {
        /// Path as given.
        path: PathBuf,
        /// The flag or key that names the file.
        asked_by: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The settings file is not valid TOML.
    #[error("{} is not valid TOML: {problem}", path.display())]
    Syntax {
        /// Path as given.
        path: PathBuf,
        /// Position and reason, without the line itself, which may contain a secret.
        problem: String,
    },
    /// A key does not exist.
    #[error("unknown key {key} in {place}: {hint}")]
    Unknown {
        /// Key with its section.
        key: String,
        /// The file or variable that has the key.
        place: String,
        /// Existing keys.
        hint: String,
    },
    /// A value cannot be parsed.
    #[error("{key} ({}): {problem}; write for example {example}", variable(key))]
    Unparsable {
        /// Key with its section.
        key: String,
        /// Reason of the failure.
        problem: String,
        /// A valid value, as TOML.
        example: &'static str,
    },
    /// A value breaks a rule.
    #[error("{key} ({}) {problem}", variable(key))]
    Invalid {
        /// Key with its section.
        key: &'static str,
        /// The rule, in words that follow the key.
        problem: String,
    },
    /// Two exclusive keys are set.
    #[error("{first} and {second} are both set: remove one of them")]
    Both {
        /// Key with its section.
        first: &'static str,
        /// Key with its section.
        second: &'static str,
    },
    /// Keys are missing, and development keys would be insecure.
    #[error(
        "{why}, so it needs keys of its own: set {what}, each to the output of `openssl rand -hex 32`"
    )]
    KeysMissing {
        /// Why the hub is exposed.
        why: String,
        /// The variables to set.
        what: &'static str,
    },
    /// The library cannot merge the layers.
    #[error("cannot merge the settings: {0}")]
    Merge(String),
}
