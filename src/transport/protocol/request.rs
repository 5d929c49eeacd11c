//! Reads what a client asks for. Every byte is a stranger's, so this is pure: text in, a request or a refusal out.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{ErrorCode, TokenRequest, UserRequest, client_event};
use crate::ids::UserId;
use crate::transport::depth::is_deeper_than;

/// How deep arrays and objects of a payload may be nested; those that the events take have one level.
const DEPTH_MAX: usize = 16;

/// Bytes of a client's own words that a refusal repeats.
const ECHO_LEN_MAX: usize = 128;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Who is online?
    OnlineUsers,
    /// Watch a profile.
    Watch(UserId),
    /// Stop watching a profile.
    Unwatch(UserId),
    /// Go on with a newer token.
    RefreshToken(String),
    /// Wait for an opponent.
    JoinMatchmaking,
    /// Wait no longer.
    LeaveMatchmaking,
}

impl Request {
    /// Reads an event: `text` is the JSON array of its name and its arguments, of which the first is the payload.
    /// With binary parts there is no payload, because no event takes any.
    ///
    /// Returns the name as a refusal may repeat it, cut off after 128 bytes, and what is asked for; or the reason
    /// against it, for programs and for people.
    pub fn decode(text: &str, has_binary: bool) -> (String, Result<Self, (ErrorCode, String)>) {
        let arguments: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
        let name: String = arguments
            .first()
            .and_then(|name| serde_json::from_str(name.get()).ok())
            .unwrap_or_default();
        let payload = arguments.get(1).filter(|_| !has_binary);
        let payload = payload.map_or("null", |payload| payload.get());
        let request = Self::called(&name, payload);
        (shortened(&name), request)
    }

    /// The event called `name`. A payload that it does not take is not looked at.
    fn called(name: &str, payload: &str) -> Result<Self, (ErrorCode, String)> {
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
    // An array would be read as the fields in their order.
    if !payload.starts_with('{') {
        return Err(invalid("the payload is a JSON object"));
    }
    if is_deeper_than(DEPTH_MAX, payload.as_bytes()) {
        let message = format!("the payload is nested deeper than {DEPTH_MAX} levels");
        return Err(invalid(&message));
    }
    // The reason may repeat what the client sent.
    serde_json::from_str(payload).map_err(|error| invalid(&error.to_string()))
}

/// The beginning of a text, with `…` where something is left out.
fn shortened(text: &str) -> String {
    match text.len() > ECHO_LEN_MAX {
        true => format!("{}…", &text[..text.floor_char_boundary(ECHO_LEN_MAX)]),
        false => text.to_owned(),
    }
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
