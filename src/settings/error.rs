//! What can be wrong with settings, in words that say what to do about it.

use std::io;
use std::path::PathBuf;

use super::reference::variable;

/// Why the settings are not usable; each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file that was asked for cannot be read.
    #[error("cannot read {}, which {asked_by} names: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The flag or key that names it.
        asked_by: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A settings file is no TOML.
    #[error("{} is not valid TOML: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why, without the line itself: it may hold a secret.
        problem: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key} in {place}: {hint}")]
    Unknown {
        /// The whole key.
        key: String,
        /// The file or variable.
        place: String,
        /// Which keys there are.
        hint: String,
    },
    /// A value that cannot be read.
    #[error("{key} ({}): {problem}; write for example {example}", variable(key))]
    Unparsable {
        /// The whole key.
        key: String,
        /// What is wrong with the value.
        problem: String,
        /// A value that would do, as TOML.
        example: &'static str,
    },
    /// A value that can be read but makes no sense.
    #[error("{key} ({}) {problem}", variable(key))]
    Invalid {
        /// The whole key.
        key: &'static str,
        /// What it must be.
        problem: String,
    },
    /// Two keys of which only one may be set.
    #[error("{first} and {second} are both set: remove one of them")]
    Both {
        /// The one key.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Development keys would be a hole here.
    #[error(
        "{why}, so it needs keys of its own: set {what}, each to the output of `openssl rand -hex 32`"
    )]
    KeysMissing {
        /// What makes it a hole.
        why: String,
        /// The variables to set.
        what: &'static str,
    },
    /// The layers do not fit together.
    #[error("cannot merge the settings: {0}")]
    Merge(String),
}
