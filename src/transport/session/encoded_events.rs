//! Events, encoded once for all who get them: the payload as JSON, and the frames when the first WebSocket session needs
//! them.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::transport::protocol::Namespace;

/// Encodes a payload as JSON; `None` for a value that JSON cannot express, which no payload of the protocol is.
pub(crate) fn encode(payload: &impl Serialize) -> Option<Arc<RawValue>> {
    serde_json::value::to_raw_value(payload).ok().map(Arc::from)
}

/// One event or several that are sent together.
#[derive(Clone)]
pub(crate) struct EncodedEvents(Arc<Encoded>);

struct Encoded {
    events: Vec<Event>,
    frames: [OnceLock<Bytes>; Namespace::ALL.len()],
}

/// An event with its payload, if it has one.
pub(crate) struct Event {
    pub(crate) name: Cow<'static, str>,
    pub(crate) payload: Option<Arc<RawValue>>,
}

impl Event {
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        payload: &impl Serialize,
    ) -> Option<Self> {
        Some(Self {
            name: name.into(),
            payload: Some(encode(payload)?),
        })
    }
}

impl EncodedEvents {
    /// One event with a payload.
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        payload: &impl Serialize,
    ) -> Option<Self> {
        Event::new(name, payload).map(|event| Self::of(vec![event]))
    }

    /// One event without a payload.
    pub(crate) fn bare(name: &'static str) -> Self {
        Self::of(vec![Event {
            name: name.into(),
            payload: None,
        }])
    }

    pub(crate) fn of(events: Vec<Event>) -> Self {
        Self(Arc::new(Encoded {
            events,
            frames: Default::default(),
        }))
    }

    pub(crate) fn events(&self) -> &[Event] {
        &self.0.events
    }

    /// The frames of all events, one after the other. `frame` makes one of them, for the first session that asks.
    pub(crate) fn frames(
        &self,
        namespace: Namespace,
        frame: impl Fn(Namespace, &Event) -> Bytes,
    ) -> &Bytes {
        self.0.frames[namespace.index()].get_or_init(|| match self.events() {
            [event] => frame(namespace, event),
            events => {
                let frames = events.iter().map(|event| frame(namespace, event));
                frames.collect::<Vec<_>>().concat().into()
            }
        })
    }
}
