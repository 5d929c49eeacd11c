//! Checks the content of keys: could a node have written it?

use bytes::Bytes;

use super::key_kind::KeyKind;
use super::validator::Validator;
use super::{Doctor, FINDINGS_MAX, Finding, FindingKind};
use crate::engine::EngineError;
use crate::engine::redis::page::{BEGINNING, ScanPage};

/// How a key is read.
enum Reading {
    /// In steps of members, or of pairs of member and value.
    Pages(&'static str, usize),
    Text,
    List,
    /// Not read: the key is wrong whatever it holds.
    No,
}

impl KeyKind {
    fn reading(&self) -> Reading {
        match self {
            Self::Online(_) | Self::Members(_) | Self::Registrations(_) => {
                Reading::Pages("SSCAN", 1)
            }
            Self::Leases
            | Self::Leaving(_)
            | Self::Queue
            | Self::Ratings
            | Self::Pending
            | Self::Timeouts => Reading::Pages("ZSCAN", 2),
            Self::Meta
            | Self::Node
            | Self::Connections(_)
            | Self::Profile(_)
            | Self::Ticket(_)
            | Self::Playing
            | Self::Match
            | Self::Scan
            | Self::Made
            | Self::Requests => Reading::Pages("HSCAN", 2),
            Self::Epoch(_)
            | Self::Revision(_)
            | Self::Server(_)
            | Self::Revoked(_)
            | Self::Count => Reading::Text,
            Self::Reply => Reading::List,
            Self::Misplaced => Reading::No,
        }
    }
}

impl Doctor {
    /// The entries of a key that no node can have written.
    pub(super) async fn check_contents(
        &self,
        key: &str,
        known: &KeyKind,
        now_ms: u64,
    ) -> Result<Vec<Finding>, EngineError> {
        match self.unreadable(key, known, now_ms).await {
            Ok(findings) => Ok(findings),
            Err(error) if is_wrong_type(&error) => {
                Ok(vec![Finding::of_key(FindingKind::WrongType, key, known)])
            }
            Err(error) => Err(error),
        }
    }

    async fn unreadable(
        &self,
        key: &str,
        known: &KeyKind,
        now_ms: u64,
    ) -> Result<Vec<Finding>, EngineError> {
        let (command, step) = match known.reading() {
            Reading::Pages(command, step) => (command, step),
            Reading::Text => return self.unreadable_text(key, known, now_ms).await,
            Reading::List => {
                let key = key.to_owned();
                let _: u64 = self.redis.servers.call("LLEN", key, Vec::new()).await?;
                return Ok(Vec::new());
            }
            Reading::No => {
                let exists = self.exists(key.to_owned()).await?;
                let finding = Finding::of_key(FindingKind::Misplaced, key, known);
                return Ok(exists.then_some(finding).into_iter().collect());
            }
        };
        let (mut findings, mut cursor) = (Vec::new(), Some(BEGINNING.to_owned()));
        while let Some(at) = cursor {
            let page: ScanPage<Bytes> = self.page(command, key, &at).await?;
            for entry in page.items.chunks(step) {
                if !self.is_readable(known, entry, now_ms) && findings.len() < FINDINGS_MAX {
                    findings.push(Finding::of_entry(key, known, entry[0].clone()));
                }
            }
            cursor = page.next;
        }
        if findings.is_empty() && self.is_unlisted(key, known).await? {
            findings.push(Finding::of_key(FindingKind::Misplaced, key, known));
        }
        Ok(findings)
    }

    /// Whether this is a ticket or a match that its index does not list, so that no script ever removes it.
    async fn is_unlisted(&self, key: &str, known: &KeyKind) -> Result<bool, EngineError> {
        let keys = &self.redis.keys;
        let (index, member) = match known {
            KeyKind::Ticket(user) => (keys.queue(), user.to_string()),
            KeyKind::Match => {
                let id = key.trim_start_matches(&keys.matches_prefix());
                (keys.pending(), id.to_owned())
            }
            _ => return Ok(false),
        };
        let place = self.redis.servers.call("ZSCORE", index, vec![member]);
        let place: Option<String> = lenient(place.await)?;
        Ok(place.is_none() && self.exists(key.to_owned()).await?)
    }

    async fn unreadable_text(
        &self,
        key: &str,
        known: &KeyKind,
        now_ms: u64,
    ) -> Result<Vec<Finding>, EngineError> {
        let get = self.redis.servers.call("GET", key.to_owned(), Vec::new());
        let text: Option<Bytes> = get.await?;
        let unreadable =
            text.filter(|text| !self.is_readable(known, std::slice::from_ref(text), now_ms));
        Ok(unreadable
            .map(|text| Finding::of_entry(key, known, text))
            .into_iter()
            .collect())
    }

    fn is_readable(&self, known: &KeyKind, entry: &[Bytes], now_ms: u64) -> bool {
        let validator = Validator {
            now_ms,
            lease_ms: self.rules.lease.as_millis() as u64,
            partition_of: &|user| self.redis.partition_of(user),
        };
        let text = |at: usize| std::str::from_utf8(entry.get(at).map_or(&[][..], Bytes::as_ref));
        match (text(0), text(1)) {
            (Ok(entry), Ok(value)) => validator.accepts(known, entry, value),
            _ => false,
        }
    }
}

/// Whether a command failed because the key has another type.
pub(super) fn is_wrong_type(error: &EngineError) -> bool {
    error.to_string().contains("WRONGTYPE")
}

/// Turns a wrong type into an empty reply.
pub(super) fn lenient<T: Default>(answer: Result<T, EngineError>) -> Result<T, EngineError> {
    match answer {
        Err(error) if is_wrong_type(&error) => Ok(T::default()),
        answer => answer,
    }
}
