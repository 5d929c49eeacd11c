//! The kinds of key that nodes write, recognized by name.

use std::collections::HashMap;

use super::validator::is_match;
use crate::engine::redis::keys::Keyspace;
use crate::ids::UserId;

/// The content of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum KeyKind {
    Meta,
    Leases,
    Node,
    Reply,
    Online(u32),
    Leaving(u32),
    Members(u32),
    Epoch(u32),
    Revision(u32),
    Server(u32),
    Registrations(u32),
    Requests,
    Connections(UserId),
    Profile(UserId),
    Revoked(UserId),
    Queue,
    Ratings,
    Ticket(UserId),
    Playing,
    Match,
    Pending,
    Timeouts,
    Count,
    Scan,
    Made,
    /// Connections or registrations under a key that no node reads.
    Misplaced,
}

impl KeyKind {
    /// The partition or user that the key belongs to.
    pub(super) fn owner(&self) -> (Option<u32>, Option<UserId>) {
        match self {
            Self::Online(partition)
            | Self::Leaving(partition)
            | Self::Members(partition)
            | Self::Epoch(partition)
            | Self::Revision(partition)
            | Self::Server(partition)
            | Self::Registrations(partition) => (Some(*partition), None),
            Self::Connections(user)
            | Self::Profile(user)
            | Self::Revoked(user)
            | Self::Ticket(user) => (None, Some(*user)),
            _ => (None, None),
        }
    }
}

/// Recognizes keys by name.
pub(super) struct KeyCatalog {
    keys: Keyspace,
    /// Keys with a fixed name.
    named: HashMap<String, KeyKind>,
    /// The prefix of the keys of each partition.
    partitions: HashMap<String, u32>,
    /// The prefixes of the rest of a name, in every partition.
    registrations: String,
    requests: String,
    connections: String,
    profile: String,
    revoked: String,
}

impl KeyCatalog {
    pub(super) fn new(keys: &Keyspace) -> Self {
        let mut named = HashMap::from([
            (keys.meta(), KeyKind::Meta),
            (keys.leases(), KeyKind::Leases),
            (keys.queue(), KeyKind::Queue),
            (keys.ratings(), KeyKind::Ratings),
            (keys.playing(), KeyKind::Playing),
            (keys.pending(), KeyKind::Pending),
            (keys.timeouts(), KeyKind::Timeouts),
            (keys.count(), KeyKind::Count),
            (keys.scan(), KeyKind::Scan),
            (keys.made(), KeyKind::Made),
        ]);
        for partition in 0..keys.partitions() {
            named.extend([
                (keys.online(partition), KeyKind::Online(partition)),
                (keys.leaving(partition), KeyKind::Leaving(partition)),
                (
                    keys.registered_nodes(partition),
                    KeyKind::Members(partition),
                ),
                (keys.epoch(partition), KeyKind::Epoch(partition)),
                (keys.revision(partition), KeyKind::Revision(partition)),
                (keys.server(partition), KeyKind::Server(partition)),
            ]);
        }
        let begin = |partition| split(&keys.online(partition)).0.to_owned();
        let rest = |key: String| split(&key).1.to_owned();
        // Any user works: the key ends with the id.
        let of_user = |key: &dyn Fn(UserId) -> String| {
            let user = UserId::try_from(1).ok();
            let name = user.map(|user| rest(key(user)));
            name.unwrap_or_default().trim_end_matches('1').to_owned()
        };
        Self {
            named,
            partitions: (0..keys.partitions())
                .map(|partition| (begin(partition), partition))
                .collect(),
            registrations: rest(keys.registrations_prefix(0)),
            requests: rest(keys.requests_of(0, "")),
            connections: rest(keys.connections_prefix(0)),
            profile: of_user(&|user| keys.profile(user)),
            revoked: of_user(&|user| keys.revoked(user)),
            keys: keys.clone(),
        }
    }

    /// The kind of `key`; `None` if no node writes a key of this name.
    pub(super) fn of(&self, key: &str) -> Option<KeyKind> {
        if let Some(known) = self.named.get(key) {
            return Some(known.clone());
        }
        if key.starts_with(&self.keys.node("")) {
            return Some(KeyKind::Node);
        }
        if key.starts_with(&self.keys.reply("")) {
            return Some(KeyKind::Reply);
        }
        if let Some(id) = key.strip_prefix(&self.keys.tickets_prefix()) {
            return id.parse().ok().map(KeyKind::Ticket);
        }
        if let Some(id) = key.strip_prefix(&self.keys.matches_prefix()) {
            return is_match(id).then_some(KeyKind::Match);
        }
        let (begin, name) = split(key);
        if !begin.starts_with(split_open(&self.keys.online(0))) {
            return None;
        }
        let partition = self.partitions.get(begin);
        let user = |id: &str| id.parse::<UserId>().ok();
        if let Some(id) = name.strip_prefix(self.connections.as_str()) {
            let own = user(id).filter(|user| self.keys.connections(*user) == key);
            return Some(own.map_or(KeyKind::Misplaced, KeyKind::Connections));
        }
        if name.starts_with(&self.registrations) {
            return Some(partition.map_or(KeyKind::Misplaced, |partition| {
                KeyKind::Registrations(*partition)
            }));
        }
        if name.starts_with(&self.requests) {
            return partition.map(|_| KeyKind::Requests);
        }
        if let Some(id) = name.strip_prefix(self.profile.as_str()) {
            let own = user(id).filter(|user| self.keys.profile(*user) == key);
            return own.map(KeyKind::Profile);
        }
        let id = name.strip_prefix(self.revoked.as_str())?;
        let own = user(id).filter(|user| self.keys.revoked(*user) == key);
        own.map(KeyKind::Revoked)
    }
}

/// Splits a key after its hash tag; without one the first half is empty.
fn split(key: &str) -> (&str, &str) {
    let end = key.find("}:").map_or(0, |at| at + 2);
    key.split_at(end)
}

/// The part before the hash tag.
fn split_open(key: &str) -> &str {
    let end = key.find('{').map_or(0, |at| at + 1);
    &key[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known() {
        let keys = Keyspace::new("a:b", 4);
        let known = KeyCatalog::new(&keys);
        let user = UserId::try_from(11).expect("a valid id");
        for (key, expected) in [
            (keys.meta(), KeyKind::Meta),
            (keys.leases(), KeyKind::Leases),
            (keys.node("n.1"), KeyKind::Node),
            (keys.reply("x"), KeyKind::Reply),
            (keys.online(3), KeyKind::Online(3)),
            (keys.leaving(3), KeyKind::Leaving(3)),
            (keys.registered_nodes(3), KeyKind::Members(3)),
            (keys.epoch(0), KeyKind::Epoch(0)),
            (keys.revision(0), KeyKind::Revision(0)),
            (keys.server(0), KeyKind::Server(0)),
            (keys.registrations_of(3, "n.1"), KeyKind::Registrations(3)),
            (keys.requests_of(3, "odd"), KeyKind::Requests),
            (keys.connections(user), KeyKind::Connections(user)),
            (keys.profile(user), KeyKind::Profile(user)),
            (keys.revoked(user), KeyKind::Revoked(user)),
            (keys.queue(), KeyKind::Queue),
            (keys.ratings(), KeyKind::Ratings),
            (keys.playing(), KeyKind::Playing),
            (keys.ticket(user), KeyKind::Ticket(user)),
            (keys.pending_match("1-1"), KeyKind::Match),
            (keys.pending(), KeyKind::Pending),
            (keys.timeouts(), KeyKind::Timeouts),
            (keys.count(), KeyKind::Count),
            (keys.scan(), KeyKind::Scan),
            (keys.made(), KeyKind::Made),
        ] {
            assert_eq!(known.of(&key), Some(expected), "{key}");
        }
    }

    #[test]
    fn misplaced_keys_are_distinguished_from_foreign_ones() {
        let keys = Keyspace::new("a:b", 4);
        let known = KeyCatalog::new(&keys);
        let user = UserId::try_from(7).expect("a valid id");
        let own = keys.connections(user);
        let (begin, _) = split(&own);
        for name in ["conns:8", "conns:x", "conns:", "conns:07"] {
            let key = format!("{begin}{name}");
            assert_eq!(known.of(&key), Some(KeyKind::Misplaced), "{key}");
        }
        for key in ["a:b:{77}:conns:7", "a:b:{77}:node:n.1"] {
            assert_eq!(known.of(key), Some(KeyKind::Misplaced), "{key}");
        }
        let others = [
            "a:b",
            "a:b:x",
            "a:b:{77}:online",
            "a:b:{mm}:x",
            "a:b:{mm}:ticket:x",
            "a:b:{mm}:match:x",
            "c:{0}:conns:7",
            "a:b:c:{3}:conns:7",
        ];
        for key in others {
            assert_eq!(known.of(key), None, "{key}");
        }
        assert_eq!(known.of(&format!("{begin}profile:8")), None);
    }
}
