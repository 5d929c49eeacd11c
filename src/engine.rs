//! What the hub asks of an engine, as one enum over the two that exist.
//!
//! An engine keeps presence and last updates and carries messages between nodes. Calls go down; what
//! happened comes back up as [`Message`]s on one stream, in the order in which it happened.

/// Calls one method of whichever engine it is.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Self::Memory(memory) => memory.$method($($argument),*),
            Self::Redis(redis) => redis.$method($($argument),*).await,
        }
    };
}

// Below the macro that it uses, too.
pub mod matchmaking;
pub mod memory;
pub mod redis;
mod refusal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::ids::{ConnectionId, Incarnation, MatchId, Revision, SAFE_INTEGER_MAX, UserId};
use crate::tls::TrustError;

pub use self::refusal::Refusal;

/// Messages that wait for the domain before the engine's own, lossy buffer begins to fill.
const MESSAGES_MAX: usize = 1024;

/// The eviction policy with which Redis drops nothing that it was given.
pub(crate) const KEEPS_EVERYTHING: &str = "noeviction";

/// One of the engines. Cloning is cheap: clones share everything.
#[derive(Clone)]
pub enum Engine {
    /// One node, nothing to install.
    Memory(Arc<memory::Memory>),
    /// Any number of nodes on one Redis.
    Redis(Arc<redis::Redis>),
}

/// The stream of what happened, for the one reader it has.
pub type Messages = mpsc::Receiver<Message>;

/// What a caller can do about a failed call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot be reached or did not answer in time: try again later.
    #[error("redis cannot be reached: {0}")]
    Unavailable(String),
    /// The engine received the command and refuses it, for a reason that it names.
    #[error("redis refuses: {0}")]
    Refused(Refusal),
    /// This node cannot do it at the moment: try again later.
    #[error("the node cannot do it at the moment: {0}")]
    NotNow(String),
    /// The engine answered something that this version does not understand.
    #[error("redis gave an answer that makes no sense here: {0}")]
    Answer(String),
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error(
        "redis.url is no Redis URL ({0}); write redis://host:6379, rediss:// for TLS, redis-cluster:// or redis-sentinel://"
    )]
    Url(String),
    /// Nobody is trusted to sign the server's certificate.
    #[error("redis.ca_file (VIGIE_REDIS__CA_FILE) {0}")]
    Trust(#[from] TrustError),
    /// Redis did not answer.
    #[error(
        "redis at {server} cannot be reached ({cause}); start it, or correct redis.url (VIGIE_REDIS__URL)"
    )]
    Unreachable {
        /// Where Redis was looked for, without its password.
        server: String,
        /// What went wrong.
        cause: String,
    },
    /// Redis answers, and refuses.
    #[error("redis at {server} refuses: {refusal}")]
    Refused {
        /// Where Redis was looked for, without its password.
        server: String,
        /// Why.
        refusal: Refusal,
    },
    /// The user of the URL lacks rights.
    #[error("redis at {server} refuses: {denied}")]
    Denied {
        /// Where Redis was looked for, without its password.
        server: String,
        /// Which rights, and how to grant them.
        denied: Denied,
    },
    /// The server is too old for what the hub does.
    #[error(
        "redis at {server} is {found}; vigie needs Redis 7.0 or Valkey 7.2 at least: upgrade it, or name another one in \
         redis.url (VIGIE_REDIS__URL)"
    )]
    TooOld {
        /// Where Redis was looked for, without its password.
        server: String,
        /// Its name and version.
        found: String,
    },
    /// Whoever answered is not who was to answer.
    #[error("redis at {server} does not prove who it is: {problem} ({cause})")]
    Untrusted {
        /// Where Redis was looked for, without its password.
        server: String,
        /// What is wrong with its certificate, and what to do.
        problem: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// The data under this prefix has another shape.
    #[error(
        "the data under the prefix {prefix:?} has layout {found_layout} and {found_partitions} partitions, this node \
         is configured for layout {layout} and {partitions}; set redis.partitions (VIGIE_REDIS__PARTITIONS) to \
         {found_partitions}, or choose another redis.prefix"
    )]
    Disagreement {
        /// The prefix of all keys.
        prefix: String,
        /// The layout version this node was built for.
        layout: u64,
        /// The partition count this node is configured for.
        partitions: u64,
        /// The layout version recorded.
        found_layout: u64,
        /// The partition count recorded.
        found_partitions: u64,
    },
}

/// Commands that the user of the URL may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The commands, keys or channels, as the server names them.
    pub what: Vec<String>,
    /// The command that grants all of it.
    pub grant: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.join(", ");
        write!(
            f,
            "NOPERM, its user may not use {what}; grant it: {}",
            self.grant
        )
    }
}

/// What an examination of the engine found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// Why commands that the hub needs are refused; `None` where all are carried out.
    pub refused: Option<String>,
    /// What the engine does when its memory is full; `None` where it does not say.
    pub eviction_policy: Option<String>,
}

impl Examination {
    /// The same of two servers: what either refuses, and the policy that drops anything.
    pub(crate) fn join(self, other: Self) -> Self {
        let keeps = |policy: &String| policy == KEEPS_EVERYTHING;
        let mut policies = [self.eviction_policy, other.eviction_policy]
            .into_iter()
            .flatten();
        let first = policies.next();
        let evicting = policies.find(|policy| !keeps(policy));
        Self {
            refused: self.refused.or(other.refused),
            eviction_policy: match first {
                Some(first) if keeps(&first) => Some(evicting.unwrap_or(first)),
                first => first,
            },
        }
    }
}

/// What decides whether a connection may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Most connections that the user may have.
    pub connections_max: u64,
    /// When its token was issued, in ms since 1970; `None` where nobody can say.
    pub issued_at_ms: Option<u64>,
}

impl Admission {
    /// It was admitted once: limits and revocations are for newcomers.
    pub const ADMITTED: Self = Self {
        connections_max: SAFE_INTEGER_MAX,
        issued_at_ms: Some(SAFE_INTEGER_MAX),
    };
}

/// The outcome of registering a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The connection counts.
    Registered {
        /// Connections the user now has, on all nodes.
        refcount: u64,
        /// Number of the partition's last transition: the user is online from it on at the latest.
        revision: u64,
        /// Since when the connection counts, in ms since 1970 on the engine's clock.
        since_ms: u64,
    },
    /// The account was deleted; nothing was changed.
    AccountDeleted,
    /// The user's tokens were revoked, and this one is not from after that; nothing was changed.
    TokenRevoked,
    /// The user has as many connections as allowed; nothing was changed.
    TooManyConnections,
}

/// Which tokens of a user count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// None: the account was deleted.
    pub deleted: bool,
    /// Those issued at this time or after, in ms since 1970 on the engine's clock; all where it is 0.
    pub revoked_before_ms: u64,
}

/// A revocation of a user's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// How many nodes were listening.
    pub nodes: u64,
    /// Tokens issued before this time are refused, in ms since 1970 on the engine's clock.
    pub before_ms: u64,
}

/// The outcome of taking offline whose grace is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Users taken offline by this call.
    pub offline: Vec<UserId>,
    /// When the next one is due, counted from now.
    pub next_due: Option<Duration>,
}

/// Where the transitions of a partition stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Name of this life of the data.
    pub epoch: String,
    /// Number of the last transition.
    pub revision: u64,
}

/// Users going online and offline, as published by the script that moved them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Name of this life of the data.
    pub epoch: String,
    /// Number of this transition; the one before has one less.
    #[serde(rename = "rev")]
    pub revision: u64,
    /// Users who came online.
    pub online: Vec<UserId>,
    /// Users who went offline.
    pub offline: Vec<UserId>,
}

/// Where the transitions of a partition stand, said again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Name of this life of the data.
    pub epoch: String,
    /// Number of the last transition.
    #[serde(rename = "rev")]
    pub revision: u64,
}

/// The kinds of update about a user; each has revisions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Name, avatar and whatever else a back end calls the profile.
    Profile,
    /// Game statistics.
    Stats,
    /// The friend list.
    Friends,
    /// The match history.
    Matches,
    /// The ids of the user's friends, as an array. Nobody is told; it decides who sees what.
    Friendships,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Profile,
        Self::Stats,
        Self::Friends,
        Self::Matches,
        Self::Friendships,
    ];

    /// The name used in keys and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Stats => "stats",
            Self::Friends => "friends",
            Self::Matches => "matches",
            Self::Friendships => "friendships",
        }
    }
}

/// An update to store and publish.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whom it is about.
    pub user: UserId,
    /// What it is about.
    pub kind: Kind,
    /// The caller's own revision; without one the engine assigns microseconds.
    pub revision: Option<Revision>,
    /// What everybody may see, if anything.
    pub public: Option<Arc<RawValue>>,
    /// What friends and the user may see.
    pub full: Arc<RawValue>,
}

/// The outcome of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Stored, and published to `nodes` nodes that were listening.
    Stored {
        /// The revision it has now.
        revision: Revision,
        /// Nodes that were listening.
        nodes: u64,
    },
    /// Not newer than what is stored; nothing was changed or published.
    Stale {
        /// The revision that is stored.
        revision: Revision,
    },
    /// The account was deleted; nothing was changed or published.
    AccountDeleted,
}

/// The last update of one kind, in both views.
#[derive(Clone, Debug)]
pub struct Views {
    /// Name of the life of the data in which the revision counts.
    pub epoch: String,
    /// Orders it among the updates of its kind.
    pub revision: Revision,
    /// What everybody may see, if anything.
    pub public: Option<Arc<RawValue>>,
    /// What friends and the user may see.
    pub full: Arc<RawValue>,
}

/// What the engine keeps about a user's updates.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Name of this life of the data.
    pub epoch: String,
    /// The last update of each kind, and when it was stored, in ms since 1970 on the engine's clock.
    pub updates: Vec<(Kind, Views, u64)>,
    /// The account was deleted.
    pub deleted: bool,
    /// Connections that counted at this time, in ms since 1970 on the engine's clock, are to be closed.
    pub disconnected_at_ms: u64,
}

/// What a call of the reaper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Connections released by this call.
    pub released: u64,
    /// Connections that the incarnation still owes.
    pub left: u64,
}

/// A message on a user's topic.
#[derive(Clone, Debug)]
pub enum TopicMessage {
    /// An update, already stored.
    Update(Kind, Views),
    /// An event for the user's own connections.
    Event {
        /// The event's name.
        event: String,
        /// Its payload.
        data: Arc<RawValue>,
    },
    /// Connections of the user are to be closed.
    Disconnect {
        /// Those that counted at this time, in ms since 1970 on the engine's clock; all where absent.
        before_ms: Option<u64>,
    },
    /// The account is gone.
    AccountDeleted,
    /// An opponent was found for the user.
    MatchFound {
        /// The match.
        id: MatchId,
        /// Against whom, as JSON.
        opponent: Arc<RawValue>,
    },
    /// The user has waited for an opponent for as long as allowed.
    MatchTimeout {
        /// The ticket is from before this time, in ms since 1970 on the engine's clock.
        before_ms: u64,
    },
    /// The user waits for no opponent any more, because somebody said so.
    MatchLeft,
}

/// What happened, as the engine tells it.
#[derive(Clone, Debug)]
pub enum Message {
    /// Users went online or offline.
    Presence {
        /// The partition they belong to.
        partition: u32,
        /// Who.
        transition: Transition,
    },
    /// Something on a topic to which this node subscribed.
    Topic {
        /// Whose topic.
        user: UserId,
        /// What.
        message: TopicMessage,
    },
    /// The canary came back.
    Canary {
        /// What was sent with it.
        nonce: u64,
    },
    /// Somebody asks this node something.
    Asked(Question),
    /// A node answers a survey of this one; see [`Engine::ask_watchers`].
    Watchers {
        /// The survey's number.
        survey: u64,
        /// How many of that node's connections watch whom it is about.
        watchers: u64,
    },
    /// Where the transitions of a partition stand.
    Pulse {
        /// The partition.
        partition: u32,
        /// Its position.
        pulse: Pulse,
    },
    /// Messages of a server, with these partitions, may have been missed, and its data may be lost: everything built
    /// from them is to be built again.
    Interrupted(Vec<u32>),
}

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which connections it holds; see [`Engine::answer`].
    Connections {
        /// Where the answer is expected.
        reply: String,
    },
    /// How many of its connections watch a user; see [`Engine::tell_watchers`].
    Watchers {
        /// Whom.
        user: UserId,
        /// The incarnation that asks.
        asker: String,
        /// The number of the asker's survey.
        survey: u64,
    },
}

/// One registered connection, as the engine keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredConnection {
    /// Incarnation of the owning node.
    pub incarnation: String,
    /// Number of the connection on that node.
    pub connection: String,
    /// When it was registered, in ms since 1970.
    pub connected_at_ms: u64,
}

/// What a node tells the others about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// The node's name.
    pub id: String,
    /// Its present life.
    pub incarnation: String,
    /// Version of the hub it runs.
    pub version: String,
    /// When it started, in ms since 1970.
    pub started_at: u64,
    /// Open connections.
    pub connections: u64,
    /// Open connections without an account.
    pub guests: u64,
    /// Users with an open connection.
    pub users: u64,
    /// Topics the node listens to.
    pub topics: u64,
    /// Partitions of which the node hears nothing.
    pub not_heard: Vec<u32>,
}

/// A node that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveNode {
    /// What it told about itself.
    pub info: NodeInfo,
    /// End of its lease, in ms since 1970 on the engine's clock.
    pub lease_ends_at_ms: u64,
}

impl Engine {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
        }
    }

    /// How many partitions the users are spread over.
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Memory(_) => 1,
            Self::Redis(redis) => redis.partitions(),
        }
    }

    /// The partition of a user.
    pub fn partition_of(&self, user: UserId) -> u32 {
        (user.get() % u64::from(self.partitions())) as u32
    }

    /// Counts a connection of `user`, if it may count; idempotent.
    pub async fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        either!(self.register(user, connection, admission))
    }

    /// Stops counting a connection of `user`; idempotent. After the last one the user goes offline when
    /// `grace` is over. Returns how many connections the user has left.
    pub async fn release(
        &self,
        user: UserId,
        connection: ConnectionId,
        grace: Duration,
    ) -> Result<u64, EngineError> {
        either!(self.release(user, connection, grace))
    }

    /// Takes offline at most `batch_max` users of the partition whose grace is over, or will be within `ahead`;
    /// nobody for as long as `patience` after the engine was restarted.
    pub async fn expire(
        &self,
        partition: u32,
        batch_max: u32,
        ahead: Duration,
        patience: Duration,
    ) -> Result<Expired, EngineError> {
        either!(self.expire(partition, batch_max, ahead, patience))
    }

    /// Where the transitions of the partition stand.
    pub async fn position(&self, partition: u32) -> Result<Position, EngineError> {
        either!(self.position(partition))
    }

    /// The online users of the partition; whoever comes or goes meanwhile may be in it or not.
    pub async fn online(&self, partition: u32) -> Result<Vec<UserId>, EngineError> {
        either!(self.online(partition))
    }

    /// Whether `user` is online, and the connections of the user on all nodes.
    pub async fn connections_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        either!(self.connections_of(user))
    }

    /// Listens to the partition's transitions and pulses. Returns once confirmed.
    pub async fn subscribe_presence(&self, partition: u32) -> Result<(), EngineError> {
        either!(self.subscribe_presence(partition))
    }

    /// Listens to the topics of `users`. Returns once all are confirmed; after an error, any may be.
    pub async fn subscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        either!(self.subscribe(users))
    }

    /// Stops listening to the topics of `users`.
    pub async fn unsubscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        either!(self.unsubscribe(users))
    }

    /// Stores and publishes updates, in order and in one round trip; one result for each.
    pub async fn publish(&self, updates: Vec<Update>) -> Vec<Result<Published, EngineError>> {
        either!(self.publish(updates))
    }

    /// What is kept about the updates of `user`.
    pub async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        either!(self.stored(user))
    }

    /// Sends an event to the user's own connections. Returns how many nodes were listening, or `None` for
    /// a deleted account.
    pub async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<Option<u64>, EngineError> {
        either!(self.send_event(user, event, data))
    }

    /// Has every connection of the user closed. Returns how many nodes were listening, or `None` for a
    /// deleted account.
    pub async fn disconnect(&self, user: UserId) -> Result<Option<u64>, EngineError> {
        either!(self.disconnect(user))
    }

    /// Refuses the tokens of the user that were issued before now, and has every connection of the user closed.
    /// Returns `None` for a deleted account.
    pub async fn revoke(&self, user: UserId) -> Result<Option<Revoked>, EngineError> {
        either!(self.revoke(user))
    }

    /// Which tokens of `user` count.
    pub async fn standing(&self, user: UserId) -> Result<Standing, EngineError> {
        either!(self.standing(user))
    }

    /// Forgets the last updates about the user; nobody is told. Returns whether there were any.
    pub async fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        either!(self.forget_updates(user))
    }

    /// Marks the account as deleted for ever and says so; the user waits for no opponent any more. Returns how many
    /// nodes were listening.
    pub async fn delete_account(&self, user: UserId) -> Result<u64, EngineError> {
        let nodes = either!(self.delete_account(user))?;
        self.cancel(user, matchmaking::Meant::Any).await?;
        Ok(nodes)
    }

    /// Publishes a pulse of the partition to every node that listens to it; see [`Message::Pulse`].
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn pulse(&self, partition: u32) -> Result<(), EngineError> {
        either!(self.pulse(partition))
    }

    /// No pulse of the partition has arrived for `silence`: has its messages looked for, which interrupts it.
    pub async fn recover(&self, partition: u32, silence: Duration) {
        if let Self::Redis(redis) = self {
            redis.recover(partition, silence).await;
        }
    }

    /// Whether an error concerns a part of the engine only, while others answer.
    pub async fn is_partial(&self, error: &EngineError) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_partial(error).await,
        }
    }

    /// Whether the engine has several servers of which some answer, while others do not.
    pub async fn is_partly_there(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_partly_there().await,
        }
    }

    /// Whether the list of leases may be on the server of one of these partitions.
    pub fn may_hold_leases(&self, partitions: &[u32]) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Redis(redis) => redis.may_hold_leases(partitions),
        }
    }

    /// Has the node's own channel subscribed again: messages may have been missed.
    pub fn forget_own_channel(&self) {
        if let Self::Redis(redis) = self {
            redis.forget_own_channel();
        }
    }

    /// Sends a canary through the channels that carry everything else; see [`Message::Canary`].
    pub async fn send_canary(&self, nonce: u64) -> Result<(), EngineError> {
        either!(self.send_canary(nonce))
    }

    /// Why the engine rejects connections of this node, where that is the reason for its silence.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => redis.refusal(),
        }
    }

    /// Runs each command that the hub needs, and says which are refused.
    pub async fn examine(&self) -> Result<Examination, EngineError> {
        match self {
            Self::Memory(_) => Ok(Examination::default()),
            Self::Redis(redis) => redis.examine().await,
        }
    }

    /// Begins the lease of the incarnation in `info`, and tells the others about the node.
    pub async fn begin(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        either!(self.begin(info, lease))
    }

    /// Renews the lease of the present incarnation, and tells the others about the node. Returns when it ends, in ms
    /// on the engine's clock, or `None` when it is gone: what the incarnation registered is, or will be, released by
    /// others.
    pub async fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        either!(self.renew(info, lease))
    }

    /// Goes on as `next`, whose lease has begun. Returns the incarnation before.
    pub fn go_on_as(&self, next: Incarnation) -> Incarnation {
        match self {
            Self::Memory(memory) => memory.incarnation(),
            Self::Redis(redis) => redis.go_on_as(next),
        }
    }

    /// Takes away leases that are over, unless the engine's clock shows more than `until_ms` by then: it was set, or
    /// the engine stood still. Returns their incarnations.
    pub async fn bury(&self, until_ms: u64) -> Result<Vec<String>, EngineError> {
        either!(self.bury(until_ms))
    }

    /// Incarnations that owe something in the partition and have no lease; none while this node has none itself.
    pub async fn dead(&self, partition: u32) -> Result<Vec<String>, EngineError> {
        either!(self.dead(partition))
    }

    /// Releases at most `batch_max` connections of a dead incarnation.
    pub async fn reap(
        &self,
        partition: u32,
        incarnation: &str,
        batch_max: u32,
        grace: Duration,
    ) -> Result<Reaped, EngineError> {
        either!(self.reap(partition, incarnation, batch_max, grace))
    }

    /// The connections that the present incarnation has registered in the partition.
    pub async fn owed(&self, partition: u32) -> Result<Vec<(UserId, ConnectionId)>, EngineError> {
        either!(self.owed(partition))
    }

    /// Asks every node that listens to the topic of `user` how many of its connections watch the user; see
    /// [`Message::Watchers`]. Returns how many those are.
    pub async fn ask_watchers(&self, user: UserId, survey: u64) -> Result<u64, EngineError> {
        either!(self.ask_watchers(user, survey))
    }

    /// Answers the survey of `asker`.
    pub async fn tell_watchers(
        &self,
        asker: &str,
        survey: u64,
        watchers: u64,
    ) -> Result<(), EngineError> {
        either!(self.tell_watchers(asker, survey, watchers))
    }

    /// Answers a question under `reply`: these are the connections that the node holds; see
    /// [`Question::Connections`].
    pub async fn answer(
        &self,
        reply: &str,
        held: &[(UserId, ConnectionId)],
    ) -> Result<(), EngineError> {
        either!(self.answer(reply, held))
    }

    /// Has connections opened anew that look open, because nothing arrives over them.
    pub async fn reconnect(&self) {
        if let Self::Redis(redis) = self {
            redis.reconnect().await;
        }
    }

    /// Gives the lease back: the node is no longer alive.
    pub async fn resign(&self) -> Result<(), EngineError> {
        either!(self.resign())
    }

    /// The incarnations that have a lease, and when it ends, in ms on the engine's clock; also where it is over and
    /// nobody has taken it away yet.
    pub async fn leases(&self) -> Result<Vec<(String, u64)>, EngineError> {
        either!(self.leases())
    }

    /// Every node whose lease is not over.
    pub async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        either!(self.nodes())
    }

    /// What the engine's clock shows, in ms since 1970: Redis's, or this process's.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn now_ms(&self) -> Result<u64, EngineError> {
        either!(self.now_ms())
    }

    /// The node's present life.
    pub fn incarnation(&self) -> Incarnation {
        match self {
            Self::Memory(memory) => memory.incarnation(),
            Self::Redis(redis) => redis.incarnation(),
        }
    }
}
