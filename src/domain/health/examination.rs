//! Which commands the engine refuses, and whether it evicts data.

use parking_lot::Mutex;

use super::Check;
use crate::engine::{Engine, EngineError, Examination, KEEPS_EVERYTHING};

/// The result of the last examination.
#[derive(Default)]
pub(super) struct Examined(Mutex<Examination>);

impl Examined {
    /// Whether the engine carries out the commands that the hub needs, and keeps its data.
    pub(super) fn checks(&self) -> [Check; 2] {
        let last = self.0.lock();
        [
            Check::vital("commands", last.refused.clone()),
            Check::lesser("eviction", eviction(&last)),
        ]
    }

    /// Whether the engine refused a command.
    pub(super) fn is_refused(&self) -> bool {
        self.0.lock().refused.is_some()
    }

    /// Examines the engine once, and logs each finding that is new.
    pub(super) async fn examine(&self, engine: &Engine) -> Result<(), EngineError> {
        let found = engine.examine().await?;
        let mut last = self.0.lock();
        if found.refused != last.refused {
            match &found.refused {
                Some(reason) => tracing::error!(reason, "commands that the hub needs are refused"),
                None => tracing::info!("all commands that the hub needs are carried out again"),
            }
        }
        if let Some(problem) = eviction(&found).filter(|_| eviction(&last) != eviction(&found)) {
            tracing::warn!("{problem}");
        }
        *last = found;
        Ok(())
    }
}

/// What is wrong with the eviction policy, if anything.
fn eviction(examination: &Examination) -> Option<String> {
    let policy = examination.eviction_policy.as_deref()?;
    (policy != KEEPS_EVERYTHING).then(|| {
        format!(
            "maxmemory-policy is {policy}: redis drops presence, profiles and revocations when its memory is full; set \
             maxmemory-policy {KEEPS_EVERYTHING}"
        )
    })
}
