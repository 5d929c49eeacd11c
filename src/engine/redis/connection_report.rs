//! A node's report of the connections it holds: a list in Redis, written in parts.
//!
//! Every part but the last holds connections as `"<user>/<connection>"`; the last names the sender and their number, so
//! that an incomplete report, or one of another incarnation, is not accepted.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::servers::Servers;
use crate::engine::EngineError;
use crate::ids::{ConnectionId, UserConnection};

/// Connections per part.
const PART_LEN_MAX: usize = 1000;

/// How long a report is kept after its newest part: the requester reads it at once, or has given up.
const KEPT_FOR: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ReportPart {
    Connections(Vec<String>),
    End {
        incarnation: String,
        connections: usize,
    },
}

/// Writes a report to the list at `key`.
pub(super) async fn write(
    servers: &Servers,
    key: &str,
    incarnation: String,
    held: &[UserConnection],
) -> Result<(), EngineError> {
    for part in held.chunks(PART_LEN_MAX) {
        let entries = part.iter().map(|(user, id)| format!("{user}/{id}"));
        append(servers, key, ReportPart::Connections(entries.collect())).await?;
    }
    let connections = held.len();
    let end = ReportPart::End {
        incarnation,
        connections,
    };
    append(servers, key, end).await
}

async fn append(servers: &Servers, key: &str, part: ReportPart) -> Result<(), EngineError> {
    let part = serde_json::to_string(&part)
        .map_err(|error| EngineError::Answer(format!("a report cannot be written: {error}")))?;
    let push = vec![key.to_owned(), part];
    let expire = vec![key.to_owned(), KEPT_FOR.as_millis().to_string()];
    // Together, so that a node that dies in between leaves no list without an expiry.
    let commands = [("RPUSH", push), ("PEXPIRE", expire)];
    servers.call_together(key, &commands).await?;
    Ok(())
}

/// A report being read. A repeated part counts once.
#[derive(Default)]
pub(super) struct Reassembly {
    held: HashSet<UserConnection>,
}

pub(super) enum Progress {
    /// More parts follow.
    Unfinished,
    /// The last part was read; `None` if the report is not valid.
    Finished(Option<HashSet<UserConnection>>),
}

impl Reassembly {
    /// Adds the next part of the report of `incarnation`.
    pub(super) fn push(&mut self, incarnation: &str, part: &str) -> Progress {
        match serde_json::from_str(part) {
            Ok(ReportPart::Connections(entries)) => {
                self.held
                    .extend(entries.iter().filter_map(|entry| read_entry(entry)));
                Progress::Unfinished
            }
            Ok(ReportPart::End {
                incarnation: sender,
                connections,
            }) => {
                let is_complete = sender == incarnation && connections == self.held.len();
                Progress::Finished(is_complete.then(|| std::mem::take(&mut self.held)))
            }
            Err(_) => Progress::Finished(None),
        }
    }
}

/// Reads `<user>/<connection>`.
pub(super) fn read_entry(entry: &str) -> Option<UserConnection> {
    let (user, connection) = entry.split_once('/')?;
    Some((user.parse().ok()?, ConnectionId(connection.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reassembled(parts: &[&str]) -> Option<Option<usize>> {
        let mut reassembly = Reassembly::default();
        parts
            .iter()
            .find_map(|part| match reassembly.push("a.1", part) {
                Progress::Unfinished => None,
                Progress::Finished(held) => Some(held.map(|held| held.len())),
            })
    }

    #[test]
    fn a_report_is_complete_or_rejected() {
        let (two, one) = (r#"["42/7","42/8"]"#, r#"["7/9"]"#);
        let end = r#"{"incarnation":"a.1","connections":3}"#;
        assert_eq!(reassembled(&[two, one]), None, "unfinished");
        assert_eq!(reassembled(&[two, one, end]), Some(Some(3)));
        assert_eq!(
            reassembled(&[two, two, one, end]),
            Some(Some(3)),
            "repeated"
        );
        assert_eq!(reassembled(&[two, end]), Some(None), "a part is missing");
        let other = r#"{"incarnation":"a.2","connections":2}"#;
        assert_eq!(reassembled(&[two, other]), Some(None), "another life");
        assert_eq!(reassembled(&["nonsense"]), Some(None));
    }
}
