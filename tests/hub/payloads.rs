//! Bad payloads of clients, and the answers to them.

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Client, Cluster, Connecting};

/// Payloads that are no `{ userId }`.
fn bad_targets() -> Vec<Value> {
    let mut bad = vec![
        json!(null),
        json!("42"),
        json!(42),
        json!(true),
        json!([]),
        json!([42]),
        json!({}),
        json!([[{ "userId": 42 }]]),
        json!({ "userid": 42 }),
        json!({ "user": { "userId": 42 } }),
        json!({ "__proto__": { "userId": 42 } }),
        json!({ "$bytes": "2a" }),
    ];
    let bad_ids = [
        json!("42"),
        json!(""),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1_u64 << 53),
        json!(1e300),
        json!(null),
        json!(true),
        json!([]),
        json!([42]),
        json!({}),
        json!({ "userId": 42 }),
        json!({ "__proto__": 42 }),
        json!({ "$bytes": "2a" }),
    ];
    bad.extend(bad_ids.map(|id| json!({ "userId": id })));
    bad
}

/// Payloads that are no `{ token }`.
fn bad_tokens() -> Vec<Value> {
    let mut bad = vec![
        json!(null),
        json!("x"),
        json!(1),
        json!([]),
        json!({}),
        json!({ "$bytes": "00" }),
    ];
    let bad_values = [
        json!(null),
        json!(1),
        json!(true),
        json!([]),
        json!({}),
        json!({ "$bytes": "00" }),
    ];
    bad.extend(bad_values.map(|token| json!({ "token": token })));
    bad
}

/// Every event that has a payload, with payloads that are none of its.
fn bad_events() -> Vec<(&'static str, Vec<Value>)> {
    let mut bad = Vec::new();
    for event in ["watch-profile", "unwatch-profile"] {
        bad.push((event, vec![]));
        bad.extend(
            bad_targets()
                .into_iter()
                .map(|payload| (event, vec![payload])),
        );
    }
    bad.push(("refresh-token", vec![]));
    bad.extend(
        bad_tokens()
            .into_iter()
            .map(|payload| ("refresh-token", vec![payload])),
    );
    bad
}

fn assert_refused(answer: &Value, code: &str, what: &str) {
    assert_eq!(answer["ok"], false, "{what} answered {answer}");
    assert_eq!(answer["error"], code, "{what} answered {answer}");
    assert!(
        answer["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{what}: {answer}"
    );
}

/// Goal: a bad payload is refused in the acknowledgement, and changes nothing.
/// Method: every event with everything that is no payload of it; then the connection still works,
/// and its node listens to no topic but its own.
#[tokio::test]
async fn bad_payloads_are_refused_in_the_answer() {
    let cluster = Cluster::start(1).await;
    let tab = cluster.connect(0, BOB).await;
    for (event, args) in bad_events() {
        let what = format!("{event} {args:?}");
        let answer = tab.emit_args_ack(event, args).await;
        assert_refused(&answer, "invalid_payload", &what);
    }
    let channels = cluster
        .redis()
        .lines(&["PUBSUB", "SHARDCHANNELS", "vigie:{0}:user:*"])
        .await;
    assert_eq!(channels, ["vigie:{0}:user:7"]);
    assert!(
        tab.payloads("exception").is_empty(),
        "who is answered gets no exception"
    );
    tab.watch(ADA).await;
}

/// Goal: where the client wants no answer, the refusal comes as `exception`.
/// Method: the same without acknowledgement; exceptions come in the order of the events.
#[tokio::test]
async fn bad_payloads_without_an_answer_are_exceptions() {
    let cluster = Cluster::start(1).await;
    for namespace in ["/", "/socket.io/"] {
        let connecting = Connecting::user(BOB).namespace(namespace);
        let mut tab = cluster.connect_with(0, connecting).await;
        for (event, args) in bad_events() {
            tab.emit_args(event, args);
        }
        for (event, args) in bad_events() {
            let exception = tab.next_event("exception").await;
            let what = format!("{event} {args:?}: {exception}");
            assert_eq!(exception["event"], event, "{what}");
            assert_eq!(exception["error"], "invalid_payload", "{what}");
            assert!(exception["message"].is_string(), "{what}");
        }
    }
}

/// Goal: good events need no acknowledgement.
/// Method: watch without one, hear an update; unwatch without one, hear a marker first.
#[tokio::test]
async fn every_acknowledgement_is_optional() {
    let cluster = Cluster::start(2).await;
    let mut tab = cluster.connect(0, BOB).await;
    tab.emit("watch-profile", json!({ "userId": ADA }));
    tab.emit_args("get-online-users", vec![]);
    tab.emit("refresh-token", json!({ "token": cluster.token(BOB) }));
    tab.watch(5).await;
    cluster
        .notify_profile(1, ADA, json!({ "userID": ADA }))
        .await;
    assert_eq!(
        tab.next_event("profile-update").await["user"]["userID"],
        ADA
    );
    tab.emit("unwatch-profile", json!({ "userId": ADA }));
    tab.online().await;
    cluster
        .notify_profile(1, ADA, json!({ "userID": ADA }))
        .await;
    cluster.notify_profile(1, 5, json!({ "userID": 5 })).await;
    assert_eq!(tab.next_event("profile-update").await["user"]["userID"], 5);
    assert!(tab.payloads("exception").is_empty());
}

/// Goal: events that do not exist are refused, with or without acknowledgement.
/// Method: invented names, names that mean something in JavaScript, names of the hub's own events.
#[tokio::test]
async fn unknown_events_are_refused() {
    let cluster = Cluster::start(1).await;
    let mut tab = cluster.connect_with(0, Connecting::guest()).await;
    let names = [
        "no-such-event",
        "",
        "__proto__",
        "constructor",
        "toString",
        "message",
        "user-status-change",
        "kicked",
        "exception",
        "WATCH-PROFILE",
        "émoji-🙂",
    ];
    for name in names {
        for args in [
            vec![],
            vec![json!({ "userId": 1 })],
            vec![json!(1), json!({ "$bytes": "00ff" }), json!([])],
        ] {
            let what = format!("{name:?} {args:?}");
            let answer = tab.emit_args_ack(name, args.clone()).await;
            assert_refused(&answer, "unknown_event", &what);
            tab.emit_args(name, args);
            let exception = tab.next_event("exception").await;
            assert_eq!(exception["event"], name, "{what}: {exception}");
            assert_eq!(exception["error"], "unknown_event", "{what}: {exception}");
            assert!(exception["message"].is_string(), "{what}: {exception}");
        }
    }
}

/// Goal: `get-online-users` answers with an array whatever comes with it.
/// Method: junk of every type, also several arguments and binary ones.
#[tokio::test]
async fn the_list_is_always_a_list() {
    let cluster = Cluster::start(1).await;
    let tab = cluster.connect(0, ADA).await;
    let mut junk: Vec<Vec<Value>> = bad_targets()
        .into_iter()
        .map(|payload| vec![payload])
        .collect();
    junk.extend([
        vec![],
        vec![json!(1), json!(2)],
        vec![json!({ "$bytes": "00" }), json!(null)],
    ]);
    for args in junk {
        let what = format!("{args:?}");
        assert_eq!(
            tab.emit_args_ack("get-online-users", args).await,
            json!([ADA]),
            "{what}"
        );
    }
    assert!(tab.payloads("exception").is_empty());
}

/// Goal: one connection may watch so many profiles; what it watches already does not count anew.
/// Method: a limit of two; the third is refused with and without acknowledgement, until there is
/// room; another connection has its own count.
#[tokio::test]
async fn watches_are_limited() {
    let cluster = Cluster::builder()
        .env("VIGIE_LIMITS__WATCHES", "2")
        .start()
        .await;
    let mut tab = cluster.connect_guest(0).await;
    tab.watch(1).await;
    tab.watch(2).await;
    tab.watch(1).await;
    let third = json!({ "userId": 3 });
    assert_refused(
        &tab.emit_ack("watch-profile", third.clone()).await,
        "too_many_watches",
        "the third",
    );
    tab.emit("watch-profile", third.clone());
    let exception = tab.next_event("exception").await;
    assert_eq!(
        (&exception["event"], &exception["error"]),
        (&json!("watch-profile"), &json!("too_many_watches"))
    );
    cluster.wait_for_subscribers(3, 0).await;
    cluster.connect_guest(0).await.watch(3).await;
    tab.unwatch(1).await;
    tab.watch(3).await;
    cluster.notify_profile(0, 3, json!({ "userID": 3 })).await;
    assert_eq!(tab.next_event("profile-update").await["user"]["userID"], 3);
}

/// Goal: who sends too many events is refused, and only that connection.
/// Method: five at once and then one a second are allowed; eight come in one burst, so that the
/// last is too many.
#[tokio::test]
async fn events_are_limited() {
    let builder = Cluster::builder().env("VIGIE_LIMITS__EVENTS_PER_SECOND", "1");
    let cluster = builder.env("VIGIE_LIMITS__EVENTS_BURST", "5").start().await;
    let hasty = cluster.connect_with(0, Connecting::guest()).await;
    let calm = cluster.connect_with(0, Connecting::guest()).await;
    let events: Vec<(&str, Value)> = (0..8)
        .map(|_| ("unwatch-profile", json!({ "userId": 1 })))
        .collect();
    let answers = answers(&hasty, &events).await;
    assert_eq!(answers[0], json!({ "ok": true }));
    assert_refused(&answers[7], "rate_limited", "the eighth");
    let refused = answers
        .iter()
        .filter(|answer| answer["ok"] == false)
        .count();
    assert!((1..=3).contains(&refused), "{refused} of 8 were refused");
    calm.unwatch(1).await;
}

async fn answers(client: &Client, events: &[(&str, Value)]) -> Vec<Value> {
    let mut answers = Vec::new();
    for number in client.burst(events) {
        answers.push(client.answer(number).await);
    }
    answers
}

/// Goal: nothing that a client sends on the level below Socket.IO's events harms the hub.
/// Method: a good client works before and after another has sent events with huge names, deep
/// nesting and many arguments.
#[tokio::test]
async fn odd_shapes_do_no_harm() {
    let cluster = Cluster::start(1).await;
    let tab = cluster.connect_with(0, Connecting::guest()).await;
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = json!([deep]);
    }
    let name = "n".repeat(2000);
    let answer = tab.emit_ack(&name, json!(1)).await;
    assert_refused(&answer, "unknown_event", "a long name");
    let answer = tab
        .emit_ack("watch-profile", json!({ "userId": deep }))
        .await;
    assert_refused(&answer, "invalid_payload", "deep nesting");
    let many: Vec<Value> = (0..500).map(|n| json!(n)).collect();
    let answer = tab.emit_args_ack("watch-profile", many).await;
    assert_refused(&answer, "invalid_payload", "many arguments");
    let bytes: Vec<Value> = (0..8).map(|_| json!({ "$bytes": "00ff" })).collect();
    let answer = tab.emit_args_ack("no-such-event", bytes).await;
    assert_refused(&answer, "unknown_event", "many attachments");
    cluster.connect(0, ADA).await.watch(BOB).await;
}

/// Goal: `get-online-users` is answered with an array even by a hub that has had enough of the client.
/// Method: a burst of one; twenty questions.
#[tokio::test]
async fn who_is_online_is_always_an_array() {
    let builder = Cluster::builder().env("VIGIE_LIMITS__EVENTS_PER_SECOND", "1");
    let cluster = builder.env("VIGIE_LIMITS__EVENTS_BURST", "1").start().await;
    let hasty = cluster.connect_with(0, Connecting::guest()).await;
    let events: Vec<(&str, Value)> = (0..20).map(|_| ("get-online-users", json!(null))).collect();
    for answer in answers(&hasty, &events).await {
        assert_eq!(answer, json!([]));
    }
}
