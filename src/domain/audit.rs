//! Compares the connections that the engine attributes to this node with those that are open: periodically, and
//! whenever a partition was registered again, because the engine may have come back with old data.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::presence::Presence;
use super::registration::Registrations;
use super::topic::Topics;
use crate::engine::{Engine, EngineError};
use crate::ids::{ConnectionId, UserId};
use crate::telemetry::warn_seldom;

type Owned = (UserId, ConnectionId);

pub(crate) struct Audit {
    pub(crate) engine: Engine,
    pub(crate) topics: Arc<Topics>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) registrations: Arc<Registrations>,
}

impl Audit {
    /// Audits all partitions every `interval`, and after each new registration.
    pub(crate) async fn run(self, interval: Duration) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.registrations.completed() => {}
            }
            for partition in 0..self.engine.partitions() {
                if let Err(error) = self.audit(partition).await {
                    warn_seldom!(partition, %error, "could not audit; trying again");
                }
            }
        }
    }

    async fn audit(&self, partition: u32) -> Result<(), EngineError> {
        let registered: HashSet<Owned> = self.engine.owed(partition).await?.into_iter().collect();
        let missing: Vec<Owned> = self
            .topics
            .own_connections(Some(partition))
            .into_iter()
            .filter(|own| !registered.contains(own))
            .collect();
        // A connection enters its topic before it is registered: one that is in no topic has ended.
        let ended: Vec<Owned> = registered
            .into_iter()
            .filter(|(user, id)| !self.topics.is_own(*user, *id))
            .collect();
        if !missing.is_empty() {
            tracing::warn!(
                count = missing.len(),
                "open connections were not registered; registering them"
            );
            self.presence.register_again(&missing).await?;
        }
        if !ended.is_empty() {
            tracing::warn!(
                count = ended.len(),
                "closed connections were still registered; releasing them"
            );
        }
        for (user, connection) in ended {
            self.presence.release(user, connection);
        }
        Ok(())
    }
}
