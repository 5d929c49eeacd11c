//! Registers the node's connections again after the engine may have lost them, or the node its lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::matchmaking::Matchmaking;
use super::presence::Presence;
use super::reaper::Reaper;
use super::topic::Topics;
use crate::engine::EngineError;
use crate::ids::Incarnation;

/// Pause before a failed registration is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

pub(crate) struct Registrations {
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    matchmaking: Arc<Matchmaking>,
    reaper: Arc<Reaper>,
    partitions: Vec<PartitionRegistrations>,
    tickets_requested: Notify,
    completed: Notify,
}

#[derive(Default)]
struct PartitionRegistrations {
    requested: Notify,
    /// Former incarnations of this node. Their connections may still be registered.
    former: Mutex<Vec<Incarnation>>,
}

impl Registrations {
    pub(crate) fn new(
        partitions: u32,
        topics: Arc<Topics>,
        presence: Arc<Presence>,
        matchmaking: Arc<Matchmaking>,
        reaper: Arc<Reaper>,
    ) -> Self {
        Self {
            topics,
            presence,
            matchmaking,
            reaper,
            partitions: (0..partitions)
                .map(|_| PartitionRegistrations::default())
                .collect(),
            tickets_requested: Notify::new(),
            completed: Notify::new(),
        }
    }

    /// Requests that all connections in these partitions, and all tickets, are registered again.
    pub(crate) fn request(&self, partitions: &[u32]) {
        for partition in partitions {
            if let Some(partition) = self.partitions.get(*partition as usize) {
                partition.requested.notify_one();
            }
        }
        self.tickets_requested.notify_one();
    }

    /// Schedules the former incarnation's connections for reaping, after those of its successor are registered.
    pub(crate) fn retire(&self, incarnation: &Incarnation) {
        for partition in &self.partitions {
            partition.former.lock().push(incarnation.clone());
        }
    }

    /// Resolves when the connections of a partition were registered again.
    pub(crate) async fn completed(&self) {
        self.completed.notified().await;
    }

    /// Handles requests. Each partition has a loop of its own, so that an unreachable one delays no other.
    pub(crate) async fn run(self: Arc<Self>) {
        let partitions = (0..).zip(&self.partitions);
        let loops = partitions.map(|(number, partition)| self.run_partition(number, partition));
        tokio::join!(join_all(loops), self.run_tickets());
    }

    /// Puts this node's users back in the queue whenever tickets may be lost.
    async fn run_tickets(&self) {
        loop {
            self.tickets_requested.notified().await;
            while let Err(error) = self.matchmaking.reenqueue().await {
                tracing::warn!(%error, "could not enqueue users again; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn run_partition(&self, number: u32, partition: &PartitionRegistrations) {
        loop {
            partition.requested.notified().await;
            while let Err(error) = self.register_again(number, partition).await {
                tracing::warn!(partition = number, %error, "could not register connections again; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            self.completed.notify_one();
        }
    }

    async fn register_again(
        &self,
        number: u32,
        partition: &PartitionRegistrations,
    ) -> Result<(), EngineError> {
        // Read first: an incarnation that ends from now on is reaped after the next round.
        let former = partition.former.lock().clone();
        let connections = self.topics.own_connections(Some(number));
        self.presence.register_again(&connections).await?;
        if !connections.is_empty() {
            let connections = connections.len();
            tracing::info!(
                partition = number,
                connections,
                "registered connections again"
            );
        }
        for incarnation in &former {
            self.reaper.reap(number, incarnation.as_str()).await?;
        }
        partition
            .former
            .lock()
            .retain(|known| !former.contains(known));
        Ok(())
    }
}
