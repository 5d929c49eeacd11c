//! Packets of Engine.IO 4, as they travel over a WebSocket: a text message each, its type first. Binary messages are
//! attachments of a Socket.IO packet and have no type.

use std::time::Duration;

use bytes::Bytes;

use super::frame;

/// How often a node pings each session. Each pong restarts the interval.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(25);

/// How long a client has to answer a ping.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A packet of a client whose session began as a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnginePacket<'p> {
    /// The end of the session.
    Close,
    /// A ping or a pong: the client is alive. Only nodes ping, but a client that does harms nobody.
    Heartbeat,
    /// A Socket.IO packet.
    Message(&'p str),
}

/// A packet that no client sends, or only while it upgrades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not one of Engine.IO, or not one that a client may send now")]
pub struct BadEnginePacket;

impl<'p> EnginePacket<'p> {
    /// Reads a text message.
    ///
    /// # Errors
    /// The session ends.
    pub fn read(text: &'p str) -> Result<Self, BadEnginePacket> {
        let kind = text.chars().next().ok_or(BadEnginePacket)?;
        let rest = &text[kind.len_utf8()..];
        match kind {
            '1' => Ok(Self::Close),
            '2' | '3' if rest == "probe" => Err(BadEnginePacket),
            '2' | '3' => Ok(Self::Heartbeat),
            '4' => Ok(Self::Message(rest)),
            // Open and noop are a node's, and upgrade belongs to a session that polls.
            _ => Err(BadEnginePacket),
        }
    }
}

/// The first packet of a session. Its upgrades are none: nothing is better than a WebSocket.
pub(crate) fn open(sid: &str, message_len_max: usize) -> Bytes {
    let (interval, timeout) = (PING_INTERVAL.as_millis(), PING_TIMEOUT.as_millis());
    let json = format!(
        r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":{interval},"pingTimeout":{timeout},"maxPayload":{message_len_max}}}"#
    );
    frame::text(&[json.as_bytes()])
}

/// A ping, in its frame.
pub(crate) fn ping() -> Bytes {
    Bytes::from_static(b"\x81\x012")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_send_messages_heartbeats_and_the_end() {
        for (text, packet) in [
            ("1", EnginePacket::Close),
            ("1now", EnginePacket::Close),
            ("2", EnginePacket::Heartbeat),
            ("3", EnginePacket::Heartbeat),
            ("3é", EnginePacket::Heartbeat),
            ("2probes", EnginePacket::Heartbeat),
            ("4", EnginePacket::Message("")),
            ("42[\"é\"]", EnginePacket::Message("2[\"é\"]")),
        ] {
            assert_eq!(EnginePacket::read(text), Ok(packet), "{text}");
        }
    }

    #[test]
    fn all_else_is_a_bad_packet() {
        for text in [
            "",
            "0",
            "0{}",
            "2probe",
            "3probe",
            "5",
            "5probe",
            "6",
            "7",
            "9",
            "b",
            "bAAAA",
            " 2",
            "é",
            "\0",
            "\u{feff}4",
        ] {
            assert_eq!(EnginePacket::read(text), Err(BadEnginePacket), "{text}");
        }
    }

    #[test]
    fn nodes_send_what_the_official_client_reads() {
        let expected = r#"0{"sid":"x-_9","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":16384}"#;
        assert_eq!(open("x-_9", 16_384), frame::text(&[expected.as_bytes()]));
        assert_eq!(ping(), frame::text(&[b"2"]));
    }
}
