//! Limits of one client on a node, and how an operator changes them while the node runs.

use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Client, Cluster, Connecting, EVE, NODE_KEY, SECRET, WEBSOCKET, eventually,
    now_seconds, scratch, sign,
};

/// Goal: who goes on sending after having been refused is told so, closed, and comes back by itself.
/// Method: two events are allowed, a hundred more are refused; three hundred are sent in one burst. A
/// neighbour is untouched.
#[tokio::test]
async fn who_goes_on_is_kicked() {
    let cluster = Cluster::builder()
        .env("VIGIE_LIMITS__EVENTS_PER_SECOND", "1")
        .env("VIGIE_LIMITS__EVENTS_BURST", "2")
        .start()
        .await;
    for transports in [["websocket"], ["polling"]] {
        let neighbour = cluster.connect_with(0, Connecting::guest()).await;
        let user = Connecting::user(ADA).transports(&transports);
        let mut hasty = cluster.connect_with(0, user).await;
        let burst: Vec<(&str, Value)> = (0..300)
            .map(|_| ("unwatch-profile", json!({ "userId": 1 })))
            .collect();
        hasty.burst(&burst);
        let kicked = hasty.next_event("kicked").await;
        assert_eq!(kicked["code"], "rate_limited", "{kicked}");
        assert_eq!(kicked["reconnect"], true, "{kicked}");
        let reason = hasty.next_disconnect().await;
        assert_ne!(reason, "io server disconnect", "it would stay away");
        assert_eq!(hasty.next_verdict().await, Ok(()));
        cluster.wait_for_refcount(ADA, 1).await;
        neighbour.unwatch(1).await;
        hasty.close().await;
    }
}

/// Goal: tokens and the queue have rates of their own.
/// Method: of three hundred bad tokens in one burst most are not looked at; another event passes.
#[tokio::test]
async fn dear_events_have_rates_of_their_own() {
    let cluster = Cluster::start(1).await;
    let ada = cluster.connect(0, ADA).await;
    for (event, payload, expected) in [
        ("refresh-token", json!({ "token": "x.y.z" }), 100..=160),
        ("leave-matchmaking", json!(null), 100..=160),
    ] {
        let burst: Vec<(&str, Value)> = (0..300).map(|_| (event, payload.clone())).collect();
        let mut passed = 0;
        for number in ada.burst(&burst) {
            let answer = ada.answer(number).await;
            passed += usize::from(answer["error"] != "rate_limited");
        }
        assert!(expected.contains(&passed), "{event}: {passed}");
        ada.unwatch(1).await;
    }
}

/// Goal: a full node turns others away, and takes them when there is room again.
/// Method: three connections are allowed; the fourth gets 503 on each transport, while the node stays healthy and
/// ready; then one leaves.
#[tokio::test]
async fn a_full_node_turns_others_away() {
    let cluster = Cluster::builder()
        .without_lookouts()
        .env("VIGIE_LIMITS__CONNECTIONS", "3")
        .start()
        .await;
    let mut inside = Vec::new();
    for user in [ADA, BOB, EVE] {
        inside.push(cluster.connect_with(0, Connecting::user(user)).await);
    }
    for transport in ["websocket", "polling"] {
        let path = format!("/socket.io/?EIO=4&transport={transport}");
        let answer = cluster.get_public(0, &path).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), "5");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(cluster.get_public(0, path).await.status, 200);
    }
    if let Some(ada) = inside.pop() {
        ada.close().await;
    }
    eventually("there is room again", async || {
        let path = "/socket.io/?EIO=4&transport=polling";
        (cluster.get_public(0, path).await.status == 200).then_some(())
    })
    .await;
}

/// Goal: an address is the client's where a trusted proxy says so, and never what a client says itself.
/// Method: one connection an address; behind a proxy that is trusted two clients have two addresses, whatever they
/// put before theirs; where nobody is trusted they have one. All of an IPv6 /64 is one. More of an address that has its
/// connection are held, while another address, later, gets in; they get in when the first is gone.
#[tokio::test]
async fn proxies_that_are_trusted_say_for_whom_they_speak() {
    let limited = || {
        Cluster::builder()
            .without_lookouts()
            .env("VIGIE_LIMITS__CONNECTIONS_PER_ADDRESS", "1")
    };
    let from = |list: &str| Connecting::guest().header("x-forwarded-for", list);
    let proxied = limited()
        .env("VIGIE_HTTP__TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8")
        .start()
        .await;
    let _one = proxied.connect_with(0, from("192.0.2.1")).await;
    let _two = proxied.connect_with(0, from("192.0.2.2, 10.1.2.3")).await;
    let _three = proxied.connect_with(0, from("2001:db8:0:1::1")).await;
    let held = [
        "192.0.2.1",
        "192.0.2.9, 192.0.2.1",
        "192.0.2.1:4711, 10.9.9.9",
        "2001:db8:0:1:ffff::2",
    ]
    .map(|taken| proxied.open(0, from(taken)));
    let _later = proxied.connect_with(0, from("192.0.2.3")).await;
    for client in &held {
        assert_eq!(client.events_so_far(), []);
    }

    let open = limited().start().await;
    let one = open.connect_with(0, from("192.0.2.1")).await;
    let mut other = open.open(0, from("192.0.2.2"));
    let _later = open
        .connect_with(0, from("192.0.2.3").from("127.0.0.9"))
        .await;
    assert_eq!(other.events_so_far(), []);
    one.close().await;
    assert_eq!(other.next_verdict().await, Ok(()));
}

/// Goal: SIGHUP has a node take over keys and limits, without closing anybody; settings that are wrong change nothing.
/// Method: the settings are in files that are written anew.
#[tokio::test]
async fn keys_and_limits_are_taken_over() {
    const OLD: &str = "the old secret of this test, which is long enough";
    const NEW: &str = "the new secret of this test, which is long enough";
    let (_scratch, folder) = scratch();
    let (settings, secret, key) = (
        folder.join("vigie.toml"),
        folder.join("secret"),
        folder.join("key"),
    );
    let write = |watches: &str, signed_with: &str, api_key: &str| {
        std::fs::write(&settings, format!("[limits]\nwatches = {watches}\n")).expect("writable");
        std::fs::write(&secret, signed_with).expect("writable");
        std::fs::write(&key, api_key).expect("writable");
    };
    write("2", OLD, NODE_KEY);
    let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let cluster = Cluster::builder()
        .without_lookouts()
        .file(&settings)
        .env("VIGIE_AUTH__SECRET", "")
        .env("VIGIE_AUTH__SECRET_FILE", &path(&secret))
        .env("VIGIE_INTERNAL__API_KEY", "")
        .env("VIGIE_INTERNAL__API_KEY_FILE", &path(&key))
        .start()
        .await;
    let token = |secret: &str| {
        let claims = json!({ "sub": ADA.to_string(), "exp": now_seconds() + 600 });
        sign(&claims, secret)
    };
    let old = Connecting::token(&token(OLD));
    let tab = cluster.connect_with(0, old).await;
    let third_is_watched = async |tab: &Client| {
        for target in 1..=2 {
            tab.watch(target).await;
        }
        tab.emit_ack("watch-profile", json!({ "userId": 3 })).await["ok"] == true
    };
    assert!(!third_is_watched(&tab).await);

    write("0", NEW, NODE_KEY);
    cluster.hang_up(0);
    eventually("the node says what is wrong", async || {
        let log = cluster.log(0);
        log.contains("limits.watches").then_some(())
    })
    .await;
    assert!(!third_is_watched(&tab).await);
    let refusal = cluster.refusal(0, Connecting::token(&token(NEW))).await;
    assert_eq!(refusal, "invalid_token");

    write("3", NEW, "another key of the internal API");
    cluster.hang_up(0);
    eventually("the node takes over", async || {
        cluster.log(0).contains("took over").then_some(())
    })
    .await;
    assert!(third_is_watched(&tab).await, "the same connection");
    cluster
        .connect_with(0, Connecting::token(&token(NEW)))
        .await;
    let refusal = cluster.refusal(0, Connecting::token(&token(OLD))).await;
    assert_eq!(refusal, "invalid_token");
    assert_eq!(
        cluster.get(0, "/api/v1/nodes").await.status,
        401,
        "the old key"
    );
    assert!(tab.connected_since().is_some());
}

/// Goal: keys that everybody knows never replace those that a node began with.
/// Method: a node has its keys in its settings file, which is emptied, then gone; they stay in use, and the log says
/// what is wrong.
#[tokio::test]
async fn keys_that_everybody_knows_replace_no_others() {
    let (_scratch, folder) = scratch();
    let settings = folder.join("vigie.toml");
    let text = format!("[auth]\nsecret = \"{SECRET}\"\n[internal]\napi_key = \"{NODE_KEY}\"\n");
    std::fs::write(&settings, text).expect("writable");
    let cluster = Cluster::builder()
        .memory()
        .without_lookouts()
        .file(&settings)
        .env("VIGIE_AUTH__SECRET", "")
        .env("VIGIE_INTERNAL__API_KEY", "")
        .start()
        .await;
    std::fs::write(&settings, "").expect("writable");
    let complaints = || cluster.log(0).matches("kept the keys and limits").count();
    cluster.hang_up(0);
    eventually("the node keeps its keys", async || {
        (complaints() == 1).then_some(())
    })
    .await;
    std::fs::remove_file(&settings).expect("it is there");
    cluster.hang_up(0);
    eventually("the node keeps its keys again", async || {
        (complaints() == 2).then_some(())
    })
    .await;
    assert_eq!(cluster.get(0, "/api/v1/nodes").await.status, 200);
    cluster.connect_with(0, Connecting::user(ADA)).await;
    let claims = json!({ "sub": ADA.to_string(), "exp": now_seconds() + 600 });
    let known = sign(&claims, "vigie-development-secret-known-to-everybody");
    let refusal = cluster.refusal(0, Connecting::token(&known)).await;
    assert_eq!(refusal, "invalid_token");
}

/// Goal: a session is closed whatever other requests have named it.
/// Method: a second request says that it takes the session over, which it cannot; then its client sends too much.
#[tokio::test]
async fn a_session_is_closed_although_others_name_it() {
    let cluster = Cluster::builder()
        .env("VIGIE_LIMITS__EVENTS_PER_SECOND", "1")
        .env("VIGIE_LIMITS__EVENTS_BURST", "2")
        .start()
        .await;
    let mut session = cluster.websocket(0).await;
    session.say("40{}").await;
    let told = session.hear_until("40{\"sid\":\"").await.expect("it joins");
    let sid = told.split('"').next().expect("a session").to_owned();
    for _ in 0..3 {
        let mut other = cluster.wire(0).await;
        other.upgrade(&format!("{WEBSOCKET}&sid={sid}")).await;
        other.ended().await;
    }
    for _ in 0..300 {
        session.say(r#"42["unwatch-profile",{"userId":1}]"#).await;
    }
    session.ended().await;
}
