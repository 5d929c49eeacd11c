//! Reading and writing are held against socketioxide's parser.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::parser::{Parse, ParseConfig, ParseError, ParserState};
use socketioxide_core::{Sid, Value};
use socketioxide_parser_common::CommonParser;

use super::*;
use crate::ids::SAFE_INTEGER_MAX;
use crate::transport::websocket::frame;

fn owned(packet: &SocketPacket<'_>) -> (String, String) {
    (packet.namespace.to_owned(), format!("{:?}", packet.content))
}

/// The packet as socketioxide's parser reads it.
fn socketioxides(text: &str) -> Option<(String, String)> {
    let config = ParseConfig {
        max_incoming_binaries: ATTACHMENTS_MAX,
        ..ParseConfig::default()
    };
    let state = ParserState::default();
    let packet = match CommonParser.decode_str(&config, &state, text.to_owned().into()) {
        Ok(packet) => packet,
        // It keeps the packet until the attachments are there.
        Err(ParseError::NeedsMoreBinaryData) => {
            let mut partial = state
                .partial_bin_packet
                .lock()
                .expect("nobody has panicked");
            partial.take().expect("a packet").packet
        }
        Err(_) => return None,
    };
    let attachments = state
        .incoming_binary_cnt
        .load(std::sync::atomic::Ordering::Relaxed);
    let payload = match &packet.inner {
        PacketData::Connect(payload) => payload.as_ref(),
        PacketData::Event(payload, _)
        | PacketData::BinaryEvent(payload, _)
        | PacketData::EventAck(payload, _)
        | PacketData::BinaryAck(payload, _) => Some(payload),
        PacketData::Disconnect | PacketData::ConnectError(_) => None,
    };
    let payload = payload
        .and_then(Value::as_str)
        .map_or("", |text| text.as_str());
    let content = match packet.inner {
        PacketData::Connect(_) => Content::Connect(payload),
        PacketData::Disconnect => Content::Disconnect,
        PacketData::Event(_, ack) | PacketData::BinaryEvent(_, ack) => Content::Event {
            ack,
            payload,
            attachments,
        },
        PacketData::EventAck(_, ack) | PacketData::BinaryAck(_, ack) => Content::Ack {
            ack,
            payload,
            attachments,
        },
        PacketData::ConnectError(_) => return None,
    };
    Some((packet.ns.to_string(), format!("{content:?}")))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        (0..70_u64).prop_map(|number| number.to_string()),
        Just(SAFE_INTEGER_MAX.to_string()),
        select(vec![
            "00",
            "0012",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551616"
        ])
        .prop_map(str::to_owned),
    ]
}

/// A packet, most often a proper one.
fn packet() -> impl Strategy<Value = String> {
    let kind = prop_oneof![8 => "[0-6]", 1 => "[7-9a -]?"];
    let attachments = prop_oneof![2 => Just(String::new()), 2 => number().prop_map(|count| count + "-"), 1 => "[-+x]?-?"];
    let namespace = select(vec![
        "",
        "/,",
        "/socket.io/,",
        "/é,",
        "/socket.io/",
        "/",
        ",",
        "//,,",
    ]);
    let payload = select(vec![
        "",
        "{}",
        "[]",
        "[\"x\"]",
        "[\"é\",{\"a\":[1]}]",
        "[\"x\"",
        "{\"token\":\"x\"}",
        "null",
        " [\"x\"]",
        "x",
        "[1]",
        "-1[]",
        "\0",
        "\"x\"",
        "[\"x\"]]",
    ]);
    (kind, attachments, namespace, number(), payload).prop_map(
        |(kind, attachments, namespace, ack, payload)| {
            format!("{kind}{attachments}{namespace}{ack}{payload}")
        },
    )
}

fn json() -> impl Strategy<Value = String> {
    select(vec![
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        " ",
        "\"",
        "\"x\"",
        "\"é\"",
        "\"\\u00e9\"",
        "\"\\n\"",
        "\"\\ud800\"",
        "1",
        "-",
        "1e999",
        "null",
        "true",
        "\\",
        "\u{1}",
        "\"a\":",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn packets_are_read_as_by_socketioxide(text in prop_oneof![8 => packet(), 1 => "\\PC{0,12}", 1 => "[0-6][0-9/,-]{0,8}"]) {
        let ours = SocketPacket::read(&text).ok();
        prop_assert_eq!(ours.as_ref().map(owned), socketioxides(&text), "{:?}", text);
    }

    /// It refuses names in which anything is escaped, which the official server takes. That is the one difference.
    #[test]
    fn names_of_events_are_read_as_by_socketioxide(tokens in vec(json(), 0..8), name in "[a-zé\"\\\\]{0,6}") {
        let drawn = tokens.concat();
        let named = format!("[{},{drawn}", serde_json::to_string(&name).expect("JSON"));
        for payload in [drawn, named] {
            let value = Value::Str(payload.clone().into(), None);
            let theirs = CommonParser.read_event(&value).ok();
            match event_name(&payload) {
                Some(Cow::Owned(name)) => {
                    prop_assert!(payload.contains('\\') && theirs.is_none());
                    let array: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&payload)
                        .into_iter().next().expect("a value").unwrap_or_default();
                    prop_assert_eq!(array.first().and_then(|name| name.as_str()).unwrap_or(&name), &name);
                }
                ours => prop_assert_eq!(ours.as_deref(), theirs),
            }
        }
    }

    #[test]
    fn packets_are_written_as_by_socketioxide(
        namespace in select(vec!["/", "/socket.io/"]),
        name: String,
        id in 0..=i64::MAX,
        value in select(vec!["null", "[]", "[1,2]", "{\"a\":\"é\"}"]),
    ) {
        let raw = RawValue::from_string(value.to_owned()).expect("JSON");
        let sid = Sid::new();
        let value_of = |payload: &RawValue, event| CommonParser.encode_value(&payload, event).expect("JSON");
        let nothing = CommonParser.encode_value(&[(); 0], Some(&name)).expect("JSON");
        let connected = CommonParser.encode_default(&serde_json::json!({ "sid": sid })).expect("JSON");
        let pairs = [
            (connect(namespace, sid.as_str()), PacketData::Connect(Some(connected))),
            (connect_error(namespace, &name, None), PacketData::ConnectError(name.clone())),
            (disconnect(namespace), PacketData::Disconnect),
            (event(namespace, &name, None), PacketData::Event(nothing, None)),
            (acknowledgement(namespace, id, &raw), PacketData::EventAck(value_of(&raw, None), id)),
        ];
        for (ours, inner) in pairs {
            let theirs = CommonParser.encode(Packet { inner, ns: namespace.into() });
            let theirs = theirs.as_str().expect("text").as_bytes();
            prop_assert_eq!(ours, frame::text(&[b"4", theirs]));
        }
    }
}

#[test]
fn payloads_are_not_looked_into() {
    let ack = SAFE_INTEGER_MAX as i64;
    let text = format!("2/socket.io/,{ack}[\"é\",{{}}]");
    let expected = Content::Event {
        ack: Some(ack),
        payload: "[\"é\",{}]",
        attachments: 0,
    };
    let packet = SocketPacket::read(&text).expect("a packet");
    assert_eq!(
        (packet.namespace, packet.content),
        ("/socket.io/", expected)
    );
    let packet = SocketPacket::read("52-7[\"x\"]").expect("a packet");
    let expected = Content::Event {
        ack: Some(7),
        payload: "[\"x\"]",
        attachments: 2,
    };
    assert_eq!((packet.namespace, packet.content), ("/", expected));
    assert_eq!(
        SocketPacket::read("565-[\"x\"]"),
        Err(BadSocketPacket::Attachments)
    );
    assert_eq!(SocketPacket::read("3[]"), Err(BadSocketPacket::Ack));
    assert_eq!(SocketPacket::read("4{}"), Err(BadSocketPacket::Type));
}

#[test]
fn a_refusal_can_carry_data() {
    let data = RawValue::from_string("{\"retryAfterMs\":1}".to_owned()).expect("JSON");
    let packet = connect_error("/socket.io/", "full", Some(&data));
    let expected = r#"44/socket.io/,{"message":"full","data":{"retryAfterMs":1}}"#;
    assert_eq!(packet, frame::text(&[expected.as_bytes()]));
}

#[test]
fn an_event_has_its_payload_as_it_is() {
    let payload = RawValue::from_string("[1, 2]".to_owned()).expect("JSON");
    let packet = event("/", "a \"name\"", Some(&payload));
    assert_eq!(packet, frame::text(&[br#"42["a \"name\"",[1, 2]]"#]));
}
