//! Holds a CONNECT that cannot be answered yet: while the engine is away, or while the user or the address has as many
//! connections as allowed. The longest is `limits.handshake`; then the transport is closed, and the official client
//! comes back with its own backoff. It would not after a CONNECT_ERROR.

use std::sync::Arc;
use std::time::Duration;

use serde::ser::{Error, Serialize, Serializer};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError};
use tokio::time::Instant;

use super::Sockets;
use super::gate::{Obstacle, Request};
use super::sink::Sink;
use crate::transport::protocol::ConnectErrorCode;

/// Pauses between two attempts: the first, and the longest. Each doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a held session is checked for its end. The library reports the end of admitted connections only.
const END_CHECK: Duration = Duration::from_millis(100);

impl Sockets {
    /// Tries to admit a connection until that succeeds, or is refused for good with a code. The token is verified with
    /// each attempt, as it may expire in between.
    ///
    /// # Errors
    /// When the connection cannot be admitted in time, or not on this node. It says why.
    pub(super) async fn hold(
        self: &Arc<Self>,
        request: &mut Request,
    ) -> Result<Option<ConnectErrorCode>, String> {
        let deadline = Instant::now() + self.limits.get().handshake;
        let sink = request.sink.clone();
        let carrier = request.place.carrier.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(reason) = self.pointless(&sink) {
                return Err(reason.to_owned());
            }
            let obstacle = {
                let mut attempt = std::pin::pin!(self.clone().try_admit(request));
                let outcome = tokio::select! {
                    outcome = &mut attempt => outcome,
                    () = tokio::time::sleep_until(deadline) => {
                        self.transports.close(&sink, &carrier);
                        // Not cut off: it may have registered the connection already.
                        attempt.await
                    }
                };
                match outcome {
                    Ok(()) => return Ok(None),
                    Err(Obstacle::Final(code)) => return Ok(Some(code)),
                    Err(obstacle) => obstacle,
                }
            };
            tracing::debug!(reason = %obstacle, "holds a connection that cannot be admitted yet");
            // Clients that were held together do not all ask again together.
            let next = Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0));
            pause = (pause * 2).min(LONGEST_PAUSE);
            if next >= deadline {
                return Err(obstacle.to_string());
            }
            while Instant::now() < next && self.pointless(&sink).is_none() {
                tokio::time::sleep_until(next.min(Instant::now() + END_CHECK)).await;
            }
        }
    }

    /// Why there is no point in admitting a connection over this session any more.
    fn pointless(&self, sink: &Sink) -> Option<&'static str> {
        if self.hub.is_draining() {
            return Some("the node is stopping");
        }
        has_ended(sink).then_some("the client has gone")
    }

    /// Closes the transport of a session, and waits until it has ended: from then on nothing reaches the client.
    pub(super) async fn end(&self, request: &Request) {
        while !has_ended(&request.sink) {
            self.transports.close(&request.sink, &request.place.carrier);
            tokio::time::sleep(END_CHECK).await;
        }
    }
}

/// Waits until the session of `socket` has ended.
pub(super) async fn until_ended(socket: &Arc<Socket<LocalAdapter>>) {
    while !has_library_ended(socket) {
        tokio::time::sleep(END_CHECK).await;
    }
}

/// Whether the session has ended.
fn has_ended(sink: &Sink) -> bool {
    match sink {
        Sink::WebSocket(session, _) => session.has_ended(),
        Sink::Polling(socket) => has_library_ended(socket),
    }
}

/// Whether the session of `socket` has ended. The library says so only to those who send, so this asks for room in its
/// queue, for something that cannot be encoded and therefore is never sent.
fn has_library_ended(socket: &Arc<Socket<LocalAdapter>>) -> bool {
    let mut nothing = Value::Str(Default::default(), None);
    match AckSender::from_message_parts(socket, &mut nothing, &Some(0)) {
        Ok(sender) => matches!(
            sender.send(&Unsendable),
            Err(SendError::Socket(SocketError::Closed))
        ),
        Err(never) => match never {},
    }
}

struct Unsendable;

impl Serialize for Unsendable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it is never sent"))
    }
}
