//! Events: too many of them, and payloads that mean nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::{Calm, two_nodes};
use crate::harness::{ADA, Cluster, Heard, Wire, eventually_eq};

/// `limits.watches` and `limits.events_burst`, as they are by default.
const WATCHES: usize = 100;
const BURST: usize = 1_000;

/// How long it may take to read what a node says to a flood.
const FLOOD_WITHIN: Duration = Duration::from_secs(30);

/// How often each answer was given, until `count` were, or the node has closed the connection.
async fn answers(wire: &mut Wire, count: usize) -> BTreeMap<String, usize> {
    let mut given = BTreeMap::new();
    let hearing = async {
        while given.values().sum::<usize>() < count {
            match wire.hear().await {
                Some(Heard::Text(text)) if text.starts_with("43") => {
                    *given.entry(verdict(&text)).or_default() += 1;
                }
                Some(_) => {}
                None => return,
            }
        }
    };
    let heard = tokio::time::timeout(FLOOD_WITHIN, hearing).await;
    heard.expect("the node answers, or closes the connection");
    given
}

/// `ok`, or the code of the refusal, in an acknowledgement.
fn verdict(text: &str) -> String {
    let answer = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let answer: Value = serde_json::from_str(answer).expect("an answer is JSON");
    match (&answer[0]["ok"], &answer[0]["error"]) {
        (Value::Bool(true), _) => "ok".to_owned(),
        (_, Value::String(code)) => code.clone(),
        _ => panic!("neither done nor refused: {answer}"),
    }
}

/// Goal: a connection watches as many as it may, whatever it asks for; and nothing of it stays in Redis.
/// Method: 1,000 watches of different users are answered, a hundred of them with what is asked for; then 9,000 more,
/// which are answered or end the connection. Meanwhile no more topics are subscribed than may be.
#[tokio::test]
async fn ten_thousand_watches() {
    let cluster = two_nodes().start().await;
    let abuse = async |from: usize| {
        let watch = |number: usize| {
            let user = from + number;
            format!(r#"42{number}["watch-profile",{{"userId":{user}}}]"#)
        };
        let mut wire = cluster.joined(0, None).await;
        for number in 1..=BURST {
            wire.say(&watch(number)).await;
        }
        let given = answers(&mut wire, BURST).await;
        assert_eq!(given["ok"], WATCHES, "{given:?}");
        assert_eq!(given["too_many_watches"], BURST - WATCHES, "{given:?}");
        let topics = ["PUBSUB", "SHARDCHANNELS", "vigie:{0}:user:*"];
        eventually_eq("subscribed topics", WATCHES, async || {
            cluster.redis().lines(&topics).await.len()
        })
        .await;
        for number in BURST..10_000 {
            if !wire.say(&watch(number)).await {
                break;
            }
        }
        let given = answers(&mut wire, 10_000 - BURST).await;
        assert!(!given.contains_key("ok"), "{given:?}");
        drop(wire);
        eventually_eq("subscribed topics", 0, async || {
            cluster.redis().lines(&topics).await.len()
        })
        .await;
    };
    abuse(1_000_000).await;
    let calm = Calm::after_warm_up(&cluster).await;
    for round in 2..5 {
        abuse(round * 1_000_000).await;
    }
    calm.returns(&cluster).await;
}

/// Goal: a flood of any event ends with the connection, and others do not notice.
/// Method: each event without a pause until the node closes the connection, with and without acknowledgement, from guests
/// and users, who read nothing before; meanwhile somebody else is served.
#[tokio::test]
async fn floods_of_every_event() {
    let cluster = two_nodes().start().await;
    let events = [
        r#"["get-online-users"]"#,
        r#"["watch-profile",{"userId":42}]"#,
        r#"["watch-profile",{"userId":"x"}]"#,
        r#"["unwatch-profile",{"userId":42}]"#,
        r#"["join-matchmaking"]"#,
        r#"["leave-matchmaking"]"#,
        r#"["refresh-token",{"token":"a.b.c"}]"#,
        r#"["no-such-event",{}]"#,
    ];
    let abuse = async || {
        // All join before the first one floods: this test has one thread, and who joins has not for ever.
        let joining = (0..32).map(|number| {
            let user = number % 2 == 0;
            cluster.joined(number % 2, user.then_some(ADA + number as u64))
        });
        let wires = join_all(joining).await;
        let flood = async |(number, mut wire): (usize, Wire)| {
            let event = events[number / 4];
            let acknowledgement = if number % 4 < 2 { "7" } else { "" };
            // How many it takes depends on how fast they can be sent: rates allow for more as time goes by.
            let message = format!("42{acknowledgement}{event}");
            let flooding = async { while wire.say(&message).await {} };
            let ended = tokio::time::timeout(FLOOD_WITHIN, flooding).await;
            assert!(ended.is_ok(), "{event}: the node takes it without end");
            // A client that reads receives the reason, as other tests see. This one does not read, so it may not fit.
            wire.ended_within(FLOOD_WITHIN).await;
        };
        let floods = wires.into_iter().enumerate().map(flood);
        let fresh = async {
            for _ in 0..3 {
                super::assert_served(&cluster).await;
            }
        };
        tokio::join!(join_all(floods), fresh);
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Asks with a payload, and returns the verdict; `None` where the node closes the connection.
async fn ask(cluster: &Cluster, event: &str, payload: &str) -> Option<String> {
    let mut wire = cluster.joined(0, None).await;
    wire.say(&format!(r#"421["{event}",{payload}]"#)).await;
    let answer = wire.hear_until("431").await?;
    wire.finish().await;
    Some(verdict(&format!("431{answer}")))
}

/// Goal: an id is an integer from 1 to 2^53 - 1 in plain digits, and nothing else is one.
/// Method: numbers at every edge, written in every way; what is no JSON ends the connection.
#[tokio::test]
async fn numbers_at_every_edge() {
    let cluster = two_nodes().start().await;
    let long = "1".repeat(1_000);
    let zeros = format!("1.{}", "0".repeat(1_000));
    let refused = [
        "0",
        "-0",
        "-1",
        "1.0",
        "1.5",
        "1e0",
        "1E0",
        "10e-1",
        "1e308",
        "-1e308",
        "1e-400",
        "0.0",
        "0e0",
        "1e15",
        "9007199254740992",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9007199254740991",
        "-9223372036854775809",
        "1e999",
        "-1e999",
        &long,
        &zeros,
        "\"1\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"9007199254740991\"",
        "\"\"",
        "null",
        "true",
        "false",
        "[]",
        "[1]",
        "{}",
        "{\"$numberLong\":\"1\"}",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude42\"",
    ];
    let broken = [
        "",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        "01",
        "00",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "1,000",
        "١",
        "undefined",
        "\u{0}",
        "1\u{0}",
        "'1'",
        "1n",
    ];
    let abuse = async || {
        for event in ["watch-profile", "unwatch-profile"] {
            for id in ["1", "42", "9007199254740991", " 7 ", "\t7\n"] {
                let done = ask(&cluster, event, &format!("{{\"userId\":{id}}}")).await;
                assert_eq!(done.as_deref(), Some("ok"), "{event} {id}");
            }
            for id in refused {
                let payload = format!("{{\"userId\":{id}}}");
                let given = ask(&cluster, event, &payload).await;
                // A number that no double can hold is no JSON to some, and ends the connection.
                let too_large = id.contains("e999");
                let fine =
                    given.as_deref() == Some("invalid_payload") || given.is_none() && too_large;
                assert!(fine, "{event} {id}: {given:?}");
            }
            for id in broken {
                let given = ask(&cluster, event, &format!("{{\"userId\":{id}}}")).await;
                assert_eq!(given, None, "{event} {id:?}");
            }
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    abuse().await;
    calm.returns(&cluster).await;
}

/// Goal: payloads are read as plain data, however deep, long or strangely named.
/// Method: nesting from 10 to 7,000 levels, names and texts that mean something elsewhere, texts that no other language
/// could hold; each is answered, and what is repeated of it is short.
#[tokio::test]
async fn payloads_of_every_shape() {
    let cluster = two_nodes().start().await;
    let abuse = async || {
        for (levels, verdict) in [
            (10, "ok"),
            (15, "ok"),
            (16, "invalid_payload"),
            (127, "invalid_payload"),
        ]
        .into_iter()
        .chain([128, 129, 1_000, 5_000, 7_000].map(|levels| (levels, "invalid_payload")))
        {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                if levels * (open.len() + close.len()) > 15_000 {
                    continue;
                }
                let nested = format!("{}1{}", open.repeat(levels), close.repeat(levels));
                let payload = format!("{{\"other\":{nested},\"userId\":7}}");
                let given = ask(&cluster, "watch-profile", &payload).await;
                assert_eq!(given.as_deref(), Some(verdict), "{levels} levels of {open}");
            }
        }
        let long = format!("{{\"userId\":7,\"x\":\"{}\"}}", "x".repeat(15_000));
        for payload in [
            r#"{"userId":7,"__proto__":{"userId":8}}"#,
            r#"{"__proto__":{"isAdmin":true},"constructor":{"prototype":{}},"toString":1,"userId":7}"#,
            r#"{"userId":7,"hasOwnProperty":null,"valueOf":{},"then":"x","toJSON":[]}"#,
            r#"{"userId":7,"\u0000":"\u0000"}"#,
            r#"{"userId":7,"\ud83d\ude42":"\ufeff\u2028\u2029\u202e"}"#,
            &long,
        ] {
            let given = ask(&cluster, "watch-profile", payload).await;
            assert_eq!(given.as_deref(), Some("ok"), "{payload}");
        }
        for payload in [
            r#"{"__proto__":{"userId":7}}"#,
            r#"{"constructor":{"prototype":{"userId":7}}}"#,
            r#"{"userId":7,"userId":8}"#,
            r#"{"userId":7,"user\u0049d":7}"#,
            r#"{"UserId":7}"#,
            r#"{"userId\u0000":7}"#,
            r#"[{"userId":7}]"#,
            "7",
            "null",
        ] {
            let given = ask(&cluster, "watch-profile", payload).await;
            assert_eq!(given.as_deref(), Some("invalid_payload"), "{payload}");
        }
        for name in [
            "__proto__",
            "constructor",
            "toString",
            "hasOwnProperty",
            "then",
            "é🙂",
            &"n".repeat(15_000),
        ] {
            let mut wire = cluster.joined(0, None).await;
            wire.say(&format!(r#"42["{name}",{{"__proto__":{{}}}}]"#))
                .await;
            let exception = wire.hear_until(r#"42["exception","#).await.expect("told");
            assert!(exception.contains("unknown_event"), "{exception}");
            assert!(
                exception.len() < 300,
                "{} bytes are repeated",
                exception.len()
            );
            assert!(wire.goes_on().await);
        }
    };
    abuse().await;
    let calm = Calm::after_warm_up(&cluster).await;
    for _ in 0..3 {
        abuse().await;
    }
    calm.returns(&cluster).await;
}
