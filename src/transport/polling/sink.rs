//! Sends the packets of one connection through the library's queue, which is short. Packets without room there wait here,
//! and all connections that get the same event share it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::ser::{Error, Serialize, Serializer};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError, TransportType};

use super::PollingSessions;
use super::connect::{Admitted, SocketHandler};
use crate::transport::session::encoded_events::Event;
use crate::transport::session::held_connect::END_CHECK;
use crate::transport::session::inbound::InboundQueue;
use crate::transport::session::outbound::Outbound;
use crate::transport::session::sink::{Backlog, Flush, NOT_READING, Outgoing, SendOutcome, Sink};

pub(super) struct PollingSink {
    socket: Arc<Socket<LocalAdapter>>,
    sessions: Arc<PollingSessions>,
    queue: Mutex<PollQueue>,
}

#[derive(Default)]
struct PollQueue {
    waiting: VecDeque<Outgoing>,
    /// Events of the first that the library has taken.
    taken: usize,
    /// Since when the library has taken nothing of what waits.
    blocked_since: Option<Instant>,
}

impl PollingSink {
    pub(super) fn new(socket: Arc<Socket<LocalAdapter>>, sessions: Arc<PollingSessions>) -> Self {
        Self {
            socket,
            sessions,
            queue: Mutex::default(),
        }
    }

    fn write_queue(&self, queue: &mut PollQueue) {
        // No answer to a poll takes packets out meanwhile.
        let _lock = self.sessions.polls.lock_queue(self.socket.id.as_str());
        while let Some(first) = queue.waiting.front() {
            let taken = queue.taken;
            if !write(&self.socket, first, &mut queue.taken) {
                if queue.taken > taken || queue.blocked_since.is_none() {
                    queue.blocked_since = Some(Instant::now());
                }
                return;
            }
            queue.waiting.pop_front();
            (queue.taken, queue.blocked_since) = (0, None);
        }
    }
}

impl Sink for PollingSink {
    fn sid(&self) -> String {
        self.socket.id.to_string()
    }

    fn attach(self: Arc<Self>, inbound: InboundQueue, outbound: Arc<Outbound>) {
        let sessions = self.sessions.clone();
        let handler = SocketHandler {
            inbound,
            sessions: sessions.clone(),
        };
        self.socket.on_fallback(handler.clone());
        self.socket.on_disconnect(handler);
        self.socket
            .extensions
            .insert(Admitted { sessions, outbound });
    }

    fn send(&self, outgoing: &Outgoing, _flush: Flush) -> SendOutcome {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(outgoing.clone());
        if queue.waiting.len() == 1 {
            self.write_queue(&mut queue);
        }
        let waiting = queue.waiting.len();
        if waiting > self.sessions.limits.get().outbound_queue {
            queue.waiting = VecDeque::new();
            SendOutcome::Overflow(waiting)
        } else {
            SendOutcome::Queued(waiting)
        }
    }

    fn flush(&self) -> Backlog {
        let mut queue = self.queue.lock();
        self.write_queue(&mut queue);
        Backlog {
            waiting: queue.waiting.len(),
            is_reading: queue
                .blocked_since
                .is_none_or(|since| since.elapsed() < NOT_READING),
            needs_flush: !queue.waiting.is_empty(),
        }
    }

    fn close(&self) {
        let is_polling = self.socket.transport_type() == TransportType::Polling;
        self.sessions.close(self.socket.id.as_str(), is_polling);
    }

    fn has_ended(&self) -> bool {
        has_ended(&self.socket)
    }
}

/// Writes what the library has not taken yet. Returns whether it has taken everything; `taken` counts its events.
fn write(socket: &Arc<Socket<LocalAdapter>>, outgoing: &Outgoing, taken: &mut usize) -> bool {
    match outgoing {
        Outgoing::Events(events) => events.events().iter().skip(*taken).all(|event| {
            let is_taken = has_room(emit(socket, event));
            *taken += usize::from(is_taken);
            is_taken
        }),
        Outgoing::Ack { id, body } => has_room(acknowledge(socket, *id, &**body)),
        Outgoing::Disconnect => has_room(socket.clone().disconnect().map_err(SendError::Socket)),
    }
}

/// Whether the queue had room. A socket that is closed takes everything.
fn has_room(sent: Result<(), SendError>) -> bool {
    !matches!(
        sent,
        Err(SendError::Socket(SocketError::InternalChannelFull))
    )
}

fn emit(socket: &Socket<LocalAdapter>, event: &Event) -> Result<(), SendError> {
    match &event.payload {
        Some(payload) => socket.emit(&event.name, &**payload),
        // An empty array is no payload; `()` would be a `null`.
        None => socket.emit(&event.name, &[(); 0]),
    }
}

/// Makes a sender for each attempt, because the library's is gone after one that fails.
fn acknowledge<T: Serialize + ?Sized>(
    socket: &Arc<Socket<LocalAdapter>>,
    id: i64,
    body: &T,
) -> Result<(), SendError> {
    let mut nothing = Value::Str(Default::default(), None);
    match AckSender::from_message_parts(socket, &mut nothing, &Some(id)) {
        Ok(sender) => sender.send(body),
        Err(never) => match never {},
    }
}

/// Waits until the session of `socket` has ended.
pub(super) async fn until_ended(socket: &Arc<Socket<LocalAdapter>>) {
    while !has_ended(socket) {
        tokio::time::sleep(END_CHECK).await;
    }
}

/// Whether the session of `socket` has ended. The library reports that only to senders, so this sends something that
/// cannot be encoded and therefore never leaves.
fn has_ended(socket: &Arc<Socket<LocalAdapter>>) -> bool {
    matches!(
        acknowledge(socket, 0, &Unsendable),
        Err(SendError::Socket(SocketError::Closed))
    )
}

struct Unsendable;

impl Serialize for Unsendable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it is never sent"))
    }
}
