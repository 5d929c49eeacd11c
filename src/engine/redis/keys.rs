//! The names of all keys and channels. The doc comments in capitals become the tables of keys and channels in
//! `lua/README.md`.

use std::collections::HashMap;
use std::sync::Arc;

use fred::util::redis_keyslot;

use super::hash_tag::hash_tags;
use crate::ids::UserId;

/// The keys and channels under one prefix. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Keyspace {
    prefix: Arc<str>,
    tags: Arc<Tags>,
}

/// The hash tags of the partitions.
#[derive(Debug)]
struct Tags {
    tags: Vec<String>,
    partitions: HashMap<String, u32>,
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
        let tags = hash_tags(partitions);
        let partitions = tags.iter().cloned().zip(0..).collect();
        Self {
            prefix: prefix.into(),
            tags: Arc::new(Tags { tags, partitions }),
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        u32::try_from(self.tags.tags.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn partition_of(&self, user: UserId) -> u32 {
        (user.get() % u64::from(self.partitions())) as u32
    }

    /// The hash tag of a partition, without braces; empty for one that does not exist.
    pub(crate) fn tag(&self, partition: u32) -> &str {
        let tag = self.tags.tags.get(partition as usize);
        tag.map_or("", String::as_str)
    }

    fn partition_with_tag(&self, tag: &str) -> Option<u32> {
        self.tags.partitions.get(tag).copied()
    }

    /// KEY HASH: `layout` and `partitions`; a node that disagrees refuses to start
    /// LIVES forever
    /// WRITTEN BY `meta/claim.lua`
    pub(crate) fn meta(&self) -> String {
        format!("{}:meta", self.prefix)
    }

    /// KEY ZSET: incarnation → end of its lease, ms; an incarnation that is not in it is dead
    /// LIVES until the lease is over and a node reaps it, or its own node stops
    /// WRITTEN BY `lease/begin.lua`, `lease/renew.lua`, `lease/expire.lua`; `ZREM`
    pub(crate) fn leases(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// KEY HASH: the report that `GET /api/v1/nodes` shows
    /// LIVES as long as the lease
    /// WRITTEN BY `HSET` and `PEXPIRE` with each renewal; `DEL`
    /// CHANNEL messages to one node: a number from itself, which shows that messages arrive;
    ///   `{"ask":"connections","reply":"<id>"}` of the doctor; `{"survey":3,"watchers":7}`: how many connections of
    ///   another node watch the user about whom this one asked
    /// PUBLISHED BY `SPUBLISH` of the node, of others, and of the doctor
    pub(crate) fn node(&self, incarnation: &str) -> String {
        format!("{}:node:{incarnation}", self.prefix)
    }

    /// KEY LIST: the reply of a node when the doctor asks which connections it holds: `["<user>/<connection>", …]`,
    ///   1,000 at a time, then `{"incarnation":"…","connections":n}`
    /// LIVES until it is read, 30 s at most
    /// WRITTEN BY `RPUSH` and `PEXPIRE` of the node; `DEL` of the doctor
    pub(crate) fn reply(&self, request: &str) -> String {
        format!("{}:reply:{request}", self.prefix)
    }

    fn of_partition(&self, partition: u32, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.prefix, self.tag(partition))
    }

    fn of_user(&self, user: UserId, name: &str) -> String {
        let tag = self.tag(self.partition_of(user));
        format!("{}:{{{tag}}}:{name}:{user}", self.prefix)
    }

    /// KEY SET: ids of online users
    /// LIVES while anybody is online
    /// WRITTEN BY `presence/register.lua`, `presence/register_many.lua`, `presence/expire.lua`, `presence/repair.lua`
    pub(crate) fn online(&self, partition: u32) -> String {
        self.of_partition(partition, "online")
    }

    /// KEY ZSET: users without connections, scored by when they go offline, ms
    /// LIVES while a grace runs
    /// WRITTEN BY `presence/release.lua`, `presence/reap.lua`, `presence/register.lua`, `presence/register_many.lua`, `presence/expire.lua`,
    ///   `presence/repair.lua`
    pub(crate) fn leaving(&self, partition: u32) -> String {
        self.of_partition(partition, "leaving")
    }

    /// KEY SET: incarnations that have registered a connection here
    /// LIVES while they owe one
    /// WRITTEN BY `presence/register.lua`, `presence/register_many.lua`, `presence/release.lua`, `presence/reap.lua`,
    ///   `presence/repair.lua`
    pub(crate) fn registered_nodes(&self, partition: u32) -> String {
        self.of_partition(partition, "nodes")
    }

    /// KEY STRING: `<run id> <ms>`: the server on which the data was last seen, and the time from which it takes users
    ///   offline; after a restart or a failover nobody goes offline for a while
    /// LIVES forever
    /// WRITTEN BY `presence/expire.lua`, `presence/pulse.lua`
    pub(crate) fn server(&self, partition: u32) -> String {
        self.of_partition(partition, "server")
    }

    /// KEY STRING: name of this life of the data: the microsecond of its beginning
    /// LIVES forever
    /// WRITTEN BY whichever script finds none: `presence/register.lua`, `presence/register_many.lua`, `presence/expire.lua`, `presence/position.lua`,
    ///   `presence/pulse.lua`, `presence/repair.lua`, `profile/update.lua`, `profile/read.lua`
    pub(crate) fn epoch(&self, partition: u32) -> String {
        self.of_partition(partition, "epoch")
    }

    /// KEY STRING: number of the last transition
    /// LIVES forever
    /// WRITTEN BY `presence/register.lua`, `presence/register_many.lua`, `presence/expire.lua`, `presence/repair.lua`
    pub(crate) fn revision(&self, partition: u32) -> String {
        self.of_partition(partition, "rev")
    }

    /// CHANNEL transitions, numbered without a gap: `{"epoch":"6561…","rev":7,"online":[42],"offline":[]}`
    /// PUBLISHED BY `presence/register.lua`, `presence/register_many.lua`, `presence/expire.lua`, `presence/repair.lua`
    pub(crate) fn presence_channel(&self, partition: u32) -> String {
        self.of_partition(partition, "presence")
    }

    /// CHANNEL number of the last transition, every heartbeat: `{"epoch":"6561…","rev":7}`
    /// PUBLISHED BY `presence/pulse.lua`, called by an owner of the partition
    pub(crate) fn pulse_channel(&self, partition: u32) -> String {
        self.of_partition(partition, "pulse")
    }

    /// The hash slot of everything in the partition.
    pub(crate) fn slot(&self, partition: u32) -> u16 {
        redis_keyslot(self.epoch(partition).as_bytes())
    }

    /// KEY SET: `<user>/<connection>`: what that node owes
    /// LIVES while it owes anything
    /// WRITTEN BY `presence/register.lua`, `presence/register_many.lua`, `presence/release.lua`, `presence/reap.lua`,
    ///   `presence/repair.lua`
    pub(crate) fn registrations_of(&self, partition: u32, incarnation: &str) -> String {
        self.of_partition(partition, &format!("node:{incarnation}"))
    }

    /// Prefix of [`Self::registrations_of`]; the incarnation follows.
    pub(crate) fn registrations_prefix(&self, partition: u32) -> String {
        self.of_partition(partition, "node:")
    }

    /// KEY any type: scratch key of a node that tries whether it may run each command
    /// LIVES within the script; 10 s where it may not delete
    /// WRITTEN BY `meta/probe.lua`
    /// CHANNEL nothing: a node tries whether it may publish (`string`) and subscribe (`channel`)
    /// PUBLISHED BY `meta/probe.lua`
    pub(crate) fn probe(&self, partition: u32, kind: &str) -> String {
        self.of_partition(partition, &format!("probe:{kind}"))
    }

    /// KEY HASH: request → answer already given to it, so that a repeated command publishes once; `minute`: which one. The
    ///   hashes of even and odd minutes take turns
    /// LIVES for two minutes
    /// WRITTEN BY `profile/update.lua`, `topic/publish.lua`, `account/disconnect.lua`, `account/revoke.lua`
    pub(crate) fn requests_of(&self, partition: u32, parity: &str) -> String {
        self.of_partition(partition, &format!("requests:{parity}"))
    }

    /// Both of [`Self::requests_of`].
    pub(crate) fn requests(&self, partition: u32) -> [String; 2] {
        ["even", "odd"].map(|parity| self.requests_of(partition, parity))
    }

    /// KEY HASH: `<incarnation>/<connection>` → connected at, ms; its length is the refcount
    /// LIVES while the user has a connection
    /// WRITTEN BY `presence/register.lua`, `presence/register_many.lua`, `presence/release.lua`, `presence/reap.lua`,
    ///   `presence/repair.lua`
    pub(crate) fn connections(&self, user: UserId) -> String {
        self.of_user(user, "conns")
    }

    /// Prefix of [`Self::connections`]; the user's id follows.
    pub(crate) fn connections_prefix(&self, partition: u32) -> String {
        self.of_partition(partition, "conns:")
    }

    /// KEY HASH: `<kind>.revision`, `<kind>.at` (ms), `<kind>.public`, `<kind>.full` of the last update of each kind;
    ///   `expires`: until when the hash is kept, ms, or longer;
    ///   `disconnected`: connections from before that time, ms, are to be closed; or, of a deleted account, only
    ///   `deleted`, since when, ms
    /// LIVES for `redis.profile_ttl`, at least nine tenths of it, after the newest update or disconnection; `deleted` forever
    /// WRITTEN BY `profile/update.lua`, `account/disconnect.lua`, `account/revoke.lua`, `account/delete.lua`; `HDEL` of
    ///   a kind
    pub(crate) fn profile(&self, user: UserId) -> String {
        self.of_user(user, "profile")
    }

    /// KEY STRING: time, ms; tokens of the user that were issued before it are refused
    /// LIVES for `auth.revocation_ttl` after the last revocation
    /// WRITTEN BY `account/revoke.lua`
    pub(crate) fn revoked(&self, user: UserId) -> String {
        self.of_user(user, "revoked")
    }

    /// CHANNEL the user's topic. Updates: `{"kind":"profile","epoch":"…","revision":5,"public":{…},"full":{…}}`, also
    ///   of `kind` `stats`, `friends`, `matches` (`public` may be `null`), and `friendships`: the ids of the user's
    ///   friends, which no client gets and which decide who sees what. Messages:
    ///   `{"kind":"event","event":"…","data":…}`, `{"kind":"disconnect"}`, `{"kind":"account-deleted"}`,
    ///   `{"kind":"match-found","matchId":"…","opponent":{…}}`, `{"kind":"match-timeout","beforeMs":…}` about a ticket
    ///   from before that time, `{"kind":"match-left"}`: nodes forget that the user waits,
    ///   `{"kind":"count-watchers","asker":"<incarnation>","survey":3}`: each node replies how many watch
    /// PUBLISHED BY `profile/update.lua`, `topic/publish.lua`, `account/disconnect.lua`, `account/revoke.lua`,
    ///   `account/delete.lua`; `SPUBLISH` of the node that asks
    pub(crate) fn topic(&self, user: UserId) -> String {
        self.of_user(user, "user")
    }

    /// Matchmaking scripts touch all tickets, so their keys share one hash tag.
    fn of_matchmaking(&self, name: &str) -> String {
        format!("{}:{{mm}}:{name}", self.prefix)
    }

    /// KEY ZSET: users who wait for an opponent → place
    /// LIVES while anybody waits
    /// WRITTEN BY `matchmaking/enqueue.lua`, `matchmaking/restore.lua`, `matchmaking/cancel.lua`, `matchmaking/drop.lua`,
    ///   `matchmaking/expire.lua`, `matchmaking/pair.lua`, `matchmaking/requeue.lua`
    pub(crate) fn queue(&self) -> String {
        self.of_matchmaking("queue")
    }

    /// KEY ZSET: the same users, as `<place, padded>:<user>` → rating
    /// LIVES while anybody waits
    /// WRITTEN BY `matchmaking/enqueue.lua`, `matchmaking/restore.lua`, `matchmaking/cancel.lua`, `matchmaking/drop.lua`,
    ///   `matchmaking/expire.lua`, `matchmaking/pair.lua`, `matchmaking/requeue.lua`
    pub(crate) fn ratings(&self) -> String {
        self.of_matchmaking("ratings")
    }

    /// KEY HASH: a ticket: `place`, `rating`, `joined` (ms), `version` (a new one whenever the user joins again)
    /// LIVES while the user waits
    /// WRITTEN BY `matchmaking/enqueue.lua`, `matchmaking/restore.lua`, `matchmaking/cancel.lua`, `matchmaking/drop.lua`,
    ///   `matchmaking/expire.lua`, `matchmaking/pair.lua`, `matchmaking/requeue.lua`
    pub(crate) fn ticket(&self, user: UserId) -> String {
        self.of_matchmaking(&format!("ticket:{user}"))
    }

    /// Prefix of [`Self::ticket`]; the user's id follows.
    pub(crate) fn tickets_prefix(&self) -> String {
        self.of_matchmaking("ticket:")
    }

    /// KEY HASH: user → match that is pending for the user
    /// LIVES until the match is over
    /// WRITTEN BY `matchmaking/pair.lua`, `matchmaking/enqueue.lua`, `matchmaking/restore.lua`, `matchmaking/cancel.lua`,
    ///   `matchmaking/notify.lua`, `matchmaking/confirm.lua`, `matchmaking/requeue.lua`
    pub(crate) fn playing(&self) -> String {
        self.of_matchmaking("playing")
    }

    /// KEY HASH: a match: `state` (`made`, `notified`, `cancelled`), `player1`, `rating1`, `joined1` (ms), `player2`, …;
    ///   `node:<user>@<incarnation>` → `waiting` or `acked`; `acked:<user>`, `withdrawn:<user>` → `yes`
    /// LIVES until the match is over
    /// WRITTEN BY `matchmaking/pair.lua`, `matchmaking/enqueue.lua`, `matchmaking/cancel.lua`, `matchmaking/notify.lua`,
    ///   `matchmaking/confirm.lua`, `matchmaking/requeue.lua`
    pub(crate) fn pending_match(&self, id: &str) -> String {
        self.of_matchmaking(&format!("match:{id}"))
    }

    /// Prefix of [`Self::pending_match`]; the match's id follows.
    pub(crate) fn matches_prefix(&self) -> String {
        self.of_matchmaking("match:")
    }

    /// KEY ZSET: match → when it is announced, or announced again, ms
    /// LIVES until the match is over
    /// WRITTEN BY `matchmaking/pair.lua`, `matchmaking/due.lua`, `matchmaking/cancel.lua`, `matchmaking/notify.lua`,
    ///   `matchmaking/confirm.lua`, `matchmaking/requeue.lua`
    pub(crate) fn pending(&self) -> String {
        self.of_matchmaking("pending")
    }

    /// KEY ZSET: users whose ticket expired → when that is announced, or announced again, ms
    /// LIVES until it is announced
    /// WRITTEN BY `matchmaking/expire.lua`, `matchmaking/due.lua`, `matchmaking/enqueue.lua`, `matchmaking/restore.lua`,
    ///   `matchmaking/cancel.lua`; `ZREM`
    pub(crate) fn timeouts(&self) -> String {
        self.of_matchmaking("timeouts")
    }

    /// KEY STRING: last number assigned, for places, versions and matches
    /// LIVES forever
    /// WRITTEN BY `matchmaking/enqueue.lua`, `matchmaking/restore.lua`, `matchmaking/pair.lua`, `matchmaking/requeue.lua`
    pub(crate) fn count(&self) -> String {
        self.of_matchmaking("count")
    }

    /// KEY HASH: how far tickets have been scanned: `fresh`, `again` (places), `next` (ms), `streak`
    /// LIVES forever
    /// WRITTEN BY `matchmaking/pair.lua`, `matchmaking/requeue.lua`
    pub(crate) fn scan(&self) -> String {
        self.of_matchmaking("scan")
    }

    /// KEY HASH: second → matches made in it, for the last minute with any
    /// LIVES forever
    /// WRITTEN BY `matchmaking/pair.lua`
    pub(crate) fn made(&self) -> String {
        self.of_matchmaking("made")
    }

    /// The pattern of all keys, for `SCAN`. A prefix contains no special character.
    pub(crate) fn pattern(&self) -> String {
        format!("{}:*", self.prefix)
    }

    /// Parses a key about connections; `None` for all others, including a user's key in the wrong partition.
    pub(crate) fn parse(&self, key: &str) -> Option<ParsedKey> {
        let name = key.strip_prefix(&*self.prefix)?.strip_prefix(':')?;
        if let Some(incarnation) = name.strip_prefix("node:") {
            return Some(ParsedKey::Node(incarnation.to_owned()));
        }
        let (tag, name) = name.strip_prefix('{')?.split_once("}:")?;
        let partition = self.partition_with_tag(tag)?;
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
        let name = channel.strip_prefix(&*self.prefix)?.strip_prefix(':')?;
        if name.starts_with("node:") {
            return Some(Channel::Node);
        }
        let (tag, name) = name.strip_prefix('{')?.split_once("}:")?;
        let partition = || self.partition_with_tag(tag);
        match name.split_once(':') {
            Some(("user", user)) => user.parse().ok().map(Channel::Topic),
            None if name == "presence" => partition().map(Channel::Presence),
            None if name == "pulse" => partition().map(Channel::Pulse),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
