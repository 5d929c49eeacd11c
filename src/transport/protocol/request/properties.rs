//! Property tests of requests: random events are compared with a model that reads no text.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{DEPTH_MAX, ECHO_LEN_MAX, Request};
use crate::ids::{SAFE_INTEGER_MAX, UserId};
use crate::transport::protocol::{ErrorCode, client_event};

/// JSON before it is written down; numbers, and whatever else has no parts, as they are written.
#[derive(Clone, Debug)]
enum AnyJson {
    Plain(String),
    Text(String),
    List(Vec<AnyJson>),
    Object(Vec<(String, AnyJson)>),
}

impl AnyJson {
    fn written(&self) -> String {
        let listed = |items: &[Self]| items.iter().map(Self::written).collect::<Vec<_>>();
        match self {
            Self::Plain(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::List(items) => format!("[{}]", listed(items).join(" ,")),
            Self::Object(fields) => {
                let field = |(name, value): &(String, Self)| {
                    format!("{}: {}", quoted(name), value.written())
                };
                let fields: Vec<_> = fields.iter().map(field).collect();
                format!("{{{}}}", fields.join(",\n"))
            }
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Text(_) => 0,
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(fields) => {
                1 + fields
                    .iter()
                    .map(|(_, value)| value.depth())
                    .max()
                    .unwrap_or(0)
            }
        }
    }

    /// The only field of this name in an object that is not nested too deep.
    fn field(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else {
            return None;
        };
        let mut called = fields.iter().filter(|(field, _)| field == name);
        let (_, value) = called.next()?;
        (called.next().is_none() && self.depth() <= DEPTH_MAX).then_some(value)
    }

    fn user(&self) -> Option<UserId> {
        let Self::Plain(digits) = self.field("userId")? else {
            return None;
        };
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        let id: u64 = digits.parse().ok().filter(|_| plain)?;
        UserId::try_from(id).ok()
    }

    fn token(&self) -> Option<String> {
        match self.field("token")? {
            Self::Text(token) => Some(token.clone()),
            _ => None,
        }
    }
}

/// As JavaScript writes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const EVENTS: [&str; 6] = [
    client_event::GET_ONLINE_USERS,
    client_event::WATCH_PROFILE,
    client_event::UNWATCH_PROFILE,
    client_event::REFRESH_TOKEN,
    client_event::JOIN_MATCHMAKING,
    client_event::LEAVE_MATCHMAKING,
];

fn names() -> impl Strategy<Value = String> {
    let odd = [
        "",
        "__proto__",
        "constructor",
        "kicked",
        "WATCH-PROFILE",
        "watch-profile ",
    ];
    prop_oneof![
        4 => select(EVENTS.to_vec()).prop_map(str::to_owned),
        1 => select(odd.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-zé]{100,200}",
    ]
}

fn plain() -> impl Strategy<Value = AnyJson> {
    let edges = [
        "0",
        "-0",
        "-1",
        "1.0",
        "1e0",
        "1E0",
        "10e-1",
        "1e308",
        "1e999",
        "9007199254740991",
        "9007199254740992",
        "9223372036854775808",
        "18446744073709551616",
        "null",
        "true",
        "false",
    ];
    let plain = prop_oneof![
        3 => (1..=SAFE_INTEGER_MAX).prop_map(|id| id.to_string()),
        2 => select(edges.to_vec()).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|id| id.to_string()),
        1 => "[1-9][0-9]{15,300}",
    ];
    plain.prop_map(AnyJson::Plain)
}

fn fields(values: impl Strategy<Value = AnyJson>) -> impl Strategy<Value = AnyJson> {
    let known = [
        "userId",
        "token",
        "userid",
        "__proto__",
        "constructor",
        "toString",
    ];
    let name = prop_oneof![
        4 => select(known.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    vec((name, values), 0..4).prop_map(AnyJson::Object)
}

fn leaf() -> impl Strategy<Value = AnyJson> {
    // Brackets inside texts are no nesting.
    let text = prop_oneof![any::<String>(), r#"[\[\]{}"\\\\]{0,40}"#];
    prop_oneof![2 => plain(), 1 => text.prop_map(AnyJson::Text)]
}

fn json() -> impl Strategy<Value = AnyJson> {
    leaf().prop_recursive(6, 48, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(AnyJson::List),
            fields(inner),
        ]
    })
}

/// Around the depth that is allowed.
fn deep() -> impl Strategy<Value = AnyJson> {
    let levels = vec(any::<bool>(), DEPTH_MAX - 4..DEPTH_MAX + 4);
    (levels, json(), leaf()).prop_map(|(levels, innermost, beside)| {
        levels.into_iter().fold(innermost, |inner, is_list| {
            if is_list {
                return AnyJson::List(vec![beside.clone(), inner]);
            }
            let name = beside.written();
            AnyJson::Object(vec![(name, inner)])
        })
    })
}

/// Mostly what somebody might send who means it, or nearly.
fn payloads() -> impl Strategy<Value = AnyJson> {
    let known = select(vec!["userId", "token"]);
    let with_more =
        (known, leaf(), prop_oneof![deep(), json()]).prop_map(|(name, value, other)| {
            let other = ("other".to_owned(), other);
            AnyJson::Object(vec![other, (name.to_owned(), value)])
        });
    prop_oneof![1 => json(), 2 => fields(plain()), 2 => with_more]
}

fn expected(name: &str, payload: Option<&AnyJson>) -> Result<Request, ErrorCode> {
    let user = || payload.and_then(AnyJson::user);
    let read = match name {
        client_event::GET_ONLINE_USERS => Some(Request::OnlineUsers),
        client_event::JOIN_MATCHMAKING => Some(Request::JoinMatchmaking),
        client_event::LEAVE_MATCHMAKING => Some(Request::LeaveMatchmaking),
        client_event::WATCH_PROFILE => user().map(Request::Watch),
        client_event::UNWATCH_PROFILE => user().map(Request::Unwatch),
        client_event::REFRESH_TOKEN => payload.and_then(AnyJson::token).map(Request::RefreshToken),
        _ => return Err(ErrorCode::UnknownEvent),
    };
    read.ok_or(ErrorCode::InvalidPayload)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2048)
    })]

    #[test]
    fn an_event_means_what_the_model_says(
        name in names(),
        arguments in vec(payloads(), 0..3),
        has_binary in prop::bool::weighted(0.1),
    ) {
        let mut items = vec![AnyJson::Text(name.clone())];
        items.extend(arguments.iter().cloned());
        let text = AnyJson::List(items).written();
        let payload = arguments.first().filter(|_| !has_binary);
        let (echo, request) = Request::decode(&text, has_binary);
        prop_assert_eq!(request.map_err(|(code, _)| code), expected(&name, payload), "{}", text);
        prop_assert!(name == echo || name.starts_with(echo.trim_end_matches('…')));
    }

    #[test]
    fn nothing_makes_it_fail_or_repeat_much(
        text in prop_oneof![
            any::<String>(),
            r#"\[?("(watch-profile|refresh-token)",)?[\[\]{}",:0-9a-f\\\\uIdser.eE+-]{0,60}\]?"#,
            (names(), r#"[\[\]{}",:0-9tokenusrId \\\\-]{0,80}"#)
                .prop_map(|(name, rest)| format!("[{},{{{rest}}}]", quoted(&name))),
        ],
        has_binary: bool,
    ) {
        let (echo, request) = Request::decode(&text, has_binary);
        prop_assert!(echo.len() <= ECHO_LEN_MAX + '…'.len_utf8());
        if let Err((_, message)) = request {
            prop_assert!(!message.is_empty() && message.len() <= ECHO_LEN_MAX + '…'.len_utf8());
        }
    }

    #[test]
    fn what_a_client_writes_is_read(id in 1..=SAFE_INTEGER_MAX, token: String) {
        let user = UserId::try_from(id).expect("a valid id");
        let said = |event: &str, payload: serde_json::Value| {
            let text = serde_json::json!([event, payload]).to_string();
            Request::decode(&text, false).1.ok()
        };
        let target = serde_json::json!({ "userId": id });
        prop_assert_eq!(said("watch-profile", target.clone()), Some(Request::Watch(user)));
        prop_assert_eq!(said("unwatch-profile", target), Some(Request::Unwatch(user)));
        let fresh = serde_json::json!({ "token": token });
        prop_assert_eq!(said("refresh-token", fresh), Some(Request::RefreshToken(token)));
    }
}
