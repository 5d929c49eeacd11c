//! Holds the decoder against tungstenite, with any mix of frames cut anywhere.
//!
//! The two differ where tungstenite looks at a payload before its header: it reports a fault later, when the frame is
//! complete. So sequences consist of complete frames. A close frame with a code that must not be sent is a message to
//! tungstenite, which then answers 1002 by itself; here it is a fault with that code.

use std::io::{self, Cursor, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::*;

/// Small, so that many sequences exceed it.
const LEN_MAX: usize = 300;

/// How a sequence of frames ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    Refused,
}

fn ours(bytes: &[u8], cuts: &[Index]) -> (Vec<Received<'static>>, End) {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let (mut decoder, mut events) = (Decoder::new(LEN_MAX), Vec::new());
    for place in places.windows(2) {
        let mut piece = bytes[place[0]..place[1]].to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event @ Received::Close(_))) => {
                    events.push(event.into_owned());
                    return (events, End::Closed);
                }
                Ok(Some(event)) => events.push(event.into_owned()),
                Ok(None) => break,
                Err(_) => return (events, End::Refused),
            }
        }
        assert!(input.is_empty());
    }
    (events, End::Open)
}

struct Tungstenite(Cursor<Vec<u8>>);

impl Read for Tungstenite {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Tungstenite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenites(bytes: &[u8]) -> (Vec<Received<'static>>, End) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LEN_MAX))
        .max_frame_size(Some(LEN_MAX));
    let peer = Tungstenite(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(peer, Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) => Received::Text(Cow::Owned(text.to_string())),
            Ok(Message::Binary(bytes)) => Received::Binary(Cow::Owned(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => Received::Ping(Cow::Owned(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => Received::Pong(Cow::Owned(bytes.to_vec())),
            Ok(Message::Close(Some(frame))) if frame.reason.as_str() == "Protocol violation" => {
                return (events, End::Refused);
            }
            Ok(Message::Close(frame)) => {
                events.push(Received::Close(frame.map(|frame| frame.code.into())));
                return (events, End::Closed);
            }
            Ok(Message::Frame(_)) => unreachable!("frames are never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (events, End::Open);
            }
            Err(_) => return (events, End::Refused),
        });
    }
}

/// A masked frame; `len_size` says in how many bytes its length is written, if they are enough.
pub(super) fn frame(first: u8, payload: &[u8], len_size: usize) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 if len_size == 0 => frame.push(0x80 | len as u8),
        len @ 0..=0xFFFF if len_size <= 2 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    frame.extend(mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zé™🙂]{0,20}",
        1 => "[a-zé™🙂]{60,120}",
    ]
}

/// A message in several frames, with control frames between them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = (any::<Index>(), select(vec![0, 0, 2, 8]), control());
    (any::<bool>(), text(), vec(piece, 0..4)).prop_map(|(is_text, text, pieces)| {
        let bytes = text.as_bytes();
        let (mut frames, mut begin) = (Vec::new(), 0);
        let mut opcode = if is_text { 1 } else { 2 };
        for (place, len_size, control) in pieces {
            let end = begin + place.index(bytes.len() - begin + 1);
            frames.extend(frame(opcode, &bytes[begin..end], len_size));
            frames.extend(control);
            (begin, opcode) = (end, 0);
        }
        frames.extend(frame(0x80 | opcode, &bytes[begin..], 0));
        frames
    })
}

fn control() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![4 => vec(any::<u8>(), 0..10), 1 => vec(any::<u8>(), 120..126)];
    (select(vec![0x89, 0x8a]), payload).prop_map(|(first, payload)| frame(first, &payload, 0))
}

fn closing() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![
        select(vec![
            999, 1000, 1001, 1004, 1005, 1006, 1007, 1014, 1015, 3000, 4999, 5000
        ]),
        any::<u16>()
    ];
    let reason = prop_oneof![4 => text().prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..4)];
    let payload =
        (code, reason).prop_map(|(code, reason)| [&code.to_be_bytes()[..], &reason].concat());
    let payload = prop_oneof![8 => payload, 1 => Just(vec![]), 1 => Just(vec![3])];
    payload.prop_map(|payload| frame(0x88, &payload, 0))
}

/// Any frame, most often one that breaks a rule.
fn odd() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        any::<u8>(),
        select(vec![0x00, 0x80, 0x01, 0x02, 0x81, 0x82, 0x09, 0x08])
    ];
    let payload = prop_oneof![
        text().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..10),
        vec(b'a'..b'c', 100..400),
        Just(b"\xed\xa0\x80".to_vec()),
        Just(b"a\xc3".to_vec()),
    ];
    (first, payload, select(vec![0, 2, 8]), 0..8).prop_map(
        |(first, payload, len_size, unmasked)| {
            let mut frame = frame(first, &payload, len_size);
            if unmasked == 0 {
                frame[1] &= 0x7F;
            }
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn the_decoder_takes_and_refuses_what_tungstenite_does(
        frames in vec(prop_oneof![8 => message(), 4 => control(), 1 => closing(), 1 => odd()], 0..8),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let bytes = frames.concat();
        prop_assert_eq!(ours(&bytes, &cuts), tungstenites(&bytes));
    }

    #[test]
    fn one_frame_alone_is_taken_or_refused_as_by_tungstenite(
        frame in prop_oneof![closing(), odd()],
        cuts in vec(any::<Index>(), 0..3),
    ) {
        prop_assert_eq!(ours(&frame, &cuts), tungstenites(&frame));
    }

    #[test]
    fn cuts_change_nothing(bytes: Vec<u8>, cuts in vec(any::<Index>(), 0..20)) {
        prop_assert_eq!(ours(&bytes, &cuts), ours(&bytes, &[]));
    }
}
