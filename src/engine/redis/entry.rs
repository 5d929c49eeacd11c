//! Whether the server accepts a client that reconnects. fred retries for ever, and its callers see timeouts only; the
//! reason (`WRONGPASS`) is kept here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fred::interfaces::EventInterface;
use fred::prelude::Client;
use tokio::sync::broadcast::error::RecvError;

use crate::engine::{EngineError, Refusal};
use crate::telemetry::warn_seldom;

/// Why the server rejects connections; `None` while it accepts them or cannot be reached. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Entry(Arc<Mutex<Option<Refusal>>>);

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why, at the moment.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().clone()
    }

    /// Follows the connections of `client` as long as it lives.
    pub(super) fn watch(&self, client: &Client) {
        let (mut errors, mut connected) = (client.error_rx(), client.reconnect_rx());
        let entry = self.clone();
        tokio::spawn(async move {
            loop {
                let refusal = tokio::select! {
                    error = errors.recv() => match error {
                        Ok((error, _server)) => Refusal::read(error.details()),
                        Err(RecvError::Lagged(_)) => continue,
                        Err(RecvError::Closed) => return,
                    },
                    server = connected.recv() => match server {
                        Ok(_) | Err(RecvError::Lagged(_)) => None,
                        Err(RecvError::Closed) => return,
                    },
                };
                if let Some(reason) = &refusal {
                    warn_seldom!(%reason, "redis refuses the connection; trying again");
                }
                *entry.lock() = refusal;
            }
        });
    }

    /// Replaces a timeout by the reason, where connections are rejected.
    pub(super) fn explain(&self, error: EngineError) -> EngineError {
        match (&error, self.refusal()) {
            (EngineError::Unavailable(_), Some(refusal)) => EngineError::Refused(refusal),
            _ => error,
        }
    }
}
