//! The namespaces that a WebSocket session has joined, and its packets.
//!
//! The session's task calls [`Receiver`] for each packet, in order. A CONNECT is admitted in a task of its own, at most
//! one at a time for each namespace.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::socket::Sid;

use super::engine_packet;
use super::session::{PacketHandler, SessionEnd, SessionOptions, run_session};
use super::socket_packet::{self, Content, SocketPacket, event_name};
use super::writer::FrameWriter;
use crate::telemetry::{EndedBecause, Transport};
use crate::transport::listener::{Meter, Peer, Stream, TcpConn};
use crate::transport::protocol::Namespace;
use crate::transport::session::SessionContext;
use crate::transport::session::admission::{ConnectError, ConnectRequest};
use crate::transport::session::encoded_events::Event;
use crate::transport::session::engine_session::{EngineSession, NamespaceHandle};
use crate::transport::session::inbound::InboundQueue;
use crate::transport::session::outbound::Outbound;
use crate::transport::session::sink::{Backlog, Flush, Outgoing, SendOutcome, Sink};

/// The message of the CONNECT_ERROR for a namespace that does not exist, as Socket.IO servers word it.
const INVALID_NAMESPACE: &str = "Invalid namespace";

/// The payload that a CONNECT without one stands for.
const EMPTY: &str = "{}";

/// One session that began as a WebSocket.
struct WebSocketSession {
    sid: Sid,
    session: Arc<EngineSession>,
    writer: FrameWriter<Arc<TcpConn>>,
    namespaces: Mutex<Namespaces>,
}

#[derive(Default)]
struct Namespaces {
    has_ended: bool,
    states: [NamespaceState; Namespace::ALL.len()],
}

#[derive(Default)]
enum NamespaceState {
    #[default]
    Left,
    /// Its CONNECT is not answered yet.
    Joining,
    Joined(InboundQueue),
}

impl NamespaceState {
    fn take_joined(&mut self) -> Option<InboundQueue> {
        match std::mem::take(self) {
            Self::Joined(inbound) => Some(inbound),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl WebSocketSession {
    /// The inbound queue of a namespace that the session has joined.
    fn inbound(&self, namespace: Namespace) -> Option<InboundQueue> {
        match &self.namespaces.lock().states[namespace.index()] {
            NamespaceState::Joined(inbound) => Some(inbound.clone()),
            NamespaceState::Left | NamespaceState::Joining => None,
        }
    }

    /// Begins to join a namespace. Returns `false` if it is joined already, or about to be.
    fn begin_join(&self, namespace: Namespace) -> bool {
        let state = &mut self.namespaces.lock().states[namespace.index()];
        let may_join = matches!(state, NamespaceState::Left);
        if may_join {
            *state = NamespaceState::Joining;
        }
        may_join
    }

    /// Refuses a CONNECT.
    fn refuse(&self, namespace: Namespace, message: &str) {
        self.namespaces.lock().states[namespace.index()] = NamespaceState::Left;
        let refusal = socket_packet::connect_error(namespace.name(), message, None);
        self.writer.send(&refusal);
    }

    /// Ends the connection in a namespace; the session stays open. Returns whether there was one.
    fn leave(self: &Arc<Self>, namespace: Namespace, because: EndedBecause) -> bool {
        let left = self.namespaces.lock().states[namespace.index()].take_joined();
        let Some(inbound) = left else {
            return false;
        };
        inbound.end(because, Some(self.sink(namespace)));
        true
    }

    fn end(&self, because: EndedBecause) {
        self.session.end();
        let mut states = {
            let mut namespaces = self.namespaces.lock();
            namespaces.has_ended = true;
            std::mem::take(&mut namespaces.states)
        };
        for inbound in states.iter_mut().filter_map(NamespaceState::take_joined) {
            inbound.end(because, None);
        }
    }

    fn sink(self: &Arc<Self>, namespace: Namespace) -> Arc<WebSocketSink> {
        Arc::new(WebSocketSink {
            session: self.clone(),
            namespace,
        })
    }
}

/// Writes frames from the thread that sends.
struct WebSocketSink {
    session: Arc<WebSocketSession>,
    namespace: Namespace,
}

impl WebSocketSink {
    fn write(&self, frame: &Bytes, flush: Flush) -> SendOutcome {
        match flush {
            Flush::Now => self.session.writer.send(frame),
            Flush::Later => self.session.writer.push(frame),
        }
    }
}

impl Sink for WebSocketSink {
    fn sid(&self) -> String {
        self.session.sid.to_string()
    }

    fn attach(self: Arc<Self>, inbound: InboundQueue, outbound: Arc<Outbound>) {
        let ended = {
            let mut namespaces = self.session.namespaces.lock();
            if namespaces.has_ended {
                Some(inbound)
            } else {
                namespaces.states[self.namespace.index()] = NamespaceState::Joined(inbound);
                None
            }
        };
        if let Some(inbound) = ended {
            inbound.end(EndedBecause::Transport, None);
        } else {
            // Not the session's own id, so that a client which shows its connection id gives nobody its session.
            let connected = socket_packet::connect(self.namespace.name(), Sid::new().as_str());
            self.session.writer.send(&connected);
        }
        outbound.connected(self);
    }

    fn send(&self, outgoing: &Outgoing, flush: Flush) -> SendOutcome {
        let name = self.namespace.name();
        match outgoing {
            Outgoing::Events(events) => self.write(events.frames(self.namespace, frame_of), flush),
            Outgoing::Ack { id, body } => {
                self.write(&socket_packet::acknowledgement(name, *id, body), flush)
            }
            Outgoing::Disconnect => {
                let outcome = self.write(&socket_packet::disconnect(name), flush);
                self.session.leave(self.namespace, EndedBecause::Hub);
                outcome
            }
        }
    }

    fn flush(&self) -> Backlog {
        self.session.writer.flush();
        self.session.writer.backlog()
    }

    fn close(&self) {
        self.session.writer.abort();
    }

    fn has_ended(&self) -> bool {
        self.session.namespaces.lock().has_ended
    }
}

fn frame_of(namespace: Namespace, event: &Event) -> Bytes {
    socket_packet::event(namespace.name(), &event.name, event.payload.as_deref())
}

/// Opens the session of a request, once the answer to the request is written. The caller has counted it as pending.
pub(crate) async fn open(
    context: Arc<SessionContext>,
    upgrade: OnUpgrade,
    peer: Peer,
    address: IpAddr,
    opened: Instant,
) {
    let Ok(upgraded) = upgrade.await else {
        // The client has gone before the answer was written.
        return;
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() else {
        tracing::error!("a WebSocket does not come from the listener; it is closed");
        return peer.close();
    };
    // A copy, most often of nothing: the buffer itself holds the whole request.
    let unread = parts.read_buf.to_vec();
    let (connection, meter) = parts.io.into_inner().into_session();
    let engine_session = EngineSession::new(Transport::WebSocket, address, opened);
    let session = Arc::new(WebSocketSession {
        sid: Sid::new(),
        session: Arc::new(engine_session),
        writer: FrameWriter::new(connection, context.limits.clone()),
        namespaces: Mutex::default(),
    });
    let open = engine_packet::open(session.sid.as_str(), context.message_len_max);
    session.writer.send(&open);
    let join_timeout = context.join_timeout;
    tokio::spawn(close_unless_joined(Arc::downgrade(&session), join_timeout));
    // A task of its own: it needs far less memory than this one.
    tokio::spawn(serve(session, context, meter, unread));
}

/// Serves a session to its end.
async fn serve(
    session: Arc<WebSocketSession>,
    context: Arc<SessionContext>,
    meter: Option<Meter>,
    unread: Vec<u8>,
) {
    let mut ending = EndOnDrop {
        session: session.clone(),
        context: context.clone(),
        because: EndedBecause::Error,
    };
    let options = SessionOptions::new(context.message_len_max);
    let receiver = Receiver {
        session: session.clone(),
        context,
        meter,
    };
    let end = run_session(&session.writer, &unread, receiver, &options).await;
    tracing::debug!(reason = ?end, peer = %session.session.address, "a WebSocket session ended");
    ending.because = because(end);
}

/// Closes a session that joins no namespace within `join_timeout`. A task of its own, so that sessions which have joined
/// keep no timer for it.
async fn close_unless_joined(session: Weak<WebSocketSession>, join_timeout: Duration) {
    tokio::time::sleep(join_timeout).await;
    if let Some(session) = session.upgrade()
        && !session.session.has_joined()
    {
        session.writer.abort();
    }
}

/// Ends a session for everybody who knows it, however its task ends.
struct EndOnDrop {
    session: Arc<WebSocketSession>,
    context: Arc<SessionContext>,
    because: EndedBecause,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.session.end(self.because);
        self.context.idle.forget(self.session.sid.as_str());
    }
}

/// Why the connections of a session ended, for the metrics.
fn because(end: SessionEnd) -> EndedBecause {
    match end {
        SessionEnd::Client
        | SessionEnd::Node
        | SessionEnd::Transport
        | SessionEnd::SlowConsumer => EndedBecause::Transport,
        SessionEnd::PingTimeout => EndedBecause::PingTimeout,
        SessionEnd::Fault(_) | SessionEnd::BadPacket => EndedBecause::Error,
    }
}

/// Takes the packets of a session.
struct Receiver {
    session: Arc<WebSocketSession>,
    context: Arc<SessionContext>,
    meter: Option<Meter>,
}

impl PacketHandler for Receiver {
    fn on_bytes(&mut self, count: usize) -> io::Result<()> {
        match &mut self.meter {
            Some(meter) => meter.take_frames(count),
            None => Ok(()),
        }
    }

    fn on_packet(&mut self, packet: SocketPacket<'_>) -> ControlFlow<()> {
        let Some(namespace) = Namespace::by_name(packet.namespace) else {
            if let Content::Connect(_) = packet.content {
                let refusal =
                    socket_packet::connect_error(packet.namespace, INVALID_NAMESPACE, None);
                self.session.writer.send(&refusal);
            }
            return ControlFlow::Continue(());
        };
        let is_valid = match packet.content {
            Content::Connect(payload) => {
                self.connect(namespace, payload);
                true
            }
            Content::Disconnect => self.session.leave(namespace, EndedBecause::Client),
            Content::Event {
                ack,
                payload,
                attachments,
            } => self.receive(namespace, payload, attachments > 0, ack),
            // The node sends no event that asks for an acknowledgement.
            Content::Ack { .. } => self.session.inbound(namespace).is_some(),
        };
        if is_valid {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

impl Receiver {
    /// Takes an event. Returns whether it is one, of a namespace that was joined.
    fn receive(
        &self,
        namespace: Namespace,
        payload: &str,
        has_binary: bool,
        ack: Option<i64>,
    ) -> bool {
        let Some(inbound) = self.session.inbound(namespace) else {
            return false;
        };
        let is_event = event_name(payload).is_some();
        if is_event {
            inbound.receive(payload, has_binary, ack);
        }
        is_event
    }

    /// Admits a connection. A CONNECT that comes while another is held, or after it, is ignored.
    fn connect(&self, namespace: Namespace, payload: &str) {
        if !self.session.begin_join(namespace) {
            return;
        }
        let payload = if payload.is_empty() { EMPTY } else { payload };
        let auth = serde_json::from_str::<Box<RawValue>>(payload).ok();
        let (session, context) = (self.session.clone(), self.context.clone());
        tokio::spawn(async move {
            let handle = NamespaceHandle {
                session: session.session.clone(),
                namespace,
            };
            let request = ConnectRequest::new(session.sink(namespace), handle, auth);
            match context.admit(request).await {
                Ok(()) | Err(ConnectError::Ended) => {}
                Err(ConnectError::Final(code)) => session.refuse(namespace, &code.to_string()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::session::encoded_events::EncodedEvents;

    fn payload(events: &EncodedEvents, namespace: Namespace) -> &str {
        let frames = events.frames(namespace, frame_of);
        std::str::from_utf8(&frames[2..]).expect("text")
    }

    #[test]
    fn frames_are_what_the_official_client_reads() {
        let events = EncodedEvents::new("a \"name\"", &[1, 2]).expect("JSON");
        assert_eq!(
            payload(&events, Namespace::Root),
            r#"42["a \"name\"",[1,2]]"#
        );
        assert_eq!(
            payload(&events, Namespace::SocketIo),
            r#"42/socket.io/,["a \"name\"",[1,2]]"#
        );
        let bare = EncodedEvents::bare("x");
        assert_eq!(payload(&bare, Namespace::Root), r#"42["x"]"#);
    }

    #[test]
    fn several_events_are_several_frames() {
        let frames_of = |names: &[&'static str]| {
            let events = names
                .iter()
                .map(|name| Event::new(*name, &1).expect("JSON"));
            let events = EncodedEvents::of(events.collect());
            events.frames(Namespace::Root, frame_of).clone()
        };
        let both = [frames_of(&["x"]), frames_of(&["y"])].concat();
        assert_eq!(frames_of(&["x", "y"]), both);
    }
}
