//! Answers to events. A client that wants none is told of refusals only, by an `exception` event.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::outlet::Outlet;
use super::packet::{Packets, encode};
use crate::transport::protocol::{ErrorCode, Exception, Refusal, server_event};

/// An event that waits for its answer.
pub(super) struct Question {
    event: String,
    /// The number under which the client waits for the answer, if it does.
    acknowledgement: Option<i64>,
    prepared: Option<Arc<RawValue>>,
}

impl Question {
    /// `event` is the name as a refusal repeats it; `acknowledgement` the number under which the client waits for
    /// the answer, if it does.
    pub(super) fn new(event: String, acknowledgement: Option<i64>) -> Self {
        Self {
            event,
            acknowledgement,
            prepared: None,
        }
    }

    /// With an answer that is given when it is the question's turn.
    pub(super) fn prepared(mut self, answer: &impl Serialize) -> Self {
        self.prepared = encode(answer);
        self
    }

    /// Answers that it was refused, and why.
    pub(super) fn refuse(self, outlet: &Outlet, error: ErrorCode, message: impl Into<String>) {
        let message = message.into();
        if self.acknowledgement.is_some() {
            let ok = false;
            return outlet.answer_now(self.prepared(&Refusal { ok, error, message }));
        }
        let event = self.event;
        if let Some(packets) = Packets::new(
            server_event::EXCEPTION,
            &Exception {
                event,
                error,
                message,
            },
        ) {
            outlet.emit(&packets);
        }
    }

    /// Where the answer goes, and `answer`, or what was prepared.
    pub(super) fn into_reply(self, answer: Option<&Arc<RawValue>>) -> Option<(i64, Arc<RawValue>)> {
        Some((self.acknowledgement?, answer.cloned().or(self.prepared)?))
    }
}
