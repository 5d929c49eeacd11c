//! The way out to one connection, and the table of all of them.
//!
//! Until the client was told that it is connected, what is to be told waits. A connection that does not keep
//! up is closed at the transport: its client comes back and asks anew, so it is never left with a gap.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::SendError;
use socketioxide::extract::SocketRef;
use tokio::sync::Notify;

use super::inbox::Closer;
use super::reply::Question;
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::listener::Peer;
use crate::transport::protocol::{KickCode, Kicked, server_event};

/// An event to write, encoded once for all who get it.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    event: Cow<'static, str>,
    payload: Option<Arc<RawValue>>,
}

impl Packet {
    /// An event with a payload; `None` where that cannot be written as JSON, which none of ours is.
    pub(super) fn new(
        event: impl Into<Cow<'static, str>>,
        payload: &impl Serialize,
    ) -> Option<Self> {
        let payload = serde_json::value::to_raw_value(payload).ok()?;
        Some(Self {
            event: event.into(),
            payload: Some(payload.into()),
        })
    }

    /// An event without a payload.
    pub(super) fn bare(event: &'static str) -> Self {
        Self {
            event: event.into(),
            payload: None,
        }
    }
}

/// The way out to one connection.
pub(super) struct Outlet {
    id: ConnectionId,
    peer: Option<Peer>,
    metrics: Arc<Metrics>,
    waiting_max: usize,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    /// Questions whose answers come through the stream of deliveries, oldest first.
    questions: VecDeque<Question>,
    closer: Option<Closer>,
}

enum Stage {
    /// The client was not told yet that it is connected; this is what it will be told after.
    Opening(Vec<Parcel>),
    Open(SocketRef),
    Closed,
}

enum Parcel {
    Packet(Packet),
    Goodbye,
}

impl Outlet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client was told that it is connected.
    pub(super) fn welcome(&self, socket: SocketRef) {
        let mut state = self.state();
        if let Stage::Opening(waiting) = std::mem::replace(&mut state.stage, Stage::Open(socket)) {
            for parcel in waiting {
                self.send(&mut state, parcel);
            }
        } else {
            // The session has ended meanwhile.
            state.stage = Stage::Closed;
        }
    }

    /// How to end the session from this side.
    pub(super) fn ends_with(&self, closer: Closer) {
        self.state().closer = Some(closer);
    }

    /// Writes an event.
    pub(super) fn emit(&self, packet: &Packet) {
        self.metrics.deliveries.inc();
        self.send(&mut self.state(), Parcel::Packet(packet.clone()));
    }

    /// Says why, and ends the connection so that its client does not come back with the same token.
    pub(super) fn kick(&self, code: KickCode) {
        let mut state = self.state();
        if let Some(packet) = Packet::new(server_event::KICKED, &Kicked::new(code)) {
            self.send(&mut state, Parcel::Packet(packet));
        }
        self.send(&mut state, Parcel::Goodbye);
    }

    /// Remembers a question until [`Self::answer`].
    pub(super) fn ask(&self, question: Question) {
        self.state().questions.push_back(question);
    }

    /// Takes back the newest question: it gets no answer.
    pub(super) fn take_back(&self) -> Option<Question> {
        self.state().questions.pop_back()
    }

    /// Answers the oldest question.
    pub(super) fn answer(&self, answer: &impl Serialize) {
        let question = self.state().questions.pop_front();
        if let Some(question) = question {
            question.answer(self, answer);
        }
    }

    /// Closes the connection at the transport, so that its client comes back by itself.
    pub(super) fn close_transport(&self) {
        self.end(&mut self.state());
    }

    /// The connection does not keep up.
    pub(super) fn overflowed(&self) {
        self.overflow(&mut self.state());
    }

    fn overflow(&self, state: &mut State) {
        self.metrics.overflows.inc();
        tracing::debug!(connection = %self.id, "closed a connection that does not keep up");
        self.end(state);
    }

    fn end(&self, state: &mut State) {
        state.stage = Stage::Closed;
        if let Some(peer) = &self.peer {
            peer.close();
        }
        if let Some(closer) = &state.closer {
            closer.close();
        }
    }

    fn send(&self, state: &mut State, parcel: Parcel) {
        let fits = match &mut state.stage {
            Stage::Closed => true,
            Stage::Opening(waiting) => {
                waiting.push(parcel);
                waiting.len() <= self.waiting_max
            }
            Stage::Open(socket) => write(socket, parcel),
        };
        if !fits {
            self.overflow(state);
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.stage = Stage::Closed;
        state.questions.clear();
        state.closer = None;
    }
}

/// Whether there was room for it. A socket that is closed takes everything.
fn write(socket: &SocketRef, parcel: Parcel) -> bool {
    use socketioxide::SocketError::InternalChannelFull;
    match parcel {
        Parcel::Packet(Packet { event, payload }) => {
            let sent = match payload {
                Some(payload) => socket.emit(event, &*payload),
                // An array of none is no payload at all; `()` would be a `null`.
                None => socket.emit(event, &[(); 0]),
            };
            !matches!(sent, Err(SendError::Socket(InternalChannelFull)))
        }
        Parcel::Goodbye => !matches!(socket.clone().disconnect(), Err(InternalChannelFull)),
    }
}

/// Every connection's way out.
pub(super) struct Outlets {
    open: RwLock<HashMap<ConnectionId, Arc<Outlet>>>,
    metrics: Arc<Metrics>,
    waiting_max: usize,
    emptied: Notify,
}

impl Outlets {
    /// At most `waiting_max` packets wait for one connection.
    pub(super) fn new(metrics: Arc<Metrics>, waiting_max: usize) -> Self {
        Self {
            open: RwLock::default(),
            metrics,
            waiting_max,
            emptied: Notify::new(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ConnectionId, Arc<Outlet>>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ConnectionId, Arc<Outlet>>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a way out, before the client is told that it is connected.
    pub(super) fn open(&self, id: ConnectionId, peer: Option<Peer>) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet {
            id,
            peer,
            metrics: self.metrics.clone(),
            waiting_max: self.waiting_max,
            state: Mutex::new(State {
                stage: Stage::Opening(Vec::new()),
                questions: VecDeque::new(),
                closer: None,
            }),
        });
        self.write().insert(id, outlet.clone());
        outlet
    }

    /// Closes a way out and forgets it.
    pub(super) fn close(&self, id: ConnectionId) {
        let (closed, empty) = {
            let mut open = self.write();
            (open.remove(&id), open.is_empty())
        };
        if let Some(outlet) = closed {
            outlet.close();
        }
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Hands those of `ids` that are still open to `each`.
    pub(super) fn each_of(&self, ids: &[ConnectionId], each: impl Fn(&Outlet)) {
        let open = self.read();
        for outlet in ids.iter().filter_map(|id| open.get(id)) {
            each(outlet);
        }
    }

    /// Hands all that are open to `each`.
    pub(super) fn each(&self, each: impl Fn(&Outlet)) {
        for outlet in self.read().values() {
            each(outlet);
        }
    }

    /// Closes every connection at the transport and waits until all are forgotten.
    pub(super) async fn close_all(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // From here on a notification counts, so that none is missed between the look and the wait.
            emptied.as_mut().enable();
            if self.read().is_empty() {
                return;
            }
            self.each(Outlet::close_transport);
            emptied.await;
        }
    }
}
