//! Errors of opening an engine and of calling it.

use std::fmt;

use super::ErrorReply;
use crate::tls::TrustError;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine is unreachable or did not answer in time; retry later.
    #[error("redis cannot be reached: {0}")]
    Unavailable(String),
    /// The engine rejected the command with an error reply.
    #[error("redis refuses: {0}")]
    Refused(ErrorReply),
    /// A temporary state of the node or the engine; retry later.
    #[error("temporarily unavailable: {0}")]
    NotNow(String),
    /// This version does not understand the engine's answer.
    #[error("unexpected answer from redis: {0}")]
    Answer(String),
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is invalid.
    #[error(
        "redis.url is not a Redis URL ({0}); write redis://host:6379, rediss:// for TLS, redis-cluster:// or redis-sentinel://"
    )]
    Url(String),
    /// The trusted certificates cannot be loaded.
    #[error("redis.ca_file (VIGIE_REDIS__CA_FILE) {0}")]
    Trust(#[from] TrustError),
    /// Redis did not answer.
    #[error(
        "redis at {server} cannot be reached ({cause}); start it, or correct redis.url (VIGIE_REDIS__URL)"
    )]
    Unreachable {
        /// Host and port.
        server: String,
        /// The underlying error.
        cause: String,
    },
    /// Redis rejects the connection or a command.
    #[error("redis at {server} refuses: {refusal}")]
    Refused {
        /// Host and port.
        server: String,
        /// The error reply.
        refusal: ErrorReply,
    },
    /// The user in the URL lacks permissions.
    #[error("redis at {server} refuses: {denied}")]
    Denied {
        /// Host and port.
        server: String,
        /// The missing permissions, and how to grant them.
        denied: Denied,
    },
    /// The server is too old.
    #[error(
        "redis at {server} is {found}; vigie needs Redis 7.0 or Valkey 7.2 at least: upgrade it, or name another one in \
         redis.url (VIGIE_REDIS__URL)"
    )]
    TooOld {
        /// Host and port.
        server: String,
        /// The server's name and version.
        found: String,
    },
    /// The server's certificate was not accepted.
    #[error("redis at {server} does not prove who it is: {problem} ({cause})")]
    Untrusted {
        /// Host and port.
        server: String,
        /// The fault of the certificate, and what to do.
        problem: &'static str,
        /// The underlying error.
        cause: String,
    },
    /// The data under this prefix has another layout.
    #[error(
        "the data under the prefix {prefix:?} has layout {found_layout} and {found_partitions} partitions, this node \
         is configured for layout {layout} and {partitions}; {}",
        agreement(*layout, *found_layout, *found_partitions)
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

/// How a node comes to agree with the data that it found.
fn agreement(layout: u64, found_layout: u64, found_partitions: u64) -> String {
    if layout == found_layout {
        format!(
            "set redis.partitions (VIGIE_REDIS__PARTITIONS) to {found_partitions}, or choose another redis.prefix"
        )
    } else {
        "stop the nodes of the other version and see \"Upgrade\" in config/README.md, or choose another redis.prefix"
            .to_owned()
    }
}

/// Missing permissions of the user in the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The commands, key patterns or channel patterns.
    pub missing: Vec<String>,
    /// The `ACL SETUSER` command that grants them.
    pub grant: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.join(", ");
        write!(
            f,
            "NOPERM, its user may not use {missing}; grant it: {}",
            self.grant
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disagreement_names_what_can_be_changed() {
        let error = |layout, partitions| {
            let (prefix, found_layout, found_partitions) = ("vigie".to_owned(), 2, 4);
            let error = OpenError::Disagreement {
                prefix,
                layout,
                partitions,
                found_layout,
                found_partitions,
            };
            error.to_string()
        };
        assert!(error(2, 1).contains("VIGIE_REDIS__PARTITIONS"));
        // No number of partitions makes another layout readable.
        assert!(!error(3, 4).contains("VIGIE_REDIS__PARTITIONS"));
    }
}
