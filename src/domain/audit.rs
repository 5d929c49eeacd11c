//! Compares this node's registrations in the engine with its open connections: periodically, and after a partition was
//! registered again, because the engine may have come back with old data.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::presence::Presence;
use super::registration::Registrations;
use super::topic::Topics;
use crate::engine::{Engine, EngineError};
use crate::ids::UserConnection;
use crate::telemetry::warn_seldom;

pub(crate) struct RegistrationAudit {
    pub(crate) engine: Engine,
    pub(crate) topics: Arc<Topics>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) registrations: Arc<Registrations>,
}

impl RegistrationAudit {
    /// Audits all partitions every `interval`, and after each completed registration.
    pub(crate) async fn run(self, interval: Duration) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.registrations.completed() => {}
            }
            let partitions = 0..self.engine.partitions();
            let audited = join_all(partitions.map(|partition| self.audit(partition))).await;
            if let Some(error) = audited.into_iter().find_map(Result::err) {
                warn_seldom!(%error, "could not audit every partition; trying again");
            }
        }
    }

    async fn audit(&self, partition: u32) -> Result<(), EngineError> {
        let registered: HashSet<UserConnection> = self
            .engine
            .registrations(partition)
            .await?
            .into_iter()
            .collect();
        let missing: Vec<UserConnection> = self
            .topics
            .own_connections(Some(partition))
            .into_iter()
            .filter(|own| !registered.contains(own))
            .collect();
        // A connection joins its topic before it is registered, so one that is in no topic has ended.
        let ended: Vec<UserConnection> = registered
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
