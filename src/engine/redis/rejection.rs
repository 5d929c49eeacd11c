//! Records why a server rejects connections. fred retries forever and its callers see only timeouts, so the reason
//! (`WRONGPASS`) is kept here.

use std::sync::Arc;

use fred::interfaces::EventInterface;
use fred::prelude::Client;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;

use crate::engine::{EngineError, ErrorReply};
use crate::telemetry::warn_seldom;

/// Why the server rejects connections; `None` while it accepts them or is unreachable. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct LastRejection(Arc<Mutex<Option<ErrorReply>>>);

/// Why the server rejects a connection; `None` for a temporary state such as `LOADING`.
fn lasting_rejection(details: &str) -> Option<ErrorReply> {
    ErrorReply::read(details).filter(|refusal| !matches!(refusal, ErrorReply::Other(_)))
}

impl LastRejection {
    pub(super) fn refusal(&self) -> Option<ErrorReply> {
        self.0.lock().clone()
    }

    /// Tracks the connections of `client` while it exists.
    pub(super) fn watch(&self, client: &Client) {
        let (mut errors, mut connected) = (client.error_rx(), client.reconnect_rx());
        let last = self.clone();
        tokio::spawn(async move {
            loop {
                let refusal = tokio::select! {
                    error = errors.recv() => match error {
                        Ok((error, _server)) => lasting_rejection(error.details()),
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
                *last.0.lock() = refusal;
            }
            // Without the client the reason no longer applies.
            *last.0.lock() = None;
        });
    }

    /// Replaces a timeout by the reason for it.
    pub(super) fn explain(&self, error: EngineError) -> EngineError {
        match (&error, self.refusal()) {
            (EngineError::Unavailable(_), Some(refusal)) => EngineError::Refused(refusal),
            _ => error,
        }
    }
}
