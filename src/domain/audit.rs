//! Compares what the engine says this node holds with what it does hold: now and then, and whenever everything was
//! registered again, because the engine may have come back with old data.

use std::collections::HashSet;
use std::time::Duration;

use super::Hub;
use crate::engine::EngineError;
use crate::ids::{ConnectionId, UserId};
use crate::telemetry::warn_seldom;

type Owed = (UserId, ConnectionId);

impl Hub {
    /// Audits every `interval`, for ever.
    pub(crate) async fn keep_audited(&self, interval: Duration) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.lease().registered_again() => {}
            }
            for partition in 0..self.engine().partitions() {
                if let Err(error) = self.audit(partition).await {
                    warn_seldom!(partition, %error, "could not audit; trying again");
                }
            }
        }
    }

    async fn audit(&self, partition: u32) -> Result<(), EngineError> {
        let registered: HashSet<Owed> = self.engine().owed(partition).await?.into_iter().collect();
        let forgotten: Vec<Owed> = self
            .topics()
            .own_connections(Some(partition))
            .into_iter()
            .filter(|own| !registered.contains(own))
            .collect();
        // A connection is a user's own before it is registered, so those that are none by now have ended.
        let ended: Vec<Owed> = registered
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
        if !ended.is_empty() {
            tracing::warn!(
                count = ended.len(),
                "closed connections were still registered; releasing them"
            );
        }
        for (user, connection) in ended {
            self.presence().release(user, connection);
        }
        Ok(())
    }
}
