//! The outbound side of one connection. Until the client learns that it is connected, packets wait here; from then on
//! they wait in the [`Sink`].
//!
//! A connection for which too many packets wait is closed at the transport. Its client comes back and asks for the
//! present state, so it never misses an update without noticing.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::encoded_events::EncodedEvents;
use super::engine_session::EngineSession;
use super::outbound_table::OutboundContext;
use super::sink::{Flush, Outgoing, SendOutcome, Sink};
use crate::ids::ConnectionId;
use crate::transport::protocol::{KickCode, Kicked, server_event};

/// The outbound side of one connection.
pub(crate) struct Outbound {
    pub(super) id: ConnectionId,
    session: Arc<EngineSession>,
    context: Arc<OutboundContext>,
    state: Mutex<OutboundState>,
    closing: Notify,
}

struct OutboundState {
    stage: OutboundStage,
    /// Whether the table has it in its list of connections to flush.
    is_backlogged: bool,
    is_kicked: bool,
}

enum OutboundStage {
    /// The client does not know yet that it is connected.
    Connecting(Vec<Outgoing>),
    Open(Arc<dyn Sink>),
    /// The client gets time to read why its transport is about to be closed. Nothing more is sent.
    Closing(Arc<dyn Sink>),
    Closed,
}

/// How well a client keeps up, after a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    KeepsUp,
    /// Packets are left that only another flush can write.
    FlushAgain,
    /// The client reads, and more than half of its queue is used.
    LagsBehind,
}

impl Outbound {
    pub(super) fn new(
        id: ConnectionId,
        session: Arc<EngineSession>,
        context: Arc<OutboundContext>,
    ) -> Self {
        Self {
            id,
            session,
            context,
            state: Mutex::new(OutboundState {
                stage: OutboundStage::Connecting(Vec::new()),
                is_backlogged: false,
                is_kicked: false,
            }),
            closing: Notify::new(),
        }
    }

    /// Whether the session is still there, without a lock.
    pub(super) fn is_open(&self) -> bool {
        !self.session.has_ended()
    }

    /// The client knows that it is connected, or is about to. Everything that waits goes to `sink`.
    pub(crate) fn connected(&self, sink: Arc<dyn Sink>) {
        let mut state = self.state.lock();
        let OutboundStage::Connecting(pending) = &mut state.stage else {
            // It was closed before it was open.
            return sink.close();
        };
        let pending = std::mem::take(pending);
        state.stage = OutboundStage::Open(sink);
        for outgoing in &pending {
            self.send_in(&mut state, outgoing, Flush::Later);
        }
        if let OutboundStage::Open(sink) = &state.stage
            && sink.flush().needs_flush
        {
            self.mark_backlogged(&mut state);
        }
    }

    pub(super) fn send(&self, outgoing: &Outgoing, flush: Flush) {
        self.send_in(&mut self.state.lock(), outgoing, flush);
    }

    /// Sends what everybody gets. A client that does not know yet that it is connected, and has asked for nothing, does
    /// not need it: the answer to a later request contains all of it.
    pub(super) fn send_to_all(&self, outgoing: &Outgoing, flush: Flush) {
        let mut state = self.state.lock();
        if !matches!(&state.stage, OutboundStage::Connecting(pending) if pending.is_empty()) {
            self.send_in(&mut state, outgoing, flush);
        }
    }

    fn send_in(&self, state: &mut OutboundState, outgoing: &Outgoing, flush: Flush) {
        let outcome = match &mut state.stage {
            OutboundStage::Closing(_) | OutboundStage::Closed => return,
            OutboundStage::Open(sink) => {
                if let Outgoing::Events(events) = outgoing {
                    let count = events.events().len() as u64;
                    self.context.metrics.deliveries.inc_by(count);
                }
                sink.send(outgoing, flush)
            }
            OutboundStage::Connecting(pending) => {
                pending.push(outgoing.clone());
                match pending.len() {
                    waiting if waiting > self.context.queue_max() => SendOutcome::Overflow(waiting),
                    _ => SendOutcome::Queued(0),
                }
            }
        };
        match outcome {
            SendOutcome::Queued(0) | SendOutcome::Closed => {}
            SendOutcome::Queued(_) => self.mark_backlogged(state),
            SendOutcome::Overflow(count) => self.drop_slow_consumer(state, count),
        }
    }

    fn mark_backlogged(&self, state: &mut OutboundState) {
        if !std::mem::replace(&mut state.is_backlogged, true) {
            self.context.mark_backlogged(self.id);
        }
    }

    /// Sends the reason, and ends the connection: in its namespace, so that the client does not come back with the same
    /// token, or at the transport, so that the client comes back by itself.
    pub(super) fn kick(&self, code: KickCode) {
        let kicked = Kicked::new(code);
        let mut state = self.state.lock();
        let is_over = matches!(
            state.stage,
            OutboundStage::Closing(_) | OutboundStage::Closed
        );
        if is_over || std::mem::replace(&mut state.is_kicked, true) {
            return;
        }
        self.context.metrics.count_kicked(code.as_str());
        if let Some(events) = EncodedEvents::new(server_event::KICKED, &kicked) {
            self.send_in(&mut state, &Outgoing::Events(events), Flush::Now);
        }
        if !kicked.reconnect {
            self.send_in(&mut state, &Outgoing::Disconnect, Flush::Now);
        } else if let OutboundStage::Open(sink) = &state.stage {
            state.stage = OutboundStage::Closing(sink.clone());
            self.closing.notify_one();
        }
    }

    /// Resolves when the client has been sent why its transport is about to be closed. The connection's task closes it
    /// once the client had time to read that.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Whether the transport is about to be closed: events of the client do not count any more.
    pub(super) fn is_closing(&self) -> bool {
        matches!(
            self.state.lock().stage,
            OutboundStage::Closing(_) | OutboundStage::Closed
        )
    }

    /// Writes what waits, as far as there is room.
    pub(super) fn flush(&self) -> Pace {
        let mut state = self.state.lock();
        let (OutboundStage::Open(sink) | OutboundStage::Closing(sink)) = &state.stage else {
            state.is_backlogged = false;
            return Pace::KeepsUp;
        };
        let backlog = sink.flush();
        let pace = if backlog.is_reading && backlog.waiting > self.context.queue_max() / 2 {
            Pace::LagsBehind
        } else if backlog.needs_flush {
            Pace::FlushAgain
        } else {
            Pace::KeepsUp
        };
        state.is_backlogged = pace != Pace::KeepsUp;
        pace
    }

    /// Closes the transport of a client that does not keep up. `waiting` packets are discarded, so the client does not
    /// learn why.
    fn drop_slow_consumer(&self, state: &mut OutboundState, waiting: usize) {
        self.context.metrics.overflows.inc();
        self.context.metrics.dropped.inc_by(waiting as u64);
        tracing::debug!(connection = %self.id, "closed a connection that does not keep up");
        close_transport(state);
    }

    /// Closes the connection at the transport, so that its client comes back by itself.
    pub(super) fn close_transport(&self) {
        close_transport(&mut self.state.lock());
    }

    /// Sends nothing more: the connection has ended.
    pub(super) fn close(&self) {
        self.state.lock().stage = OutboundStage::Closed;
    }
}

fn close_transport(state: &mut OutboundState) {
    let stage = std::mem::replace(&mut state.stage, OutboundStage::Closed);
    if let OutboundStage::Open(sink) | OutboundStage::Closing(sink) = stage {
        sink.close();
    }
}
