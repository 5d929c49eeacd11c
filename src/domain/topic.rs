//! The topics that this node needs: which connections of this node each concerns, and the last updates delivered.
//!
//! A topic is in the table while at least one connection, or call, is interested in it.

mod interest;
mod state;
mod subscriptions;
mod watcher_set;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::interest::Membership;
use self::state::TopicState;
use self::subscriptions::PartitionSubscriptions;
use super::account::Accounts;
use super::delivery::{Deliveries, Watchers};
use crate::engine::{Engine, EngineError, TopicMessage};
use crate::ids::{ConnectionId, UserConnection, UserId};
use crate::telemetry::{Metrics, warn_seldom};

/// Topics whose stored updates are read concurrently.
const READ_BATCH_MAX: usize = 64;

/// Interval between pings of Postgres.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before a failed subscription, or read, is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

pub(crate) struct Topics {
    engine: Engine,
    accounts: Arc<Accounts>,
    deliveries: Deliveries,
    metrics: Arc<Metrics>,
    table: Mutex<TopicTable>,
    /// Wakes the loop of each partition.
    changed: Vec<Notify>,
}

struct TopicTable {
    topics: HashMap<UserId, Topic>,
    /// Users with a connection of their own on this node.
    users: usize,
    /// Watchers of all topics.
    watchers: usize,
    partitions: Vec<PartitionSubscriptions>,
}

impl TopicTable {
    fn partition(&mut self, user: UserId) -> &mut PartitionSubscriptions {
        let index = partition_index(user, self.partitions.len());
        &mut self.partitions[index]
    }
}

/// The index of the partition of `user`.
fn partition_index(user: UserId, partitions: usize) -> usize {
    (user.get() % partitions as u64) as usize
}

/// A topic and the state of its subscription.
#[derive(Default)]
struct Topic {
    confirmed: bool,
    /// The stored updates have been read, so the next watcher needs no engine call.
    loaded: bool,
    /// Calls in progress that need the topic.
    interests: usize,
    /// Messages may have been missed.
    behind: bool,
    waiting: Vec<oneshot::Sender<Result<(), EngineError>>>,
    state: TopicState,
}

impl Topic {
    fn is_wanted(&self) -> bool {
        self.interests > 0 || !self.state.is_empty()
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Delivered {
    /// The user has connections of their own on this node.
    pub(crate) has_own: bool,
    /// The message was not a repetition.
    pub(crate) is_new: bool,
}

impl Topics {
    pub(crate) fn new(
        engine: Engine,
        accounts: Arc<Accounts>,
        deliveries: Deliveries,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let partitions = engine.partitions().max(1);
        let table = TopicTable {
            topics: HashMap::new(),
            users: 0,
            watchers: 0,
            partitions: (0..partitions)
                .map(|_| PartitionSubscriptions::default())
                .collect(),
        };
        Arc::new(Self {
            engine,
            accounts,
            deliveries,
            metrics,
            table: Mutex::new(table),
            changed: (0..partitions).map(|_| Notify::new()).collect(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.lock().topics.len()
    }

    /// Users with a connection of their own on this node.
    pub(crate) fn users(&self) -> usize {
        self.table.lock().users
    }

    /// Pairs of a watching connection and a watched user.
    pub(crate) fn watchers(&self) -> usize {
        self.table.lock().watchers
    }

    pub(crate) fn watchers_of(&self, user: UserId) -> Watchers {
        self.table
            .lock()
            .topics
            .get(&user)
            .map(|topic| topic.state.watching.watchers())
            .unwrap_or_default()
    }

    /// The users' own connections on this node, of one partition or all.
    pub(crate) fn own_connections(&self, partition: Option<u32>) -> Vec<UserConnection> {
        let table = self.table.lock();
        let count = table.partitions.len();
        let is_in =
            |user| partition.is_none_or(|number| partition_index(user, count) == number as usize);
        let own = table
            .topics
            .iter()
            .filter(|(user, _)| is_in(**user))
            .flat_map(|(user, topic)| topic.state.own_ids().map(|id| (*user, id)));
        own.collect()
    }

    pub(crate) fn is_here(&self, user: UserId) -> bool {
        let table = self.table.lock();
        let topic = table.topics.get(&user);
        topic.is_some_and(|topic| topic.state.has_own())
    }

    pub(crate) fn is_own(&self, user: UserId, connection: ConnectionId) -> bool {
        self.table
            .lock()
            .topics
            .get(&user)
            .is_some_and(|topic| topic.state.is_own(connection))
    }

    /// Changes a topic and updates the totals.
    fn edit(&self, user: UserId, edit: impl FnOnce(&mut Topic)) {
        let mut table = self.table.lock();
        let Some(topic) = table.topics.get_mut(&user) else {
            return;
        };
        let (was_here, watched_by) = (topic.state.has_own(), topic.state.watching.len());
        edit(topic);
        let (is_here, is_wanted) = (topic.state.has_own(), topic.is_wanted());
        let watched_by_now = topic.state.watching.len();
        table.watchers = table.watchers + watched_by_now - watched_by;
        table.users = table.users + usize::from(is_here) - usize::from(was_here);
        if !is_wanted {
            self.request_reconcile(&mut table, user);
        }
    }

    pub(crate) async fn receive(&self, user: UserId, message: TopicMessage) -> Delivered {
        self.metrics.topic_messages.inc();
        self.deliver(user, message).await
    }

    /// Delivers a message unless it was delivered before.
    async fn deliver(&self, user: UserId, message: TopicMessage) -> Delivered {
        let slot = self.deliveries.reserve().await;
        let mut table = self.table.lock();
        // A missing topic means that the subscription is about to end.
        let Some(topic) = table.topics.get_mut(&user) else {
            return Delivered::default();
        };
        let has_own = topic.state.has_own();
        let delivery = topic.state.receive(user, message);
        let is_new = delivery.is_some();
        if let Some(delivery) = delivery {
            slot.send(delivery);
        }
        Delivered { has_own, is_new }
    }

    /// Pings Postgres, if configured. When it becomes available again, reviews what watchers may see.
    pub(crate) async fn run_friendship_sync(self: Arc<Self>) {
        while self.accounts.exist() {
            if self.accounts.probe().await {
                self.review().await;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Reviews what every watcher may see, after friendships were unavailable for a while.
    async fn review(&self) {
        let watched: Vec<UserId> = {
            let table = self.table.lock();
            let topics = table.topics.iter();
            let with_viewers = topics.filter(|(_, topic)| topic.state.watching.has_viewers());
            with_viewers.map(|(user, _)| *user).collect()
        };
        for users in watched.chunks(READ_BATCH_MAX) {
            join_all(users.iter().map(|user| self.review_one(*user))).await;
        }
    }

    /// Retries until the review succeeds, or Postgres is unavailable again: then another review follows.
    async fn review_one(&self, user: UserId) {
        let known = loop {
            match self.accounts.load(user).await {
                Ok(known) if known.certain => break known,
                Ok(_) => return,
                Err(error) => {
                    warn_seldom!(user = user.get(), %error, "could not review who sees what; trying again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        };
        for (kind, views, _) in known.stored.updates {
            self.deliver(user, TopicMessage::Update(kind, views)).await;
        }
        let slot = self.deliveries.reserve().await;
        let mut table = self.table.lock();
        let topic = table.topics.get_mut(&user);
        if let Some(disclosure) = topic.and_then(|topic| topic.state.review(user)) {
            slot.send(disclosure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::Delivery;
    use crate::domain::visibility::Visibility;
    use crate::engine::memory::Memory;
    use crate::engine::{Admission, Registration};
    use crate::ids::Incarnation;

    #[tokio::test]
    async fn a_topic_read_before_a_connection_counted_is_read_again() {
        let long = Duration::from_secs(3600);
        let (memory, _messages) = Memory::open(Incarnation::new("n"), long, long);
        let engine = Engine::Memory(memory);
        let accounts = Accounts::new(engine.clone(), Visibility::new(&[]), None);
        let (deliveries, mut stream) = Deliveries::new();
        let metrics = Arc::new(Metrics::new());
        let topics = Topics::new(engine.clone(), Arc::new(accounts), deliveries, metrics);
        let keeping = topics.clone();
        let keeping = tokio::spawn(keeping.run_subscriptions());

        let (user, id) = (UserId::try_from(42).unwrap(), ConnectionId(1));
        let interest = topics.interest(user).await.unwrap();
        let (own, joined) = interest.join(id);
        let admission = Admission {
            connections_max: 1,
            issued_at_ms: None,
        };
        let registered = engine.register(user, id, admission).await;
        let Ok(Registration::Registered { since_ms, .. }) = registered else {
            panic!("{registered:?}");
        };
        // The disconnect message is lost, and the answer to the registration is late.
        engine.disconnect(user).await.unwrap();
        topics.interrupted(&[0]);
        while topics.is_behind(user) {
            tokio::task::yield_now().await;
        }
        assert!(stream.try_recv().is_err(), "nothing counts yet");

        own.registered_at(since_ms, joined);
        let delivered = tokio::time::timeout(Duration::from_secs(10), stream.recv());
        match delivered.await.expect("the delivery arrives") {
            Some(Delivery::Disconnect { own }) => assert_eq!(*own, [id]),
            other => panic!("{other:?}"),
        }
        keeping.abort();
    }
}
