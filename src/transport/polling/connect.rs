//! Connects the library's handlers with the hub's connections.
//!
//! The library runs the future of each handler in a task of its own, so two events sent together may swap. It calls the
//! handlers in order, so they queue events in the call.

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::TryData;
use socketioxide::handler::{
    ConnectHandler, DisconnectHandler, FromConnectParts, MessageHandler, Value,
};
use socketioxide::socket::{DisconnectReason, Socket};

use super::PollingSessions;
use super::sink::{PollingSink, until_ended};
use crate::telemetry::EndedBecause;
use crate::transport::protocol::Namespace;
use crate::transport::session::SessionContext;
use crate::transport::session::admission::{ConnectError, ConnectRequest};
use crate::transport::session::engine_session::{EngineSession, NamespaceHandle};
use crate::transport::session::inbound::InboundQueue;
use crate::transport::session::outbound::Outbound;
use crate::transport::session::sink::Sink;

/// The socket of a CONNECT. The library's own extractor keeps it private.
pub(super) struct Connecting(Arc<Socket<LocalAdapter>>);

impl FromConnectParts<LocalAdapter> for Connecting {
    type Error = Infallible;

    fn from_connect_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        _: &Option<Value>,
    ) -> Result<Self, Infallible> {
        Ok(Self(socket.clone()))
    }
}

/// Admits a connection to `namespace`.
pub(super) async fn admit(
    context: Arc<SessionContext>,
    sessions: Arc<PollingSessions>,
    Connecting(socket): Connecting,
    TryData(auth): TryData<Box<RawValue>>,
    namespace: Namespace,
) -> Result<(), ConnectError> {
    // The request that opened the session brings it, and the library keeps the request.
    let session = socket.req_parts().extensions.get::<Arc<EngineSession>>();
    let Some(session) = session.cloned() else {
        // Every request that opens a session gets one. Without it, the library ends the session in time.
        until_ended(&socket).await;
        return Err(ConnectError::Ended);
    };
    let handle = NamespaceHandle { session, namespace };
    let sink = Arc::new(PollingSink::new(socket, sessions));
    context
        .admit(ConnectRequest::new(sink, handle, auth.ok()))
        .await
}

/// Kept with a socket from its admission until the client learns that it is connected. It must not refer to the socket:
/// where the library cannot answer the CONNECT, nothing but the end of the socket ends the connection.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) sessions: Arc<PollingSessions>,
    pub(super) outbound: Arc<Outbound>,
}

/// Opens the outbound side once the client knows that it is connected. A handler type of our own, because the library
/// runs closures in a task of their own, and the next update may be faster.
#[derive(Clone)]
pub(super) struct OnConnected;

impl ConnectHandler<LocalAdapter, Self> for OnConnected {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, _auth: Option<Value>) {
        if let Some(Admitted { sessions, outbound }) = socket.extensions.remove() {
            outbound.connected(Arc::new(PollingSink::new(socket, sessions)));
        }
    }
}

/// Takes the events of a connection, and its end.
#[derive(Clone)]
pub(super) struct SocketHandler {
    pub(super) inbound: InboundQueue,
    pub(super) sessions: Arc<PollingSessions>,
}

impl MessageHandler<LocalAdapter, Self> for SocketHandler {
    fn call(&self, _socket: Arc<Socket<LocalAdapter>>, value: Value, ack: Option<i64>) {
        match &value {
            Value::Str(text, binary) => self.inbound.receive(text, binary.is_some(), ack),
            Value::Bytes(_) => self.inbound.receive("", true, ack),
        }
    }
}

impl DisconnectHandler<LocalAdapter, Self> for SocketHandler {
    /// Runs `defer`, which takes the socket out of its namespace, at once: the library would otherwise ignore the next
    /// CONNECT over the same session, and never answer it.
    fn call_with_defer(
        &self,
        socket: Arc<Socket<LocalAdapter>>,
        reason: DisconnectReason,
        defer: fn(Arc<Socket<LocalAdapter>>),
    ) {
        let open: Option<Arc<dyn Sink>> = match reason {
            DisconnectReason::ClientNSDisconnect | DisconnectReason::ServerNSDisconnect => Some(
                Arc::new(PollingSink::new(socket.clone(), self.sessions.clone())),
            ),
            _ => {
                self.sessions.forget(socket.id.as_str());
                None
            }
        };
        self.inbound.end(because(reason), open);
        defer(socket);
    }
}

/// Why a connection ended, for the metrics.
fn because(reason: DisconnectReason) -> EndedBecause {
    match reason {
        DisconnectReason::ClientNSDisconnect => EndedBecause::Client,
        DisconnectReason::ServerNSDisconnect | DisconnectReason::ClosingServer => EndedBecause::Hub,
        DisconnectReason::TransportClose => EndedBecause::Transport,
        DisconnectReason::HeartbeatTimeout => EndedBecause::PingTimeout,
        DisconnectReason::TransportError
        | DisconnectReason::MultipleHttpPollingError
        | DisconnectReason::PacketParsingError => EndedBecause::Error,
    }
}
