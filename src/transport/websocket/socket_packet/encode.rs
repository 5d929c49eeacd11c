//! Packets of a node, each in its frame.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::ROOT;
use crate::transport::websocket::frame;

/// Engine.IO's type of a message, and Socket.IO's types.
const CONNECT: &[u8] = b"40";
const DISCONNECT: &[u8] = b"41";
const EVENT: &[u8] = b"42";
const ACK: &[u8] = b"43";
const CONNECT_ERROR: &[u8] = b"44";

/// The client has joined a namespace.
pub(crate) fn connect(namespace: &str, sid: &str) -> Bytes {
    #[derive(Serialize)]
    struct Connected<'a> {
        sid: &'a str,
    }
    write(CONNECT, namespace, &[&json(&Connected { sid })])
}

/// The client may not join a namespace, or there is no such one.
pub(crate) fn connect_error(namespace: &str, message: &str, data: Option<&RawValue>) -> Bytes {
    #[derive(Serialize)]
    struct ConnectErrorData<'a> {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    write(
        CONNECT_ERROR,
        namespace,
        &[&json(&ConnectErrorData { message, data })],
    )
}

/// The connection ends; the official client does not come back by itself.
pub(crate) fn disconnect(namespace: &str) -> Bytes {
    write(DISCONNECT, namespace, &[])
}

/// An event, with one argument or none.
pub(crate) fn event(namespace: &str, name: &str, payload: Option<&RawValue>) -> Bytes {
    let name = json(&name);
    match payload.map(RawValue::get) {
        Some(payload) => write(EVENT, namespace, &["[", &name, ",", payload, "]"]),
        None => write(EVENT, namespace, &["[", &name, "]"]),
    }
}

/// The acknowledgement of a client's event.
pub(crate) fn acknowledgement(namespace: &str, id: i64, answer: &RawValue) -> Bytes {
    write(ACK, namespace, &[&id.to_string(), "[", answer.get(), "]"])
}

/// Strings and objects of strings are always JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn write(kind: &[u8], namespace: &str, rest: &[&str]) -> Bytes {
    let (namespace, comma) = if namespace == ROOT {
        ("", "")
    } else {
        (namespace, ",")
    };
    let mut parts = [
        kind,
        namespace.as_bytes(),
        comma.as_bytes(),
        b"",
        b"",
        b"",
        b"",
        b"",
    ];
    for (part, text) in parts[3..].iter_mut().zip(rest) {
        *part = text.as_bytes();
    }
    frame::text(&parts)
}
