//! Which topics this node needs, who on this node cares about each, and what was last delivered.
//!
//! A topic is in the table while somebody cares. For each partition one loop brings the engine's subscriptions in line
//! with the table, so that a subscription that comes, goes and comes again ends as it should, and a partition that
//! cannot be reached holds up no other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use super::account::Accounts;
use super::delivery::{Deliveries, Delivery, LastUpdates, Recipients, Watchers};
use super::visibility::view_of;
use super::watching::{Watching, remove};
use crate::engine::{Engine, EngineError, Kind, Stored, TopicMessage, Update, Views};
use crate::ids::{ConnectionId, MatchId, UserId};
use crate::telemetry::{Metrics, warn_seldom};

/// Topics subscribed in one go.
const BATCH_MAX: usize = 512;

/// Topics whose stored updates are read together.
const READ_BATCH_MAX: usize = 64;

/// How long a caller waits for a topic: nobody waits for ever while Redis comes and goes.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// Matches remembered for each user. One that is told again is hardly older than the one after the next.
const MATCHES_MAX: usize = 8;

/// How often Postgres is asked whether it can be reached.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before a subscription that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The topics of this node.
pub(crate) struct Topics {
    engine: Engine,
    accounts: Arc<Accounts>,
    deliveries: Deliveries,
    metrics: Arc<Metrics>,
    table: Mutex<Table>,
    /// One for each partition.
    changed: Vec<Notify>,
}

struct Table {
    topics: HashMap<UserId, Topic>,
    /// Topics of users who have a connection of their own here.
    users: usize,
    /// Watchers of all topics together.
    watchers: usize,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    /// Topics whose subscription may be out of line.
    changed: HashSet<UserId>,
    /// How often messages may have been missed. Whatever was found out before the last time is void.
    interruptions: u64,
}

impl Table {
    fn partition(&mut self, user: UserId) -> &mut Partition {
        let place = place(user, self.partitions.len());
        &mut self.partitions[place]
    }
}

/// The place of the partition of `user` among so many.
fn place(user: UserId, partitions: usize) -> usize {
    (user.get() % partitions as u64) as usize
}

/// Topics of one partition to bring in line.
struct Batch {
    wanted: Vec<UserId>,
    unwanted: Vec<UserId>,
    /// The partition's count when the batch was taken.
    interruptions: u64,
}

#[derive(Default)]
struct Topic {
    confirmed: bool,
    /// What the engine has stored is known, so whoever watches next need not ask it.
    loaded: bool,
    /// Calls that wait for the topic and have not entered a connection yet.
    holds: usize,
    /// Nothing that was stored when it was loaded is missing from `last`.
    complete: bool,
    /// Messages may have been missed since the last one.
    behind: bool,
    /// The account is gone, and that was told.
    deleted: bool,
    own: Recipients,
    /// Since when each of `own` counts, in the same order, in ms on the engine's clock.
    own_since_ms: Vec<u64>,
    watching: Watching,
    /// Who the user's friends are, where that is known.
    friends: Option<HashSet<UserId>>,
    waiting: Vec<oneshot::Sender<Result<(), EngineError>>>,
    last: LastUpdates,
    /// The last matches that were found for the user, and the connections that were told: a match may be told again.
    matches: VecDeque<(MatchId, HashSet<ConnectionId>)>,
}

/// What became of a message on a topic.
#[derive(Clone, Copy, Default)]
pub(crate) struct Heard {
    /// The user has connections of their own here.
    pub(crate) is_here: bool,
    /// Somebody here is told who was not told before.
    pub(crate) is_new: bool,
}

/// How things stood when a connection of the user's own entered a topic.
#[derive(Clone, Copy)]
pub(crate) struct Entered {
    /// The partition's count.
    interruptions: u64,
}

/// Keeps a topic in the table while a call waits for it.
pub(crate) struct Hold {
    topics: Arc<Topics>,
    user: UserId,
    confirmed: Option<oneshot::Receiver<Result<(), EngineError>>>,
}

impl Topics {
    pub(crate) fn new(
        engine: Engine,
        accounts: Arc<Accounts>,
        deliveries: Deliveries,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let partitions = engine.partitions().max(1);
        let table = Table {
            topics: HashMap::new(),
            users: 0,
            watchers: 0,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
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

    /// Has the topic's subscription brought in line.
    fn note_changed(&self, table: &mut Table, user: UserId) {
        table.partition(user).changed.insert(user);
        self.changed[place(user, self.changed.len())].notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// How many topics somebody cares about.
    pub(crate) fn len(&self) -> usize {
        self.table().topics.len()
    }

    /// How many users have a connection of their own here.
    pub(crate) fn users(&self) -> usize {
        self.table().users
    }

    /// How many connections watch somebody, once for each whom they watch.
    pub(crate) fn watchers(&self) -> usize {
        self.table().watchers
    }

    /// The connections that watch `user`.
    pub(crate) fn watchers_of(&self, user: UserId) -> Watchers {
        self.table()
            .topics
            .get(&user)
            .map(|topic| topic.watching.watchers())
            .unwrap_or_default()
    }

    /// Wants the topic of `user` for as long as the hold, or what comes of it, lives.
    pub(crate) fn hold(self: &Arc<Self>, user: UserId) -> Hold {
        let mut guard = self.table();
        let table = &mut *guard;
        let topic = table.topics.entry(user).or_default();
        topic.holds += 1;
        let confirmed = (!topic.confirmed).then(|| {
            let (sender, receiver) = oneshot::channel();
            topic.waiting.push(sender);
            receiver
        });
        if confirmed.is_some() {
            self.note_changed(table, user);
        }
        Hold {
            topics: Arc::clone(self),
            user,
            confirmed,
        }
    }

    /// Notes since when a connection of the user's own counts, in ms on the engine's clock. Where messages may have
    /// been missed since it `entered`, the topic is caught up with once more: that the connection is to be closed may
    /// have been read before it was known to count.
    pub(crate) fn counts_since(
        &self,
        user: UserId,
        connection: ConnectionId,
        since_ms: u64,
        entered: Entered,
    ) {
        self.edit(user, |topic| {
            let at = topic.own.iter().position(|known| *known == connection);
            if let Some(since) = at.and_then(|at| topic.own_since_ms.get_mut(at)) {
                *since = since_ms;
            }
        });
        if self.table().partition(user).interruptions != entered.interruptions {
            self.edit(user, |topic| topic.behind = true);
            self.try_again(user);
        }
    }

    /// Takes a connection of the user's own out of the topic.
    pub(crate) fn leave(&self, user: UserId, connection: ConnectionId) {
        self.edit(user, |topic| {
            if let Some(at) = remove(&mut topic.own, connection) {
                topic.own_since_ms.swap_remove(at);
            }
        });
    }

    /// Takes a watching connection out of the topic.
    pub(crate) fn unwatch(&self, user: UserId, connection: ConnectionId) {
        self.edit(user, |topic| topic.watching.remove(connection));
    }

    fn edit(&self, user: UserId, edit: impl FnOnce(&mut Topic)) {
        let mut table = self.table();
        let Some(topic) = table.topics.get_mut(&user) else {
            return;
        };
        let (was_here, watched_by) = (!topic.own.is_empty(), topic.watching.len());
        edit(topic);
        let (is_here, is_wanted) = (!topic.own.is_empty(), topic.is_wanted());
        let watched_by_now = topic.watching.len();
        table.watchers = table.watchers + watched_by_now - watched_by;
        table.users = table.users + usize::from(is_here) - usize::from(was_here);
        if !is_wanted {
            self.note_changed(&mut table, user);
        }
    }

    /// Takes in what the engine announced on a topic.
    pub(crate) async fn receive(&self, user: UserId, message: TopicMessage) -> Heard {
        self.metrics.topic_messages.inc();
        self.deliver(user, message).await
    }

    /// Delivers what nobody here has been told yet.
    async fn deliver(&self, user: UserId, message: TopicMessage) -> Heard {
        let place = self.deliveries.place().await;
        let mut table = self.table();
        // Without a topic nobody cares any more: the subscription is about to end.
        let Some(topic) = table.topics.get_mut(&user) else {
            return Heard::default();
        };
        let is_here = !topic.own.is_empty();
        let delivery = topic.receive(user, message);
        let is_new = delivery.is_some();
        if let Some(delivery) = delivery {
            place.put(delivery);
        }
        Heard { is_here, is_new }
    }

    /// Messages of these partitions may have been missed: subscribes to everything in them again.
    pub(crate) fn interrupted(&self, partitions: &[u32]) {
        let mut guard = self.table();
        let table = &mut *guard;
        let count = table.partitions.len();
        let mut is_concerned = vec![false; count];
        for partition in partitions {
            if let Some(state) = table.partitions.get_mut(*partition as usize) {
                state.interruptions += 1;
                is_concerned[*partition as usize] = true;
            }
        }
        for (user, topic) in &mut table.topics {
            let place = place(*user, count);
            if is_concerned[place] {
                topic.confirmed = false;
                topic.loaded = false;
                topic.behind = true;
                table.partitions[place].changed.insert(*user);
            }
        }
        for (changed, _) in self.changed.iter().zip(is_concerned).filter(|(_, is)| *is) {
            changed.notify_one();
        }
    }

    /// Keeps the engine's subscriptions in line with the table, for ever.
    pub(crate) async fn run_subscriptions(self: Arc<Self>) {
        join_all((0..self.changed.len()).map(|place| self.run_subscriptions_of(place))).await;
    }

    async fn run_subscriptions_of(&self, place: usize) {
        loop {
            self.changed[place].notified().await;
            while let Some(batch) = self.take_changed(place) {
                self.bring_in_line(batch).await;
            }
        }
    }

    /// The next topics of a partition to bring in line, or `None` when all are.
    fn take_changed(&self, place: usize) -> Option<Batch> {
        let mut guard = self.table();
        let table = &mut *guard;
        let partition = &mut table.partitions[place];
        if partition.changed.is_empty() {
            return None;
        }
        let batch: Vec<UserId> = partition.changed.iter().take(BATCH_MAX).copied().collect();
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for user in batch {
            partition.changed.remove(&user);
            match table.topics.get(&user) {
                Some(topic) if !topic.is_wanted() => {
                    table.topics.remove(&user);
                    unwanted.push(user);
                }
                Some(topic) if !topic.confirmed => wanted.push(user),
                Some(_) | None => {}
            }
        }
        Some(Batch {
            wanted,
            unwanted,
            interruptions: partition.interruptions,
        })
    }

    async fn bring_in_line(&self, batch: Batch) {
        if !batch.unwanted.is_empty()
            && let Err(error) = self.engine.unsubscribe(&batch.unwanted).await
        {
            // A topic too many costs a little; messages on it are left out.
            warn_seldom!(%error, "could not unsubscribe");
        }
        if batch.wanted.is_empty() {
            return;
        }
        let outcome = self.engine.subscribe(&batch.wanted).await;
        self.settle(&batch, &outcome);
        match outcome {
            Ok(()) => self.catch_up(&batch).await,
            Err(error) => {
                tracing::warn!(%error, topics = batch.wanted.len(), "could not subscribe; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Tells those who wait, and has what failed tried again.
    fn settle(&self, batch: &Batch, outcome: &Result<(), EngineError>) {
        let mut guard = self.table();
        let table = &mut *guard;
        let partition = batch.wanted.first().map(|user| table.partition(*user));
        let interruptions = partition.map(|partition| partition.interruptions);
        if outcome.is_ok() && interruptions != Some(batch.interruptions) {
            // What was confirmed may be gone again; everything is on its way to be subscribed anew.
            return;
        }
        for user in &batch.wanted {
            let Some(topic) = table.topics.get_mut(user) else {
                continue;
            };
            topic.confirmed = outcome.is_ok();
            for waiting in topic.waiting.drain(..) {
                // Whoever waited may have given up.
                let _ = waiting.send(outcome.clone());
            }
            if outcome.is_err() {
                table.partition(*user).changed.insert(*user);
            }
        }
    }

    /// Delivers what was missed on topics that had been interrupted.
    async fn catch_up(&self, batch: &Batch) {
        let wanted = batch.wanted.iter().copied();
        let behind: Vec<UserId> = wanted.filter(|user| self.is_behind(*user)).collect();
        for users in behind.chunks(READ_BATCH_MAX) {
            let stored = join_all(users.iter().map(|user| self.engine.stored(*user))).await;
            let mut failed = false;
            for (user, stored) in users.iter().zip(stored) {
                match stored {
                    Ok(stored) => {
                        self.deliver_missed(*user, stored, batch.interruptions)
                            .await
                    }
                    Err(error) => {
                        tracing::warn!(user = user.get(), %error, "could not read what was missed; trying again");
                        self.try_again(*user);
                        failed = true;
                    }
                }
            }
            if failed {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    fn is_behind(&self, user: UserId) -> bool {
        self.table()
            .topics
            .get(&user)
            .is_some_and(|topic| topic.behind)
    }

    /// Has the topic subscribed and caught up once more.
    fn try_again(&self, user: UserId) {
        self.edit(user, |topic| topic.confirmed = false);
        self.note_changed(&mut self.table(), user);
    }

    /// Delivers what the engine has stored and this node has not delivered, and has it store again what it has
    /// lost.
    async fn deliver_missed(&self, user: UserId, stored: Stored, interruptions: u64) {
        let (missed, lost) = self.compare(user, stored, interruptions);
        for message in missed {
            if self.deliver(user, message).await.is_new {
                self.metrics.missed_messages.inc();
            }
        }
        if lost.is_empty() {
            return;
        }
        tracing::warn!(
            user = user.get(),
            count = lost.len(),
            "updates that were told are no longer stored; storing them again"
        );
        for outcome in self.engine.publish(lost).await {
            if let Err(error) = outcome {
                tracing::warn!(user = user.get(), %error, "could not store an update again; trying again");
                self.try_again(user);
            }
        }
    }

    /// What the engine has stored and this node may not have delivered, and the other way round. Where there was
    /// another interruption since the topic was subscribed, it has to be looked at again.
    fn compare(
        &self,
        user: UserId,
        stored: Stored,
        interruptions: u64,
    ) -> (Vec<TopicMessage>, Vec<Update>) {
        let mut table = self.table();
        let still_behind = table.partition(user).interruptions != interruptions;
        let Some(topic) = table.topics.get_mut(&user) else {
            return Default::default();
        };
        topic.behind = still_behind;
        let lost = topic.lost(user, &stored);
        (topic.missed(stored), lost)
    }

    /// Asks Postgres, if there is one, whether it can be used. When it is back, what watchers may see is reviewed.
    pub(crate) async fn run_friendship_sync(self: Arc<Self>) {
        while self.accounts.exist() {
            if self.accounts.came_back().await {
                self.review().await;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Reviews what every watcher may see, after friendships could not be known for a while.
    async fn review(&self) {
        let watched: Vec<UserId> = {
            let table = self.table();
            let topics = table.topics.iter();
            let with_viewers = topics.filter(|(_, topic)| topic.watching.has_viewers());
            with_viewers.map(|(user, _)| *user).collect()
        };
        for users in watched.chunks(READ_BATCH_MAX) {
            join_all(users.iter().map(|user| self.review_one(*user))).await;
        }
    }

    /// Goes on until it is done, or Postgres is away once more: then there will be another review.
    async fn review_one(&self, user: UserId) {
        let known = loop {
            match self.accounts.known(user).await {
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
        let place = self.deliveries.place().await;
        let mut table = self.table();
        let topic = table.topics.get_mut(&user);
        if let Some(disclosure) = topic.and_then(|topic| topic.review(user)) {
            place.put(disclosure);
        }
    }

    /// The connections of their own that users have on this node: those of one partition, or all.
    pub(crate) fn own_connections(&self, partition: Option<u32>) -> Vec<(UserId, ConnectionId)> {
        let table = self.table();
        let count = table.partitions.len();
        let is_in = |user| partition.is_none_or(|number| place(user, count) == number as usize);
        let own = table
            .topics
            .iter()
            .filter(|(user, _)| is_in(**user))
            .flat_map(|(user, topic)| topic.own.iter().map(|id| (*user, *id)));
        own.collect()
    }

    /// Whether the user has a connection of their own on this node.
    pub(crate) fn is_here(&self, user: UserId) -> bool {
        let table = self.table();
        let topic = table.topics.get(&user);
        topic.is_some_and(|topic| !topic.own.is_empty())
    }

    /// Whether `connection` is one of the user's own.
    pub(crate) fn is_own(&self, user: UserId, connection: ConnectionId) -> bool {
        self.table()
            .topics
            .get(&user)
            .is_some_and(|topic| topic.own.contains(&connection))
    }
}

impl Topic {
    fn is_wanted(&self) -> bool {
        self.holds > 0 || !self.own.is_empty() || !self.watching.is_empty()
    }

    /// What to deliver on a message; nothing for an update that is not newer than the last.
    fn receive(&mut self, user: UserId, message: TopicMessage) -> Option<Delivery> {
        let own = self.own.clone();
        match message {
            TopicMessage::Update(kind, views) => {
                if !self.learn(kind, &views) {
                    return None;
                }
                if kind == Kind::Friendships {
                    return self.befriend(user, &views);
                }
                Some(Delivery::Update {
                    user,
                    kind,
                    views,
                    own,
                    watchers: self.watching.watchers(),
                })
            }
            TopicMessage::Event { event, data } => Some(Delivery::Event { event, data, own }),
            TopicMessage::Disconnect { before_ms } => Some(Delivery::Disconnect {
                own: before_ms.map_or(own, |before_ms| self.own_since_before(before_ms)),
            }),
            TopicMessage::AccountDeleted => {
                self.last.clear();
                self.friends = None;
                let told = std::mem::replace(&mut self.deleted, true);
                (!told).then(|| Delivery::AccountDeleted {
                    user,
                    own,
                    watchers: self.watching.watchers(),
                })
            }
            TopicMessage::MatchFound { id, opponent } => {
                let own = self.not_told_of(&id);
                (!own.is_empty()).then_some(Delivery::MatchFound { id, opponent, own })
            }
            TopicMessage::MatchTimeout { .. } => Some(Delivery::MatchTimeout { own }),
            // Nodes remember who waits; connections are not told.
            TopicMessage::MatchLeft => None,
        }
    }

    /// The user's friends are others than before.
    fn befriend(&mut self, user: UserId, views: &Views) -> Option<Delivery> {
        // What is no list of ids names no friend.
        self.friends = serde_json::from_str(views.full.get()).ok();
        self.review(user)
    }

    /// Decides anew who sees what. What strangers were not shown is delivered to those who may see it now; the
    /// rest they see with the next update.
    fn review(&mut self, user: UserId) -> Option<Delivery> {
        let to = self.watching.review(user, self.friends.as_ref());
        let decided_by = self
            .last
            .get(&Kind::Friendships)
            .map(|views| views.revision);
        let hidden = |(kind, views): &(&Kind, &Views)| match kind {
            Kind::Friendships => false,
            // A list older than the friendships it shows is about to be replaced.
            Kind::Friends if Some(views.revision) < decided_by => false,
            _ => views.public.is_none(),
        };
        let last = self.last.iter().filter(hidden);
        let last: LastUpdates = last.map(|(kind, views)| (*kind, views.clone())).collect();
        let disclosure = !to.is_empty() && !last.is_empty();
        disclosure.then_some(Delivery::Disclosure { user, last, to })
    }

    /// The user's own connections that are told of a match now for the first time.
    fn not_told_of(&mut self, id: &MatchId) -> Recipients {
        if !self.matches.iter().any(|(known, _)| known == id) {
            self.matches.truncate(MATCHES_MAX - 1);
            self.matches.push_front((id.clone(), HashSet::new()));
        }
        let known = self.matches.iter_mut().find(|(known, _)| known == id);
        let Some((_, told)) = known else {
            return Recipients::default();
        };
        let own = self.own.iter().copied();
        Arc::new(own.filter(|connection| told.insert(*connection)).collect())
    }

    fn own_since_before(&self, before_ms: u64) -> Recipients {
        let since = self.own.iter().zip(&self.own_since_ms);
        Arc::new(
            since
                .filter(|(_, since_ms)| **since_ms <= before_ms)
                .map(|(id, _)| *id)
                .collect(),
        )
    }

    /// What is stored and was not delivered. Where nothing of a kind is known, an update was missed if it was
    /// stored after one of the user's own connections began to count.
    fn missed(&self, stored: Stored) -> Vec<TopicMessage> {
        if stored.deleted {
            return vec![TopicMessage::AccountDeleted];
        }
        let oldest_ms = self.own_since_ms.iter().min().copied().unwrap_or(u64::MAX);
        let mut missed = Vec::new();
        if stored.disconnected_at_ms >= oldest_ms {
            let before_ms = Some(stored.disconnected_at_ms);
            missed.push(TopicMessage::Disconnect { before_ms });
        }
        for (kind, views, at_ms) in stored.updates {
            if self.last.contains_key(&kind) || self.complete || at_ms >= oldest_ms {
                missed.push(TopicMessage::Update(kind, views));
            }
        }
        missed
    }

    /// What was delivered and is newer than what is stored, in the same life of the data: it came back with old data.
    fn lost(&self, user: UserId, stored: &Stored) -> Vec<Update> {
        if stored.deleted {
            return Vec::new();
        }
        let is_lost = |(kind, last): &(&Kind, &Views)| {
            let mut updates = stored.updates.iter();
            let known = updates.find(|(known, ..)| known == *kind);
            last.epoch == stored.epoch
                && known.is_none_or(|(_, known, _)| known.revision < last.revision)
        };
        let lost = self.last.iter().filter(is_lost);
        lost.map(|(kind, last)| Update {
            user,
            kind: *kind,
            revision: Some(last.revision),
            public: last.public.clone(),
            full: last.full.clone(),
        })
        .collect()
    }

    /// Remembers an update; `false` where it is not newer. In another epoch every order starts over.
    fn learn(&mut self, kind: Kind, views: &Views) -> bool {
        if self.deleted {
            return false;
        }
        let newer = self
            .last
            .get(&kind)
            .is_none_or(|last| last.epoch != views.epoch || last.revision < views.revision);
        if newer {
            self.last.insert(kind, views.clone());
        }
        newer
    }
}

impl Hold {
    /// Returns once the node receives the topic.
    pub(crate) async fn confirmed(&mut self) -> Result<(), EngineError> {
        match self.confirmed.take() {
            None => Ok(()),
            Some(confirmed) => match tokio::time::timeout(CONFIRMED_WITHIN, confirmed).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(EngineError::NotNow("it is stopping".to_owned())),
                Err(_) => Err(EngineError::NotNow(
                    "subscribing to a topic takes too long".to_owned(),
                )),
            },
        }
    }

    /// Enters a connection of the user's own: from here on it is told what arrives on the topic.
    pub(crate) fn enter_own(self, connection: ConnectionId) -> Entered {
        // Counted before it enters: an interruption in between is one too many, not one too few.
        let interruptions = self.topics.table().partition(self.user).interruptions;
        self.topics.edit(self.user, |topic| {
            Arc::make_mut(&mut topic.own).push(connection);
            topic.own_since_ms.push(u64::MAX);
        });
        Entered { interruptions }
    }

    /// Has a connection of `viewer`, or of a guest, watch the user, and answers its question with what is known
    /// from here on. A connection that gets the updates anyway, because it `watches_already` or is the user's
    /// own, only gets the answer.
    pub(crate) async fn enter_watcher(
        self,
        connection: ConnectionId,
        viewer: Option<UserId>,
        watches_already: bool,
    ) -> Result<(), EngineError> {
        self.load().await?;
        let place = self.topics.deliveries.place().await;
        let mut table = self.topics.table();
        // The hold keeps the topic in the table.
        let enters = !watches_already && viewer != Some(self.user);
        table.watchers += usize::from(enters);
        let topic = table.topics.entry(self.user).or_default();
        // A friendship may have ended while nobody could tell.
        let certain = !self.topics.accounts.are_away();
        let friends = topic.friends.as_ref().filter(|_| certain);
        let view = view_of(self.user, viewer, friends);
        if enters {
            topic.watching.enter(connection, viewer, view);
        }
        place.put(Delivery::Watching {
            to: connection,
            view,
            last: topic.last.clone(),
        });
        drop(table);
        Ok(())
    }

    /// Makes sure that what the engine has stored is known. What turns out to be newer than what the others
    /// have been told is told to them, because the message about it may have been missed.
    pub(crate) async fn load(&self) -> Result<(), EngineError> {
        let Some(interruptions) = self.unless_loaded() else {
            return Ok(());
        };
        let known = self.topics.accounts.known(self.user).await?;
        for (kind, views, _) in known.stored.updates {
            self.topics
                .deliver(self.user, TopicMessage::Update(kind, views))
                .await;
        }
        let mut table = self.topics.table();
        let still_valid = table.partition(self.user).interruptions == interruptions;
        if let Some(topic) = table.topics.get_mut(&self.user) {
            topic.loaded = topic.confirmed && still_valid && known.certain;
            topic.complete = true;
        }
        Ok(())
    }

    fn unless_loaded(&self) -> Option<u64> {
        let mut table = self.topics.table();
        let loaded = table
            .topics
            .get(&self.user)
            .is_some_and(|topic| topic.loaded);
        (!loaded).then(|| table.partition(self.user).interruptions)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.topics.edit(self.user, |topic| topic.holds -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::visibility::Visibility;
    use crate::engine::memory::Memory;
    use crate::engine::{Admission, Registration};
    use crate::ids::Incarnation;

    #[tokio::test]
    async fn what_was_read_before_a_connection_counted_is_read_again() {
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
        let mut hold = topics.hold(user);
        hold.confirmed().await.unwrap();
        let entered = hold.enter_own(id);
        let registered = engine.register(user, id, Admission::ADMITTED).await;
        let Ok(Registration::Registered { since_ms, .. }) = registered else {
            panic!("{registered:?}");
        };
        // The message about it is lost, and the answer to the registration is late.
        engine.disconnect(user).await.unwrap();
        topics.interrupted(&[0]);
        while topics.is_behind(user) {
            tokio::task::yield_now().await;
        }
        assert!(stream.try_recv().is_err(), "nothing counts yet");

        topics.counts_since(user, id, since_ms, entered);
        let delivered = tokio::time::timeout(Duration::from_secs(10), stream.recv());
        match delivered.await.expect("it is told") {
            Some(Delivery::Disconnect { own }) => assert_eq!(*own, [id]),
            other => panic!("{other:?}"),
        }
        keeping.abort();
    }
}
