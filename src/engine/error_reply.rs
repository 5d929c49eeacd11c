//! Redis error replies, classified by their first word.

use std::fmt;

/// Separates the error of a command inside a script from the script's hash and the line.
const SCRIPT: &str = " script: ";
const SCRIPT_LINE: &str = ", on @";

/// Redis 7.0 says these instead of `NOPERM` about a command inside a script; later versions say both.
const DENIED_IN_SCRIPT: [&str; 2] = ["The user executing the script", "ACL failure in script"];

/// An error reply. Its text says what an operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorReply {
    /// `OOM`: `maxmemory` is reached.
    OutOfMemory,
    /// `READONLY`: the server is a replica.
    ReadOnly,
    /// `NOPERM`: the user lacks a right. Holds the reply.
    NoPermission(String),
    /// `MISCONF`: the last snapshot failed, so the server accepts no writes.
    Misconfigured,
    /// `WRONGPASS` or `NOAUTH`: the credentials are wrong or missing. Holds the reply.
    Unauthenticated(String),
    /// Any other error reply, for example `LOADING`, `BUSY` or `CLUSTERDOWN`.
    Other(String),
}

impl ErrorReply {
    /// Parses an error reply; `None` for an error that is not the server's own.
    pub(crate) fn read(reply: &str) -> Option<Self> {
        let reply = match reply.rsplit_once(SCRIPT) {
            Some((reply, place)) if place.contains(SCRIPT_LINE) => reply,
            _ => reply,
        };
        let reply = reply.trim_end_matches('.');
        let (code, message) = reply.split_once(' ').unwrap_or((reply, ""));
        if code.len() < 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        Some(match code {
            "OOM" => Self::OutOfMemory,
            "READONLY" => Self::ReadOnly,
            "NOPERM" => Self::NoPermission(message.to_owned()),
            _ if DENIED_IN_SCRIPT
                .iter()
                .any(|words| message.starts_with(words)) =>
            {
                Self::NoPermission(message.to_owned())
            }
            "MISCONF" => Self::Misconfigured,
            "WRONGPASS" | "NOAUTH" => Self::Unauthenticated(reply.to_owned()),
            _ => Self::Other(reply.to_owned()),
        })
    }

    /// The first word of the reply.
    pub fn code(&self) -> &str {
        match self {
            Self::OutOfMemory => "OOM",
            Self::ReadOnly => "READONLY",
            Self::NoPermission(_) => "NOPERM",
            Self::Misconfigured => "MISCONF",
            Self::Unauthenticated(reply) | Self::Other(reply) => {
                reply.split(' ').next().unwrap_or_default()
            }
        }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => write!(
                f,
                "OOM, its memory is full; raise maxmemory, or find out what fills it (redis-cli --memkeys)"
            ),
            Self::ReadOnly => write!(
                f,
                "READONLY, the server is a replica; name the primary in redis.url (VIGIE_REDIS__URL), or use \
                 redis-sentinel://"
            ),
            Self::NoPermission(message) => write!(
                f,
                "NOPERM, its user lacks a right ({message}); config/README.md has the ACL that a node needs"
            ),
            Self::Misconfigured => write!(
                f,
                "MISCONF, it cannot save its data to disk and takes no writes; free the disk or correct dir, as the \
                 log of redis says"
            ),
            Self::Unauthenticated(reply) => write!(
                f,
                "{reply}; correct the user and the password in redis.url (VIGIE_REDIS__URL)"
            ),
            Self::Other(reply) => f.write_str(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies of Redis 7.0.15, and of 7.2 where it says something else.
    #[test]
    fn replies_are_classified_by_their_code() {
        for (reply, code) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 897a, on @user_script:1.",
                "OOM",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "READONLY",
            ),
            (
                "NOPERM this user has no permissions to run the 'set' command",
                "NOPERM",
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 897a, on @user_script:1.",
                "NOPERM",
            ),
            (
                "ERR ACL failure in script: User u has no permissions to run the 'set' command script: 8, on @user_script:1.",
                "NOPERM",
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
                "MISCONF",
            ),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                "WRONGPASS",
            ),
            ("NOAUTH Authentication required.", "NOAUTH"),
            ("LOADING Redis is loading the dataset in memory", "LOADING"),
            (
                "ERR unknown command 'SPUBLISH', with args beginning with: ",
                "ERR",
            ),
        ] {
            let refusal = ErrorReply::read(reply).expect(reply);
            assert_eq!(refusal.code(), code, "{reply}");
            let text = refusal.to_string();
            assert!(text.contains(code) && !text.contains("script: 8"), "{text}");
        }
    }

    #[test]
    fn errors_of_the_connection_are_no_refusals() {
        for error in [
            "",
            "Request timed out.",
            "Connection Closed",
            "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }",
            "IO",
        ] {
            assert_eq!(ErrorReply::read(error), None, "{error}");
        }
    }
}
