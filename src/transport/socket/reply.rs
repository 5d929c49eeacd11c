//! Answers to events. A client that wants none is told of refusals only, by an `exception` event.

use serde::Serialize;
use socketioxide::extract::AckSender;
use socketioxide::{SendError, SocketError};

use super::outlet::{Outlet, Packet};
use crate::transport::protocol::{ErrorCode, Exception, Refusal, server_event};

/// An event that waits for its answer.
pub(super) struct Question {
    event: String,
    acknowledgement: Option<AckSender>,
}

impl Question {
    /// `acknowledgement` is where the client wants the answer, if it wants one.
    pub(super) fn new(event: String, acknowledgement: Option<AckSender>) -> Self {
        Self {
            event,
            acknowledgement,
        }
    }

    /// The event's name.
    pub(super) fn event(&self) -> &str {
        &self.event
    }

    /// Answers that it was done.
    pub(super) fn answer(self, outlet: &Outlet, answer: &impl Serialize) {
        let Some(acknowledgement) = self.acknowledgement else {
            return;
        };
        if let Err(SendError::Socket(SocketError::InternalChannelFull)) =
            acknowledgement.send(answer)
        {
            outlet.overflowed();
        }
    }

    /// Answers that it was refused, and why.
    pub(super) fn refuse(self, outlet: &Outlet, error: ErrorCode, message: impl Into<String>) {
        let message = message.into();
        if self.acknowledgement.is_some() {
            let ok = false;
            return self.answer(outlet, &Refusal { ok, error, message });
        }
        let event = self.event;
        if let Some(packet) = Packet::new(
            server_event::EXCEPTION,
            &Exception {
                event,
                error,
                message,
            },
        ) {
            outlet.emit(&packet);
        }
    }
}
