//! The way out of one connection, chosen once at CONNECT: [`crate::transport::websocket`] writes frames to the TCP
//! connection itself, [`crate::transport::polling`] goes through the library's queue.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::encoded_events::EncodedEvents;
use super::inbound::InboundQueue;
use super::outbound::Outbound;

/// One thing to send.
#[derive(Clone)]
pub(crate) enum Outgoing {
    Events(EncodedEvents),
    Ack {
        id: i64,
        body: Arc<RawValue>,
    },
    /// Ends the connection. The official client does not come back by itself after it.
    Disconnect,
}

/// Whether a sink writes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    Now,
    /// With the next flush, so that a batch takes few system calls.
    Later,
}

/// The outcome of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// Everything is written, or waits together with this many packets.
    Queued(usize),
    /// The queue is full: this many packets waited.
    Overflow(usize),
    /// The session has ended, or is about to.
    Closed,
}

/// A client that has taken nothing for this long does not read at all.
pub(crate) const NOT_READING: Duration = Duration::from_millis(500);

/// The state of a sink after a flush.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    /// Packets that wait.
    pub(crate) waiting: usize,
    /// Whether the client has taken something within [`NOT_READING`], so that it may catch up.
    pub(crate) is_reading: bool,
    /// Whether somebody has to flush the sink again before they are written.
    pub(crate) needs_flush: bool,
}

/// The way out of one connection.
pub(crate) trait Sink: Send + Sync {
    /// The id of the Engine.IO session.
    fn sid(&self) -> String;

    /// Passes what the client sends from now on to `inbound`, and calls [`Outbound::connected`] as soon as the client
    /// learns that it is connected.
    fn attach(self: Arc<Self>, inbound: InboundQueue, outbound: Arc<Outbound>);

    fn send(&self, outgoing: &Outgoing, flush: Flush) -> SendOutcome;

    /// Writes what waits, as far as there is room.
    fn flush(&self) -> Backlog;

    /// Closes the transport of the session at once, whatever waits.
    fn close(&self);

    /// Whether the session has ended.
    fn has_ended(&self) -> bool;
}
