//! Whether this node can do its work, shown by sending a canary through the channels that carry it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Hub;
use crate::engine::Engine;

/// How long a canary may take. Readiness is asked about every few seconds, so late is as good as lost.
const CANARY_WITHIN: Duration = Duration::from_secs(1);

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// What is wrong, if anything.
    pub failure: Option<String>,
}

/// Canaries on their way.
#[derive(Default)]
pub(crate) struct Canaries {
    last: AtomicU64,
    flying: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Hub {
    /// Sends a canary every heartbeat, for ever. When the engine answers and two in a row do not come back,
    /// the connection that carries messages is opened anew: it looks alive and is not.
    pub(crate) async fn keep_hearing(&self) {
        let mut lost = 0;
        loop {
            tokio::time::sleep(self.lease().heartbeat()).await;
            let sent_at = Instant::now();
            let [engine, canary] = self.0.canaries.check(self.engine()).await;
            match (engine.failure, canary.failure) {
                (Some(_), _) => lost = 0,
                (None, None) => {
                    lost = 0;
                    self.metrics()
                        .canary_lag_seconds
                        .set(sent_at.elapsed().as_secs_f64());
                }
                (None, Some(_)) => lost += 1,
            }
            if lost >= 2 {
                lost = 0;
                tracing::warn!("nothing arrives over the subscribing connection; opening it anew");
                self.engine().reconnect_messages().await;
            }
        }
    }
}

impl Canaries {
    fn flying(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A canary came back.
    pub(crate) fn landed(&self, nonce: u64) {
        if let Some(sender) = self.flying().remove(&nonce) {
            // Whoever sent it may have given up.
            let _ = sender.send(());
        }
    }

    /// Asks the engine, and whether what it publishes arrives.
    pub(crate) async fn check(&self, engine: &Engine) -> [Check; 2] {
        let nonce = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, landed) = oneshot::channel();
        self.flying().insert(nonce, sender);
        let sent = tokio::time::timeout(CANARY_WITHIN, engine.send_canary(nonce)).await;
        let engine_failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not send a canary");
                Some("cannot be reached".to_owned())
            }
            Err(_) => Some("did not answer within a second".to_owned()),
        };
        let canary_failure = match &engine_failure {
            Some(_) => Some("could not be sent".to_owned()),
            None => match tokio::time::timeout(CANARY_WITHIN, landed).await {
                Ok(_) => None,
                Err(_) => Some("did not come back within a second".to_owned()),
            },
        };
        self.flying().remove(&nonce);
        [
            Check {
                name: "engine",
                failure: engine_failure,
            },
            Check {
                name: "canary",
                failure: canary_failure,
            },
        ]
    }
}
