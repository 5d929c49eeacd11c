//! Which commands the engine refuses, and whether it evicts data.

use parking_lot::Mutex;

use super::Check;
use crate::engine::{Engine, EngineError, Examination, NOEVICTION};

#[derive(Default)]
pub(super) struct Examined(Mutex<Examination>);

impl Examined {
    /// Whether the engine accepts the commands that the hub needs, and keeps its data.
    pub(super) fn checks(&self) -> [Check; 2] {
        let last = self.0.lock();
        [
            Check {
                name: "commands",
                failure: last.refused.clone(),
                // Users whose partitions are on other servers can be served.
                is_vital: !last.is_partial,
            },
            Check::lesser("eviction", eviction(&last)),
        ]
    }

    pub(super) fn is_refused(&self) -> bool {
        self.0.lock().refused.is_some()
    }

    /// Examines the engine, and logs findings that are new.
    pub(super) async fn examine(&self, engine: &Engine) -> Result<(), EngineError> {
        let found = engine.examine().await?;
        let mut last = self.0.lock();
        if found.refused != last.refused {
            match &found.refused {
                Some(reason) => tracing::error!(reason, "commands that the hub needs are refused"),
                None => tracing::info!("all commands that the hub needs are accepted again"),
            }
        }
        if let Some(problem) = eviction(&found).filter(|_| eviction(&last) != eviction(&found)) {
            tracing::warn!("{problem}");
        }
        *last = found;
        Ok(())
    }
}

fn eviction(examination: &Examination) -> Option<String> {
    let policy = examination.eviction_policy.as_deref()?;
    (policy != NOEVICTION).then(|| {
        format!(
            "maxmemory-policy is {policy}: redis drops presence, profiles and revocations when its memory is full; set \
             maxmemory-policy {NOEVICTION}"
        )
    })
}
