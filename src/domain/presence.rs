//! Who is online: counts connections with the engine, keeps the replica, says who comes and goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::delivery::{Deliveries, Delivery, StatusChange};
use super::incidents::{Happening, Incidents};
use super::matchmaking::OfflineUsers;
use super::replica::{Applied, Change, Replica};
use super::token::Identity;
use super::topic::Topics;
pub use crate::engine::RegisteredConnection;
use crate::engine::{Admission, Engine, EngineError, Pulse, Registration, Transition};
use crate::ids::{ConnectionId, UserId};
use crate::telemetry::{Metrics, warn_seldom};

/// Users taken offline by one call of the script: few enough that Redis stays responsive.
const EXPIRE_BATCH_MAX: u32 = 500;

/// Connections registered again together.
const REGISTER_BATCH_MAX: usize = 256;

/// Releases sent together.
const RELEASE_BATCH_MAX: usize = 64;

/// Releases that may wait while the engine cannot be reached. Beyond that nobody is admitted.
const RELEASES_MAX: usize = 100_000;

/// How often every node looks for users whose grace is over, in case the node that saw them leave is gone.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before a snapshot or a release that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Shortest grace while this node drains. The official client reconnects 0.5 to 1.5 s after its node has closed it, and 1
/// to 3 s after that where the first attempt fails: while everybody comes back at once, one late answer must not announce
/// a user offline.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// How long nobody was registered again when that counts as done.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// How long a new connection waits to be part of the replica. It is counted either way.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// Who is told that somebody came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every connection.
    Everyone,
    /// Connections that watch the user.
    Watchers,
}

/// The rules, as configured.
#[derive(Clone, Copy, Debug)]
pub struct PresenceOptions {
    /// How long a user without connections stays online.
    pub offline_grace: Duration,
    /// Who is told.
    pub audience: Audience,
    /// How long nodes may take to register their connections again after the engine was away.
    pub resync_grace: Duration,
}

/// Presence on this node.
pub(crate) struct Presence {
    engine: Engine,
    is_draining: AtomicBool,
    topics: Arc<Topics>,
    offline: OfflineUsers,
    deliveries: Deliveries,
    metrics: Arc<Metrics>,
    incidents: Arc<Incidents>,
    options: PresenceOptions,
    replica: Mutex<Replica>,
    partitions: Vec<Partition>,
    /// How many releases wait, of all partitions.
    releases_len: AtomicUsize,
    released: Notify,
}

/// The work of one partition. Each has loops of its own, so that one that cannot be reached holds up no other.
#[derive(Default)]
struct Partition {
    snapshot_needed: Notify,
    releases: Mutex<VecDeque<(UserId, ConnectionId)>>,
    release_wanted: Notify,
    somebody_left: Notify,
}

impl Presence {
    pub(crate) fn new(
        engine: Engine,
        topics: Arc<Topics>,
        offline: OfflineUsers,
        deliveries: Deliveries,
        metrics: Arc<Metrics>,
        incidents: Arc<Incidents>,
        options: PresenceOptions,
    ) -> Self {
        let replica = Replica::new(engine.partitions());
        let partitions = 0..engine.partitions();
        let partitions = partitions.map(|_| Partition::default()).collect();
        Self {
            engine,
            is_draining: AtomicBool::new(false),
            topics,
            offline,
            deliveries,
            metrics,
            incidents,
            options,
            replica: Mutex::new(replica),
            partitions,
            releases_len: AtomicUsize::new(0),
            released: Notify::new(),
        }
    }

    fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock()
    }

    /// Counts a connection of whoever a valid token speaks for, unless the user has `limit` of them. Once it is
    /// registered, this node shows the user as online.
    pub(crate) async fn register(
        &self,
        identity: &Identity,
        connection: ConnectionId,
        limit: u64,
    ) -> Result<Registration, EngineError> {
        let user = identity.user;
        let admission = Admission {
            connections_max: limit,
            issued_at_ms: identity.issued_at,
        };
        let registration = self.register_as(user, connection, admission).await?;
        if let Registration::Registered { revision, .. } = registration {
            self.wait_until_shown(user, revision).await;
        }
        Ok(registration)
    }

    /// Registers with the incarnation that the node has when it is done.
    async fn register_as(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        loop {
            let incarnation = self.engine.incarnation();
            let registration = self.engine.register(user, connection, admission).await?;
            if self.engine.incarnation() == incarnation {
                return Ok(registration);
            }
        }
    }

    /// Counts this node's connections once more: the engine may have lost them, or the node its lease.
    pub(crate) async fn register_again(
        &self,
        connections: &[(UserId, ConnectionId)],
    ) -> Result<(), EngineError> {
        for batch in connections.chunks(REGISTER_BATCH_MAX) {
            let registered = batch
                .iter()
                .map(|(user, id)| self.register_as(*user, *id, Admission::ADMITTED));
            try_join_all(registered).await?;
            // Whoever left meanwhile was released before it was registered again.
            for (user, id) in batch
                .iter()
                .filter(|(user, id)| !self.topics.is_own(*user, *id))
            {
                self.release(*user, *id);
            }
        }
        Ok(())
    }

    async fn wait_until_shown(&self, user: UserId, revision: u64) {
        let partition = self.engine.partition_of(user);
        let shown = self.replica().wait_for(partition, revision);
        if let Some(shown) = shown
            && tokio::time::timeout(SHOWN_WITHIN, shown).await.is_err()
        {
            tracing::debug!(
                user = user.get(),
                "not shown as online in time; transitions are late"
            );
        }
    }

    fn partition_of(&self, user: UserId) -> &Partition {
        &self.partitions[self.engine.partition_of(user) as usize]
    }

    /// Stops counting a connection, as soon as the engine can be reached.
    pub(crate) fn release(&self, user: UserId, connection: ConnectionId) {
        let partition = self.partition_of(user);
        self.releases_len.fetch_add(1, Ordering::Relaxed);
        partition.releases.lock().push_back((user, connection));
        partition.release_wanted.notify_one();
    }

    /// Whether so many releases wait that nobody more is to be admitted.
    pub(crate) fn is_overdue(&self) -> bool {
        self.releases_len.load(Ordering::Relaxed) >= RELEASES_MAX
    }

    /// Releases what is to be released, for ever.
    pub(crate) async fn run_releases(self: Arc<Self>) {
        join_all(self.partitions.iter().map(|of| self.run_releases_of(of))).await;
    }

    async fn run_releases_of(&self, partition: &Partition) {
        loop {
            partition.release_wanted.notified().await;
            while self.release_batch(partition).await {}
            self.released.notify_waiters();
            partition.somebody_left.notify_one();
        }
    }

    /// Returns whether there may be more.
    async fn release_batch(&self, partition: &Partition) -> bool {
        let batch: Vec<_> = partition
            .releases
            .lock()
            .iter()
            .take(RELEASE_BATCH_MAX)
            .copied()
            .collect();
        let grace = self.offline_grace();
        let outcomes = batch
            .iter()
            .map(|(user, connection)| self.engine.release(*user, *connection, grace));
        let outcomes = join_all(outcomes).await;
        let failed: Vec<_> = outcomes
            .iter()
            .zip(&batch)
            .filter(|(outcome, _)| outcome.is_err())
            .map(|(_, owed)| *owed)
            .collect();
        {
            // Only this loop takes from the queue. Releases that failed go behind the others.
            let mut releases = partition.releases.lock();
            releases.drain(..batch.len());
            releases.extend(&failed);
        }
        let done = batch.len() - failed.len();
        self.releases_len.fetch_sub(done, Ordering::Relaxed);
        if let Some(Err(error)) = outcomes.into_iter().find(Result::is_err) {
            warn_seldom!(%error, count = failed.len(), "could not release connections; trying again");
            tokio::time::sleep(RETRY_DELAY).await;
        }
        !batch.is_empty()
    }

    /// Returns once everything is released.
    pub(crate) async fn wait_until_released(&self) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.releases_len.load(Ordering::Relaxed) == 0 {
                return;
            }
            released.await;
        }
    }

    /// Answers the oldest open question of `connection`.
    pub(crate) async fn answer_online_users(&self, connection: ConnectionId) {
        let slot = self.deliveries.place().await;
        let mut replica = self.replica();
        slot.put(Delivery::OnlineUsers {
            to: connection,
            users: replica.encoded(),
        });
    }

    /// How long a user without connections stays online.
    pub(crate) fn offline_grace(&self) -> Duration {
        let grace = self.options.offline_grace;
        if self.is_draining() {
            grace.max(DRAIN_GRACE)
        } else {
            grace
        }
    }

    /// From now on the node closes its connections itself.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// How many users are online.
    pub(crate) fn online_count(&self) -> usize {
        self.replica().count()
    }

    /// At most `limit` online users above `after`, ascending, and how many are online in all.
    pub(crate) fn page(&self, after: Option<UserId>, limit: usize) -> (Vec<UserId>, usize) {
        let replica = self.replica();
        (replica.page(after, limit), replica.count())
    }

    /// Whether `user` is online, as far as this node knows; where it does not know, the user may be.
    pub(crate) fn may_be_online(&self, user: UserId) -> bool {
        let partition = self.engine.partition_of(user);
        let replica = self.replica();
        !replica.is_complete(partition) || replica.contains(user)
    }

    /// Whether the replica follows the transitions of the partition.
    pub(crate) fn is_complete(&self, partition: u32) -> bool {
        self.replica().is_complete(partition)
    }

    /// Whether transitions of the partition were missed, as its pulse shows.
    pub(crate) fn is_behind(&self, partition: u32, pulse: &Pulse) -> bool {
        self.replica().is_behind(partition, pulse)
    }

    /// Takes in what the engine announced.
    pub(crate) async fn receive(&self, partition: u32, transition: Transition) {
        self.metrics.presence_messages.inc();
        let slot = self.deliveries.place().await;
        let mut replica = self.replica();
        match replica.apply(partition, transition) {
            Applied::Changed(change) => {
                self.count(&change);
                slot.put(self.tell(change));
            }
            Applied::Waiting => {}
            Applied::Gap => {
                self.metrics.presence_gaps.inc();
                self.incidents.record(Happening::PresenceGap { partition });
                self.need_snapshot(partition);
            }
        }
    }

    /// Messages of these partitions may have been missed: has them read again.
    pub(crate) fn interrupted(&self, partitions: &[u32]) {
        for partition in partitions {
            self.replica().expect_snapshot(*partition);
            self.need_snapshot(*partition);
        }
    }

    fn need_snapshot(&self, partition: u32) {
        if let Some(partition) = self.partitions.get(partition as usize) {
            partition.snapshot_needed.notify_one();
        }
    }

    /// Who was there before this node looked did not come just now, so snapshots are not counted.
    fn count(&self, change: &Change) {
        let (online, offline) = (change.online.len(), change.offline.len());
        self.metrics.count_transitions(online, offline);
    }

    fn tell(&self, change: Change) -> Delivery {
        let status_change = |online: bool| {
            move |user: UserId| StatusChange {
                user,
                online,
                only_to: match self.options.audience {
                    Audience::Everyone => None,
                    Audience::Watchers => Some(self.topics.watchers_of(user)),
                },
            }
        };
        let offline = change.offline.into_iter().map(status_change(false));
        let online = change.online.into_iter().map(status_change(true));
        Delivery::StatusChanges(offline.chain(online).collect())
    }

    /// Returns once the first snapshot of every partition is part of the replica, or `within` is over.
    pub(crate) async fn wait_until_complete(&self, within: Duration) {
        let restored: Vec<_> = (0..self.engine.partitions())
            .filter_map(|partition| self.replica().wait_for(partition, 0))
            .collect();
        if tokio::time::timeout(within, join_all(restored))
            .await
            .is_err()
        {
            tracing::warn!("still reading who is online; starting without");
        }
    }

    /// Reads a snapshot of a partition whenever one is needed, for ever; the first one at once. Users whom it lacks
    /// after an interruption are gone only when the time to register again is over.
    pub(crate) async fn run_replica(self: Arc<Self>) {
        join_all((0..self.engine.partitions()).map(|partition| self.run_replica_of(partition)))
            .await;
    }

    async fn run_replica_of(&self, partition: u32) {
        let Some(state) = self.partitions.get(partition as usize) else {
            return;
        };
        loop {
            self.restore_expected(partition).await;
            if self.replica().unconfirmed_count(partition) == 0 {
                state.snapshot_needed.notified().await;
                continue;
            }
            tokio::select! {
                () = state.snapshot_needed.notified() => {}
                () = self.resync(partition) => self.expire_unconfirmed(partition).await,
            }
        }
    }

    /// Returns when everybody has had the time to be registered again, and nobody is any more: a Redis that is
    /// slow, or a node with many connections, may take longer.
    async fn resync(&self, partition: u32) {
        tokio::time::sleep(self.options.resync_grace).await;
        let mut before = self.replica().unconfirmed_count(partition);
        loop {
            tokio::time::sleep(QUIET_FOR).await;
            let now = self.replica().unconfirmed_count(partition);
            if now == before {
                return;
            }
            before = now;
        }
    }

    async fn restore_expected(&self, partition: u32) {
        loop {
            let Some(round) = self.replica().expected_snapshot(partition) else {
                return;
            };
            if let Err(error) = self.restore(partition, round).await {
                tracing::warn!(partition, %error, "could not read who is online; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Subscribes first, notes the revision, then reads: what happens meanwhile arrives as transitions.
    async fn restore(&self, partition: u32, round: u64) -> Result<(), EngineError> {
        self.engine.subscribe_presence(partition).await?;
        let position = self.engine.position(partition).await?;
        let snapshot = self.engine.online(partition).await?;
        let slot = self.deliveries.place().await;
        let mut replica = self.replica();
        if let Some(change) = replica.restore(partition, round, position, snapshot) {
            self.metrics.snapshots.inc();
            slot.put(self.tell(change));
        }
        Ok(())
    }

    async fn expire_unconfirmed(&self, partition: u32) {
        let slot = self.deliveries.place().await;
        let mut replica = self.replica();
        let change = replica.expire_unconfirmed(partition);
        self.count(&change);
        tracing::info!(
            count = change.offline.len(),
            "users did not come back after an interruption"
        );
        slot.put(self.tell(change));
    }

    /// Takes users offline when their grace is over, for ever.
    pub(crate) async fn run_sweep(self: Arc<Self>) {
        join_all(
            (0..)
                .zip(&self.partitions)
                .map(|(number, of)| self.run_sweep_of(number, of)),
        )
        .await;
    }

    async fn run_sweep_of(&self, number: u32, partition: &Partition) {
        loop {
            let next_due = match self.expire(number, Duration::ZERO).await {
                Ok(next_due) => next_due,
                Err(error) => {
                    warn_seldom!(partition = number, %error, "could not take users offline; trying again");
                    None
                }
            };
            let pause = next_due.map_or(SWEEP_INTERVAL, |due| due.min(SWEEP_INTERVAL));
            // A user who leaves now is due later than everybody already waiting; an early look costs little.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = partition.somebody_left.notified() => {}
            }
        }
    }

    /// Takes offline everybody whose grace is running: no node is left that would do it later.
    pub(crate) async fn expire_leaving(&self) {
        let grace = self.offline_grace();
        let partitions = 0..self.engine.partitions();
        let expired = join_all(partitions.map(|partition| self.expire(partition, grace))).await;
        for error in expired.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "could not take everybody offline");
        }
    }

    async fn expire(
        &self,
        partition: u32,
        ahead: Duration,
    ) -> Result<Option<Duration>, EngineError> {
        loop {
            let expired = self
                .engine
                .expire(
                    partition,
                    EXPIRE_BATCH_MAX,
                    ahead,
                    self.options.resync_grace,
                )
                .await?;
            self.offline.send(expired.offline);
            if expired.next_due.is_none_or(|due| due > ahead) {
                return Ok(expired.next_due);
            }
        }
    }
}
