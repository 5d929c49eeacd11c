//! Why an engine cannot be opened, or a call fails.

use std::fmt;

use super::Refusal;
use crate::tls::TrustError;

/// What a caller can do about a failed call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot be reached or did not answer in time: try again later.
    #[error("redis cannot be reached: {0}")]
    Unavailable(String),
    /// The engine received the command and refuses it, for a reason that it names.
    #[error("redis refuses: {0}")]
    Refused(Refusal),
    /// This node cannot do it at the moment: try again later.
    #[error("the node cannot do it at the moment: {0}")]
    NotNow(String),
    /// The engine answered something that this version does not understand.
    #[error("redis gave an answer that makes no sense here: {0}")]
    Answer(String),
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error(
        "redis.url is no Redis URL ({0}); write redis://host:6379, rediss:// for TLS, redis-cluster:// or redis-sentinel://"
    )]
    Url(String),
    /// Nobody is trusted to sign the server's certificate.
    #[error("redis.ca_file (VIGIE_REDIS__CA_FILE) {0}")]
    Trust(#[from] TrustError),
    /// Redis did not answer.
    #[error(
        "redis at {server} cannot be reached ({cause}); start it, or correct redis.url (VIGIE_REDIS__URL)"
    )]
    Unreachable {
        /// Where Redis was looked for, without its password.
        server: String,
        /// What went wrong.
        cause: String,
    },
    /// Redis answers, and refuses.
    #[error("redis at {server} refuses: {refusal}")]
    Refused {
        /// Where Redis was looked for, without its password.
        server: String,
        /// The reason that Redis names.
        refusal: Refusal,
    },
    /// The user of the URL lacks rights.
    #[error("redis at {server} refuses: {denied}")]
    Denied {
        /// Where Redis was looked for, without its password.
        server: String,
        /// Which rights, and how to grant them.
        denied: Denied,
    },
    /// The server is too old for what the hub does.
    #[error(
        "redis at {server} is {found}; vigie needs Redis 7.0 or Valkey 7.2 at least: upgrade it, or name another one in \
         redis.url (VIGIE_REDIS__URL)"
    )]
    TooOld {
        /// Where Redis was looked for, without its password.
        server: String,
        /// Its name and version.
        found: String,
    },
    /// Whoever answered is not who was to answer.
    #[error("redis at {server} does not prove who it is: {problem} ({cause})")]
    Untrusted {
        /// Where Redis was looked for, without its password.
        server: String,
        /// What is wrong with its certificate, and what to do.
        problem: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// The data under this prefix has another shape.
    #[error(
        "the data under the prefix {prefix:?} has layout {found_layout} and {found_partitions} partitions, this node \
         is configured for layout {layout} and {partitions}; set redis.partitions (VIGIE_REDIS__PARTITIONS) to \
         {found_partitions}, or choose another redis.prefix"
    )]
    Disagreement {
        /// The prefix of all keys.
        prefix: String,
        /// The layout version this node was built for.
        layout: u64,
        /// The partition count this node is configured for.
        partitions: u64,
        /// The layout version recorded.
        found_layout: u64,
        /// The partition count recorded.
        found_partitions: u64,
    },
}

/// Commands that the user of the URL may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The commands, keys or channels, as the server names them.
    pub what: Vec<String>,
    /// The command that grants all of it.
    pub grant: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.join(", ");
        write!(
            f,
            "NOPERM, its user may not use {what}; grant it: {}",
            self.grant
        )
    }
}
