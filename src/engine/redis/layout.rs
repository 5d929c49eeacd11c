//! The layout of the data: the first node records it, the others compare it.

use super::{Redis, RedisOptions};
use crate::engine::{EngineError, OpenError};

/// Version of the key layout. A node that finds another refuses to start.
pub(super) const LAYOUT: u64 = 2;

impl Redis {
    pub(super) async fn recorded_layout(&self) -> Result<Option<(u64, u64)>, EngineError> {
        let fields = vec!["layout".to_owned(), "partitions".to_owned()];
        let (layout, partitions): (Option<u64>, Option<u64>) =
            self.servers.call("HMGET", self.keys.meta(), fields).await?;
        Ok(layout.zip(partitions))
    }

    /// Records the layout, or compares it with the recorded one.
    pub(super) async fn claim_layout(&self, options: &RedisOptions) -> Result<(), OpenError> {
        let args = vec![LAYOUT.to_string(), self.partitions().to_string()];
        let found: Result<(u64, u64), _> = self
            .scripts
            .claim
            .call(&self.servers, vec![self.keys.meta()], args)
            .await;
        match found {
            Ok(found) => check_layout(options, found),
            // The node starts anyway; `begin` compares again before the lease begins.
            Err(error) if self.is_partial(&error).await => {
                tracing::warn!(%error, "could not compare the layout of the data yet");
                Ok(())
            }
            Err(error) => Err(self.not_opened(error)),
        }
    }
}

/// Checks that the data has the layout of this version and these settings.
pub(super) fn check_layout(
    options: &RedisOptions,
    (found_layout, found_partitions): (u64, u64),
) -> Result<(), OpenError> {
    let partitions = u64::from(options.partitions);
    if (found_layout, found_partitions) == (LAYOUT, partitions) {
        return Ok(());
    }
    Err(OpenError::Disagreement {
        prefix: options.prefix.clone(),
        layout: LAYOUT,
        partitions,
        found_layout,
        found_partitions,
    })
}
