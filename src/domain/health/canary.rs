//! Sends a message through the engine back to this node, and waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Check;
use crate::engine::{Engine, EngineError, ErrorReply};

/// Timeout of a canary. Load balancers probe readiness every few seconds, so late is as good as lost.
pub(super) const CANARY_WITHIN: Duration = Duration::from_secs(1);

/// Name of the check that the canary came back.
pub(super) const CANARY: &str = "canary";

/// Canaries in flight.
#[derive(Default)]
pub(super) struct Canaries {
    last: AtomicU64,
    /// The engine refused the last canary for a reason that a new connection would not change.
    refused: AtomicBool,
    flying: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// Whether a new connection would get the same error. After `READONLY` it would not: Sentinel names the new primary. A
/// server in `MISCONF` rejects even the `PING` of a new connection.
fn stays_on_a_new_connection(refusal: &ErrorReply) -> bool {
    match refusal {
        ErrorReply::NoPermission(_)
        | ErrorReply::OutOfMemory
        | ErrorReply::Misconfigured
        | ErrorReply::Unauthenticated(_) => true,
        ErrorReply::ReadOnly | ErrorReply::Other(_) => false,
    }
}

/// One canary in flight; dropping it deregisters the canary.
struct Flight<'a> {
    canaries: &'a Canaries,
    nonce: u64,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.canaries.flying.lock().remove(&self.nonce);
    }
}

impl Canaries {
    pub(super) fn landed(&self, nonce: u64) {
        if let Some(sender) = self.flying.lock().remove(&nonce) {
            // The check may have timed out.
            let _ = sender.send(());
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Checks that the engine answers, and that what it publishes arrives.
    pub(super) async fn check(&self, engine: &Engine) -> [Check; 2] {
        let nonce = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, landed) = oneshot::channel();
        self.flying.lock().insert(nonce, sender);
        let _flight = Flight {
            canaries: self,
            nonce,
        };
        let sent = tokio::time::timeout(CANARY_WITHIN, engine.send_canary(nonce)).await;
        let refused = match &sent {
            Ok(Ok(())) => None,
            Ok(Err(EngineError::Refused(refusal))) => Some(refusal.clone()),
            Ok(Err(_)) | Err(_) => engine.refusal(),
        };
        let is_final = refused.as_ref().is_some_and(stays_on_a_new_connection);
        self.refused.store(is_final, Ordering::Relaxed);
        let engine_failure = match (sent, refused) {
            (Ok(Ok(())), _) => None,
            (_, Some(refusal)) => Some(format!("refuses: {refusal}")),
            (Ok(Err(EngineError::Unavailable(_))), None) => Some("cannot be reached".to_owned()),
            (Ok(Err(error)), None) => Some(error.to_string()),
            (Err(_), None) => Some("did not answer within a second".to_owned()),
        };
        let canary_failure = match &engine_failure {
            Some(_) => Some("could not be sent".to_owned()),
            None => match tokio::time::timeout(CANARY_WITHIN, landed).await {
                Ok(_) => None,
                Err(_) => Some("did not come back within a second".to_owned()),
            },
        };
        [
            Check::vital(engine.name(), engine_failure),
            Check::vital(CANARY, canary_failure),
        ]
    }
}
