//! Where a connection's packets go, chosen once at CONNECT: into WebSocket frames that the hub writes itself, or through
//! the library's queue, where the session began by polling.

use std::sync::Arc;

use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError};

use super::packet::{Event, Packets};
use super::polls::Polls;
use super::websocket::WebSocketSession;
use super::{NAMESPACES, Namespace};
use crate::telemetry::EndedBecause;
use crate::transport::websocket::socket_packet;
use crate::transport::websocket::writer::SendOutcome;

/// One thing to write.
pub(super) enum Parcel {
    Packets(Packets),
    Answer {
        acknowledgement: i64,
        answer: Arc<RawValue>,
    },
    /// The connection has ended; its client is not to come back by itself.
    Goodbye,
}

/// The way to one connection.
#[derive(Clone)]
pub(super) enum Sink {
    WebSocket(Arc<WebSocketSession>, Namespace),
    Polling(Arc<Socket<LocalAdapter>>),
}

/// The outcome of writing a parcel.
pub(super) enum Written {
    /// It is out, or the session writes it as soon as there is room.
    Sent,
    /// It waits for the next flush.
    Queued,
    /// The library's queue has no room; so many of the parcel's events went in.
    Full(usize),
    /// The session is closed, because so many frames waited.
    Overflow(usize),
}

impl Sink {
    /// The id of the Engine.IO session.
    pub(super) fn sid(&self) -> String {
        match self {
            Self::WebSocket(session, _) => session.sid.to_string(),
            Self::Polling(socket) => socket.id.to_string(),
        }
    }

    /// Writes a parcel but its first `skip` events, which are written; at once, or with others at the next flush.
    pub(super) fn write(
        &self,
        parcel: &Parcel,
        skip: usize,
        at_once: bool,
        polls: &Polls,
    ) -> Written {
        match self {
            Self::WebSocket(session, namespace) => {
                write_frames(session, *namespace, parcel, at_once)
            }
            Self::Polling(socket) => {
                let _turn = polls.turn(socket.id.as_str());
                write_through(socket, parcel, skip)
            }
        }
    }

    /// Writes what was queued for this flush.
    pub(super) fn flush(&self) {
        if let Self::WebSocket(session, _) = self {
            session.writer().flush();
        }
    }
}

fn write_frames(
    session: &WebSocketSession,
    namespace: Namespace,
    parcel: &Parcel,
    at_once: bool,
) -> Written {
    let name = NAMESPACES[namespace];
    let made;
    let frame = match parcel {
        Parcel::Packets(packets) => packets.frames(namespace),
        Parcel::Answer {
            acknowledgement,
            answer,
        } => {
            made = socket_packet::acknowledgement(name, *acknowledgement, answer);
            &made
        }
        Parcel::Goodbye => {
            made = socket_packet::disconnect(name);
            &made
        }
    };
    let outcome = if at_once {
        session.writer().send(frame)
    } else {
        session.writer().push(frame)
    };
    if let Parcel::Goodbye = parcel {
        session.leave(namespace, EndedBecause::Hub);
    }
    match outcome {
        SendOutcome::Overflow(count) => Written::Overflow(count),
        SendOutcome::Queued(_) if !at_once => Written::Queued,
        SendOutcome::Queued(_) | SendOutcome::Closed => Written::Sent,
    }
}

fn write_through(socket: &Arc<Socket<LocalAdapter>>, parcel: &Parcel, skip: usize) -> Written {
    let mut count = skip;
    let is_in = match parcel {
        Parcel::Packets(packets) => packets.events().iter().skip(skip).all(|event| {
            let is_in = has_room(emit(socket, event));
            count += usize::from(is_in);
            is_in
        }),
        Parcel::Answer {
            acknowledgement,
            answer,
        } => has_room(acknowledge(socket, *acknowledgement, answer)),
        Parcel::Goodbye => has_room(socket.clone().disconnect().map_err(SendError::Socket)),
    };
    if is_in {
        Written::Sent
    } else {
        Written::Full(count)
    }
}

/// Whether there was room for it. A socket that is closed takes everything.
fn has_room(sent: Result<(), SendError>) -> bool {
    !matches!(
        sent,
        Err(SendError::Socket(SocketError::InternalChannelFull))
    )
}

fn emit(socket: &Socket<LocalAdapter>, event: &Event) -> Result<(), SendError> {
    match &event.payload {
        Some(payload) => socket.emit(&event.name, &**payload),
        // An array of none is no payload at all; `()` would be a `null`.
        None => socket.emit(&event.name, &[(); 0]),
    }
}

/// The sender is made anew for each attempt, because it is gone after one that fails.
fn acknowledge(
    socket: &Arc<Socket<LocalAdapter>>,
    id: i64,
    answer: &RawValue,
) -> Result<(), SendError> {
    let mut nothing = Value::Str(Default::default(), None);
    match AckSender::from_message_parts(socket, &mut nothing, &Some(id)) {
        Ok(sender) => sender.send(answer),
        Err(never) => match never {},
    }
}
