//! Sessions that begin as a WebSocket: which namespaces each has joined, and what becomes of the packets that it sends.
//!
//! The session's task calls [`Receiver`] for each packet, in order. A CONNECT is admitted in a task of its own, at most
//! one at a time for each namespace.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use socketioxide::socket::Sid;

use super::carrier::{Carrier, Place, Writer};
use super::gate::{Refusal, Request};
use super::inbox::Inbox;
use super::sink::Sink;
use super::{NAMESPACES, Namespace, Sockets};
use crate::telemetry::EndedBecause;
use crate::transport::listener::{Meter, Peer, Stream};
use crate::transport::websocket::engine_packet;
use crate::transport::websocket::session::{Handler, SessionEnd, SessionOptions, run_session};
use crate::transport::websocket::socket_packet::{self, Content, SocketPacket, event_name};
use crate::transport::websocket::writer::FrameWriter;

/// The message of the CONNECT_ERROR for a namespace that does not exist, as Socket.IO servers word it.
const INVALID_NAMESPACE: &str = "Invalid namespace";

/// A payload that a CONNECT without one stands for.
const EMPTY: &str = "{}";

/// One session that began as a WebSocket.
pub(super) struct WebSocketSession {
    pub(super) sid: Sid,
    carrier: Arc<Carrier>,
    writer: Arc<Writer>,
    namespaces: Mutex<Namespaces>,
}

#[derive(Default)]
struct Namespaces {
    has_ended: bool,
    slots: [Slot; NAMESPACES.len()],
}

/// The state of a session in one namespace.
#[derive(Default)]
enum Slot {
    #[default]
    Left,
    /// Its CONNECT is not answered yet.
    Joining,
    Joined(Inbox),
}

impl WebSocketSession {
    /// No call leaves it half changed, so a poisoned lock is as good as any.
    fn namespaces(&self) -> MutexGuard<'_, Namespaces> {
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Whether the session has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.namespaces().has_ended
    }

    /// The inbox of a namespace that it has joined.
    fn inbox(&self, namespace: Namespace) -> Option<Inbox> {
        match &self.namespaces().slots[namespace] {
            Slot::Joined(inbox) => Some(inbox.clone()),
            Slot::Left | Slot::Joining => None,
        }
    }

    /// A CONNECT begins to be admitted, unless one is or was.
    fn begin_to_join(&self, namespace: Namespace) -> bool {
        let mut namespaces = self.namespaces();
        let slot = &mut namespaces.slots[namespace];
        let may_join = matches!(slot, Slot::Left);
        if may_join {
            *slot = Slot::Joining;
        }
        may_join
    }

    /// A CONNECT is admitted: events of the namespace go to `inbox`, and the client learns that it is connected.
    pub(super) fn join(&self, namespace: Namespace, inbox: Inbox) {
        {
            let mut namespaces = self.namespaces();
            if namespaces.has_ended {
                drop(namespaces);
                return inbox.end(EndedBecause::Transport, None);
            }
            namespaces.slots[namespace] = Slot::Joined(inbox);
        }
        // The id of a connection gives nobody the session.
        let connected = socket_packet::connect(NAMESPACES[namespace], Sid::new().as_str());
        self.writer.send(&connected);
    }

    /// A CONNECT is refused, for the reason that `message` names to the client.
    fn refuse(&self, namespace: Namespace, message: &str) {
        self.namespaces().slots[namespace] = Slot::Left;
        let name = NAMESPACES[namespace];
        self.writer
            .send(&socket_packet::connect_error(name, message, None));
    }

    /// Ends the connection in a namespace; the session stays. Returns whether there was one.
    pub(super) fn leave(&self, namespace: Namespace, because: EndedBecause) -> bool {
        let left = {
            let mut namespaces = self.namespaces();
            namespaces.slots[namespace].take_joined()
        };
        let Some(inbox) = left else {
            return false;
        };
        inbox.end(because, Some(self.sid.to_string()));
        true
    }

    fn end(&self, because: EndedBecause) {
        self.carrier.end();
        let mut left = {
            let mut namespaces = self.namespaces();
            namespaces.has_ended = true;
            std::mem::take(&mut namespaces.slots)
        };
        let joined = left.iter_mut().filter_map(Slot::take_joined);
        joined.for_each(|inbox| inbox.end(because, None));
    }
}

impl Slot {
    fn take_joined(&mut self) -> Option<Inbox> {
        match std::mem::take(self) {
            Self::Joined(inbox) => Some(inbox),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Runs the session that a request opens, from the moment in which its answer is written. It is pending in
/// `sockets.openings` until it joins a namespace.
pub(super) async fn run(
    sockets: Arc<Sockets>,
    upgrade: OnUpgrade,
    peer: Peer,
    address: std::net::IpAddr,
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
    // A copy, mostly of nothing: the buffer itself holds the whole request.
    let unread = parts.read_buf.to_vec();
    drop(parts.read_buf);
    let (connection, meter) = parts.io.into_inner().into_session();
    let writer = Arc::new(FrameWriter::new(connection, sockets.limits.clone()));
    let limits = sockets.limits.get().clone();
    let carrier = Carrier::new(peer, Some(writer.clone()), address, &limits, opened);
    let session = Arc::new(WebSocketSession {
        sid: Sid::new(),
        carrier: Arc::new(carrier),
        writer,
        namespaces: Mutex::default(),
    });
    let open = engine_packet::open(session.sid.as_str(), sockets.message_max);
    session.writer.send(&open);
    // Nobody knows the session any more when this is dropped, whatever ends the task.
    let mut ending = Ending {
        session: session.clone(),
        sockets: sockets.clone(),
        because: EndedBecause::Error,
    };
    let end = session.serve(sockets, meter, &unread).await;
    tracing::debug!(reason = ?end, peer = %address, "a WebSocket session ended");
    ending.because = because(end);
}

impl WebSocketSession {
    /// Serves the session to its end. One that has joined no namespace in time is closed.
    async fn serve(
        self: &Arc<Self>,
        sockets: Arc<Sockets>,
        meter: Option<Meter>,
        unread: &[u8],
    ) -> SessionEnd {
        let options = SessionOptions::new(sockets.message_max);
        let join_within = sockets.join_within;
        let receiver = Receiver {
            session: self.clone(),
            sockets,
            meter,
        };
        let mut running = std::pin::pin!(run_session(&self.writer, unread, receiver, &options));
        match tokio::time::timeout(join_within, running.as_mut()).await {
            Ok(end) => end,
            Err(_) => {
                if !self.carrier.has_joined() {
                    self.writer.abort();
                }
                running.await
            }
        }
    }
}

/// Ends a session for everybody who knows it.
struct Ending {
    session: Arc<WebSocketSession>,
    sockets: Arc<Sockets>,
    because: EndedBecause,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.session.end(self.because);
        self.sockets.transports.forget(self.session.sid.as_str());
    }
}

/// Why the connections over a session ended, for the metrics.
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

/// Takes what a session reads.
struct Receiver {
    session: Arc<WebSocketSession>,
    sockets: Arc<Sockets>,
    meter: Option<Meter>,
}

impl Handler for Receiver {
    fn on_bytes(&mut self, count: usize) -> io::Result<()> {
        match &mut self.meter {
            Some(meter) => meter.take_frames(count),
            None => Ok(()),
        }
    }

    fn on_packet(&mut self, packet: SocketPacket<'_>) -> ControlFlow<()> {
        let mut names = NAMESPACES.iter();
        let Some(namespace) = names.position(|name| *name == packet.namespace) else {
            if let Content::Connect(_) = packet.content {
                let refusal =
                    socket_packet::connect_error(packet.namespace, INVALID_NAMESPACE, None);
                self.session.writer.send(&refusal);
            }
            return ControlFlow::Continue(());
        };
        let is_taken = match packet.content {
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
            // No event of the node's asks for an acknowledgement.
            Content::Ack { .. } => self.session.inbox(namespace).is_some(),
        };
        if is_taken {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

impl Receiver {
    /// Takes an event. Returns whether it is one of a namespace that was joined.
    fn receive(
        &self,
        namespace: Namespace,
        payload: &str,
        has_binary: bool,
        acknowledgement: Option<i64>,
    ) -> bool {
        let Some(inbox) = self.session.inbox(namespace) else {
            return false;
        };
        let is_event = event_name(payload).is_some();
        if is_event {
            inbox.receive(payload, has_binary, acknowledgement);
        }
        is_event
    }

    /// Admits a connection. A CONNECT that comes while another is held, or after it, is ignored.
    fn connect(&self, namespace: Namespace, payload: &str) {
        if !self.session.begin_to_join(namespace) {
            return;
        }
        let payload = if payload.is_empty() { EMPTY } else { payload };
        let auth = serde_json::from_str::<Box<RawValue>>(payload).ok();
        let (session, sockets) = (self.session.clone(), self.sockets.clone());
        tokio::spawn(async move {
            let place = Place {
                carrier: session.carrier.clone(),
                namespace,
            };
            let sink = Sink::WebSocket(session.clone(), namespace);
            match sockets.admit(Request::new(sink, place, auth)).await {
                Ok(()) | Err(Refusal::Ended) => {}
                Err(Refusal::Final(code)) => session.refuse(namespace, &code.to_string()),
            }
        });
    }
}
