//! Tokens that are revoked: refused from then on, wherever they are shown, and connections with them closed.

use std::collections::VecDeque;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{
    ADA, Answer, BOB, Client, Cluster, Connecting, EVE, NODE_KEY, Postgres, eventually, issued,
    now_seconds, token,
};

/// A token of a user that was issued a minute ago.
fn older(user: u64) -> String {
    issued(user, (now_seconds() as u64 - 60) * 1000)
}

/// Revokes a user's tokens; returns before when they are refused, in ms.
async fn revoke(cluster: &Cluster, node: usize, user: u64) -> u64 {
    let body = json!({ "revoke": true });
    let answer = cluster.notify(node, user, "disconnect", body).await;
    let before = answer["revokedBefore"].as_u64();
    before.unwrap_or_else(|| panic!("before when? {answer}"))
}

async fn refusal(cluster: &Cluster, node: usize, token: &str) -> String {
    cluster.refusal(node, Connecting::token(token)).await
}

async fn refresh(tab: &Client, token: &str) -> Value {
    tab.emit_ack("refresh-token", json!({ "token": token }))
        .await
}

async fn assert_kicked(tab: &mut Client) {
    let kicked = tab.next_event("kicked").await;
    assert_eq!(
        (&kicked["code"], &kicked["reconnect"]),
        (&json!("kicked"), &json!(false)),
        "{kicked}"
    );
    assert_eq!(tab.next_disconnect().await, "io server disconnect");
}

/// Goal: a revocation closes every connection of the user and refuses every token from before, on every node; newer
/// ones, and everybody else's, are accepted.
/// Method: tabs on two nodes; tokens without a time, of a minute ago, of the last millisecond before, of the second in
/// which it happened, and of the first millisecond after.
#[tokio::test]
async fn tokens_from_before_are_refused_everywhere() {
    let cluster = Cluster::start(2).await;
    let mut tabs = [
        cluster
            .connect_with(0, Connecting::token(&older(ADA)))
            .await,
        cluster
            .connect_with(1, Connecting::token(&token(ADA)))
            .await,
    ];
    let bystander = cluster.connect(0, BOB).await;
    cluster.wait_for_refcount(ADA, 2).await;
    let before = revoke(&cluster, 1, ADA).await;
    for tab in &mut tabs {
        assert_kicked(tab).await;
    }
    cluster.wait_for_refcount(ADA, 0).await;
    for node in 0..2 {
        for token in [
            token(ADA),
            older(ADA),
            issued(ADA, before - 1),
            issued(ADA, (before - 1) / 1000 * 1000),
        ] {
            assert_eq!(refusal(&cluster, node, &token).await, "invalid_token");
        }
        let connecting = Connecting::token(&issued(ADA, before));
        cluster.connect_with(node, connecting).await.online().await;
        let other = Connecting::token(&token(BOB));
        cluster.connect_with(node, other).await;
    }
    assert!(bystander.payloads("kicked").is_empty());

    // The time moves on, and is kept for a long while.
    let again = revoke(&cluster, 0, ADA).await;
    assert!(again >= before, "{before} {again}");
    let key = cluster.key(ADA, "revoked");
    assert_eq!(cluster.cli(&["GET", &key]).await, again.to_string());
    let days = cluster.redis().number(&["TTL", &key]).await / 86_400;
    assert!((398..=400).contains(&days), "{days}");
}

/// Goal: without `revoke` nothing is revoked; what is no request changes nothing.
/// Method: no body, `{}`, `revoke: false`; then bodies that are wrong, after which everybody is still there.
#[tokio::test]
async fn disconnecting_alone_revokes_nothing() {
    let cluster = Cluster::start(1).await;
    let path = format!("/api/v1/users/{ADA}/disconnect");
    let bare = || {
        cluster
            .request(0, Method::POST, &path)
            .bearer_auth(NODE_KEY)
    };
    for body in ["", "{}", " {} ", r#"{"revoke":false}"#] {
        let mut tab = cluster.connect(0, ADA).await;
        let answer = cluster.send(bare().body(body)).await;
        assert_eq!(
            (answer.status, &answer.json),
            (200, &json!({ "nodes": 1 })),
            "{body}"
        );
        assert_kicked(&mut tab).await;
    }
    let tab = cluster.connect(0, ADA).await;
    for body in [
        "null",
        "true",
        "[]",
        "[true]",
        " ",
        "{",
        r#"{"revoke":1}"#,
        r#"{"revoke":"true"}"#,
        r#"{"revoke":null}"#,
        r#"{"revoke":[true]}"#,
        r#"{"Revoke":true}"#,
        r#"{"revoke":true,"more":1}"#,
        r#"{"revoke":true,"revoke":true}"#,
        r#"{"revoke":true} {}"#,
    ] {
        cluster.send(bare().body(body)).await.assert_problem(400);
    }
    assert_eq!(refresh(&tab, &token(ADA)).await["ok"], true);
    assert!(tab.payloads("kicked").is_empty());
    let keys = cluster.redis().keys("vigie:*:revoked:*").await;
    assert_eq!(keys, Vec::<String>::new());
    cluster.notify(0, EVE, "account-deleted", json!({})).await;
    let revoke = json!({ "revoke": true });
    let gone = cluster.tell(EVE, "disconnect", &revoke).await;
    gone.assert_problem(410);
}

/// Goal: `refresh-token` refuses what the handshake refuses, and goes on with what it had; what cannot be asked is not
/// accepted either.
/// Method: a tab with a newer token; revoked ones, a newer one; a deletion of which no node was told; Redis away.
#[tokio::test]
async fn refreshing_asks_too() {
    let cluster = Cluster::builder()
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "500ms")
        .start()
        .await;
    let before = revoke(&cluster, 0, ADA).await;
    let newer = issued(ADA, before);
    let tab = cluster.connect_with(0, Connecting::token(&newer)).await;
    for token in [token(ADA), older(ADA), issued(ADA, before - 1)] {
        let answer = refresh(&tab, &token).await;
        assert_eq!(
            (&answer["ok"], &answer["error"]),
            (&json!(false), &json!("invalid_token")),
            "{answer}"
        );
    }
    assert_eq!(refresh(&tab, &newer).await["ok"], true);

    let profile = cluster.key(ADA, "profile");
    cluster.cli(&["HSET", &profile, "deleted", "1"]).await;
    let answer = refresh(&tab, &newer).await;
    assert_eq!(answer["error"], "invalid_token", "{answer}");
    cluster.cli(&["HDEL", &profile, "deleted"]).await;

    cluster.redis().pause();
    let answer = refresh(&tab, &newer).await;
    assert_eq!(answer["error"], "unavailable", "{answer}");
    cluster.redis().resume();
    eventually("it can be asked again", async || {
        (refresh(&tab, &newer).await["ok"] == true).then_some(())
    })
    .await;
    assert!(tab.payloads("kicked").is_empty());
}

/// Goal: HTTP refuses a revoked token in the words of the sockets; while nobody can say, nobody is let in.
/// Method: a route for everybody and one for users, before and after; Redis stands still, guests go on.
#[tokio::test]
async fn http_asks_too() {
    let postgres = Postgres::start().await;
    let cluster = Cluster::builder()
        .nodes(2)
        .on_postgres(&postgres)
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "500ms")
        .start()
        .await;
    let account = json!({ "username": "ada" });
    let path = format!("/api/v1/users/{ADA}");
    let created = cluster
        .request(0, Method::PUT, &path)
        .bearer_auth(NODE_KEY)
        .json(&account);
    assert_eq!(cluster.send(created).await.status, 200);
    let look = async |node, token: &str| {
        let request = cluster.request_as(None, node, Method::GET, &path);
        cluster.send(request.bearer_auth(token)).await
    };
    let rename = async |node, token: &str| {
        let request = cluster.request_as(None, node, Method::PATCH, "/api/v1/me");
        let request = request.bearer_auth(token).json(&account);
        cluster.send(request).await
    };
    assert_eq!(look(0, &older(ADA)).await.status, 200);
    assert_eq!(rename(0, &token(ADA)).await.status, 200);
    let before = revoke(&cluster, 0, ADA).await;
    let newer = issued(ADA, before);
    for node in 0..2 {
        for token in [token(ADA), older(ADA), issued(ADA, before - 1)] {
            assert_revoked(&look(node, &token).await);
            assert_revoked(&rename(node, &token).await);
        }
        assert_eq!(look(node, &newer).await.status, 200);
        assert_eq!(rename(node, &newer).await.status, 200);
    }

    cluster.redis().pause();
    for answer in [look(0, &newer).await, rename(0, &newer).await] {
        answer.assert_problem(503);
        assert_eq!(answer.header("retry-after"), "1");
    }
    let guest = cluster.request_as(None, 0, Method::GET, &path);
    assert_eq!(cluster.send(guest).await.status, 200);
    cluster.redis().resume();
    eventually("users are served again", async || {
        (look(0, &newer).await.status == 200).then_some(())
    })
    .await;
}

fn assert_revoked(answer: &Answer) {
    answer.assert_problem(401);
    let detail = answer.json["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("invalid_token: "), "{detail}");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

/// Goal: whoever connects while the tokens are revoked is refused or sent away; nobody stays.
/// Method: sixty connect with tokens from before, one after the other on two nodes and a dozen at a time, while somebody
/// revokes in the middle of it; ten times, each time it is another user. In the end each of them knows, nothing is
/// registered, and whoever signs in again is served.
#[tokio::test]
async fn nobody_slips_through_while_tokens_are_revoked() {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "1000")
        .start()
        .await;
    let (mut refused, mut closed) = (0, 0);
    for user in 101..=110 {
        let in_the_middle = Notify::new();
        let revoking = async {
            in_the_middle.notified().await;
            revoke(&cluster, user as usize % 2, user).await
        };
        let connecting = connect_many(&cluster, user, &in_the_middle);
        let (before, clients) = tokio::join!(revoking, connecting);
        for (mut client, verdict) in clients {
            match verdict {
                Ok(()) => {
                    assert_kicked(&mut client).await;
                    closed += 1;
                }
                Err(message) => {
                    assert_eq!(message, "invalid_token");
                    refused += 1;
                }
            }
        }
        cluster.wait_for_refcount(user, 0).await;
        let newer = Connecting::token(&issued(user, before));
        let back = cluster.connect_with(0, newer).await;
        eventually("whoever signs in again is online", async || {
            back.online().await.contains(&user).then_some(())
        })
        .await;
    }
    println!("{refused} were refused, {closed} were closed");
    assert!(refused > 0 && closed > 0, "{refused} {closed}");
}

type Verdict = Result<(), String>;

/// Connects with a token from before, a dozen at a time; says when half of them are on their way.
async fn connect_many(cluster: &Cluster, user: u64, half: &Notify) -> Vec<(Client, Verdict)> {
    let token = older(user);
    let (mut opening, mut done) = (VecDeque::new(), Vec::new());
    for at in 0..60 {
        if at == 30 {
            half.notify_one();
        }
        opening.push_back(cluster.open(at % 2, Connecting::token(&token).once()));
        if opening.len() >= 12
            && let Some(mut client) = opening.pop_front()
        {
            let verdict = client.next_verdict().await;
            done.push((client, verdict));
        }
    }
    for mut client in opening {
        let verdict = client.next_verdict().await;
        done.push((client, verdict));
    }
    done
}

/// Goal: a node that did not hear of a revocation closes the connections as soon as it can know.
/// Method: node 0 is cut off from Redis; the other one is told.
#[tokio::test]
async fn a_revocation_that_was_missed_is_acted_on() {
    let cluster = Cluster::builder().nodes(2).links().start().await;
    let mut tab = cluster.connect(0, ADA).await;
    let other = cluster.connect(0, BOB).await;
    cluster.link(0).cut();
    revoke(&cluster, 1, ADA).await;
    cluster.link(0).mend();
    assert_kicked(&mut tab).await;
    cluster.wait_for_refcount(ADA, 0).await;
    assert!(other.payloads("kicked").is_empty());
}

/// Goal: a connection that was admitted is registered again whatever has been revoked since; that it is to be closed
/// is told by other means.
/// Method: a revocation that nobody is told of, then the lease is taken away, then what is registered is forgotten and
/// found by the audit.
#[tokio::test]
async fn who_was_admitted_is_registered_again() {
    let cluster = Cluster::builder()
        .env("VIGIE_NODE__AUDIT", "1s")
        .env("VIGIE_NODE__HEARTBEAT", "300ms")
        .env("VIGIE_NODE__LEASE", "1500ms")
        .start()
        .await;
    let tab = cluster.connect(0, ADA).await;
    let revoked = cluster.key(ADA, "revoked");
    cluster.cli(&["SET", &revoked, "4102444800000"]).await;
    let registered = async || {
        let answer = cluster.get(0, "/api/v1/nodes").await.json;
        let incarnation = answer["nodes"][0]["incarnation"].clone();
        let connections = cluster.key(ADA, "conns");
        let fields = cluster.redis().lines(&["HKEYS", &connections]).await;
        (fields, incarnation)
    };
    let (fields, first) = registered().await;
    assert_eq!(fields.len(), 1, "{fields:?}");
    cluster.cli(&["DEL", "vigie:nodes"]).await;
    eventually("it counts under another incarnation", async || {
        let (fields, incarnation) = registered().await;
        let own = format!("{}/", incarnation.as_str().unwrap_or_default());
        let moved = fields.len() == 1 && fields[0].starts_with(&own);
        (incarnation.is_string() && incarnation != first && moved).then_some(())
    })
    .await;

    let (_, incarnation) = registered().await;
    let owed = format!(
        "vigie:{{0}}:node:{}",
        incarnation.as_str().unwrap_or_default()
    );
    cluster
        .cli(&["DEL", &owed, &cluster.key(ADA, "conns")])
        .await;
    cluster.wait_for_refcount(ADA, 1).await;
    assert_eq!(tab.online().await, [ADA]);
    assert!(tab.payloads("kicked").is_empty());
    assert_eq!(refusal(&cluster, 0, &token(ADA)).await, "invalid_token");
}

/// Goal: a revocation is forgotten after `auth.revocation_ttl`, on both engines.
/// Method: a short one; the token is accepted again some time after.
#[tokio::test]
async fn a_revocation_ends() {
    for builder in [Cluster::builder(), Cluster::builder().memory()] {
        let builder = builder.env("VIGIE_AUTH__REVOCATION_TTL", "1s");
        let cluster = builder.start().await;
        revoke(&cluster, 0, ADA).await;
        eventually("the token is accepted again", async || {
            let connecting = Connecting::token(&older(ADA)).once();
            let mut client = cluster.open(0, connecting);
            client.next_verdict().await.ok()
        })
        .await;
    }
}
