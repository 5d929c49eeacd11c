//! Who is online: counts connections with the engine, keeps the replica, says who comes and goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::Notify;

use super::delivery::{Deliveries, Delivery, StatusChange};
use super::incidents::{Happening, Incidents};
use super::matchmaking::Matchmaking;
use super::replica::{Applied, Change, Replica};
use super::token::Identity;
use super::topic::Topics;
use crate::engine::{Admission, Engine, EngineError, Registration, Transition};
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
    pub doubt: Duration,
}

/// Presence on this node.
pub(crate) struct Presence {
    engine: Engine,
    topics: Arc<Topics>,
    matchmaking: Arc<Matchmaking>,
    deliveries: Deliveries,
    metrics: Arc<Metrics>,
    incidents: Arc<Incidents>,
    options: PresenceOptions,
    replica: Mutex<Replica>,
    snapshot_needed: Notify,
    releases: Mutex<VecDeque<(UserId, ConnectionId)>>,
    release_wanted: Notify,
    released: Notify,
    somebody_left: Notify,
}

impl Presence {
    pub(crate) fn new(
        engine: Engine,
        topics: Arc<Topics>,
        matchmaking: Arc<Matchmaking>,
        deliveries: Deliveries,
        metrics: Arc<Metrics>,
        incidents: Arc<Incidents>,
        options: PresenceOptions,
    ) -> Self {
        let replica = Replica::new(engine.partitions());
        Self {
            engine,
            topics,
            matchmaking,
            deliveries,
            metrics,
            incidents,
            options,
            replica: Mutex::new(replica),
            snapshot_needed: Notify::new(),
            releases: Mutex::default(),
            release_wanted: Notify::new(),
            released: Notify::new(),
            somebody_left: Notify::new(),
        }
    }

    /// No call leaves the replica half changed, so a poisoned lock is as good as any.
    fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn releases(&self) -> MutexGuard<'_, VecDeque<(UserId, ConnectionId)>> {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops counting a connection, as soon as the engine can be reached.
    pub(crate) fn release(&self, user: UserId, connection: ConnectionId) {
        self.releases().push_back((user, connection));
        self.release_wanted.notify_one();
    }

    /// Whether so many releases wait that nobody more is to be admitted.
    pub(crate) fn is_overdue(&self) -> bool {
        self.releases().len() >= RELEASES_MAX
    }

    /// Releases what is to be released, for ever.
    pub(crate) async fn keep_releasing(&self) {
        loop {
            self.release_wanted.notified().await;
            while self.release_batch().await {}
            self.released.notify_waiters();
            self.somebody_left.notify_one();
        }
    }

    /// Returns whether there may be more.
    async fn release_batch(&self) -> bool {
        let batch: Vec<_> = self
            .releases()
            .iter()
            .take(RELEASE_BATCH_MAX)
            .copied()
            .collect();
        let grace = self.options.offline_grace;
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
            // Only this task takes from the queue. What failed goes behind the others.
            let mut releases = self.releases();
            releases.drain(..batch.len());
            releases.extend(&failed);
        }
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
            if self.releases().is_empty() {
                return;
            }
            released.await;
        }
    }

    /// Answers the oldest open question of `connection`.
    pub(crate) async fn answer_online_users(&self, connection: ConnectionId) {
        let place = self.deliveries.place().await;
        let mut replica = self.replica();
        place.put(Delivery::OnlineUsers {
            to: connection,
            users: replica.encoded(),
        });
    }

    /// How long a user without connections stays online.
    pub(crate) fn offline_grace(&self) -> Duration {
        self.options.offline_grace
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
        let replica = self.replica();
        !replica.is_complete() || replica.contains(user)
    }

    /// Whether the replica follows the transitions of every partition.
    pub(crate) fn is_complete(&self) -> bool {
        self.replica().is_complete()
    }

    /// Takes in what the engine announced.
    pub(crate) async fn receive(&self, partition: u32, transition: Transition) {
        self.metrics.presence_messages.inc();
        let place = self.deliveries.place().await;
        let mut replica = self.replica();
        match replica.apply(partition, transition) {
            Applied::Changed(change) => {
                self.count(&change);
                place.put(self.tell(change));
            }
            Applied::Waiting => {}
            Applied::Gap => {
                self.metrics.presence_gaps.inc();
                self.incidents.note(Happening::PresenceGap { partition });
                self.snapshot_needed.notify_one();
            }
        }
    }

    /// Messages may have been missed: begins the replica anew.
    pub(crate) fn interrupted(&self) {
        self.replica().expect_snapshots();
        self.snapshot_needed.notify_one();
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
        for partition in 0..self.engine.partitions() {
            let restored = self.replica().wait_for(partition, 0);
            if let Some(restored) = restored
                && tokio::time::timeout(within, restored).await.is_err()
            {
                return tracing::warn!("still reading who is online; starting without");
            }
        }
    }

    /// Reads a snapshot whenever one is needed, for ever; the first one at once. Whoever is missing after an
    /// interruption is gone only when the time to register again is over.
    pub(crate) async fn keep_replica(&self) {
        loop {
            self.restore_expected().await;
            if self.replica().doubtful_count() == 0 {
                self.snapshot_needed.notified().await;
                continue;
            }
            tokio::select! {
                () = self.snapshot_needed.notified() => {}
                () = self.doubt() => self.settle().await,
            }
        }
    }

    /// Returns when everybody has had the time to be registered again, and nobody is any more: a Redis that is
    /// slow, or a node with many connections, may take longer.
    async fn doubt(&self) {
        tokio::time::sleep(self.options.doubt).await;
        let mut before = self.replica().doubtful_count();
        loop {
            tokio::time::sleep(QUIET_FOR).await;
            let now = self.replica().doubtful_count();
            if now == before {
                return;
            }
            before = now;
        }
    }

    async fn restore_expected(&self) {
        loop {
            let expected = self.replica().expected_snapshots();
            if expected.is_empty() {
                return;
            }
            for (partition, round) in expected {
                if let Err(error) = self.restore(partition, round).await {
                    tracing::warn!(%error, "could not read who is online; trying again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Subscribes first, notes the revision, then reads: what happens meanwhile arrives as transitions.
    async fn restore(&self, partition: u32, round: u64) -> Result<(), EngineError> {
        self.engine.subscribe_presence(partition).await?;
        let position = self.engine.position(partition).await?;
        let snapshot = self.engine.online(partition).await?;
        let place = self.deliveries.place().await;
        let mut replica = self.replica();
        if let Some(change) = replica.restore(partition, round, position, snapshot) {
            self.metrics.snapshots.inc();
            place.put(self.tell(change));
        }
        Ok(())
    }

    async fn settle(&self) {
        let place = self.deliveries.place().await;
        let mut replica = self.replica();
        let change = replica.settle();
        self.count(&change);
        tracing::info!(
            count = change.offline.len(),
            "users did not come back after an interruption"
        );
        place.put(self.tell(change));
    }

    /// Takes users offline when their grace is over, for ever.
    pub(crate) async fn sweep(&self) {
        loop {
            let next_due = self.expire_all(Duration::ZERO).await;
            let pause = next_due.map_or(SWEEP_INTERVAL, |due| due.min(SWEEP_INTERVAL));
            // Whoever leaves now is due later than everybody already waiting; an early look costs little.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.somebody_left.notified() => {}
            }
        }
    }

    /// Takes offline everybody whose grace is running: no node is left that would do it later.
    pub(crate) async fn expire_leaving(&self) {
        self.expire_all(self.options.offline_grace).await;
    }

    /// Takes offline whoever is due within `ahead`. Returns when the next one is due.
    async fn expire_all(&self, ahead: Duration) -> Option<Duration> {
        let mut next_due = None;
        for partition in 0..self.engine.partitions() {
            match self.expire(partition, ahead).await {
                Ok(due) => next_due = next_due.into_iter().chain(due).min(),
                Err(error) => warn_seldom!(%error, "could not take users offline; trying again"),
            }
        }
        next_due
    }

    async fn expire(
        &self,
        partition: u32,
        ahead: Duration,
    ) -> Result<Option<Duration>, EngineError> {
        loop {
            let expired = self
                .engine
                .expire(partition, EXPIRE_BATCH_MAX, ahead, self.options.doubt)
                .await?;
            self.matchmaking.went_offline(expired.offline);
            if expired.next_due.is_none_or(|due| due > ahead) {
                return Ok(expired.next_due);
            }
        }
    }
}
