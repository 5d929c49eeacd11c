//! How something is written to one connection: as a frame over the TCP connection that carries it, or through the
//! library's queue, where it polls or once did.

use std::sync::Arc;

use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError};

use super::packet::{self, Event, Packets};
use super::transports::Transports;
use crate::transport::listener::Link;

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
pub(super) struct Way {
    pub(super) socket: Arc<Socket<LocalAdapter>>,
    link: Option<Link>,
    transports: Arc<Transports>,
}

/// What became of a parcel, or of those that wait.
pub(super) enum Written {
    /// It is out, or on the way with so many others that wait.
    Taken(usize),
    /// The library's queue has no room; so many of its events went in.
    Full(usize),
}

impl Way {
    pub(super) fn new(
        socket: Arc<Socket<LocalAdapter>>,
        link: Option<Link>,
        transports: Arc<Transports>,
    ) -> Self {
        Self {
            socket,
            link,
            transports,
        }
    }

    /// Writes a parcel but its first `skip` events, which are written; at once, or with others at the next flush.
    pub(super) fn write(&self, parcel: &Parcel, skip: usize, at_once: bool) -> Written {
        match (&self.link, parcel) {
            (Some(link), Parcel::Packets(packets)) => {
                Written::Taken(link.send(packets.frames(link.namespace), at_once))
            }
            // What is for it alone is not encoded before nothing waits: until then it is shared.
            (Some(link), _) if link.flush() > 0 => Written::Full(skip),
            (
                Some(link),
                Parcel::Answer {
                    acknowledgement,
                    answer,
                },
            ) => {
                let frame = packet::acknowledgement(link.namespace, *acknowledgement, answer);
                Written::Taken(link.send(&frame, true))
            }
            // The library has to know that the connection has ended.
            (Some(_), Parcel::Goodbye) | (None, _) => {
                let _turn = self.transports.polls.turn(&self.socket.id.to_string());
                write_through(&self.socket, parcel, skip)
            }
        }
    }

    /// Writes what waits on the way. Returns how many wait still.
    pub(super) fn flush(&self) -> usize {
        self.link.as_ref().map_or(0, Link::flush)
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
    match is_in {
        true => Written::Taken(0),
        false => Written::Full(count),
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
