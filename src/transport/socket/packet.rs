//! What is written to connections, encoded once for all who get it: as JSON for the library, as frames for
//! connections that the hub writes to itself.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{NAMESPACES, Namespace};
use crate::transport::websocket::socket_packet;

/// JSON, encoded once for all who get it; `None` for what cannot be written as JSON, which none of ours is.
pub(super) fn encode(payload: &impl Serialize) -> Option<Arc<RawValue>> {
    serde_json::value::to_raw_value(payload).ok().map(Arc::from)
}

/// One event or several, to write in one go.
#[derive(Clone)]
pub(super) struct Packets(Arc<Encoded>);

struct Encoded {
    events: Vec<Event>,
    /// The frames of all of them for each namespace, made when the first who wants them comes.
    frames: [OnceLock<Bytes>; NAMESPACES.len()],
}

/// An event with its payload, if it has one.
pub(super) struct Event {
    pub(super) name: Cow<'static, str>,
    pub(super) payload: Option<Arc<RawValue>>,
}

impl Event {
    /// An event with a payload.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        payload: &impl Serialize,
    ) -> Option<Self> {
        Some(Self {
            name: name.into(),
            payload: Some(encode(payload)?),
        })
    }

    fn frame(&self, namespace: Namespace) -> Bytes {
        socket_packet::event(NAMESPACES[namespace], &self.name, self.payload.as_deref())
    }
}

impl Packets {
    /// An event with a payload.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        payload: &impl Serialize,
    ) -> Option<Self> {
        Event::new(name, payload).map(|event| Self::of(vec![event]))
    }

    /// An event without a payload.
    pub(super) fn bare(name: &'static str) -> Self {
        Self::of(vec![Event {
            name: name.into(),
            payload: None,
        }])
    }

    /// Several events.
    pub(super) fn of(events: Vec<Event>) -> Self {
        Self(Arc::new(Encoded {
            events,
            frames: Default::default(),
        }))
    }

    /// The events, one by one.
    pub(super) fn events(&self) -> &[Event] {
        &self.0.events
    }

    /// Their frames, one after the other.
    pub(super) fn frames(&self, namespace: Namespace) -> &Bytes {
        self.0.frames[namespace].get_or_init(|| match self.events() {
            [event] => event.frame(namespace),
            events => {
                let frames = events.iter().map(|event| event.frame(namespace));
                frames.collect::<Vec<_>>().concat().into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(frames: &Bytes) -> &str {
        std::str::from_utf8(&frames[2..]).expect("text")
    }

    #[test]
    fn packets_are_what_the_official_client_reads() {
        let packets = Packets::new("a \"name\"", &[1, 2]).expect("JSON");
        assert_eq!(payload(packets.frames(0)), r#"42["a \"name\"",[1,2]]"#);
        let named = r#"42/socket.io/,["a \"name\"",[1,2]]"#;
        assert_eq!(payload(packets.frames(1)), named);
        assert_eq!(payload(Packets::bare("x").frames(0)), r#"42["x"]"#);
    }

    #[test]
    fn several_events_are_several_frames() {
        let events = ["x", "y"].map(|name| Event::new(name, &1).expect("JSON"));
        let packets = Packets::of(events.into());
        let [x, y] = ["x", "y"].map(|name| Packets::new(name, &1).expect("JSON"));
        let both = [&x.frames(0)[..], &y.frames(0)[..]].concat();
        assert_eq!(packets.frames(0), &both[..]);
    }
}
