//! The way out to one connection, and the table of all of them.
//!
//! What the library's queue does not take at once waits here, encoded once for all who wait for it: until the
//! client was told that it is connected, and while a burst is written. A connection for which too much waits is
//! closed at the transport: its client comes back and asks anew, so it is never left with a gap.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::AckSender;
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::Socket;
use socketioxide::{SendError, SocketError};
use tokio::sync::Notify;

use super::carrier::Carrier;
use super::reply::Question;
use super::transports::Transports;
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::limits::CurrentLimits;
use crate::transport::protocol::{KickCode, Kicked, server_event};

/// How often connections are looked at that had not ended when they were told to.
const CLOSE_AGAIN: Duration = Duration::from_millis(500);

/// JSON, encoded once for all who get it; `None` for what cannot be written as JSON, which none of ours is.
pub(super) fn encode(payload: &impl Serialize) -> Option<Arc<RawValue>> {
    serde_json::value::to_raw_value(payload).ok().map(Arc::from)
}

/// An event to write.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    event: Cow<'static, str>,
    payload: Option<Arc<RawValue>>,
}

impl Packet {
    /// An event with a payload.
    pub(super) fn new(
        event: impl Into<Cow<'static, str>>,
        payload: &impl Serialize,
    ) -> Option<Self> {
        Some(Self {
            event: event.into(),
            payload: Some(encode(payload)?),
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
    carrier: Arc<Carrier>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    leaving: Notify,
}

/// What all outlets share.
struct Shared {
    transports: Arc<Transports>,
    metrics: Arc<Metrics>,
    limits: CurrentLimits,
    /// Open outlets for which something waits.
    behind: Mutex<Vec<ConnectionId>>,
    fell_behind: Notify,
}

struct State {
    stage: Stage,
    waiting: VecDeque<Parcel>,
    /// Questions whose answers come through the stream of deliveries, oldest first.
    questions: VecDeque<Question>,
}

enum Stage {
    /// The client was not told yet that it is connected.
    Opening,
    Open(Arc<Socket<LocalAdapter>>),
    /// The client was told why it is about to be closed at the transport, and is told nothing more.
    Leaving(Arc<Socket<LocalAdapter>>),
    Closed,
}

enum Parcel {
    Packet(Packet),
    Answer {
        acknowledgement: i64,
        answer: Arc<RawValue>,
    },
    Goodbye,
}

/// Whether anything waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    None,
    Some,
    /// So much that no more should be added before some of it is written.
    Pressing,
}

impl Outlet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client was told that it is connected.
    pub(super) fn welcome(&self, socket: Arc<Socket<LocalAdapter>>) {
        let mut state = self.state();
        match state.stage {
            Stage::Opening => {
                state.stage = Stage::Open(socket);
                self.flush_state(&mut state);
                if !state.waiting.is_empty() {
                    self.fell_behind();
                }
            }
            // It was to be closed before it was open.
            Stage::Open(_) | Stage::Leaving(_) | Stage::Closed => {
                self.shared.transports.close(&socket, &self.carrier)
            }
        }
    }

    /// Writes an event.
    pub(super) fn emit(&self, packet: &Packet) {
        self.shared.metrics.deliveries.inc();
        self.send(&mut self.state(), Parcel::Packet(packet.clone()));
    }

    /// Writes an event that everybody gets. A client that was not told yet that it is connected and asked for
    /// nothing needs none of those: whoever asks later is answered with what they add up to.
    pub(super) fn emit_to_all(&self, packet: &Packet) {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Opening) || !state.waiting.is_empty() {
            self.shared.metrics.deliveries.inc();
            self.send(&mut state, Parcel::Packet(packet.clone()));
        }
    }

    /// Says why, and ends the connection: so that its client does not come back with the same token, or, where it
    /// may, at the transport, so that it comes back by itself.
    pub(super) fn kick(&self, code: KickCode) {
        let kicked = Kicked::new(code);
        let mut state = self.state();
        if let Some(packet) = Packet::new(server_event::KICKED, &kicked) {
            self.send(&mut state, Parcel::Packet(packet));
        }
        match kicked.reconnect {
            true => self.begin_to_leave(&mut state),
            false => self.send(&mut state, Parcel::Goodbye),
        }
    }

    /// Whoever runs the session closes the transport, once the client had time to read what was written.
    fn begin_to_leave(&self, state: &mut State) {
        if let Stage::Open(socket) = &state.stage {
            state.stage = Stage::Leaving(socket.clone());
        }
        self.leaving.notify_one();
    }

    /// Resolves when the client was told that it is closed at the transport.
    pub(super) async fn leaving(&self) {
        self.leaving.notified().await;
    }

    /// Whether it is: then nothing that it sends counts.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state().stage, Stage::Leaving(_) | Stage::Closed)
    }

    /// Remembers a question until it is its turn to be answered.
    pub(super) fn ask(&self, question: Question) {
        self.state().questions.push_back(question);
    }

    /// Takes back the newest question.
    pub(super) fn take_back(&self) -> Option<Question> {
        self.state().questions.pop_back()
    }

    /// Answers the oldest question with `answer`, or with what was prepared for it.
    pub(super) fn answer_oldest(&self, answer: Option<&Arc<RawValue>>) {
        let mut state = self.state();
        if let Some(question) = state.questions.pop_front() {
            self.answer_with(&mut state, question, answer);
        }
    }

    /// Answers a question out of turn.
    pub(super) fn answer_now(&self, question: Question) {
        self.answer_with(&mut self.state(), question, None);
    }

    fn answer_with(&self, state: &mut State, question: Question, answer: Option<&Arc<RawValue>>) {
        if let Some((acknowledgement, answer)) = question.into_reply(answer) {
            self.send(
                state,
                Parcel::Answer {
                    acknowledgement,
                    answer,
                },
            );
        }
    }

    /// Closes the connection at the transport, so that its client comes back by itself.
    pub(super) fn close_transport(&self) {
        self.end(&mut self.state());
    }

    fn send(&self, state: &mut State, parcel: Parcel) {
        match &state.stage {
            Stage::Leaving(_) | Stage::Closed => return,
            Stage::Open(socket) if state.waiting.is_empty() => {
                if write(socket, &parcel) {
                    return;
                }
                self.fell_behind();
            }
            Stage::Open(_) | Stage::Opening => {}
        }
        state.waiting.push_back(parcel);
        if state.waiting.len() > self.shared.waiting_max() {
            self.shared.metrics.overflows.inc();
            tracing::debug!(connection = %self.id, "closed a connection that does not keep up");
            self.end(state);
        }
    }

    fn fell_behind(&self) {
        self.shared.behind().push(self.id);
        self.shared.fell_behind.notify_one();
    }

    /// Writes what waits, as far as there is room.
    fn flush(&self) -> Backlog {
        let mut state = self.state();
        self.flush_state(&mut state);
        match state.waiting.len() {
            0 => Backlog::None,
            waiting if waiting > self.shared.waiting_max() / 2 => Backlog::Pressing,
            _ => Backlog::Some,
        }
    }

    fn flush_state(&self, state: &mut State) {
        if let Stage::Open(socket) | Stage::Leaving(socket) = &state.stage {
            while state
                .waiting
                .front()
                .is_some_and(|parcel| write(socket, parcel))
            {
                state.waiting.pop_front();
            }
        }
    }

    fn end(&self, state: &mut State) {
        state.waiting.clear();
        let stage = std::mem::replace(&mut state.stage, Stage::Closed);
        if let Stage::Open(socket) | Stage::Leaving(socket) = stage {
            self.shared.transports.close(&socket, &self.carrier);
        }
    }

    /// The session is over.
    fn close(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.questions.clear();
        state.stage = Stage::Closed;
    }
}

impl Shared {
    fn waiting_max(&self) -> usize {
        self.limits.get().outbound_queue
    }

    fn behind(&self) -> MutexGuard<'_, Vec<ConnectionId>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there was room for it. A socket that is closed takes everything.
fn write(socket: &Arc<Socket<LocalAdapter>>, parcel: &Parcel) -> bool {
    let sent = match parcel {
        Parcel::Packet(Packet { event, payload }) => match payload {
            Some(payload) => socket.emit(event, &**payload),
            // An array of none is no payload at all; `()` would be a `null`.
            None => socket.emit(event, &[(); 0]),
        },
        Parcel::Answer {
            acknowledgement,
            answer,
        } => acknowledge(socket, *acknowledgement, answer),
        Parcel::Goodbye => socket.clone().disconnect().map_err(SendError::Socket),
    };
    !matches!(
        sent,
        Err(SendError::Socket(SocketError::InternalChannelFull))
    )
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

/// Every connection's way out.
pub(super) struct Outlets {
    open: RwLock<HashMap<ConnectionId, Arc<Outlet>>>,
    shared: Arc<Shared>,
    emptied: Notify,
}

impl Outlets {
    /// At most `outbound_queue` parcels wait for one connection.
    pub(super) fn new(
        transports: Arc<Transports>,
        metrics: Arc<Metrics>,
        limits: CurrentLimits,
    ) -> Self {
        Self {
            open: RwLock::default(),
            shared: Arc::new(Shared {
                transports,
                metrics,
                limits,
                behind: Mutex::default(),
                fell_behind: Notify::new(),
            }),
            emptied: Notify::new(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ConnectionId, Arc<Outlet>>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ConnectionId, Arc<Outlet>>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    /// Opens a way out, before the client is told that it is connected.
    pub(super) fn open(&self, id: ConnectionId, carrier: Arc<Carrier>) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet {
            id,
            carrier,
            shared: self.shared.clone(),
            state: Mutex::new(State {
                stage: Stage::Opening,
                waiting: VecDeque::new(),
                questions: VecDeque::new(),
            }),
            leaving: Notify::new(),
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

    /// Resolves when something waits that was not waiting before.
    pub(super) async fn fell_behind(&self) {
        self.shared.fell_behind.notified().await;
    }

    /// Writes what waits, as far as there is room; returns the worst backlog left.
    pub(super) fn flush(&self) -> Backlog {
        let behind = std::mem::take(&mut *self.shared.behind());
        if behind.is_empty() {
            return Backlog::None;
        }
        let mut worst = Backlog::None;
        let mut still_behind = Vec::new();
        {
            let open = self.read();
            for outlet in behind.iter().filter_map(|id| open.get(id)) {
                let backlog = outlet.flush();
                if backlog != Backlog::None {
                    still_behind.push(outlet.id);
                }
                if worst != Backlog::Pressing && backlog != Backlog::None {
                    worst = backlog;
                }
            }
        }
        self.shared.behind().extend(still_behind);
        worst
    }

    /// Closes every connection at the transport, spread over `spread`, and waits until all are forgotten.
    pub(super) async fn close_all(&self, spread: Duration) {
        let ids: Vec<ConnectionId> = self.read().keys().copied().collect();
        let pause = spread / u32::try_from(ids.len().max(1)).unwrap_or(u32::MAX);
        let begun = tokio::time::Instant::now();
        for (closed, id) in (0..).zip(ids) {
            tokio::time::sleep_until(begun + pause * closed).await;
            self.each_of(&[id], Outlet::close_transport);
        }
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // From here on a notification counts, so that none is missed between the look and the wait.
            emptied.as_mut().enable();
            if self.read().is_empty() {
                return;
            }
            // Whoever was being admitted in the meantime, too.
            self.each(Outlet::close_transport);
            let _ = tokio::time::timeout(CLOSE_AGAIN, emptied).await;
        }
    }
}
