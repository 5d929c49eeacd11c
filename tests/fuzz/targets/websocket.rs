//! Bytes on a WebSocket as a stranger may send them, and the packets in them.
//!
//! The first byte says where the others are cut: that changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie::internals::{
    ATTACHMENTS_MAX, Content, Decoder, EnginePacket, Received, Fault, SocketPacket, event_name,
};

const MESSAGE_LEN_MAX: usize = 256;

fn decode(bytes: &[u8], piece_len: usize) -> (Vec<String>, Option<Fault>) {
    let (mut decoder, mut events) = (Decoder::new(MESSAGE_LEN_MAX), Vec::new());
    for piece in bytes.chunks(piece_len) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => {
                    events.push(format!("{event:?}"));
                    match event {
                        Received::Text(text) => read(&text),
                        Received::Binary(bytes) => assert!(bytes.len() <= MESSAGE_LEN_MAX),
                        Received::Ping(bytes) | Received::Pong(bytes) => assert!(bytes.len() <= 125),
                        Received::Close(_) => return (events, None),
                    }
                }
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
    }
    (events, None)
}

fn read(text: &str) {
    assert!(text.len() <= MESSAGE_LEN_MAX);
    let Ok(EnginePacket::Message(message)) = EnginePacket::read(text) else {
        return;
    };
    let Ok(packet) = SocketPacket::read(message) else {
        return;
    };
    assert!(packet.namespace.starts_with('/'));
    if let Content::Event {
        ack,
        payload,
        attachments,
    } = packet.content
    {
        assert!(message.ends_with(payload) && attachments <= ATTACHMENTS_MAX);
        assert!(ack.is_none_or(|ack| ack >= 0));
        let name = event_name(payload);
        assert!(name.is_none_or(|name| name.len() <= payload.len()));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [piece_len, bytes @ ..] = bytes else {
        return;
    };
    let whole = decode(bytes, MESSAGE_LEN_MAX * 16);
    assert_eq!(decode(bytes, usize::from(*piece_len).max(1)), whole);
});
