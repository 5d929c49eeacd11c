//! Reconciles the engine's subscriptions with the table of topics.
//!
//! Each partition has one loop, so that a topic that is subscribed, unsubscribed and subscribed again ends up
//! subscribed, and an unreachable partition delays no other.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{READ_BATCH_MAX, RETRY_DELAY, TopicTable, Topics, partition_index};
use crate::engine::{EngineError, Stored, TopicMessage, Update};
use crate::ids::UserId;
use crate::telemetry::warn_seldom;

/// Topics subscribed per call.
const BATCH_MAX: usize = 512;

#[derive(Default)]
pub(super) struct PartitionSubscriptions {
    /// Topics whose subscription may differ from the table.
    changed: HashSet<UserId>,
    /// Number of interruptions. Anything read before the last one is stale.
    pub(super) interruptions: u64,
}

/// Topics of one partition to reconcile.
struct Reconciliation {
    wanted: Vec<UserId>,
    unwanted: Vec<UserId>,
    /// The partition's interruptions when the batch was taken.
    interruptions: u64,
}

impl Topics {
    /// Queues the topic for the loop of its partition.
    pub(super) fn request_reconcile(&self, table: &mut TopicTable, user: UserId) {
        table.partition(user).changed.insert(user);
        self.changed[partition_index(user, self.changed.len())].notify_one();
    }

    /// Subscribes to everything in these partitions again, because messages may have been missed.
    pub(crate) fn interrupted(&self, partitions: &[u32]) {
        let mut guard = self.table.lock();
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
            let index = partition_index(*user, count);
            if is_concerned[index] {
                topic.confirmed = false;
                topic.loaded = false;
                topic.behind = true;
                table.partitions[index].changed.insert(*user);
            }
        }
        for (changed, _) in self.changed.iter().zip(is_concerned).filter(|(_, is)| *is) {
            changed.notify_one();
        }
    }

    /// Reconciles the engine's subscriptions with the table.
    pub(crate) async fn run_subscriptions(self: Arc<Self>) {
        join_all((0..self.changed.len()).map(|index| self.run_subscriptions_of(index))).await;
    }

    async fn run_subscriptions_of(&self, index: usize) {
        loop {
            self.changed[index].notified().await;
            while let Some(batch) = self.take_changed(index) {
                self.reconcile(batch).await;
            }
        }
    }

    /// The next topics of a partition to reconcile, if any.
    fn take_changed(&self, index: usize) -> Option<Reconciliation> {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let partition = &mut table.partitions[index];
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
        Some(Reconciliation {
            wanted,
            unwanted,
            interruptions: partition.interruptions,
        })
    }

    async fn reconcile(&self, batch: Reconciliation) {
        if !batch.unwanted.is_empty()
            && let Err(error) = self.engine.unsubscribe(&batch.unwanted).await
        {
            // A superfluous subscription costs little; its messages are ignored.
            warn_seldom!(%error, "could not unsubscribe");
        }
        if batch.wanted.is_empty() {
            return;
        }
        let outcome = self.engine.subscribe(&batch.wanted).await;
        self.resolve_waiters(&batch, &outcome);
        match outcome {
            Ok(()) => self.catch_up(&batch).await,
            Err(error) => {
                tracing::warn!(%error, topics = batch.wanted.len(), "could not subscribe; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Resolves the calls waiting for a subscription, and queues failed topics again.
    fn resolve_waiters(&self, batch: &Reconciliation, outcome: &Result<(), EngineError>) {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let partition = batch.wanted.first().map(|user| table.partition(*user));
        let interruptions = partition.map(|partition| partition.interruptions);
        if outcome.is_ok() && interruptions != Some(batch.interruptions) {
            // An interruption may have ended these subscriptions; all are queued again already.
            return;
        }
        for user in &batch.wanted {
            let Some(topic) = table.topics.get_mut(user) else {
                continue;
            };
            topic.confirmed = outcome.is_ok();
            for waiting in topic.waiting.drain(..) {
                // The caller may be gone.
                let _ = waiting.send(outcome.clone());
            }
            if outcome.is_err() {
                table.partition(*user).changed.insert(*user);
            }
        }
    }

    /// Delivers updates missed on interrupted topics.
    async fn catch_up(&self, batch: &Reconciliation) {
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
                        tracing::warn!(user = user.get(), %error, "could not read missed updates; trying again");
                        self.resubscribe(*user);
                        failed = true;
                    }
                }
            }
            if failed {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    pub(super) fn is_behind(&self, user: UserId) -> bool {
        self.table
            .lock()
            .topics
            .get(&user)
            .is_some_and(|topic| topic.behind)
    }

    /// Queues the topic to be subscribed again and caught up.
    pub(super) fn resubscribe(&self, user: UserId) {
        self.edit(user, |topic| topic.confirmed = false);
        self.request_reconcile(&mut self.table.lock(), user);
    }

    /// Delivers stored updates that this node missed, and stores again those that the engine lost.
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
            "delivered updates are no longer stored; storing them again"
        );
        for outcome in self.engine.publish(lost).await {
            if let Err(error) = outcome {
                tracing::warn!(user = user.get(), %error, "could not store an update again; trying again");
                self.resubscribe(user);
            }
        }
    }

    /// The messages this node may have missed, and the updates the engine lost. After another interruption the topic
    /// stays behind.
    fn compare(
        &self,
        user: UserId,
        stored: Stored,
        interruptions: u64,
    ) -> (Vec<TopicMessage>, Vec<Update>) {
        let mut table = self.table.lock();
        let still_behind = table.partition(user).interruptions != interruptions;
        let Some(topic) = table.topics.get_mut(&user) else {
            return Default::default();
        };
        topic.behind = still_behind;
        let lost = topic.state.lost(user, &stored);
        (topic.state.missed(stored), lost)
    }
}
