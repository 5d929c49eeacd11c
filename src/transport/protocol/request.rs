//! Decodes events from clients. The input is untrusted, so decoding is pure: text in, a request or a refusal out.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{ErrorCode, TokenRequest, UserRequest, client_event};
use crate::ids::UserId;
use crate::transport::depth::is_deeper_than;

/// Nesting limit of payloads; those of the contract have one level.
const DEPTH_MAX: usize = 16;

/// Bytes of client input that a refusal repeats.
const ECHO_LEN_MAX: usize = 128;

/// A decoded event.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `get-online-users`.
    OnlineUsers,
    /// `watch-profile`.
    Watch(UserId),
    /// `unwatch-profile`.
    Unwatch(UserId),
    /// `refresh-token`, with the new token.
    RefreshToken(String),
    /// `join-matchmaking`.
    JoinMatchmaking,
    /// `leave-matchmaking`.
    LeaveMatchmaking,
}

impl Request {
    /// Decodes `text`, the JSON array of an event: its name, then its arguments, of which the first is the payload. An
    /// event with binary attachments counts as one without a payload, because no event takes binary data.
    ///
    /// Returns the name, cut off after 128 bytes for use in a refusal, and the request or the reason of its refusal.
    pub fn decode(text: &str, has_binary: bool) -> (String, Result<Self, (ErrorCode, String)>) {
        let arguments: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
        let name: String = arguments
            .first()
            .and_then(|name| serde_json::from_str(name.get()).ok())
            .unwrap_or_default();
        let payload = arguments.get(1).filter(|_| !has_binary);
        let payload = payload.map_or("null", |payload| payload.get());
        let request = Self::named(&name, payload);
        (shortened(&name), request)
    }

    /// Ignores the payload of an event that takes none.
    fn named(name: &str, payload: &str) -> Result<Self, (ErrorCode, String)> {
        match name {
            client_event::GET_ONLINE_USERS => Ok(Self::OnlineUsers),
            client_event::WATCH_PROFILE => {
                read(payload).map(|UserRequest { user_id }| Self::Watch(user_id))
            }
            client_event::UNWATCH_PROFILE => {
                read(payload).map(|UserRequest { user_id }| Self::Unwatch(user_id))
            }
            client_event::REFRESH_TOKEN => {
                read(payload).map(|TokenRequest { token }| Self::RefreshToken(token))
            }
            client_event::JOIN_MATCHMAKING => Ok(Self::JoinMatchmaking),
            client_event::LEAVE_MATCHMAKING => Ok(Self::LeaveMatchmaking),
            _ => Err((ErrorCode::UnknownEvent, "there is no such event".to_owned())),
        }
    }
}

fn read<T: DeserializeOwned>(payload: &str) -> Result<T, (ErrorCode, String)> {
    let invalid = |message: &str| (ErrorCode::InvalidPayload, shortened(message));
    // serde would read an array as the fields in their order.
    if !payload.starts_with('{') {
        return Err(invalid("the payload is a JSON object"));
    }
    if is_deeper_than(DEPTH_MAX, payload.as_bytes()) {
        let message = format!("the payload is nested deeper than {DEPTH_MAX} levels");
        return Err(invalid(&message));
    }
    // Shortened, because the error may quote the input.
    serde_json::from_str(payload).map_err(|error| invalid(&error.to_string()))
}

/// Cuts off a long text and appends `…`.
fn shortened(text: &str) -> String {
    if text.len() <= ECHO_LEN_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(ECHO_LEN_MAX)])
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Result<Request, ErrorCode> {
        let (_, request) = Request::decode(text, false);
        request.map_err(|(code, _)| code)
    }

    #[test]
    fn only_an_integer_names_a_user() {
        assert!(matches!(
            decoded(r#"["watch-profile",{"userId":7}]"#),
            Ok(Request::Watch(_))
        ));
        for payload in [
            "",
            ",null",
            ",7",
            ",\"7\"",
            ",[7]",
            ",{}",
            ",{\"userId\":\"7\"}",
            ",{\"userId\":0}",
            ",{\"userId\":-0}",
            ",{\"userId\":-1}",
            ",{\"userId\":1.0}",
            ",{\"userId\":1.5}",
            ",{\"userId\":1e0}",
            ",{\"userId\":1e308}",
            ",{\"userId\":9007199254740992}",
            ",{\"userId\":18446744073709551616}",
            ",{\"userId\":null}",
            ",{\"userId\":[7]}",
            ",{\"userid\":7}",
            ",{\"userId\":7,\"userId\":8}",
            ",{\"userId\":7,\"user\\u0049d\":7}",
            ",{\"__proto__\":{\"userId\":7}}",
            ",{\"constructor\":{\"prototype\":{\"userId\":7}}}",
        ] {
            let text = format!(r#"["watch-profile"{payload}]"#);
            assert_eq!(
                decoded(&text).expect_err(&text),
                ErrorCode::InvalidPayload,
                "{text}"
            );
        }
    }

    #[test]
    fn other_fields_are_plain_data() {
        let user = UserId::try_from(7).expect("a valid id");
        for payload in [
            r#"{"userId":7,"__proto__":{"userId":8}}"#,
            r#"{"__proto__":null,"constructor":{},"toString":1,"userId":7}"#,
            r#"{"other":1,"other":2,"userId":7}"#,
            r#"{"user\u0049d":7}"#,
        ] {
            let text = format!(r#"["watch-profile",{payload},{{"userId":9}}]"#);
            assert_eq!(decoded(&text), Ok(Request::Watch(user)), "{text}");
        }
    }

    #[test]
    fn binary_parts_are_no_payload() {
        let (_, request) = Request::decode(r#"["watch-profile",{"userId":7}]"#, true);
        let (code, _) = request.expect_err("refused");
        assert_eq!(code, ErrorCode::InvalidPayload);
    }

    #[test]
    fn other_events_are_unknown() {
        for text in [
            r#"["join"]"#,
            r#"[""]"#,
            "[]",
            "{}",
            "[1]",
            r#"["__proto__",{}]"#,
            r#"["constructor"]"#,
            r#"["\ud800"]"#,
            "",
            "[",
        ] {
            assert_eq!(
                decoded(text).expect_err(text),
                ErrorCode::UnknownEvent,
                "{text}"
            );
        }
    }

    #[test]
    fn asking_who_is_online_takes_any_payload() {
        let deep = format!(r#"["get-online-users",{}]"#, nested(5000));
        for text in [
            r#"["get-online-users"]"#,
            r#"["get-online-users",{"a":[1]},2]"#,
            &deep,
        ] {
            assert!(matches!(decoded(text), Ok(Request::OnlineUsers)), "{text}");
        }
    }

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn a_payload_may_be_so_deep() {
        let with = |other: &str| {
            let text = format!(r#"["watch-profile",{{"other":{other},"userId":7}}]"#);
            Request::decode(&text, false).1
        };
        assert!(with(&nested(DEPTH_MAX - 1)).is_ok());
        for levels in [DEPTH_MAX, 200, 100_000] {
            let (code, message) = with(&nested(levels)).expect_err("too deep");
            assert_eq!(code, ErrorCode::InvalidPayload);
            assert_eq!(message, "the payload is nested deeper than 16 levels");
        }
        let brackets_in_texts = format!(r#"["\"{0}\\\"{0}","\\{0}"]"#, "[".repeat(50));
        assert!(with(&brackets_in_texts).is_ok());
        let side_by_side = format!("[{}[]]", "[],".repeat(50));
        assert!(with(&side_by_side).is_ok());
        let behind_a_backslash = format!(r#"["\\",{}]"#, nested(DEPTH_MAX));
        assert!(with(&behind_a_backslash).is_err());
    }

    #[test]
    fn a_refusal_repeats_little() {
        let name = format!("{}é", "n".repeat(ECHO_LEN_MAX - 1));
        let (echo, request) = Request::decode(&format!("[{name:?}]"), false);
        assert_eq!(echo, format!("{}…", "n".repeat(ECHO_LEN_MAX - 1)));
        assert_eq!(request.expect_err("unknown").0, ErrorCode::UnknownEvent);
        let (echo, _) = Request::decode(&format!("[{:?}]", &name[1..]), false);
        assert_eq!(echo, name[1..], "what fits is repeated as it is");
        let text = format!(r#"["watch-profile",{{"userId":"{name}{name}"}}]"#);
        let (_, message) = Request::decode(&text, false).1.expect_err("no number");
        assert!(message.len() <= ECHO_LEN_MAX + "…".len(), "{message}");
    }
}
