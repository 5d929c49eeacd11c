//! Compares what the engine says this node holds with what it does hold, now and then.

use std::collections::HashSet;
use std::time::Duration;

use super::Hub;
use crate::engine::EngineError;
use crate::ids::{ConnectionId, UserId};

/// Longer than an admission takes: whatever is registered and still unknown after it was left behind.
const ADMITTED_WITHIN: Duration = Duration::from_secs(10);

type Owed = (UserId, ConnectionId);

impl Hub {
    /// Audits every `interval`, for ever.
    pub(crate) async fn keep_audited(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.audit().await {
                tracing::debug!(%error, "could not audit; trying again");
            }
        }
    }

    async fn audit(&self) -> Result<(), EngineError> {
        let incarnation = self.engine().incarnation();
        let registered = self.registered().await?;
        let forgotten: Vec<Owed> = self
            .topics()
            .own_connections()
            .into_iter()
            .filter(|own| !registered.contains(own))
            .collect();
        let suspects: Vec<Owed> = registered
            .into_iter()
            .filter(|(user, id)| !self.topics().is_own(*user, *id))
            .collect();
        if !forgotten.is_empty() {
            tracing::warn!(
                count = forgotten.len(),
                "open connections were not registered; registering them"
            );
            self.presence().register_again(&forgotten).await?;
        }
        if suspects.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(ADMITTED_WITHIN).await;
        if self.engine().incarnation() != incarnation {
            return Ok(());
        }
        for (user, connection) in suspects {
            if !self.topics().is_own(user, connection) {
                tracing::warn!(%user, %connection, "a closed connection was still registered; releasing it");
                self.presence().release(user, connection);
            }
        }
        Ok(())
    }

    async fn registered(&self) -> Result<HashSet<Owed>, EngineError> {
        let mut registered = HashSet::new();
        for partition in 0..self.engine().partitions() {
            registered.extend(self.engine().owed(partition).await?);
        }
        Ok(registered)
    }
}
