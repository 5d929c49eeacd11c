//! What a node answers when it is asked which connections it holds: a list in Redis, a part at a time.
//!
//! Every part but the last holds some connections as `"<user>/<connection>"`; the last one says whose they are
//! and how many, so that an answer with a part missing or of another life of the node is not taken for whole.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::servers::Servers;
use crate::engine::EngineError;
use crate::ids::{ConnectionId, UserId};

/// Connections in one part.
const PART_LEN_MAX: usize = 1000;

/// How long an answer is kept after its newest part: whoever asked reads it at once, or has given up.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A connection that a node holds.
pub(super) type Held = (UserId, ConnectionId);

/// One element of the list.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Part {
    Connections(Vec<String>),
    End {
        incarnation: String,
        connections: usize,
    },
}

/// Writes an answer to the list at `key`.
pub(super) async fn give(
    servers: &Servers,
    key: &str,
    incarnation: String,
    held: &[Held],
) -> Result<(), EngineError> {
    for part in held.chunks(PART_LEN_MAX) {
        let entries = part.iter().map(|(user, id)| format!("{user}/{id}"));
        push(servers, key, Part::Connections(entries.collect())).await?;
    }
    let connections = held.len();
    let end = Part::End {
        incarnation,
        connections,
    };
    push(servers, key, end).await
}

async fn push(servers: &Servers, key: &str, part: Part) -> Result<(), EngineError> {
    let part = serde_json::to_string(&part)
        .map_err(|error| EngineError::Answer(format!("an answer cannot be written: {error}")))?;
    let push = vec![key.to_owned(), part];
    let expire = vec![key.to_owned(), KEPT_FOR.as_millis().to_string()];
    // Together, so that a node that dies in between leaves no list without an end.
    let commands = [("RPUSH", push), ("PEXPIRE", expire)];
    servers.call_together(key, &commands).await?;
    Ok(())
}

/// An answer on its way in. A part that is told twice counts once.
#[derive(Default)]
pub(super) struct Incoming {
    held: HashSet<Held>,
}

/// How far an answer is in.
pub(super) enum Progress {
    /// More is to come.
    Unfinished,
    /// All of it, if it is what was asked for.
    Finished(Option<HashSet<Held>>),
}

impl Incoming {
    /// Takes in the next part of what `incarnation` answers.
    pub(super) fn take_in(&mut self, incarnation: &str, part: &str) -> Progress {
        match serde_json::from_str(part) {
            Ok(Part::Connections(entries)) => {
                self.held
                    .extend(entries.iter().filter_map(|entry| read_entry(entry)));
                Progress::Unfinished
            }
            Ok(Part::End {
                incarnation: whose,
                connections,
            }) => {
                let whole = whose == incarnation && connections == self.held.len();
                Progress::Finished(whole.then(|| std::mem::take(&mut self.held)))
            }
            Err(_) => Progress::Finished(None),
        }
    }
}

/// Reads `<user>/<connection>`.
pub(super) fn read_entry(entry: &str) -> Option<Held> {
    let (user, connection) = entry.split_once('/')?;
    Some((user.parse().ok()?, ConnectionId(connection.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_in(parts: &[&str]) -> Option<Option<usize>> {
        let mut incoming = Incoming::default();
        parts
            .iter()
            .find_map(|part| match incoming.take_in("a.1", part) {
                Progress::Unfinished => None,
                Progress::Finished(held) => Some(held.map(|held| held.len())),
            })
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let (two, one) = (r#"["42/7","42/8"]"#, r#"["7/9"]"#);
        let end = r#"{"incarnation":"a.1","connections":3}"#;
        assert_eq!(taken_in(&[two, one]), None, "unfinished");
        assert_eq!(taken_in(&[two, one, end]), Some(Some(3)));
        assert_eq!(taken_in(&[two, two, one, end]), Some(Some(3)), "told twice");
        assert_eq!(taken_in(&[two, end]), Some(None), "a part is missing");
        let other = r#"{"incarnation":"a.2","connections":2}"#;
        assert_eq!(taken_in(&[two, other]), Some(None), "another life");
        assert_eq!(taken_in(&["nonsense"]), Some(None));
    }
}
