//! The way out to one connection.
//!
//! What cannot be written at once waits, encoded once for all who wait for it: until the client was told that it is
//! connected, and while a burst is written. A connection for which too much waits is closed at the transport: its
//! client comes back and asks anew, so it is never left with a gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::carrier::Carrier;
use super::outlets::Shared;
use super::packet::Packets;
use super::reply::Question;
use super::sink::{Parcel, Sink, Written};
use crate::ids::ConnectionId;
use crate::transport::protocol::{KickCode, Kicked, server_event};

/// The way out to one connection.
pub(super) struct Outlet {
    pub(super) id: ConnectionId,
    carrier: Arc<Carrier>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    leaving: Notify,
}

struct State {
    stage: Stage,
    waiting: VecDeque<Parcel>,
    /// Events of the first that waits which are written.
    begun: usize,
    /// Whether somebody knows that something waits.
    is_behind: bool,
    /// Whether the client was told why it is closed.
    is_kicked: bool,
    /// Questions whose answers come through the stream of deliveries, oldest first.
    questions: VecDeque<Question>,
}

enum Stage {
    /// The client was not told yet that it is connected.
    Opening,
    Open(Sink),
    /// The client was told why it is about to be closed at the transport, and is told nothing more.
    Leaving(Sink),
    Closed,
}

impl Outlet {
    pub(super) fn new(id: ConnectionId, carrier: Arc<Carrier>, shared: Arc<Shared>) -> Self {
        Self {
            id,
            carrier,
            shared,
            state: Mutex::new(State {
                stage: Stage::Opening,
                waiting: VecDeque::new(),
                begun: 0,
                is_behind: false,
                is_kicked: false,
                questions: VecDeque::new(),
            }),
            leaving: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything can still be written, as far as can be told at a glance.
    pub(super) fn is_there(&self) -> bool {
        !self.carrier.has_ended()
    }

    /// The client was told that it is connected, or is about to be.
    pub(super) fn welcome(&self, sink: Sink) {
        let mut state = self.state();
        match state.stage {
            Stage::Opening => {
                state.stage = Stage::Open(sink);
                if self.flush_state(&mut state) {
                    self.fall_behind(&mut state);
                }
            }
            // It was to be closed before it was open.
            Stage::Open(_) | Stage::Leaving(_) | Stage::Closed => {
                self.shared.transports.close(&sink, &self.carrier)
            }
        }
    }

    /// Writes events.
    pub(super) fn emit(&self, packets: &Packets) {
        self.emit_in(&mut self.state(), packets);
    }

    /// Writes events that everybody gets. A client that was not told yet that it is connected and asked for
    /// nothing needs none of those: whoever asks later is answered with what they add up to.
    pub(super) fn emit_to_all(&self, packets: &Packets) {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Opening) || !state.waiting.is_empty() {
            self.emit_in(&mut state, packets);
        }
    }

    fn emit_in(&self, state: &mut State, packets: &Packets) {
        let count = packets.events().len() as u64;
        self.shared.metrics.deliveries.inc_by(count);
        self.send(state, Parcel::Packets(packets.clone()));
    }

    /// Says why, and ends the connection: so that its client does not come back with the same token, or, where it
    /// may, at the transport, so that it comes back by itself.
    pub(super) fn kick(&self, code: KickCode) {
        let kicked = Kicked::new(code);
        let mut state = self.state();
        let is_over = matches!(state.stage, Stage::Leaving(_) | Stage::Closed);
        if is_over || std::mem::replace(&mut state.is_kicked, true) {
            return;
        }
        self.shared.metrics.count_kicked(code.as_str());
        if let Some(packets) = Packets::new(server_event::KICKED, &kicked) {
            self.send(&mut state, Parcel::Packets(packets));
        }
        match kicked.reconnect {
            true => self.begin_to_leave(&mut state),
            false => self.send(&mut state, Parcel::Goodbye),
        }
    }

    fn begin_to_leave(&self, state: &mut State) {
        if let Stage::Open(sink) = &state.stage {
            state.stage = Stage::Leaving(sink.clone());
            self.leaving.notify_one();
        }
    }

    /// Resolves when the client was told that it is about to be closed at the transport. Whoever runs the session
    /// closes it once the client had time to read that.
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
            Stage::Open(sink) if state.waiting.is_empty() => {
                let at_once = !self.shared.is_batching();
                match sink.write(&parcel, 0, at_once, &self.shared.transports.polls) {
                    Written::Sent => return,
                    Written::Overflow(left) => return self.give_up(state, left),
                    Written::Queued => {}
                    Written::Full(begun) => {
                        state.begun = begun;
                        state.waiting.push_back(parcel);
                    }
                }
                self.fall_behind(state);
            }
            Stage::Open(_) | Stage::Opening => state.waiting.push_back(parcel),
        }
        let left = state.waiting.len();
        if left > self.shared.waiting_max() {
            self.give_up(state, left);
        }
    }

    fn fall_behind(&self, state: &mut State) {
        if !state.is_behind {
            state.is_behind = true;
            self.shared.fell_behind(self.id);
        }
    }

    /// Writes what waits, as far as there is room. Returns whether some is left.
    pub(super) fn flush(&self) -> bool {
        let mut state = self.state();
        state.is_behind = self.flush_state(&mut state);
        state.is_behind
    }

    /// It does not keep up. So many are left that it is not told.
    fn give_up(&self, state: &mut State, left: usize) {
        self.shared.metrics.overflows.inc();
        self.shared.metrics.dropped.inc_by(left as u64);
        tracing::debug!(connection = %self.id, "closed a connection that does not keep up");
        self.end(state);
    }

    /// Returns whether parcels are left.
    fn flush_state(&self, state: &mut State) -> bool {
        let (Stage::Open(sink) | Stage::Leaving(sink)) = &state.stage else {
            return false;
        };
        let polls = &self.shared.transports.polls;
        while let Some(parcel) = state.waiting.front() {
            match sink.write(parcel, state.begun, false, polls) {
                Written::Sent | Written::Queued => {
                    state.waiting.pop_front();
                    state.begun = 0;
                }
                Written::Full(begun) => {
                    state.begun = begun;
                    break;
                }
                Written::Overflow(left) => {
                    self.give_up(state, left);
                    return false;
                }
            }
        }
        sink.flush();
        !state.waiting.is_empty()
    }

    fn end(&self, state: &mut State) {
        state.waiting.clear();
        let stage = std::mem::replace(&mut state.stage, Stage::Closed);
        if let Stage::Open(sink) | Stage::Leaving(sink) = stage {
            self.shared.transports.close(&sink, &self.carrier);
        }
    }

    /// The session is over.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.questions.clear();
        state.stage = Stage::Closed;
    }
}
