//! Presence: registers connections with the engine, keeps the replica of who is online, announces status changes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::cluster_events::{ClusterEvents, EventKind};
use super::delivery::{Deliveries, Delivery, ReplyTo, StatusChange};
use super::matchmaking::OfflineUsers;
use super::ownership::Ownership;
use super::replica::{Applied, PresenceChange, Replica};
use super::token::Identity;
use super::topic::Topics;
pub(crate) use crate::engine::RegisteredConnection;
use crate::engine::{Admission, Engine, EngineError, Pulse, Registration, Transition};
use crate::ids::{ConnectionId, UserConnection, UserId};
use crate::telemetry::{Metrics, warn_seldom};

/// Users taken offline per script call: few enough that Redis stays responsive.
const EXPIRE_BATCH_MAX: u32 = 500;

/// Connections registered again per script call: a millisecond of Redis's time.
const REGISTER_BATCH_MAX: usize = 100;

/// Connections released per script call.
const RELEASE_BATCH_MAX: usize = 100;

/// Releases queued while the engine is unavailable. Beyond this no connection is admitted.
const RELEASES_MAX: usize = 100_000;

/// How often the owners of a partition look for users whose grace period is over: the node that saw them leave takes
/// them offline, unless it is dead.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Users due within this long go offline together.
const DEPARTURE_STEP: Duration = Duration::from_millis(100);

/// Pause before a failed snapshot or release is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Shortest grace period while this node drains. The official client reconnects 0.5 to 1.5 s after its node closed it,
/// and 1 to 3 s later if that fails. While everyone reconnects at once, one slow answer must not announce a user
/// offline.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Registering again counts as finished after this long without a registration.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// How long admission waits until the replica shows the user online. The connection is registered either way.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// The recipients of status changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusAudience {
    /// All connections.
    Everyone,
    /// Only connections that watch the user.
    Watchers,
}

/// The `presence` settings, and a grace period derived from `node`.
#[derive(Clone, Copy, Debug)]
pub struct PresenceOptions {
    /// How long a user without connections stays online.
    pub offline_grace: Duration,
    /// The recipients of status changes.
    pub audience: StatusAudience,
    /// How long nodes may take to register their connections again after an outage of the engine.
    pub resync_grace: Duration,
}

pub(crate) struct Presence {
    engine: Engine,
    is_draining: AtomicBool,
    topics: Arc<Topics>,
    offline: OfflineUsers,
    deliveries: Deliveries,
    metrics: Arc<Metrics>,
    events: Arc<ClusterEvents>,
    options: PresenceOptions,
    replica: Mutex<Replica>,
    partitions: Vec<PartitionWork>,
    /// Queued releases of all partitions.
    releases_len: AtomicUsize,
    released: Notify,
    begun: Instant,
}

/// The work of one partition. Each partition has its own loops, so that an unreachable one delays no other.
#[derive(Default)]
struct PartitionWork {
    snapshot_needed: Notify,
    releases: Mutex<VecDeque<UserConnection>>,
    release_wanted: Notify,
    departures: Departures,
    sweep_wanted: Notify,
}

/// When users whom this node saw leave are due, in steps of [`DEPARTURE_STEP`]; so no more of them than fit into a grace
/// period.
#[derive(Default)]
struct Departures {
    steps: Mutex<BTreeSet<Instant>>,
    is_earlier: Notify,
}

impl Departures {
    /// Records that a user is due in `due_in`. `begun` is the same for all calls.
    fn expect(&self, begun: Instant, due_in: Duration) {
        let due = (begun.elapsed() + due_in).as_millis();
        let steps = due.div_ceil(DEPARTURE_STEP.as_millis());
        let step = begun + DEPARTURE_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        let mut known = self.steps.lock();
        known.insert(step);
        if known.first() == Some(&step) {
            self.is_earlier.notify_one();
        }
    }

    /// Resolves when somebody is due.
    async fn due(&self) {
        loop {
            let next = self.steps.lock().first().copied();
            let Some(next) = next else {
                self.is_earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {
                    let mut steps = self.steps.lock();
                    let now = Instant::now();
                    steps.retain(|step| *step > now);
                    return;
                }
                () = self.is_earlier.notified() => {}
            }
        }
    }
}

impl Presence {
    pub(crate) fn new(
        engine: Engine,
        topics: Arc<Topics>,
        offline: OfflineUsers,
        deliveries: Deliveries,
        metrics: Arc<Metrics>,
        events: Arc<ClusterEvents>,
        options: PresenceOptions,
    ) -> Self {
        let replica = Replica::new(engine.partitions());
        let partitions = (0..engine.partitions())
            .map(|_| PartitionWork::default())
            .collect();
        Self {
            engine,
            is_draining: AtomicBool::new(false),
            topics,
            offline,
            deliveries,
            metrics,
            events,
            options,
            replica: Mutex::new(replica),
            partitions,
            releases_len: AtomicUsize::new(0),
            released: Notify::new(),
            begun: Instant::now(),
        }
    }

    /// Registers a connection of the token's user, unless the user already has `limit` of them. Returns once this node
    /// shows the user as online.
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

    /// Repeats the registration if the node's incarnation changed meanwhile.
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

    /// Registers this node's connections in a partition again: the engine may have lost them, or the node its lease.
    pub(crate) async fn register_again(
        &self,
        connections: &[UserConnection],
    ) -> Result<(), EngineError> {
        let mut refused = Ok(());
        for batch in connections.chunks(REGISTER_BATCH_MAX) {
            match self.register_batch(batch).await {
                // One bad record must not keep the others out.
                Err(EngineError::Refused(_)) if batch.len() > 1 => {
                    for one in batch {
                        match self.register_batch(std::slice::from_ref(one)).await {
                            Err(error @ EngineError::Refused(_)) => refused = Err(error),
                            outcome => outcome?,
                        }
                    }
                }
                outcome => outcome?,
            }
            // A connection that closed meanwhile was released before it was registered again.
            for (user, id) in batch
                .iter()
                .filter(|(user, id)| !self.topics.is_own(*user, *id))
            {
                self.release(*user, *id);
            }
        }
        refused
    }

    /// Repeats the registration if the node's incarnation changed meanwhile.
    async fn register_batch(&self, connections: &[UserConnection]) -> Result<(), EngineError> {
        loop {
            let incarnation = self.engine.incarnation();
            self.engine.register_again(connections).await?;
            if self.engine.incarnation() == incarnation {
                return Ok(());
            }
        }
    }

    async fn wait_until_shown(&self, user: UserId, revision: u64) {
        let partition = self.engine.partition_of(user);
        let shown = self.replica.lock().wait_for(partition, revision);
        if let Some(shown) = shown
            && tokio::time::timeout(SHOWN_WITHIN, shown).await.is_err()
        {
            tracing::debug!(
                user = user.get(),
                "not shown as online in time; transitions are late"
            );
        }
    }

    fn partition_of(&self, user: UserId) -> &PartitionWork {
        &self.partitions[self.engine.partition_of(user) as usize]
    }

    /// Queues the release of a connection.
    pub(crate) fn release(&self, user: UserId, connection: ConnectionId) {
        let partition = self.partition_of(user);
        self.releases_len.fetch_add(1, Ordering::Relaxed);
        partition.releases.lock().push_back((user, connection));
        partition.release_wanted.notify_one();
    }

    /// Whether so many releases are queued that no connection may be admitted.
    pub(crate) fn is_overdue(&self) -> bool {
        self.releases_len.load(Ordering::Relaxed) >= RELEASES_MAX
    }

    pub(crate) async fn run_releases(self: Arc<Self>) {
        let partitions = (0..).zip(&self.partitions);
        join_all(partitions.map(|(number, of)| self.run_releases_of(number, of))).await;
    }

    async fn run_releases_of(&self, number: u32, partition: &PartitionWork) {
        loop {
            partition.release_wanted.notified().await;
            while self.release_batch(number, partition).await {}
            self.released.notify_waiters();
        }
    }

    /// Returns whether more may be queued.
    async fn release_batch(&self, number: u32, partition: &PartitionWork) -> bool {
        let batch: Vec<_> = partition
            .releases
            .lock()
            .iter()
            .take(RELEASE_BATCH_MAX)
            .copied()
            .collect();
        if batch.is_empty() {
            return false;
        }
        let (failed, error) = self.release_all(number, &batch).await;
        {
            // Only this loop takes from the queue. Failed releases go to its end.
            let mut releases = partition.releases.lock();
            releases.drain(..batch.len());
            releases.extend(&failed);
        }
        let done = batch.len() - failed.len();
        self.releases_len.fetch_sub(done, Ordering::Relaxed);
        if let Some(error) = error {
            warn_seldom!(%error, count = failed.len(), "could not release connections; trying again");
            tokio::time::sleep(RETRY_DELAY).await;
        }
        true
    }

    /// Returns those that could not be released, and why.
    async fn release_all(
        &self,
        partition: u32,
        connections: &[UserConnection],
    ) -> (Vec<UserConnection>, Option<EngineError>) {
        let grace = self.offline_grace();
        let release = |connections| self.engine.release(connections, grace);
        let mut leaving = 0;
        let (mut failed, mut last_error) = (Vec::new(), None);
        match release(connections).await {
            Ok(users) => leaving += users,
            // One bad record must not keep the others.
            Err(EngineError::Refused(_)) if connections.len() > 1 => {
                for (at, one) in connections.iter().enumerate() {
                    match release(std::slice::from_ref(one)).await {
                        Ok(users) => leaving += users,
                        Err(error @ EngineError::Refused(_)) => {
                            failed.push(*one);
                            last_error = Some(error);
                        }
                        Err(error) => {
                            failed.extend(&connections[at..]);
                            last_error = Some(error);
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                failed = connections.to_vec();
                last_error = Some(error);
            }
        }
        if leaving > 0 {
            self.expect_departures(partition, grace);
        }
        (failed, last_error)
    }

    /// Returns once no release is queued.
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

    /// Sends the ids of all online users.
    pub(crate) async fn answer_online_users(&self, to: ReplyTo) {
        let slot = self.deliveries.reserve().await;
        let mut replica = self.replica.lock();
        slot.send(Delivery::OnlineUsers {
            to,
            users: replica.encoded(),
        });
    }

    /// The offline grace period, at least [`DRAIN_GRACE`] while the node drains.
    pub(crate) fn offline_grace(&self) -> Duration {
        let grace = self.options.offline_grace;
        if self.is_draining() {
            grace.max(DRAIN_GRACE)
        } else {
            grace
        }
    }

    /// How long nodes may take to register their connections again after an outage of the engine.
    pub(crate) fn resync_grace(&self) -> Duration {
        self.options.resync_grace
    }

    /// Marks the node as stopping: it closes its connections itself.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    pub(crate) fn online_count(&self) -> usize {
        self.replica.lock().count()
    }

    /// At most `limit` online users with ids above `after`, ascending, and the total number online.
    pub(crate) fn page(&self, after: Option<UserId>, limit: usize) -> (Vec<UserId>, usize) {
        let replica = self.replica.lock();
        (replica.page(after, limit), replica.count())
    }

    /// Whether `user` may be online; always `true` while the partition's snapshot is being read.
    pub(crate) fn may_be_online(&self, user: UserId) -> bool {
        let partition = self.engine.partition_of(user);
        let replica = self.replica.lock();
        !replica.is_complete(partition) || replica.contains(user)
    }

    pub(crate) fn is_complete(&self, partition: u32) -> bool {
        self.replica.lock().is_complete(partition)
    }

    pub(crate) fn is_behind(&self, partition: u32, pulse: &Pulse) -> bool {
        self.replica.lock().is_behind(partition, pulse)
    }

    /// Applies a transition that the engine announced.
    pub(crate) async fn receive(&self, partition: u32, transition: Transition) {
        self.metrics.presence_messages.inc();
        let slot = self.deliveries.reserve().await;
        let mut replica = self.replica.lock();
        match replica.apply(partition, transition) {
            Applied::Changed(change) => {
                self.count(&change);
                slot.send(self.status_changes(change));
            }
            Applied::Waiting => {}
            Applied::Gap => {
                self.metrics.presence_gaps.inc();
                self.events.record(EventKind::PresenceGap { partition });
                self.need_snapshot(partition);
            }
        }
    }

    /// Requests new snapshots of these partitions: messages may have been missed.
    pub(crate) fn interrupted(&self, partitions: &[u32]) {
        for partition in partitions {
            self.replica.lock().expect_snapshot(*partition);
            self.need_snapshot(*partition);
        }
    }

    fn need_snapshot(&self, partition: u32) {
        if let Some(partition) = self.partitions.get(partition as usize) {
            partition.snapshot_needed.notify_one();
        }
    }

    /// Snapshots are not counted as transitions: those users were already online.
    fn count(&self, change: &PresenceChange) {
        let (online, offline) = (change.online.len(), change.offline.len());
        self.metrics.count_transitions(online, offline);
    }

    fn status_changes(&self, change: PresenceChange) -> Delivery {
        let status_change = |online: bool| {
            move |user: UserId| StatusChange {
                user,
                online,
                only_to: match self.options.audience {
                    StatusAudience::Everyone => None,
                    StatusAudience::Watchers => Some(self.topics.watchers_of(user)),
                },
            }
        };
        let offline = change.offline.into_iter().map(status_change(false));
        let online = change.online.into_iter().map(status_change(true));
        Delivery::StatusChanges(offline.chain(online).collect())
    }

    /// Returns once the first snapshot of every partition is applied, or after `within`.
    pub(crate) async fn wait_until_complete(&self, within: Duration) {
        let restored: Vec<_> = (0..self.engine.partitions())
            .filter_map(|partition| self.replica.lock().wait_for(partition, 0))
            .collect();
        if tokio::time::timeout(within, join_all(restored))
            .await
            .is_err()
        {
            tracing::warn!("still reading who is online; starting anyway");
        }
    }

    /// Reads a snapshot of each partition whenever one is needed, the first at once. After an interruption, users
    /// missing from the snapshot go offline only once nodes had time to register again.
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
            if self.replica.lock().unconfirmed_count(partition) == 0 {
                state.snapshot_needed.notified().await;
                continue;
            }
            tokio::select! {
                () = state.snapshot_needed.notified() => {}
                () = self.resync(partition) => self.expire_unconfirmed(partition).await,
            }
        }
    }

    /// Returns once nodes had time to register again and no user is being confirmed any more: a slow Redis, or a node
    /// with many connections, may need longer.
    async fn resync(&self, partition: u32) {
        tokio::time::sleep(self.options.resync_grace).await;
        let mut before = self.replica.lock().unconfirmed_count(partition);
        loop {
            tokio::time::sleep(QUIET_FOR).await;
            let now = self.replica.lock().unconfirmed_count(partition);
            if now == before {
                return;
            }
            before = now;
        }
    }

    async fn restore_expected(&self, partition: u32) {
        loop {
            let Some(round) = self.replica.lock().expected_snapshot(partition) else {
                return;
            };
            if let Err(error) = self.restore(partition, round).await {
                tracing::warn!(partition, %error, "could not read who is online; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Subscribes, then reads the position, then the members: whatever happens meanwhile arrives as transitions.
    async fn restore(&self, partition: u32, round: u64) -> Result<(), EngineError> {
        self.engine.subscribe_presence(partition).await?;
        let position = self.engine.position(partition).await?;
        let snapshot = self.engine.online(partition).await?;
        let slot = self.deliveries.reserve().await;
        let mut replica = self.replica.lock();
        if let Some(change) = replica.restore(partition, round, position, snapshot) {
            self.metrics.snapshots.inc();
            slot.send(self.status_changes(change));
        }
        Ok(())
    }

    async fn expire_unconfirmed(&self, partition: u32) {
        let slot = self.deliveries.reserve().await;
        let mut replica = self.replica.lock();
        let change = replica.expire_unconfirmed(partition);
        self.count(&change);
        tracing::info!(
            count = change.offline.len(),
            "users did not come back after an interruption"
        );
        slot.send(self.status_changes(change));
    }

    /// Notes that users of the partition go offline when `grace` is over, unless they come back.
    pub(crate) fn expect_departures(&self, partition: u32, grace: Duration) {
        if let Some(partition) = self.partitions.get(partition as usize) {
            partition.departures.expect(self.begun, grace);
        }
    }

    /// Takes users offline when their grace period is over: those whom this node saw leave, and in the partitions that it
    /// owns also those whom others left behind.
    pub(crate) async fn run_sweep(self: Arc<Self>, ownership: Arc<Ownership>) {
        let partitions = (0..).zip(&self.partitions);
        let loops = partitions.map(|(number, of)| self.run_sweep_of(number, of));
        tokio::join!(join_all(loops), self.run_sweep_clock(&ownership));
    }

    async fn run_sweep_clock(&self, ownership: &Ownership) {
        let mut clock = tokio::time::interval(SWEEP_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            for partition in ownership.owned() {
                if let Some(partition) = self.partitions.get(partition as usize) {
                    partition.sweep_wanted.notify_one();
                }
            }
        }
    }

    async fn run_sweep_of(&self, number: u32, partition: &PartitionWork) {
        loop {
            tokio::select! {
                () = partition.departures.due() => {}
                () = partition.sweep_wanted.notified() => {}
            }
            if let Err(error) = self.expire(number, Duration::ZERO).await {
                warn_seldom!(partition = number, %error, "could not take users offline; trying again");
            }
        }
    }

    /// Takes all leaving users offline: no node is left to do it later.
    pub(crate) async fn expire_leaving(&self) {
        let grace = self.offline_grace();
        let partitions = 0..self.engine.partitions();
        let expired = join_all(partitions.map(|partition| self.expire(partition, grace))).await;
        for error in expired.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "could not take all leaving users offline");
        }
    }

    async fn expire(&self, partition: u32, ahead: Duration) -> Result<(), EngineError> {
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
            if !expired.more {
                return Ok(());
            }
        }
    }
}
