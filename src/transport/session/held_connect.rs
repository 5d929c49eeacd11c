//! Holds a CONNECT that cannot be answered yet: while the engine is away, or while the user or the address has as many
//! connections as allowed. After `limits.handshake` the transport is closed, and the official client comes back with its
//! own backoff. It would not come back after a CONNECT_ERROR.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::SessionContext;
use super::admission::{ConnectRequest, Obstacle};
use super::sink::Sink;
use crate::transport::protocol::ConnectErrorCode;

/// The first and the longest pause between two attempts. Each pause doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a held session is checked for its end. The library reports the end of admitted connections only.
pub(crate) const END_CHECK: Duration = Duration::from_millis(100);

impl SessionContext {
    /// Tries to admit a connection until that succeeds, or is refused for good with a code. Each attempt verifies the
    /// token again, because it may expire in between.
    ///
    /// # Errors
    /// The reason why the connection cannot be admitted in time, or not on this node.
    pub(super) async fn hold(
        self: &Arc<Self>,
        request: &mut ConnectRequest,
    ) -> Result<Option<ConnectErrorCode>, String> {
        let deadline = Instant::now() + self.limits.get().handshake;
        let sink = request.sink.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(reason) = self.pointless(&*sink) {
                return Err(reason.to_owned());
            }
            let outcome = {
                let mut attempt = std::pin::pin!(self.clone().try_admit(request));
                tokio::select! {
                    outcome = &mut attempt => outcome,
                    () = tokio::time::sleep_until(deadline) => {
                        sink.close();
                        // Not cancelled: it may have registered the connection already.
                        attempt.await
                    }
                }
            };
            let obstacle = match outcome {
                Ok(()) => return Ok(None),
                Err(Obstacle::Final(code)) => return Ok(Some(code)),
                Err(obstacle) => obstacle,
            };
            tracing::debug!(reason = %obstacle, "holds a connection that cannot be admitted yet");
            // Jitter, so that clients that were held together do not all try together.
            let next = Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
            pause = (pause * 2).min(LONGEST_PAUSE);
            if next >= deadline {
                return Err(obstacle.to_string());
            }
            while Instant::now() < next && self.pointless(&*sink).is_none() {
                tokio::time::sleep_until(next.min(Instant::now() + END_CHECK)).await;
            }
        }
    }

    /// Why there is no point in admitting a connection over this session any more.
    fn pointless(&self, sink: &dyn Sink) -> Option<&'static str> {
        if self.hub.is_draining() {
            return Some("the node is stopping");
        }
        sink.has_ended().then_some("the client has gone")
    }

    /// Closes the transport of a session, and waits until it has ended: from then on nothing reaches the client.
    pub(super) async fn end_session(&self, sink: &dyn Sink) {
        while !sink.has_ended() {
            sink.close();
            tokio::time::sleep(END_CHECK).await;
        }
    }
}
