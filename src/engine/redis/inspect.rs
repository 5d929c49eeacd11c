//! Read-only views of the data for operators, read in bounded steps.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use futures_util::future::try_join_all;
use strum::IntoEnumIterator;

use super::layout::LAYOUT;
use super::page::{BEGINNING, SCAN_COUNT, ScanPage};
use super::presence::registered;
use super::servers::slot_of;
use super::{Redis, RedisOptions};
use crate::engine::matchmaking::{QueueStats, Ticket};
use crate::engine::{EngineError, Kind, LiveNode, OpenError, RegisteredConnection};
use crate::ids::{Revision, UserId};

/// Users queried concurrently.
const ONLINE_BATCH_MAX: usize = 500;

/// Inspects the data under one prefix.
pub(crate) struct Inspector {
    redis: Redis,
    prefix: String,
}

/// An overview of the hub.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    /// Host and port of Redis.
    pub server: String,
    /// Prefix of every key.
    pub prefix: String,
    /// Version of the key layout.
    pub layout: u64,
    /// Number of partitions.
    pub partitions: u32,
    /// Online users.
    pub online: u64,
    /// Online users without a connection, who go offline soon.
    pub leaving: u64,
    /// The live nodes.
    pub nodes: NodeList,
    /// The matchmaking queue.
    pub queue: QueueStats,
}

/// The nodes that are alive.
#[derive(Clone, Debug)]
pub(crate) struct NodeList {
    /// Sorted by id.
    pub nodes: Vec<LiveNode>,
    /// Redis's clock, in ms since 1970.
    pub now_ms: u64,
}

/// A page of online users.
#[derive(Clone, Debug)]
pub(crate) struct OnlinePage {
    /// Total number of online users.
    pub online: u64,
    /// The users on this page.
    pub users: Vec<OnlineUser>,
    /// Start of the next page; `None` at the end.
    pub next: Option<Cursor>,
}

/// An online user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnlineUser {
    /// The user's id.
    pub user: UserId,
    /// Connections on all nodes; 0 during the grace period.
    pub connections: u64,
    /// Nodes subscribed to the user's topic.
    pub listeners: u64,
}

/// The start of a page, `<partition>-<step>-<seen>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    partition: u32,
    /// The cursor of `SSCAN`.
    step: u64,
    /// The last id of this step already shown.
    seen: u64,
}

/// The text is not a [`Cursor`].
#[derive(Debug, thiserror::Error)]
#[error("a cursor is what the previous page ended with, such as 0-1024-0")]
pub(crate) struct InvalidCursor;

/// Everything stored about a user.
#[derive(Clone, Debug)]
pub(crate) struct UserReport {
    /// The user's id.
    pub user: UserId,
    /// The hash tag of the user's keys and channels, without braces.
    pub tag: String,
    /// Whether the user is online.
    pub online: bool,
    /// When the user goes offline, in ms since 1970, if the last connection has closed.
    pub leaving_at_ms: Option<u64>,
    /// The connections, oldest first; not all if there are very many.
    pub connections: Vec<RegisteredConnection>,
    /// Total number of connections.
    pub refcount: u64,
    /// The last update of each kind.
    pub updates: Vec<UpdateSummary>,
    /// Nodes subscribed to the user's topic: those with a connection of the user or of a watcher.
    pub listeners: u64,
    /// The user's matchmaking ticket.
    pub ticket: Option<Ticket>,
    /// The user's pending match.
    pub match_id: Option<String>,
    /// When the account was deleted, in ms since 1970.
    pub deleted_at_ms: Option<u64>,
    /// Tokens issued before this time are revoked, in ms since 1970.
    pub revoked_before_ms: Option<u64>,
    /// When a back end last disconnected the user, in ms since 1970.
    pub disconnected_at_ms: Option<u64>,
    /// Redis's clock, in ms since 1970.
    pub now_ms: u64,
}

/// The last update of one kind, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpdateSummary {
    /// The kind of update.
    pub kind: Kind,
    /// The update's revision.
    pub revision: Revision,
    /// When it was stored, in ms since 1970.
    pub at_ms: u64,
}

/// The matchmaking queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueReport {
    /// Figures about the queue.
    pub status: QueueStats,
    /// The first tickets.
    pub first: Vec<Ticket>,
}

impl Inspector {
    /// Connects and checks the data's layout, without recording one.
    ///
    /// # Errors
    /// If the URL is invalid, Redis does not answer, or the data has another layout.
    pub(crate) async fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let redis = Redis::connect_readonly(options).await?;
        let prefix = options.prefix.clone();
        Ok(Self { redis, prefix })
    }

    /// An overview of the hub.
    pub(crate) async fn overview(&self) -> Result<Overview, EngineError> {
        Ok(Overview {
            server: self.redis.servers.name(),
            prefix: self.prefix.clone(),
            layout: LAYOUT,
            partitions: self.redis.partitions(),
            online: self.online_count().await?,
            leaving: self.leaving_count().await?,
            nodes: self.nodes().await?,
            queue: self.redis.queue_stats().await?,
        })
    }

    async fn online_count(&self) -> Result<u64, EngineError> {
        let keys = (0..self.redis.partitions()).map(|partition| self.redis.keys.online(partition));
        let counts = keys.map(|key| self.redis.servers.call::<u64>("SCARD", key, Vec::new()));
        Ok(try_join_all(counts).await?.iter().sum())
    }

    async fn leaving_count(&self) -> Result<u64, EngineError> {
        let keys = (0..self.redis.partitions()).map(|partition| self.redis.keys.leaving(partition));
        let counts = keys.map(|key| self.redis.servers.call::<u64>("ZCARD", key, Vec::new()));
        Ok(try_join_all(counts).await?.iter().sum())
    }

    /// The nodes that are alive.
    pub(crate) async fn nodes(&self) -> Result<NodeList, EngineError> {
        let nodes = self.redis.nodes().await?;
        let now_ms = self.redis.now_ms().await?;
        Ok(NodeList { nodes, now_ms })
    }

    /// At most `limit` online users, starting at `cursor`.
    pub(crate) async fn online(
        &self,
        cursor: Option<Cursor>,
        limit: u32,
    ) -> Result<OnlinePage, EngineError> {
        let (mut ids, mut next) = (Vec::new(), Some(cursor.unwrap_or_default()));
        while let Some(at) = next
            && ids.len() < limit as usize
        {
            let room = limit as usize - ids.len();
            let key = self.redis.keys.online(at.partition);
            let (step, count) = (at.step.to_string(), limit.min(SCAN_COUNT));
            let page: ScanPage<u64> = self.redis.page("SSCAN", &key, &step, count).await?;
            // A small set is returned in one step, whatever the count.
            let unseen: BTreeSet<u64> = page.items.into_iter().filter(|id| *id > at.seen).collect();
            let taken = unseen.iter().copied().take(room);
            ids.extend(taken.filter_map(|id| UserId::try_from(id).ok()));
            next = match unseen.iter().nth(room - 1).filter(|_| unseen.len() > room) {
                Some(&seen) => Some(Cursor { seen, ..at }),
                None => {
                    let step = page.next.and_then(|step| step.parse().ok());
                    at.after(step, self.redis.partitions())
                }
            };
        }
        let mut users = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ONLINE_BATCH_MAX) {
            users.extend(try_join_all(ids.iter().map(|user| self.online_user(*user))).await?);
        }
        Ok(OnlinePage {
            online: self.online_count().await?,
            users,
            next,
        })
    }

    async fn online_user(&self, user: UserId) -> Result<OnlineUser, EngineError> {
        let key = self.redis.keys.connections(user);
        Ok(OnlineUser {
            user,
            connections: self.redis.servers.call("HLEN", key, Vec::new()).await?,
            listeners: self.redis.listeners(user).await?,
        })
    }

    /// Everything stored about a user.
    pub(crate) async fn user(&self, user: UserId) -> Result<UserReport, EngineError> {
        let (keys, servers) = (&self.redis.keys, &self.redis.servers);
        let partition = self.redis.partition_of(user);
        let id = user.to_string();
        let id = || vec![id.clone()];
        let (online, leaving_at_ms, refcount, revoked_before_ms, match_id) = tokio::try_join!(
            servers.call::<bool>("SISMEMBER", keys.online(partition), id()),
            servers.call::<Option<f64>>("ZSCORE", keys.leaving(partition), id()),
            servers.call::<u64>("HLEN", keys.connections(user), Vec::new()),
            servers.call::<Option<u64>>("GET", keys.revoked(user), Vec::new()),
            servers.call::<Option<String>>("HGET", keys.playing(), id()),
        )?;
        let kept = self.kept(user).await?;
        let number = |name: &str| kept.get(name).copied();
        let last_update = |kind: Kind| {
            Some(UpdateSummary {
                kind,
                revision: Revision(number(&revision_field(kind))?),
                at_ms: number(&at_field(kind))?,
            })
        };
        Ok(UserReport {
            user,
            tag: keys.tag(partition).to_owned(),
            online,
            leaving_at_ms: leaving_at_ms.map(|at_ms| at_ms as u64),
            connections: self.some_connections(user).await?,
            refcount,
            updates: Kind::iter().filter_map(last_update).collect(),
            listeners: self.redis.listeners(user).await?,
            ticket: self.redis.tickets(&[user]).await?.pop(),
            match_id,
            deleted_at_ms: number("deleted"),
            revoked_before_ms,
            disconnected_at_ms: number("disconnected"),
            now_ms: self.redis.now_ms().await?,
        })
    }

    /// The connections of a user that fit in one step, oldest first.
    async fn some_connections(
        &self,
        user: UserId,
    ) -> Result<Vec<RegisteredConnection>, EngineError> {
        let key = self.redis.keys.connections(user);
        let page: ScanPage<String> = self
            .redis
            .page("HSCAN", &key, BEGINNING, SCAN_COUNT)
            .await?;
        let mut words = page.items.into_iter();
        let pairs = std::iter::from_fn(|| Some((words.next()?, words.next()?.parse().ok()?)));
        let mut connections: Vec<_> = pairs.filter_map(registered).collect();
        connections.sort_by_key(|connection| connection.connected_at_ms);
        Ok(connections)
    }

    /// The numeric fields stored about a user. Updates themselves may be large, and their content is private.
    async fn kept(&self, user: UserId) -> Result<HashMap<String, u64>, EngineError> {
        let mut fields = vec!["deleted".to_owned(), "disconnected".to_owned()];
        fields.extend(Kind::iter().flat_map(|kind| [revision_field(kind), at_field(kind)]));
        let profile = self.redis.keys.profile(user);
        let values: Vec<Option<u64>> = self
            .redis
            .servers
            .call("HMGET", profile, fields.clone())
            .await?;
        let kept = fields.into_iter().zip(values);
        Ok(kept
            .filter_map(|(field, value)| Some((field, value?)))
            .collect())
    }

    /// The queue, with its first `count` tickets.
    pub(crate) async fn queue(&self, count: u32) -> Result<QueueReport, EngineError> {
        Ok(QueueReport {
            status: self.redis.queue_stats().await?,
            first: self.redis.first_tickets(count).await?,
        })
    }
}

impl Redis {
    /// Number of nodes subscribed to a user's topic, as counted by its server.
    pub(super) async fn listeners(&self, user: UserId) -> Result<u64, EngineError> {
        let topic = self.keys.topic(user);
        let slot = slot_of(&topic);
        let words = ["SHARDNUMSUB".to_owned(), topic];
        let (_topic, listeners): (String, u64) =
            self.servers.call_at(slot, "PUBSUB", &words).await?;
        Ok(listeners)
    }
}

fn revision_field(kind: Kind) -> String {
    format!("{}.revision", kind.into_str())
}

fn at_field(kind: Kind) -> String {
    format!("{}.at", kind.into_str())
}

impl Cursor {
    /// The next start: in the same partition while it has more, else in the next one.
    fn after(self, next: Option<u64>, partitions: u32) -> Option<Self> {
        let next = match next {
            Some(step) => Self {
                step,
                seen: 0,
                ..self
            },
            None => Self {
                partition: self.partition + 1,
                ..Self::default()
            },
        };
        (next.partition < partitions).then_some(next)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut numbers = text.split('-').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (partition, step, seen) = (next(), next(), next());
        let cursor = Self {
            partition: partition
                .and_then(|number| number.try_into().ok())
                .ok_or(InvalidCursor)?,
            step: step.ok_or(InvalidCursor)?,
            seen: seen.ok_or(InvalidCursor)?,
        };
        match numbers.next() {
            None => Ok(cursor),
            Some(_) => Err(InvalidCursor),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.partition, self.step, self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_through_all_partitions() {
        let first = Cursor::default();
        let second = first.after(Some(96), 2).expect("more");
        assert_eq!(second.to_string(), "0-96-0");
        let third = second.after(None, 2).expect("another partition");
        assert_eq!(third.to_string(), "1-0-0");
        assert_eq!(third.after(None, 2), None);
    }

    #[test]
    fn invalid_cursors_are_rejected() {
        let read = |text: &str| text.parse::<Cursor>().ok();
        assert_eq!(
            read("3-96-7").map(|cursor| cursor.to_string()),
            Some("3-96-7".to_owned())
        );
        for none in [
            "",
            "3",
            "3-96",
            "-1-2",
            "3-96-",
            "a-1-2",
            "1-a-2",
            "1-2-3-4",
            "1-2-18446744073709551616",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
