//! Whether the server accepts a client that reconnects. fred retries for ever, and its callers see timeouts only; the
//! reason (`WRONGPASS`) is kept here.

use std::sync::Arc;

use fred::interfaces::EventInterface;
use fred::prelude::Client;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast::error::RecvError;

use crate::engine::{EngineError, Refusal};
use crate::telemetry::warn_seldom;

/// Why the server rejects connections; `None` while it accepts them or cannot be reached. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Entry(Arc<Mutex<Option<Refusal>>>);

/// Why the server rejects a connection; `None` for a state that passes by itself, such as `LOADING`.
fn rejection(details: &str) -> Option<Refusal> {
    Refusal::read(details).filter(|refusal| !matches!(refusal, Refusal::Other(_)))
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.0.lock()
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
                        Ok((error, _server)) => rejection(error.details()),
                        Err(RecvError::Lagged(_)) => continue,
                        Err(RecvError::Closed) => break,
                    },
                    server = connected.recv() => match server {
                        Ok(_) | Err(RecvError::Lagged(_)) => None,
                        Err(RecvError::Closed) => break,
                    },
                };
                if let Some(reason) = &refusal {
                    warn_seldom!(%reason, "redis refuses the connection; trying again");
                }
                *entry.lock() = refusal;
            }
            // The client is gone, and the reason with it.
            *entry.lock() = None;
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
