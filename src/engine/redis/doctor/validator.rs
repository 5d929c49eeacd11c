//! Validates entries: could a node have written them? Nodes skip or fail on the rest, so nothing else would ever remove
//! it.

use serde::de::IgnoredAny;

use super::key_kind::KeyKind;
use crate::engine::Kind;
use crate::ids::{ConnectionId, SAFE_INTEGER_MAX, UserConnection, UserId, node_of};

/// Tolerance for times in the future, beyond what the settings allow: no clock is off by more.
pub(super) const FAR_MS: u64 = 24 * 60 * 60 * 1000;

/// The context of a validation.
#[derive(Clone, Copy)]
pub(super) struct Validator<'a> {
    pub(super) now_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) partition_of: &'a (dyn Fn(UserId) -> u32 + Sync),
}

impl Validator<'_> {
    /// Whether a node can have written `entry` into such a key: a member with its score or value, or a whole string.
    pub(super) fn accepts(&self, known: &KeyKind, entry: &str, value: &str) -> bool {
        match known {
            KeyKind::Online(partition) | KeyKind::Leaving(partition) => {
                self.is_user_of(*partition, entry)
            }
            KeyKind::Registrations(partition) => {
                let held = read_registration(entry);
                held.is_some_and(|(user, _)| (self.partition_of)(user) == *partition)
            }
            KeyKind::Leases => is_incarnation(entry) && self.is_soon(value, self.lease_ms),
            KeyKind::Connections(_) => {
                read_connection_field(entry).is_some() && self.is_time(value)
            }
            KeyKind::Epoch(_) => is_epoch(entry),
            KeyKind::Revision(_) | KeyKind::Count => is_number(entry),
            KeyKind::Server(_) => words(entry).is_some_and(|[run, from]| {
                run.bytes().all(|byte| byte.is_ascii_hexdigit()) && self.is_time(from)
            }),
            KeyKind::Profile(_) => self.is_field_of_profile(entry, value),
            KeyKind::Revoked(_) => self.is_time(entry),
            KeyKind::Queue => is_user(entry) && is_score(value),
            KeyKind::Ratings => is_rated(entry) && is_score(value),
            KeyKind::Ticket(_) => self.is_field_of_ticket(entry, value),
            KeyKind::Playing => is_user(entry) && is_match(value),
            KeyKind::Match => self.is_field_of_match(entry, value),
            KeyKind::Pending => is_match(entry) && self.is_soon(value, 0),
            KeyKind::Timeouts => is_user(entry) && self.is_soon(value, 0),
            KeyKind::Scan => match entry {
                "next" => self.is_soon(value, 0),
                "fresh" | "again" | "streak" => value.parse::<f64>().is_ok_and(|at| !at.is_nan()),
                _ => true,
            },
            KeyKind::Made => {
                let at_ms = number(entry).and_then(|second| second.checked_mul(1000));
                at_ms.is_some_and(|at_ms| at_ms <= self.now_ms + FAR_MS) && is_number(value)
            }
            // Checked as a whole elsewhere, or expiring.
            KeyKind::Members(_)
            | KeyKind::Meta
            | KeyKind::Node
            | KeyKind::Reply
            | KeyKind::Requests
            | KeyKind::Misplaced => true,
        }
    }

    fn is_user_of(&self, partition: u32, entry: &str) -> bool {
        let user = entry.parse();
        user.is_ok_and(|user| (self.partition_of)(user) == partition)
    }

    /// Whether this is a time in ms, and not far in the future.
    pub(super) fn is_time(&self, text: &str) -> bool {
        number(text).is_some_and(|at_ms| at_ms <= self.now_ms + FAR_MS)
    }

    /// The same for scores, which have several notations and may be long past.
    fn is_soon(&self, text: &str, ahead_ms: u64) -> bool {
        let latest = (self.now_ms + ahead_ms).saturating_add(FAR_MS) as f64;
        text.parse::<f64>().is_ok_and(|at| at <= latest)
    }

    /// Unknown fields are those of a newer node.
    fn is_field_of_profile(&self, field: &str, value: &str) -> bool {
        if field == "disconnected" {
            return self.is_time(value);
        }
        let Some((kind, part)) = field.split_once('.') else {
            return true;
        };
        if kind.parse::<Kind>().is_err() {
            return true;
        }
        match part {
            "revision" => is_number(value),
            "at" => self.is_time(value),
            "public" | "full" => serde_json::from_str::<IgnoredAny>(value).is_ok(),
            _ => true,
        }
    }

    /// Unknown fields are those of a newer node.
    fn is_field_of_ticket(&self, field: &str, value: &str) -> bool {
        match field {
            "place" | "rating" => is_score(value),
            "joined" => self.is_time(value),
            "version" => is_number(value),
            _ => true,
        }
    }

    /// Unknown fields are those of a newer node.
    fn is_field_of_match(&self, field: &str, value: &str) -> bool {
        match field {
            "state" => ["made", "notified", "cancelled"].contains(&value),
            "player1" | "player2" => is_user(value),
            "rating1" | "rating2" => is_score(value),
            "joined1" | "joined2" => self.is_time(value),
            _ => true,
        }
    }
}

/// Parses `<incarnation>/<connection>` strictly.
pub(super) fn read_connection_field(entry: &str) -> Option<(String, ConnectionId)> {
    let (incarnation, connection) = entry.rsplit_once('/')?;
    let connection = read_connection(connection)?;
    is_incarnation(incarnation).then(|| (incarnation.to_owned(), connection))
}

/// Parses `<user>/<connection>` strictly.
pub(super) fn read_registration(entry: &str) -> Option<UserConnection> {
    let (user, connection) = entry.split_once('/')?;
    Some((user.parse().ok()?, read_connection(connection)?))
}

/// Canonical numbers only: scripts compare text.
fn read_connection(text: &str) -> Option<ConnectionId> {
    let id = number(text).filter(|id| *id > 0 && id.to_string() == text)?;
    Some(ConnectionId(id))
}

/// Whether this is `<node id>.<random>`.
fn is_incarnation(text: &str) -> bool {
    let is_part_of_id = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let random = text.rsplit_once('.').map_or("", |(_, random)| random);
    let node = node_of(text);
    !random.is_empty()
        && random.chars().all(|c| c.is_ascii_alphanumeric())
        && !node.is_empty()
        && node.chars().all(is_part_of_id)
}

fn is_user(text: &str) -> bool {
    text.parse::<UserId>().is_ok()
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.filter(|number| *number <= SAFE_INTEGER_MAX)
}

fn is_number(text: &str) -> bool {
    number(text).is_some()
}

fn is_score(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// The epoch is inserted into JSON unescaped.
fn is_epoch(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `<place, padded>:<user>`.
fn is_rated(text: &str) -> bool {
    let parts = text.split_once(':');
    parts.is_some_and(|(place, user)| is_number(place) && is_user(user))
}

/// `<microsecond>-<number>`, in hexadecimal digits.
pub(super) fn is_match(text: &str) -> bool {
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = text.split_once('-');
    parts.is_some_and(|(begun, number)| is_hex(begun) && is_hex(number))
}

/// Exactly `COUNT` words.
fn words<const COUNT: usize>(text: &str) -> Option<[&str; COUNT]> {
    let words: Vec<&str> = text.split(' ').collect();
    let words: [&str; COUNT] = words.try_into().ok()?;
    words.iter().all(|word| !word.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests;
