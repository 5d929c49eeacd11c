//! The layout of the data: the first node records it, the others compare.

use super::{Options, Redis};
use crate::engine::{EngineError, OpenError};

/// Version of the keys' layout. A node that finds another one refuses to start.
pub(super) const LAYOUT: u64 = 1;

impl Redis {
    pub(super) async fn recorded_layout(&self) -> Result<Option<(u64, u64)>, EngineError> {
        let fields = vec!["layout".to_owned(), "partitions".to_owned()];
        let (layout, partitions): (Option<u64>, Option<u64>) =
            self.servers.call("HMGET", self.keys.meta(), fields).await?;
        Ok(layout.zip(partitions))
    }

    /// Records the layout, or compares with the one that is recorded.
    pub(super) async fn claim_layout(&self, options: &Options) -> Result<(), OpenError> {
        let args = vec![LAYOUT.to_string(), self.partitions.to_string()];
        let found: Result<(u64, u64), _> = self
            .scripts
            .claim
            .call(&self.servers, vec![self.keys.meta()], args)
            .await;
        match found {
            Ok(found) => check_layout(options, found),
            // The node begins without; `begin` compares before the lease begins.
            Err(error) if self.is_partial(&error).await => {
                tracing::warn!(%error, "the layout of the data could not be compared yet");
                Ok(())
            }
            Err(error) => Err(self.not_opened(error)),
        }
    }
}

/// Whether the data has the layout that this version and these settings need.
pub(super) fn check_layout(
    options: &Options,
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
