//! Shows operators what is in Redis: read in steps that are bounded whatever there is, and nothing is written.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use futures_util::future::try_join_all;

use super::page::{BEGINNING, Page};
use super::servers::slot_of;
use super::{LAYOUT, Options, Redis, SCAN_COUNT, registered};
use crate::engine::matchmaking::{QueueStatus, Ticket};
use crate::engine::{EngineError, Kind, LiveNode, OpenError, RegisteredConnection};
use crate::ids::{Revision, UserId};

/// Users about whom Redis is asked at once.
const TOGETHER: usize = 500;

/// Looks at the data under one prefix.
pub struct Inspector {
    redis: Redis,
    prefix: String,
}

/// The hub as a whole.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Where Redis is, without its password.
    pub server: String,
    /// What every key starts with.
    pub prefix: String,
    /// Version of the keys' layout.
    pub layout: u64,
    /// Over how many partitions users are spread.
    pub partitions: u32,
    /// Users who are online.
    pub online: u64,
    /// Those of them without a connection, who go offline soon.
    pub leaving: u64,
    /// The nodes.
    pub nodes: Nodes,
    /// How the queue is.
    pub queue: QueueStatus,
}

/// The nodes that are alive.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// By id.
    pub nodes: Vec<LiveNode>,
    /// What Redis's clock shows, in ms since 1970.
    pub now_ms: u64,
}

/// Some of the online users.
#[derive(Clone, Debug)]
pub struct OnlinePage {
    /// How many there are in all.
    pub online: u64,
    /// Those on this page.
    pub users: Vec<OnlineUser>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// A user who is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlineUser {
    /// Who.
    pub user: UserId,
    /// Connections on all nodes; none while the grace runs.
    pub connections: u64,
    /// Nodes that listen to the user's topic.
    pub listeners: u64,
}

/// Where a page of online users begins, `<partition>-<step>-<seen>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    partition: u32,
    /// The cursor of `SSCAN`.
    step: u64,
    /// The last id of this step that was on a page.
    seen: u64,
}

/// A text that is no [`Cursor`].
#[derive(Debug, thiserror::Error)]
#[error("a cursor is what the page before ended with, like 0-1024-0")]
pub struct InvalidCursor;

/// All that Redis has about a user.
#[derive(Clone, Debug)]
pub struct UserReport {
    /// Who.
    pub user: UserId,
    /// Whether the user is online.
    pub online: bool,
    /// When the user goes offline, in ms since 1970, if the last connection has closed.
    pub leaving_at_ms: Option<u64>,
    /// The connections, oldest first; of very many only some.
    pub connections: Vec<RegisteredConnection>,
    /// How many there are.
    pub refcount: u64,
    /// The last update of each kind.
    pub updates: Vec<LastUpdate>,
    /// Nodes that listen to the user's topic: those with a connection of the user, or of somebody who watches.
    pub listeners: u64,
    /// The place in the queue, if the user waits for an opponent.
    pub ticket: Option<Ticket>,
    /// The match that was found for the user and is not over.
    pub match_id: Option<String>,
    /// When the account was deleted, in ms since 1970.
    pub deleted_at_ms: Option<u64>,
    /// Before when tokens are refused, in ms since 1970.
    pub revoked_before_ms: Option<u64>,
    /// When a back end last had all connections closed, in ms since 1970.
    pub disconnected_at_ms: Option<u64>,
    /// What Redis's clock shows, in ms since 1970.
    pub now_ms: u64,
}

/// The last update of one kind, without what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUpdate {
    /// About what.
    pub kind: Kind,
    /// Its revision.
    pub revision: Revision,
    /// When it was stored, in ms since 1970.
    pub at_ms: u64,
}

/// The queue of those who wait for an opponent.
#[derive(Clone, Debug)]
pub struct Queue {
    /// How it is.
    pub status: QueueStatus,
    /// The first of those who wait.
    pub first: Vec<Ticket>,
}

impl Inspector {
    /// Connects and checks the data's layout, without recording one.
    ///
    /// # Errors
    /// When the URL is none, Redis does not answer, or the data has another layout.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        let redis = Redis::visit(options).await?;
        let prefix = options.prefix.clone();
        Ok(Self { redis, prefix })
    }

    /// The hub as a whole.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn overview(&self) -> Result<Overview, EngineError> {
        Ok(Overview {
            server: self.redis.servers.name(),
            prefix: self.prefix.clone(),
            layout: LAYOUT,
            partitions: self.redis.partitions(),
            online: self.online_count().await?,
            leaving: self.leaving_count().await?,
            nodes: self.nodes().await?,
            queue: self.redis.queue_status().await?,
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
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn nodes(&self) -> Result<Nodes, EngineError> {
        let nodes = self.redis.nodes().await?;
        let now_ms = self.redis.now_ms().await?;
        Ok(Nodes { nodes, now_ms })
    }

    /// At most `limit` of the online users, from `cursor` on.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn online(
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
            let page: Page<u64> = self.redis.page("SSCAN", &key, &step, count).await?;
            // A small set is told in one step, whatever was asked for.
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
        for ids in ids.chunks(TOGETHER) {
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

    /// All that Redis has about a user.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn user(&self, user: UserId) -> Result<UserReport, EngineError> {
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
            Some(LastUpdate {
                kind,
                revision: Revision(number(&revision_field(kind))?),
                at_ms: number(&at_field(kind))?,
            })
        };
        Ok(UserReport {
            user,
            online,
            leaving_at_ms: leaving_at_ms.map(|at_ms| at_ms as u64),
            connections: self.some_connections(user).await?,
            refcount,
            updates: Kind::ALL.into_iter().filter_map(last_update).collect(),
            listeners: self.redis.listeners(user).await?,
            ticket: self.redis.tickets(&[user]).await?.pop(),
            match_id,
            deleted_at_ms: number("deleted"),
            revoked_before_ms,
            disconnected_at_ms: number("disconnected"),
            now_ms: self.redis.now_ms().await?,
        })
    }

    /// The connections of a user, oldest first: all of them, as long as they fit in one step.
    async fn some_connections(
        &self,
        user: UserId,
    ) -> Result<Vec<RegisteredConnection>, EngineError> {
        let key = self.redis.keys.connections(user);
        let page: Page<String> = self
            .redis
            .page("HSCAN", &key, BEGINNING, SCAN_COUNT)
            .await?;
        let mut words = page.items.into_iter();
        let pairs = std::iter::from_fn(|| Some((words.next()?, words.next()?.parse().ok()?)));
        let mut connections: Vec<_> = pairs.filter_map(registered).collect();
        connections.sort_by_key(|connection| connection.connected_at_ms);
        Ok(connections)
    }

    /// The numbers among what is kept about a user: updates themselves may be long, and are nobody's business here.
    async fn kept(&self, user: UserId) -> Result<HashMap<String, u64>, EngineError> {
        let mut fields = vec!["deleted".to_owned(), "disconnected".to_owned()];
        fields.extend(
            Kind::ALL
                .into_iter()
                .flat_map(|kind| [revision_field(kind), at_field(kind)]),
        );
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

    /// The queue, with the first `count` of those who wait.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn queue(&self, count: u32) -> Result<Queue, EngineError> {
        Ok(Queue {
            status: self.redis.queue_status().await?,
            first: self.redis.first_tickets(count).await?,
        })
    }
}

impl Redis {
    /// How many nodes listen to a user's topic, as the server says to which its messages go.
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
    format!("{}.revision", kind.as_str())
}

fn at_field(kind: Kind) -> String {
    format!("{}.at", kind.as_str())
}

impl Cursor {
    /// Where to go on: in the same partition while there is more of it, else in the next.
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
    fn only_a_cursor_is_one() {
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
