//! Spells every key and channel. The table in `lua/README.md` says what each holds.

use fred::util::redis_keyslot;

use crate::ids::UserId;

/// Spells keys and channels under one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    partitions: u32,
}

/// A key that says who is connected, or where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The connections of a user.
    Connections(UserId),
    /// What an incarnation owes in a partition.
    Owed(u32, String),
    /// What an incarnation tells about itself.
    Node(String),
}

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Presence(u32),
    Pulse(u32),
    Topic(UserId),
    Node,
}

impl Keys {
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

    /// What a node tells about itself; as a channel: what the node says to itself.
    pub(crate) fn node(&self, incarnation: &str) -> String {
        format!("{}:node:{incarnation}", self.prefix)
    }

    /// The answer of a node that was asked something, until the asking side has read it.
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

    pub(crate) fn owed(&self, partition: u32, incarnation: &str) -> String {
        self.of_partition(partition, &format!("node:{incarnation}"))
    }

    /// What the keys of what nodes owe in the partition begin with; the incarnation follows.
    pub(crate) fn owed_begin(&self, partition: u32) -> String {
        self.of_partition(partition, "node:")
    }

    /// A scratch key of a type, or the scratch channel: gone within the script that makes it.
    pub(crate) fn probe(&self, partition: u32, kind: &str) -> String {
        self.of_partition(partition, &format!("probe:{kind}"))
    }

    /// The answer given to a request, for a minute.
    pub(crate) fn request(&self, partition: u32, request: &str) -> String {
        self.of_partition(partition, &format!("request:{request}"))
    }

    pub(crate) fn connections(&self, user: UserId) -> String {
        self.of_user(user, "conns")
    }

    /// What the keys of the partition's users' connections begin with; the user's id follows.
    pub(crate) fn connections_begin(&self, partition: u32) -> String {
        self.of_partition(partition, "conns:")
    }

    pub(crate) fn profile(&self, user: UserId) -> String {
        self.of_user(user, "profile")
    }

    /// Since when the user's tokens count: those issued before are refused.
    pub(crate) fn revoked(&self, user: UserId) -> String {
        self.of_user(user, "revoked")
    }

    pub(crate) fn topic(&self, user: UserId) -> String {
        self.of_user(user, "user")
    }

    /// All that matchmaking does touches everybody who waits, so it has one hash tag of its own.
    fn of_matchmaking(&self, name: &str) -> String {
        format!("{}:{{mm}}:{name}", self.prefix)
    }

    /// Users who wait for an opponent, by their place.
    pub(crate) fn queue(&self) -> String {
        self.of_matchmaking("queue")
    }

    /// The same by rating.
    pub(crate) fn ratings(&self) -> String {
        self.of_matchmaking("ratings")
    }

    /// What is known about each of them.
    pub(crate) fn tickets(&self) -> String {
        self.of_matchmaking("tickets")
    }

    /// For whom a match was found that is not over.
    pub(crate) fn playing(&self) -> String {
        self.of_matchmaking("playing")
    }

    /// What is known about each of these matches.
    pub(crate) fn matches(&self) -> String {
        self.of_matchmaking("matches")
    }

    /// When they are told, or told again.
    pub(crate) fn pending(&self) -> String {
        self.of_matchmaking("pending")
    }

    /// Whose ticket ran out, and when that is told, or told again.
    pub(crate) fn timeouts(&self) -> String {
        self.of_matchmaking("timeouts")
    }

    /// The last number given, for places and versions.
    pub(crate) fn count(&self) -> String {
        self.of_matchmaking("count")
    }

    /// How far tickets were looked at.
    pub(crate) fn looked(&self) -> String {
        self.of_matchmaking("looked")
    }

    /// How many matches were made, by second.
    pub(crate) fn made(&self) -> String {
        self.of_matchmaking("made")
    }

    /// What all keys match, for `SCAN`. No prefix has a character that means something in a pattern.
    pub(crate) fn pattern(&self) -> String {
        let mut pattern = self.prefix.clone();
        pattern.push_str(":*");
        pattern
    }

    /// Reads a key that says who is connected, or where; `None` for all others, also for a user's in a
    /// partition that is not the user's.
    pub(crate) fn parse(&self, key: &str) -> Option<Key> {
        let name = key.strip_prefix(&self.prefix)?.strip_prefix(':')?;
        if let Some(incarnation) = name.strip_prefix("node:") {
            return Some(Key::Node(incarnation.to_owned()));
        }
        let (partition, name) = name.strip_prefix('{')?.split_once("}:")?;
        let partition: u32 = partition.parse().ok().filter(|p| *p < self.partitions)?;
        match name.split_once(':')? {
            ("node", incarnation) => Some(Key::Owed(partition, incarnation.to_owned())),
            ("conns", user) => {
                let user: UserId = user.parse().ok()?;
                (self.connections(user) == key).then_some(Key::Connections(user))
            }
            _ => None,
        }
    }

    /// Reads a channel's name back; `None` for a channel that is not ours.
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::SAFE_INTEGER_MAX;

    fn user(id: u64) -> UserId {
        UserId::try_from(id).expect("a valid id")
    }

    #[test]
    fn all_that_concerns_a_user_has_the_hash_tag_of_the_partition() {
        let keys = Keys::new("vigie", 4);
        assert_eq!(keys.connections(user(42)), "vigie:{2}:conns:42");
        assert_eq!(keys.profile(user(42)), "vigie:{2}:profile:42");
        assert_eq!(keys.topic(user(42)), "vigie:{2}:user:42");
        assert_eq!(keys.online(2), "vigie:{2}:online");
    }

    #[test]
    fn keys_are_read_back() {
        let keys = Keys::new("a:b", 4);
        let parsed = |key: String| keys.parse(&key);
        let connections = keys.connections(user(7));
        assert_eq!(parsed(connections), Some(Key::Connections(user(7))));
        let owed = keys.owed(3, "n.1");
        assert_eq!(parsed(owed), Some(Key::Owed(3, "n.1".to_owned())));
        assert_eq!(parsed(keys.node("n.1")), Some(Key::Node("n.1".to_owned())));
        for foreign in [
            "a:b:{2}:conns:7",
            "a:b:{4}:node:n.1",
            "a:b:{3}:conns:x",
            "c",
        ] {
            assert_eq!(parsed(foreign.to_owned()), None, "{foreign}");
        }
        assert_eq!(parsed(keys.profile(user(7))), None);
        assert_eq!(parsed(keys.reply("x")), None);
    }

    #[test]
    fn channels_are_read_back() {
        let keys = Keys::new("a:b", 4);
        let parsed = |channel: String| keys.parse_channel(&channel);
        assert_eq!(parsed(keys.topic(user(7))), Some(Channel::Topic(user(7))));
        assert_eq!(parsed(keys.presence_channel(3)), Some(Channel::Presence(3)));
        assert_eq!(parsed(keys.node("n.1")), Some(Channel::Node));
        assert_eq!(parsed("other:{0}:presence".to_owned()), None);
        assert_eq!(parsed(keys.online(0)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn a_channel_is_read_back_and_no_other(
            prefix in "[a-z:{}]{1,6}",
            partitions in 1_u32..=1024,
            id in 1..=SAFE_INTEGER_MAX,
            foreign in "[a-z:{}]{0,6}(:|node:|\\{[0-9]{0,3}\\}:(user:|presence|conns:)?)?[0-9a-z:]{0,8}|.*",
        ) {
            let keys = Keys::new(&prefix, partitions);
            let user = user(id);
            let partition = (id % u64::from(partitions)) as u32;
            prop_assert_eq!(keys.parse_channel(&keys.topic(user)), Some(Channel::Topic(user)));
            let presence = keys.presence_channel(partition);
            prop_assert_eq!(keys.parse_channel(&presence), Some(Channel::Presence(partition)));
            let pulse = keys.pulse_channel(partition);
            prop_assert_eq!(keys.parse_channel(&pulse), Some(Channel::Pulse(partition)));
            prop_assert_eq!(keys.parse(&keys.connections(user)), Some(Key::Connections(user)));
            for foreign in [foreign.clone(), format!("{prefix}{foreign}"), format!("{prefix}:{foreign}")] {
                let ending = match keys.parse_channel(&foreign) {
                    Some(Channel::Topic(user)) => format!("}}:user:{}", user),
                    Some(Channel::Presence(_)) => "}:presence".to_owned(),
                    Some(Channel::Pulse(_)) => "}:pulse".to_owned(),
                    Some(Channel::Node) | None => String::new(),
                };
                prop_assert!(foreign.ends_with(&ending), "{}", foreign);
                if let Some(Key::Connections(user)) = keys.parse(&foreign) {
                    prop_assert_eq!(keys.connections(user), foreign);
                }
            }
        }
    }
}
