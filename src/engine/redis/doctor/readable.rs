//! What a node can have written. Nodes pass over the rest or fail at it, so nobody would ever take it away.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::known::Known;
use crate::engine::Kind;
use crate::engine::redis::answer::Held;
use crate::ids::{ConnectionId, SAFE_INTEGER_MAX, UserId, node_of};

/// How far ahead a time may be, beside what the settings allow: no clock is off by more, and no node waits for longer.
pub(super) const FAR_MS: u64 = 24 * 60 * 60 * 1000;

/// By what entries are judged.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) now_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) partition_of: &'a (dyn Fn(UserId) -> u32 + Sync),
}

impl Judge<'_> {
    /// Whether a node can have written `entry` into such a key: a member with its score or value, or all of a string.
    pub(super) fn accepts(&self, known: &Known, entry: &str, value: &str) -> bool {
        match known {
            Known::Online(partition) | Known::Leaving(partition) => {
                self.is_user_of(*partition, entry)
            }
            Known::Owed(partition) => {
                let held = read_held(entry);
                held.is_some_and(|(user, _)| (self.partition_of)(user) == *partition)
            }
            Known::Leases => is_incarnation(entry) && self.is_soon(value, self.lease_ms),
            Known::Connections(_) => read_registered(entry).is_some() && self.is_time(value),
            Known::Epoch(_) => is_epoch(entry),
            Known::Revision(_) | Known::Count => is_number(entry),
            Known::Server(_) => words(entry).is_some_and(|[run, from]| {
                run.bytes().all(|byte| byte.is_ascii_hexdigit()) && self.is_time(from)
            }),
            Known::Profile(_) => self.is_field_of_profile(entry, value),
            Known::Revoked(_) => self.is_time(entry),
            Known::Queue => is_user(entry) && is_score(value),
            Known::Ratings => is_rated(entry) && is_score(value),
            Known::Tickets => is_user(entry) && self.is_ticket(value),
            Known::Playing => is_user(entry) && is_match(value),
            Known::Matches => is_match(entry) && is_known_match(value),
            Known::Pending => is_match(entry) && self.is_soon(value, 0),
            Known::Timeouts => is_user(entry) && self.is_soon(value, 0),
            Known::Looked => match entry {
                "next" => self.is_soon(value, 0),
                "fresh" | "again" | "streak" => value.parse::<f64>().is_ok_and(|at| !at.is_nan()),
                _ => true,
            },
            Known::Made => {
                let second = entry.parse::<u8>().is_ok_and(|second| second < 60);
                second
                    && words(value).is_some_and(|words: [&str; 2]| words.into_iter().all(is_number))
            }
            // Of the dead the whole key is an orphan; the others end by themselves.
            Known::Members(_)
            | Known::Meta
            | Known::Node
            | Known::Reply
            | Known::Request
            | Known::Misplaced => true,
        }
    }

    fn is_user_of(&self, partition: u32, entry: &str) -> bool {
        let user = entry.parse();
        user.is_ok_and(|user| (self.partition_of)(user) == partition)
    }

    /// Whether this is a time in ms, and not far ahead.
    pub(super) fn is_time(&self, text: &str) -> bool {
        number(text).is_some_and(|at_ms| at_ms <= self.now_ms + FAR_MS)
    }

    /// The same for scores, which are written in more than one way, and may be long past.
    fn is_soon(&self, text: &str, ahead_ms: u64) -> bool {
        let latest = (self.now_ms + ahead_ms).saturating_add(FAR_MS) as f64;
        text.parse::<f64>().is_ok_and(|at| at <= latest)
    }

    /// Fields that are unknown are a newer node's.
    fn is_field_of_profile(&self, field: &str, value: &str) -> bool {
        if field == "disconnected" {
            return self.is_time(value);
        }
        let Some((kind, part)) = field.split_once('.') else {
            return true;
        };
        if !Kind::ALL.iter().any(|known| known.as_str() == kind) {
            return true;
        }
        match part {
            "revision" => is_number(value),
            "at" => self.is_time(value),
            "public" | "full" => serde_json::from_str::<IgnoredAny>(value).is_ok(),
            _ => true,
        }
    }

    fn is_ticket(&self, ticket: &str) -> bool {
        words(ticket).is_some_and(|[place, rating, joined_at, version]| {
            is_score(place) && is_score(rating) && self.is_time(joined_at) && is_number(version)
        })
    }
}

/// Reads `<incarnation>/<connection>`, if a node can have written it.
pub(super) fn read_registered(entry: &str) -> Option<(String, ConnectionId)> {
    let (incarnation, connection) = entry.rsplit_once('/')?;
    let connection = read_connection(connection)?;
    is_incarnation(incarnation).then(|| (incarnation.to_owned(), connection))
}

/// Reads `<user>/<connection>`, if a node can have written it.
pub(super) fn read_held(entry: &str) -> Option<Held> {
    let (user, connection) = entry.split_once('/')?;
    Some((user.parse().ok()?, read_connection(connection)?))
}

/// Only what is written back the same: scripts compare text.
fn read_connection(text: &str) -> Option<ConnectionId> {
    let id = number(text).filter(|id| *id > 0 && id.to_string() == text)?;
    Some(ConnectionId(id))
}

/// Whether this reads `<node id>.<random>`.
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

/// It goes into JSON as it is.
fn is_epoch(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `<place, padded>:<user>`.
fn is_rated(text: &str) -> bool {
    let parts = text.split_once(':');
    parts.is_some_and(|(place, user)| is_number(place) && is_user(user))
}

/// `<microsecond>-<number>`, in hexadecimal digits.
fn is_match(text: &str) -> bool {
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = text.split_once('-');
    parts.is_some_and(|(begun, number)| is_hex(begun) && is_hex(number))
}

/// What scripts need of a match.
#[derive(Deserialize)]
struct KnownMatch {
    users: [String; 2],
    tickets: [String; 2],
}

fn is_known_match(json: &str) -> bool {
    let known = serde_json::from_str::<KnownMatch>(json);
    known.is_ok_and(|known| {
        let four = |ticket: &String| words::<4>(ticket).is_some();
        known.users.iter().all(|user| is_user(user)) && known.tickets.iter().all(four)
    })
}

/// Exactly so many words.
fn words<const COUNT: usize>(text: &str) -> Option<[&str; COUNT]> {
    let words: Vec<&str> = text.split(' ').collect();
    let words: [&str; COUNT] = words.try_into().ok()?;
    words.iter().all(|word| !word.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn accepts(known: &Known, entry: &str, value: &str) -> bool {
        let judge = Judge {
            now_ms: NOW_MS,
            lease_ms: 6_000,
            partition_of: &|user| (user.get() % 2) as u32,
        };
        judge.accepts(known, entry, value)
    }

    #[test]
    fn what_nodes_write_is_accepted() {
        let user = UserId::try_from(42).expect("a valid id");
        let (now, soon) = ("1700000000000", "1700000060000");
        let game =
            r#"{"users":["42","7"],"tickets":["1 1500 1 1","-2 1500 1 2"],"took":{},"told":false}"#;
        for (known, entry, value) in [
            (Known::Online(0), "42", ""),
            (Known::Leaving(1), "7", soon),
            (Known::Owed(0), "42/7", ""),
            (Known::Leases, "eu.west-1.k3v9", "1.70000000006e+12"),
            (Known::Connections(user), "eu_west.k3v9/7", now),
            (Known::Epoch(0), "6561f3c1a0b2", ""),
            (Known::Revision(0), "7", ""),
            (Known::Server(0), "0a1b 0", ""),
            (Known::Server(0), "0a1b 1700000060000", ""),
            (Known::Profile(user), "profile.revision", "9007199254740991"),
            (Known::Profile(user), "stats.at", now),
            (Known::Profile(user), "friends.public", "null"),
            (Known::Profile(user), "matches.full", "[]"),
            (Known::Profile(user), "disconnected", now),
            (Known::Profile(user), "deleted", "x"),
            (Known::Profile(user), "newer.at", "x"),
            (Known::Revoked(user), now, ""),
            (Known::Queue, "42", "-1"),
            (Known::Ratings, "4503599627370497:42", "1500"),
            (Known::Tickets, "42", "-1 1500 1700000000000 3"),
            (Known::Playing, "42", "6561f3c1a0b2-1f"),
            (Known::Matches, "6561f3c1a0b2-1f", game),
            (Known::Pending, "6561f3c1a0b2-1f", "0"),
            (Known::Timeouts, "42", soon),
            (Known::Count, "12", ""),
            (Known::Looked, "again", "-inf"),
            (Known::Looked, "next", soon),
            (Known::Made, "59", "1700000000 12"),
        ] {
            assert!(accepts(&known, entry, value), "{known:?} {entry} {value}");
        }
    }

    #[test]
    fn what_no_node_writes_is_not() {
        let user = UserId::try_from(42).expect("a valid id");
        let (now, far) = ("1700000000000", "9000000000000");
        for (known, entry, value) in [
            (Known::Online(0), "x", ""),
            (Known::Online(0), "042", ""),
            (Known::Online(0), "7", ""),
            (Known::Leaving(0), "7", now),
            (Known::Owed(0), "42/x", ""),
            (Known::Owed(0), "42/07", ""),
            (Known::Owed(0), "7/1", ""),
            (Known::Leases, "x", now),
            (Known::Leases, "a.1", far),
            (Known::Leases, "a.1", "inf"),
            (Known::Connections(user), "x", now),
            (Known::Connections(user), "a/7", now),
            (Known::Connections(user), ".1/7", now),
            (Known::Connections(user), "a b.1/7", now),
            (Known::Connections(user), "a./7", now),
            (Known::Connections(user), "a.1/", now),
            (Known::Connections(user), "a.1/0", now),
            (Known::Connections(user), "a.1/+7", now),
            (Known::Connections(user), "a.1/007", now),
            (Known::Connections(user), "a.1/7", "x"),
            (Known::Connections(user), "a.1/7", "-1"),
            (Known::Connections(user), "a.1/7", far),
            (Known::Epoch(0), "\"", ""),
            (Known::Epoch(0), "", ""),
            (Known::Revision(0), "x", ""),
            (Known::Server(0), "x 0", ""),
            (Known::Server(0), "0a1b 9000000000000", ""),
            (Known::Profile(user), "profile.revision", "x"),
            (Known::Profile(user), "stats.at", far),
            (Known::Profile(user), "friends.public", "{"),
            (Known::Profile(user), "disconnected", far),
            (Known::Revoked(user), "x", ""),
            (Known::Revoked(user), far, ""),
            (Known::Queue, "x", "1"),
            (Known::Ratings, "x", "1500"),
            (Known::Ratings, "1:x", "1500"),
            (Known::Tickets, "42", "x"),
            (Known::Tickets, "42", "1 1500 9000000000000 3"),
            (Known::Playing, "42", "x"),
            (Known::Matches, "6561f3c1a0b2-1f", "{}"),
            (Known::Pending, "6561f3c1a0b2-1f", far),
            (Known::Timeouts, "42", far),
            (Known::Count, "x", ""),
            (Known::Looked, "next", "x"),
            (Known::Looked, "next", far),
            (Known::Made, "60", "1700000000 12"),
            (Known::Made, "1", "x"),
        ] {
            assert!(!accepts(&known, entry, value), "{known:?} {entry} {value}");
        }
    }
}
