//! The names of all keys and channels. The table in `lua/README.md` says what each holds.

use fred::util::redis_keyslot;

use crate::ids::UserId;

/// The keys and channels under one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keyspace {
    prefix: String,
    partitions: u32,
}

/// A parsed key about connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ParsedKey {
    Connections(UserId),
    /// The registrations of an incarnation in a partition.
    Registrations(u32, String),
    /// The report of an incarnation.
    Node(String),
}

/// A parsed channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Presence(u32),
    Pulse(u32),
    Topic(UserId),
    Node,
}

impl Keyspace {
    pub(crate) fn new(prefix: &str, partitions: u32) -> Self {
        Self {
            prefix: prefix.to_owned(),
            partitions,
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(crate) fn meta(&self) -> String {
        format!("{}:meta", self.prefix)
    }

    pub(crate) fn leases(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// A node's report; as a channel: messages to that node.
    pub(crate) fn node(&self, incarnation: &str) -> String {
        format!("{}:node:{incarnation}", self.prefix)
    }

    /// A node's reply to a request, until it is read.
    pub(crate) fn reply(&self, request: &str) -> String {
        format!("{}:reply:{request}", self.prefix)
    }

    fn of_partition(&self, partition: u32, name: &str) -> String {
        format!("{}:{{{partition}}}:{name}", self.prefix)
    }

    fn of_user(&self, user: UserId, name: &str) -> String {
        let partition = user.get() % u64::from(self.partitions);
        format!("{}:{{{partition}}}:{name}:{user}", self.prefix)
    }

    pub(crate) fn online(&self, partition: u32) -> String {
        self.of_partition(partition, "online")
    }

    pub(crate) fn leaving(&self, partition: u32) -> String {
        self.of_partition(partition, "leaving")
    }

    pub(crate) fn registered_nodes(&self, partition: u32) -> String {
        self.of_partition(partition, "nodes")
    }

    pub(crate) fn server(&self, partition: u32) -> String {
        self.of_partition(partition, "server")
    }

    pub(crate) fn epoch(&self, partition: u32) -> String {
        self.of_partition(partition, "epoch")
    }

    pub(crate) fn revision(&self, partition: u32) -> String {
        self.of_partition(partition, "rev")
    }

    pub(crate) fn presence_channel(&self, partition: u32) -> String {
        self.of_partition(partition, "presence")
    }

    pub(crate) fn pulse_channel(&self, partition: u32) -> String {
        self.of_partition(partition, "pulse")
    }

    /// The hash slot of everything in the partition.
    pub(crate) fn slot(&self, partition: u32) -> u16 {
        redis_keyslot(self.epoch(partition).as_bytes())
    }

    pub(crate) fn registrations_of(&self, partition: u32, incarnation: &str) -> String {
        self.of_partition(partition, &format!("node:{incarnation}"))
    }

    /// Prefix of [`Self::registrations_of`]; the incarnation follows.
    pub(crate) fn registrations_prefix(&self, partition: u32) -> String {
        self.of_partition(partition, "node:")
    }

    /// A scratch key of a type, or the scratch channel; exists only within a script.
    pub(crate) fn probe(&self, partition: u32, kind: &str) -> String {
        self.of_partition(partition, &format!("probe:{kind}"))
    }

    /// The recorded answer to a request, which makes repeating it safe; kept for a minute.
    pub(crate) fn request(&self, partition: u32, request: &str) -> String {
        self.of_partition(partition, &format!("request:{request}"))
    }

    pub(crate) fn connections(&self, user: UserId) -> String {
        self.of_user(user, "conns")
    }

    /// Prefix of [`Self::connections`]; the user's id follows.
    pub(crate) fn connections_prefix(&self, partition: u32) -> String {
        self.of_partition(partition, "conns:")
    }

    pub(crate) fn profile(&self, user: UserId) -> String {
        self.of_user(user, "profile")
    }

    /// The time before which the user's tokens are revoked.
    pub(crate) fn revoked(&self, user: UserId) -> String {
        self.of_user(user, "revoked")
    }

    pub(crate) fn topic(&self, user: UserId) -> String {
        self.of_user(user, "user")
    }

    /// Matchmaking scripts touch all tickets, so their keys share one hash tag.
    fn of_matchmaking(&self, name: &str) -> String {
        format!("{}:{{mm}}:{name}", self.prefix)
    }

    /// ZSET: queued users by place.
    pub(crate) fn queue(&self) -> String {
        self.of_matchmaking("queue")
    }

    /// ZSET: `<place, padded>:<user>` of queued users by rating.
    pub(crate) fn ratings(&self) -> String {
        self.of_matchmaking("ratings")
    }

    /// HASH: a queued user's ticket: `place`, `rating`, `joined` (ms), `version`.
    pub(crate) fn ticket(&self, user: UserId) -> String {
        self.of_matchmaking(&format!("ticket:{user}"))
    }

    /// Prefix of [`Self::ticket`]; the user's id follows.
    pub(crate) fn tickets_prefix(&self) -> String {
        self.of_matchmaking("ticket:")
    }

    /// HASH: user to the match that is pending for the user.
    pub(crate) fn playing(&self) -> String {
        self.of_matchmaking("playing")
    }

    /// HASH: a pending match; `lua/shared/match.lua` lists the fields.
    pub(crate) fn pending_match(&self, id: &str) -> String {
        self.of_matchmaking(&format!("match:{id}"))
    }

    /// Prefix of [`Self::pending_match`]; the match's id follows.
    pub(crate) fn matches_prefix(&self) -> String {
        self.of_matchmaking("match:")
    }

    /// ZSET: pending matches by when they are announced next (ms).
    pub(crate) fn pending(&self) -> String {
        self.of_matchmaking("pending")
    }

    /// ZSET: users whose ticket expired by when that is announced next (ms).
    pub(crate) fn timeouts(&self) -> String {
        self.of_matchmaking("timeouts")
    }

    /// STRING: the last number assigned, for places, versions and matches.
    pub(crate) fn count(&self) -> String {
        self.of_matchmaking("count")
    }

    /// HASH: how far tickets have been scanned: `fresh`, `again` (places), `next` (ms), `streak`.
    pub(crate) fn scan(&self) -> String {
        self.of_matchmaking("scan")
    }

    /// HASH: second to the matches made in it, for the last minute.
    pub(crate) fn made(&self) -> String {
        self.of_matchmaking("made")
    }

    /// The pattern of all keys, for `SCAN`. A prefix contains no special character.
    pub(crate) fn pattern(&self) -> String {
        let mut pattern = self.prefix.clone();
        pattern.push_str(":*");
        pattern
    }

    /// Parses a key about connections; `None` for all others, including a user's key in the wrong partition.
    pub(crate) fn parse(&self, key: &str) -> Option<ParsedKey> {
        let name = key.strip_prefix(&self.prefix)?.strip_prefix(':')?;
        if let Some(incarnation) = name.strip_prefix("node:") {
            return Some(ParsedKey::Node(incarnation.to_owned()));
        }
        let (partition, name) = name.strip_prefix('{')?.split_once("}:")?;
        let partition: u32 = partition.parse().ok().filter(|p| *p < self.partitions)?;
        match name.split_once(':')? {
            ("node", incarnation) => {
                Some(ParsedKey::Registrations(partition, incarnation.to_owned()))
            }
            ("conns", user) => {
                let user: UserId = user.parse().ok()?;
                (self.connections(user) == key).then_some(ParsedKey::Connections(user))
            }
            _ => None,
        }
    }

    /// Parses a channel's name; `None` for a foreign channel.
    pub(crate) fn parse_channel(&self, channel: &str) -> Option<Channel> {
        let name = channel.strip_prefix(&self.prefix)?.strip_prefix(':')?;
        if name.starts_with("node:") {
            return Some(Channel::Node);
        }
        let (partition, name) = name.strip_prefix('{')?.split_once("}:")?;
        match name.split_once(':') {
            Some(("user", user)) => user.parse().ok().map(Channel::Topic),
            None if name == "presence" => partition.parse().ok().map(Channel::Presence),
            None if name == "pulse" => partition.parse().ok().map(Channel::Pulse),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
