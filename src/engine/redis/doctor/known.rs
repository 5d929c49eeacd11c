//! Which keys under the prefix nodes write, and what each holds.

use std::collections::HashMap;

use crate::engine::redis::keys::Keys;
use crate::ids::UserId;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Known {
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
    Owed(u32),
    Request,
    Connections(UserId),
    Profile(UserId),
    Revoked(UserId),
    Queue,
    Ratings,
    Tickets,
    Playing,
    Matches,
    Pending,
    Timeouts,
    Count,
    Looked,
    Made,
    /// Connections, or what a node owes, where no node looks for them.
    Misplaced,
}

impl Known {
    /// The partition and the user that it is about.
    pub(super) fn whose(&self) -> (Option<u32>, Option<UserId>) {
        match self {
            Self::Online(partition)
            | Self::Leaving(partition)
            | Self::Members(partition)
            | Self::Epoch(partition)
            | Self::Revision(partition)
            | Self::Server(partition)
            | Self::Owed(partition) => (Some(*partition), None),
            Self::Connections(user) | Self::Profile(user) | Self::Revoked(user) => {
                (None, Some(*user))
            }
            _ => (None, None),
        }
    }
}

/// The names of all keys.
pub(super) struct KnownKeys {
    keys: Keys,
    /// Those that are one of a kind.
    named: HashMap<String, Known>,
    /// What the keys of each partition begin with.
    partitions: HashMap<String, u32>,
    /// What the rest of the name begins with, in every partition.
    owed: String,
    request: String,
    connections: String,
    profile: String,
    revoked: String,
}

impl KnownKeys {
    pub(super) fn new(keys: &Keys) -> Self {
        let mut named = HashMap::from([
            (keys.meta(), Known::Meta),
            (keys.leases(), Known::Leases),
            (keys.queue(), Known::Queue),
            (keys.ratings(), Known::Ratings),
            (keys.tickets(), Known::Tickets),
            (keys.playing(), Known::Playing),
            (keys.matches(), Known::Matches),
            (keys.pending(), Known::Pending),
            (keys.timeouts(), Known::Timeouts),
            (keys.count(), Known::Count),
            (keys.looked(), Known::Looked),
            (keys.made(), Known::Made),
        ]);
        for partition in 0..keys.partitions() {
            named.extend([
                (keys.online(partition), Known::Online(partition)),
                (keys.leaving(partition), Known::Leaving(partition)),
                (keys.registered_nodes(partition), Known::Members(partition)),
                (keys.epoch(partition), Known::Epoch(partition)),
                (keys.revision(partition), Known::Revision(partition)),
                (keys.server(partition), Known::Server(partition)),
            ]);
        }
        let begin = |partition| split(&keys.online(partition)).0.to_owned();
        let rest = |key: String| split(&key).1.to_owned();
        // Any user will do: the id is what the key ends with.
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
            owed: rest(keys.owed_begin(0)),
            request: rest(keys.request(0, "")),
            connections: rest(keys.connections_begin(0)),
            profile: of_user(&|user| keys.profile(user)),
            revoked: of_user(&|user| keys.revoked(user)),
            keys: keys.clone(),
        }
    }

    /// What `key` holds; `None` where no node writes a key of this name.
    pub(super) fn of(&self, key: &str) -> Option<Known> {
        if let Some(known) = self.named.get(key) {
            return Some(known.clone());
        }
        if key.starts_with(&self.keys.node("")) {
            return Some(Known::Node);
        }
        if key.starts_with(&self.keys.reply("")) {
            return Some(Known::Reply);
        }
        let (begin, name) = split(key);
        if !begin.starts_with(split_open(&self.keys.online(0))) {
            return None;
        }
        let partition = self.partitions.get(begin);
        let user = |id: &str| id.parse::<UserId>().ok();
        if let Some(id) = name.strip_prefix(self.connections.as_str()) {
            let own = user(id).filter(|user| self.keys.connections(*user) == key);
            return Some(own.map_or(Known::Misplaced, Known::Connections));
        }
        if name.starts_with(&self.owed) {
            return Some(partition.map_or(Known::Misplaced, |partition| Known::Owed(*partition)));
        }
        if name.starts_with(&self.request) {
            return partition.map(|_| Known::Request);
        }
        if let Some(id) = name.strip_prefix(self.profile.as_str()) {
            let own = user(id).filter(|user| self.keys.profile(*user) == key);
            return own.map(Known::Profile);
        }
        let id = name.strip_prefix(self.revoked.as_str())?;
        let own = user(id).filter(|user| self.keys.revoked(*user) == key);
        own.map(Known::Revoked)
    }
}

/// What the key begins with, hash tag included, and the rest of it; all of it is the rest where there is no tag.
fn split(key: &str) -> (&str, &str) {
    let end = key.find("}:").map_or(0, |at| at + 2);
    key.split_at(end)
}

/// What stands before the hash tag.
fn split_open(key: &str) -> &str {
    let end = key.find('{').map_or(0, |at| at + 1);
    &key[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known() {
        let keys = Keys::new("a:b", 4);
        let known = KnownKeys::new(&keys);
        let user = UserId::try_from(11).expect("a valid id");
        for (key, expected) in [
            (keys.meta(), Known::Meta),
            (keys.leases(), Known::Leases),
            (keys.node("n.1"), Known::Node),
            (keys.reply("x"), Known::Reply),
            (keys.online(3), Known::Online(3)),
            (keys.leaving(3), Known::Leaving(3)),
            (keys.registered_nodes(3), Known::Members(3)),
            (keys.epoch(0), Known::Epoch(0)),
            (keys.revision(0), Known::Revision(0)),
            (keys.server(0), Known::Server(0)),
            (keys.owed(3, "n.1"), Known::Owed(3)),
            (keys.request(3, "x"), Known::Request),
            (keys.connections(user), Known::Connections(user)),
            (keys.profile(user), Known::Profile(user)),
            (keys.revoked(user), Known::Revoked(user)),
            (keys.queue(), Known::Queue),
            (keys.ratings(), Known::Ratings),
            (keys.tickets(), Known::Tickets),
            (keys.playing(), Known::Playing),
            (keys.matches(), Known::Matches),
            (keys.pending(), Known::Pending),
            (keys.timeouts(), Known::Timeouts),
            (keys.count(), Known::Count),
            (keys.looked(), Known::Looked),
            (keys.made(), Known::Made),
        ] {
            assert_eq!(known.of(&key), Some(expected), "{key}");
        }
    }

    #[test]
    fn what_nobody_looks_for_is_told_from_what_nobody_writes() {
        let keys = Keys::new("a:b", 4);
        let known = KnownKeys::new(&keys);
        let user = UserId::try_from(7).expect("a valid id");
        let own = keys.connections(user);
        let (begin, _) = split(&own);
        for name in ["conns:8", "conns:x", "conns:", "conns:07"] {
            let key = format!("{begin}{name}");
            assert_eq!(known.of(&key), Some(Known::Misplaced), "{key}");
        }
        for key in ["a:b:{77}:conns:7", "a:b:{77}:node:n.1"] {
            assert_eq!(known.of(key), Some(Known::Misplaced), "{key}");
        }
        let others = [
            "a:b",
            "a:b:x",
            "a:b:{77}:online",
            "a:b:{mm}:x",
            "c:{0}:conns:7",
            "a:b:c:{3}:conns:7",
        ];
        for key in others {
            assert_eq!(known.of(key), None, "{key}");
        }
        assert_eq!(known.of(&format!("{begin}profile:8")), None);
    }
}
