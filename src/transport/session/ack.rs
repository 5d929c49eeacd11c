//! Refusals of events. A client that waits for no acknowledgement gets an `exception` event instead.

use super::encoded_events::{EncodedEvents, encode};
use super::sink::Outgoing;
use crate::transport::protocol::{ErrorCode, Exception, Refusal, server_event};

/// The refusal of an event; `event` is the name that an exception repeats, `ack` the id that the client waits for.
pub(super) fn refusal(
    event: &str,
    ack: Option<i64>,
    error: ErrorCode,
    message: &str,
) -> Option<Outgoing> {
    let message = message.to_owned();
    if let Some(id) = ack {
        let ok = false;
        let body = encode(&Refusal { ok, error, message })?;
        return Some(Outgoing::Ack { id, body });
    }
    let exception = Exception {
        event: event.to_owned(),
        error,
        message,
    };
    EncodedEvents::new(server_event::EXCEPTION, &exception).map(Outgoing::Events)
}
