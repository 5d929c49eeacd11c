//! Tokens: admission, expiry, and refusals.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Client, Cluster, Connecting, EC_PRIVATE, EC_PUBLIC, Record, SECRET, Signer,
    eventually, file, now_seconds, sign,
};

/// A token of a user that is good for so many seconds.
fn lasting(user: u64, seconds: i64) -> String {
    sign(
        &json!({ "sub": user.to_string(), "exp": now_seconds() + seconds }),
        SECRET,
    )
}

/// Goal: no token is a guest; a bad one never is.
/// Method: every way to have no token, then everything that is no good token, on both namespaces.
#[tokio::test]
async fn a_bad_token_never_becomes_a_guest() {
    let cluster = Cluster::start(1).await;
    let guests = [
        json!({}),
        json!({ "token": null }),
        json!({ "token": "" }),
        json!({ "other": 1 }),
        json!(null),
    ];
    for auth in guests {
        for namespace in ["/", "/socket.io/"] {
            let guest = Connecting::auth(auth.clone()).namespace(namespace);
            let guest = cluster.connect_with(0, guest).await;
            let answer = guest
                .emit_ack("refresh-token", json!({ "token": lasting(ADA, 60) }))
                .await;
            assert_eq!(answer["error"], "not_signed_in", "{auth}: {answer}");
        }
    }
    cluster.connect_with(0, Connecting::no_auth()).await;

    let claims = |claims: Value| sign(&claims, SECRET);
    let soon = now_seconds() + 600;
    let mut bad = vec![
        json!({}),
        json!(5),
        json!(0),
        json!(true),
        json!(false),
        json!([]),
        json!(["x"]),
    ];
    bad.extend([
        json!("x"),
        json!(" "),
        json!("a.b.c"),
        json!({ "token": lasting(ADA, 60) }),
    ]);
    bad.push(json!(sign(
        &json!({ "sub": "42", "exp": soon }),
        "another secret, also long enough"
    )));
    bad.push(json!(unsigned(&json!({ "sub": "42", "exp": soon }))));
    bad.push(json!(lasting(ADA, 60) + "x"));
    bad.push(json!(claims(json!({ "exp": soon }))));
    bad.push(json!(claims(
        json!({ "sub": "42", "exp": soon, "nbf": now_seconds() + 300 })
    )));
    for sub in [
        json!("0"),
        json!(0),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!(""),
        json!(null),
        json!("9007199254740992"),
        json!([42]),
    ] {
        bad.push(json!(claims(json!({ "sub": sub, "exp": soon }))));
    }
    for token in bad {
        for namespace in ["/", "/socket.io/"] {
            let connecting = Connecting::auth(json!({ "token": token })).namespace(namespace);
            assert_eq!(
                cluster.refusal(0, connecting).await,
                "invalid_token",
                "{token}"
            );
        }
    }
    cluster.wait_for_online(&[]).await;
    assert_eq!(
        cluster.connect_guest(0).await.online().await,
        Vec::<u64>::new()
    );
}

/// The claims under `alg: none`, with an empty signature.
fn unsigned(claims: &Value) -> String {
    let signed = sign(claims, SECRET);
    let body = signed.split('.').nth(1).expect("a token has three parts");
    // {"alg":"none","typ":"JWT"}
    format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")
}

/// Goal: the id may be a string or a number in the claim.
/// Method: one of each.
#[tokio::test]
async fn the_claim_is_a_string_or_a_number() {
    let cluster = Cluster::start(1).await;
    for (sub, user) in [(json!("42"), ADA), (json!(7), BOB)] {
        let token = sign(&json!({ "sub": sub, "exp": now_seconds() + 60 }), SECRET);
        let _tab = cluster.connect_with(0, Connecting::token(&token)).await;
        cluster.wait_until_seen(user).await;
    }
}

/// Goal: a token that has expired says so; the leeway forgives a few seconds.
/// Method: a minute ago, and one second ago.
#[tokio::test]
async fn an_expired_token_says_so() {
    let cluster = Cluster::start(1).await;
    let expired = Connecting::token(&lasting(ADA, -60));
    assert_eq!(cluster.refusal(0, expired.clone()).await, "token_expired");
    assert_eq!(
        cluster.refusal(0, expired.transports(&["polling"])).await,
        "token_expired"
    );
    cluster
        .connect_with(0, Connecting::token(&lasting(ADA, -1)))
        .await;
}

/// Goal: one address may have so many connections on a node and no more.
/// Method: a limit of three on one node, of which the harness's guest takes one; a fourth is held until one of them has
/// gone, while another address gets in.
#[tokio::test]
async fn connections_per_address_are_limited() {
    let cluster = Cluster::builder()
        .env("VIGIE_LIMITS__CONNECTIONS_PER_ADDRESS", "3")
        .start()
        .await;
    let (first, _second) = (cluster.connect(0, ADA).await, cluster.connect(0, BOB).await);
    let mut fourth = cluster.open(0, Connecting::guest());
    let elsewhere = Connecting::guest().from("127.0.0.9");
    cluster.connect_with(0, elsewhere).await;
    assert!(is_held(&fourth), "{:?}", fourth.events_so_far());
    first.close().await;
    assert_eq!(fourth.next_verdict().await, Ok(()));
}

/// Whether the client has no verdict yet. It may have moved to another transport.
fn is_held(client: &Client) -> bool {
    let mut events = client.events_so_far().into_iter();
    events.all(|event| matches!(event, Record::Upgrade { .. }))
}

/// Goal: one user may have so many connections and no more; others are not affected.
/// Method: a limit of two; a third is held until one of the two has gone.
#[tokio::test]
async fn connections_per_user_are_limited() {
    let cluster = Cluster::builder()
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "2")
        .start()
        .await;
    let (first, _second) = (cluster.connect(0, ADA).await, cluster.connect(0, ADA).await);
    let mut third = cluster.open(0, Connecting::user(ADA));
    let _bob = cluster.connect(0, BOB).await;
    let _guests = [
        cluster.connect_guest(0).await,
        cluster.connect_guest(0).await,
        cluster.connect_guest(0).await,
    ];
    assert!(is_held(&third), "{:?}", third.events_so_far());
    cluster.wait_for_refcount(ADA, 2).await;
    first.close().await;
    assert_eq!(third.next_verdict().await, Ok(()));
    cluster.wait_for_refcount(ADA, 2).await;
}

/// Goal: `refresh-token` takes a good token of the same user and nothing else.
/// Method: good ones, one of somebody else, garbage, expired; the connection goes on in each case.
#[tokio::test]
async fn a_token_can_be_refreshed() {
    let cluster = Cluster::start(1).await;
    let tab = cluster.connect(0, ADA).await;
    for seconds in [60, 7200] {
        let expires = now_seconds() + seconds;
        let token = sign(&json!({ "sub": "42", "exp": expires }), SECRET);
        let answer = tab
            .emit_ack("refresh-token", json!({ "token": token }))
            .await;
        assert_eq!(answer, json!({ "ok": true, "expiresAt": expires * 1000 }));
    }
    let bad = [
        lasting(BOB, 60),
        "garbage".to_owned(),
        lasting(ADA, -60),
        sign(
            &json!({ "sub": "42", "exp": now_seconds() + 60 }),
            "not the secret of the tests, but long",
        ),
    ];
    for token in bad {
        let answer = tab
            .emit_ack("refresh-token", json!({ "token": token }))
            .await;
        assert_eq!(
            (&answer["ok"], &answer["error"]),
            (&json!(false), &json!("invalid_token")),
            "{answer}"
        );
        assert!(answer["message"].is_string(), "{answer}");
    }
    let guest = cluster.connect_guest(0).await;
    let answer = guest
        .emit_ack("refresh-token", json!({ "token": lasting(ADA, 60) }))
        .await;
    assert_eq!(
        (&answer["ok"], &answer["error"]),
        (&json!(false), &json!("not_signed_in")),
        "{answer}"
    );
    assert_eq!(tab.online().await, [ADA]);
}

/// Goal: a token about to expire is announced, and its end is the end of the connection, unless it
/// was refreshed in time.
/// Method: two tabs with tokens of two seconds, one of which refreshes; a third whose token ends
/// later is the marker that the refreshed one has outlived its first token.
#[tokio::test]
async fn an_expiring_token_is_announced_and_enforced() {
    let cluster = Cluster::start(2).await;
    let connect = async |node, seconds| {
        let expires = now_seconds() + seconds;
        let token = sign(&json!({ "sub": "42", "exp": expires }), SECRET);
        (
            cluster.connect_with(node, Connecting::token(&token)).await,
            expires,
        )
    };
    let (mut refreshed, expires) = connect(0, 2).await;
    let announced = refreshed.next_event("token-expiring").await;
    assert_eq!(announced, json!({ "expiresAt": expires * 1000 }));
    let answer = refreshed
        .emit_ack("refresh-token", json!({ "token": lasting(ADA, 3600) }))
        .await;
    assert_eq!(answer["ok"], true, "{answer}");

    let (mut first, _) = connect(1, 2).await;
    let (mut marker, _) = connect(0, 4).await;
    for tab in [&mut first, &mut marker] {
        tab.next_event("token-expiring").await;
        assert_expired(tab).await;
    }
    assert!(refreshed.payloads("kicked").is_empty());
    assert_eq!(
        refreshed.payloads("token-expiring").len(),
        1,
        "the new one is far from its end"
    );
    assert!(refreshed.online().await.contains(&ADA));
    cluster.wait_for_refcount(ADA, 1).await;
}

async fn assert_expired(tab: &mut Client) {
    let kicked = tab.next_event("kicked").await;
    assert_eq!(
        (&kicked["code"], &kicked["reconnect"]),
        (&json!("token_expired"), &json!(false)),
        "{kicked}"
    );
    assert_eq!(tab.next_disconnect().await, "io server disconnect");
}

/// Goal: a token that lasts is not announced.
/// Method: a tab with an hour and one with two seconds; when the second is announced, the first
/// has heard nothing.
#[tokio::test]
async fn a_lasting_token_is_not_announced() {
    let cluster = Cluster::start(1).await;
    let lasts = cluster.connect(0, ADA).await;
    let mut ends = cluster
        .connect_with(0, Connecting::token(&lasting(BOB, 2)))
        .await;
    ends.next_event("token-expiring").await;
    lasts.online().await;
    assert!(lasts.payloads("token-expiring").is_empty());
}

/// Goal: a refused client that gets a good token comes in on the same socket.
/// Method: the front end's login after a refusal.
#[tokio::test]
async fn a_refused_socket_may_try_again() {
    let cluster = Cluster::start(1).await;
    let mut tab = cluster.open(0, Connecting::token("garbage"));
    assert_eq!(tab.next_verdict().await, Err("invalid_token".to_owned()));
    tab.login(&cluster.token(ADA));
    assert_eq!(tab.next_verdict().await, Ok(()));
    cluster.wait_until_seen(ADA).await;
    let seen = async || tab.online().await.contains(&ADA).then_some(());
    eventually("it is online itself", seen).await;
}

/// The secret from before the change of keys.
const SECRET_BEFORE: &str = "the secret that the tests had before, long enough";

/// Goal: after a change of keys both are accepted, until the previous one ends; then its tokens are refused wherever
/// they are shown, and connections that were opened with them stay.
/// Method: a node that has a secret before the present one, and one whose previous key has ended; both see a token of
/// each key, of a third one, and of the previous one expired.
#[tokio::test]
async fn a_previous_key_is_accepted_until_its_time() {
    let of = |key: &str, seconds| {
        let claims = json!({ "sub": "42", "exp": now_seconds() + seconds });
        Connecting::token(&sign(&claims, key))
    };
    let changed = |until: &str| {
        Cluster::builder()
            .memory()
            .env("VIGIE_AUTH__PREVIOUS_SECRET", SECRET_BEFORE)
            .env("VIGIE_AUTH__PREVIOUS_UNTIL", until)
    };
    let cluster = changed("2999-12-31T23:59:59Z").start().await;
    for key in [SECRET, SECRET_BEFORE] {
        let tab = cluster.connect_with(0, of(key, 60)).await;
        for next in [SECRET, SECRET_BEFORE] {
            let token = sign(&json!({ "sub": 42, "exp": now_seconds() + 90 }), next);
            let payload = json!({ "token": token });
            let answer = tab.emit_ack("refresh-token", payload).await;
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }
    let mut ends = cluster.connect_with(0, of(SECRET_BEFORE, 2)).await;
    assert_expired(&mut ends).await;
    let refused =
        async |cluster: &Cluster, key, seconds| cluster.refusal(0, of(key, seconds)).await;
    assert_eq!(refused(&cluster, SECRET_BEFORE, -60).await, "token_expired");
    assert_eq!(refused(&cluster, "a third", 60).await, "invalid_token");

    let cluster = changed("2020-01-01T00:00:00Z").start().await;
    assert_eq!(refused(&cluster, SECRET_BEFORE, 60).await, "invalid_token");
    let tab = cluster.connect_with(0, of(SECRET, 60)).await;
    let token = sign(
        &json!({ "sub": 42, "exp": now_seconds() + 90 }),
        SECRET_BEFORE,
    );
    let answer = tab
        .emit_ack("refresh-token", json!({ "token": token }))
        .await;
    assert_eq!(answer["error"], "invalid_token", "{answer}");
}

/// Goal: a connection outlives the key that its token was signed with.
/// Method: a previous key that ends soon after the tab has come in; it is tried until it is refused, and the tab is
/// still there. Where the key had ended before, it gets more time.
#[tokio::test]
async fn a_connection_outlives_its_key() {
    let claims = json!({ "sub": 42, "exp": now_seconds() + 600 });
    let token = sign(&claims, SECRET_BEFORE);
    let again = || Connecting::token(&token).once();
    for seconds in [4, 12] {
        let until = SystemTime::now() + Duration::from_secs(seconds);
        let until = humantime::format_rfc3339_seconds(until).to_string();
        let builder = Cluster::builder().memory();
        let builder = builder.env("VIGIE_AUTH__PREVIOUS_SECRET", SECRET_BEFORE);
        let builder = builder.env("VIGIE_AUTH__PREVIOUS_UNTIL", &until);
        let cluster = builder.start().await;
        let mut tab = cluster.open(0, again());
        if tab.next_verdict().await.is_err() {
            continue;
        }
        eventually("the previous key has ended", async || {
            let verdict = cluster.open(0, again()).next_verdict().await;
            verdict.err().filter(|message| message == "invalid_token")
        })
        .await;
        assert_eq!(tab.online().await, [ADA]);
        assert!(tab.payloads("kicked").is_empty());
        return;
    }
    panic!("nobody came in before the key had ended");
}

/// Goal: a key of another kind takes the place of a secret, and each is good for its own algorithms only.
/// Method: a public key after a secret; tokens of both, and one signed with the public key as if it were a secret.
#[tokio::test]
async fn a_public_key_takes_the_place_of_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let public = file(folder.path(), "key.pem", EC_PUBLIC);
    let cluster = Cluster::builder()
        .memory()
        .env("VIGIE_AUTH__SECRET", "")
        .env("VIGIE_AUTH__PUBLIC_KEY_FILE", &public.to_string_lossy())
        .env("VIGIE_AUTH__PREVIOUS_SECRET", SECRET)
        .env("VIGIE_AUTH__PREVIOUS_UNTIL", "2999-12-31T23:59:59Z")
        .start()
        .await;
    let claims = json!({ "sub": "42", "exp": now_seconds() + 60 });
    for signer in [Signer::secret(SECRET), Signer::ec(EC_PRIVATE)] {
        let connecting = Connecting::token(&signer.token(&claims));
        cluster.connect_with(0, connecting).await;
    }
    let confused = Signer::secret(EC_PUBLIC).token(&claims);
    assert_eq!(
        cluster.refusal(0, Connecting::token(&confused)).await,
        "invalid_token"
    );
}
