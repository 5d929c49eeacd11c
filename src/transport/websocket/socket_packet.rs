//! Packets of Socket.IO 5: `<type>[<attachments>-][<namespace>,][<acknowledgement id>][JSON]`. Reading borrows from the
//! text and allocates nothing; packets are written as frames, ready for any number of connections.

mod encode;

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

pub(crate) use self::encode::{acknowledgement, connect, connect_error, disconnect, event};

/// The namespace that packets do not name.
pub(crate) const ROOT: &str = "/";

/// Most attachments of one packet. No event here takes any; they are counted, and dropped as they come.
pub const ATTACHMENTS_MAX: usize = 64;

/// A packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPacket<'p> {
    /// The namespace that it belongs to, whether or not there is such a one.
    pub namespace: &'p str,
    /// The rest of it.
    pub content: Content<'p>,
}

/// The content of a client's packet. JSON stays text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'p> {
    /// Asks to join the namespace, with this payload; without one, it is empty.
    Connect(&'p str),
    /// Leaves the namespace.
    Disconnect,
    /// An event; [`event_name`] tells whether its payload is one.
    Event {
        /// The id under which the client awaits an acknowledgement.
        ack: Option<i64>,
        /// An array of the name and the arguments.
        payload: &'p str,
        /// Binary messages that follow, before any other text.
        attachments: usize,
    },
    /// An acknowledgement of an event of the node's.
    Ack {
        /// The id of the event.
        ack: i64,
        /// An array of the arguments.
        payload: &'p str,
        /// Binary messages that follow, before any other text.
        attachments: usize,
    },
}

/// A text that is no packet, or none that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSocketPacket {
    /// There is no such type, or it is a node's.
    #[error("the packet has no type that a client may send")]
    Type,
    /// A binary packet without a number of attachments, or with too large a one.
    #[error(
        "a binary packet begins with a number of attachments from 0 to {ATTACHMENTS_MAX} and a hyphen"
    )]
    Attachments,
    /// Only an event can do without an id.
    #[error("an acknowledgement needs the id of what it acknowledges")]
    Ack,
}

impl<'p> SocketPacket<'p> {
    /// Reads the payload of an Engine.IO message.
    ///
    /// # Errors
    /// The session ends.
    pub fn read(text: &'p str) -> Result<Self, BadSocketPacket> {
        let kind = text.bytes().next().filter(u8::is_ascii_digit);
        let kind = kind.ok_or(BadSocketPacket::Type)?;
        let mut rest = &text[1..];
        let attachments = match kind {
            b'5' | b'6' => take_attachments(&mut rest)?,
            _ => 0,
        };
        let namespace = take_namespace(&mut rest);
        let ack = take_ack(&mut rest);
        let content = match kind {
            b'0' => Content::Connect(rest),
            b'1' => Content::Disconnect,
            b'2' | b'5' => Content::Event {
                ack,
                payload: rest,
                attachments,
            },
            b'3' | b'6' => Content::Ack {
                ack: ack.ok_or(BadSocketPacket::Ack)?,
                payload: rest,
                attachments,
            },
            _ => return Err(BadSocketPacket::Type),
        };
        Ok(Self { namespace, content })
    }
}

fn take_attachments(rest: &mut &str) -> Result<usize, BadSocketPacket> {
    let (count, after) = rest.split_once('-').ok_or(BadSocketPacket::Attachments)?;
    *rest = after;
    // `parse` would take a plus sign.
    let count = Some(count).filter(|count| count.bytes().all(|byte| byte.is_ascii_digit()));
    count
        .and_then(|count| count.parse().ok())
        .filter(|count| *count <= ATTACHMENTS_MAX)
        .ok_or(BadSocketPacket::Attachments)
}

/// Some clients omit the comma where nothing follows.
fn take_namespace<'p>(rest: &mut &'p str) -> &'p str {
    if !rest.starts_with('/') {
        return ROOT;
    }
    let (namespace, after) = rest.split_once(',').unwrap_or((rest, ""));
    *rest = after;
    namespace
}

/// An id is followed by JSON. One that no client could have given, because it exceeds 63 bits, awaits no answer.
fn take_ack(rest: &mut &str) -> Option<i64> {
    let after = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = &rest[..rest.len() - after.len()];
    *rest = after;
    digits
        .parse()
        .ok()
        .filter(|_| after.starts_with(['[', '{']))
}

/// The name of an event; `None` for a payload that is no array of JSON which begins with a string. Such a packet ends the
/// session.
pub fn event_name(payload: &str) -> Option<Cow<'_, str>> {
    let mut json = serde_json::Deserializer::from_str(payload);
    EventName::deserialize(&mut json).ok().map(|event| event.0)
}

struct EventName<'p>(Cow<'p, str>);

impl<'p> Deserialize<'p> for EventName<'p> {
    fn deserialize<D: Deserializer<'p>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_seq(NameOnly)
    }
}

/// Keeps the first element of an array and skips the others.
struct NameOnly;

impl<'p> Visitor<'p> for NameOnly {
    type Value = EventName<'p>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array that begins with a name")
    }

    fn visit_seq<A: SeqAccess<'p>>(self, mut elements: A) -> Result<EventName<'p>, A::Error> {
        /// Borrowed wherever nothing in the text is escaped.
        #[derive(serde::Deserialize)]
        struct Name<'p>(#[serde(borrow)] Cow<'p, str>);

        let name = elements.next_element::<Name<'p>>()?;
        let Name(name) = name.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(EventName(name))
    }
}

#[cfg(test)]
mod tests;
