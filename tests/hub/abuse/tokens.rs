//! Tokens of every wrong kind, shown to a node by the official client and over HTTP: by whoever has no key, and by
//! whoever has one and signs nonsense.

mod forged;
mod misshapen;

use std::collections::HashSet;
use std::net::TcpListener;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    ADA, Client, Cluster, Connecting, EC_PRIVATE, EC_PUBLIC, ED_PRIVATE, EVE, NODE_KEY, Postgres,
    SECRET, Signer, eventually, eventually_eq, file, now_seconds,
};

/// Tokens that are shown at the same time.
const AT_A_TIME: usize = 16;

/// A bad token, with the fault in it and the expected refusal.
struct Case {
    what: String,
    refusal: &'static str,
    token: String,
}

impl Case {
    fn invalid(what: impl Into<String>, token: impl Into<String>) -> Self {
        let (what, token) = (what.into(), token.into());
        let refusal = "invalid_token";
        Self {
            what,
            refusal,
            token,
        }
    }
}

/// A node that is shown tokens, with all that is known about its key.
struct Target {
    // Dropped in this order.
    cluster: Cluster,
    _postgres: Postgres,
    _folder: TempDir,
    /// The key whose tokens it accepts.
    signer: Signer,
    /// The rest of their headers, after the algorithm.
    header: &'static str,
}

impl Target {
    /// A node whose key is a secret.
    async fn with_secret() -> Self {
        Self::start(Signer::secret(SECRET), "", |_| vec![]).await
    }

    /// A node whose key is a public one, which everybody has.
    async fn with_public_key() -> Self {
        Self::start(Signer::ec(EC_PRIVATE), "", |folder| {
            let path = file(folder.path(), "key.pem", EC_PUBLIC);
            vec![("VIGIE_AUTH__PUBLIC_KEY_FILE", path.display().to_string())]
        })
        .await
    }

    /// A node with a set of two public keys.
    async fn with_key_set() -> Self {
        Self::start(Signer::ed(ED_PRIVATE), r#","kid":"e""#, |folder| {
            let path = file(folder.path(), "keys.json", &key_set());
            vec![("VIGIE_AUTH__JWKS_FILE", path.display().to_string())]
        })
        .await
    }

    async fn start(
        signer: Signer,
        header: &'static str,
        settings: impl FnOnce(&TempDir) -> Vec<(&'static str, String)>,
    ) -> Self {
        let postgres = Postgres::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        // The test reads the whole log in the end.
        let mut builder = Cluster::builder()
            .memory()
            .on_postgres(&postgres)
            .env("VIGIE_LOG__LEVEL", "trace")
            .env("VIGIE_LIMITS__EVENTS_BURST", "100000");
        for (name, value) in settings(&folder) {
            builder = builder.env("VIGIE_AUTH__SECRET", "").env(name, &value);
        }
        let cluster = builder.start().await;
        let account = json!({ "username": "ada" });
        let path = format!("/api/v1/users/{ADA}");
        let created = cluster.request(0, Method::PUT, &path);
        let created = created.bearer_auth(NODE_KEY).json(&account);
        assert_eq!(cluster.send(created).await.status, 200);
        Self {
            cluster,
            _postgres: postgres,
            _folder: folder,
            signer,
            header,
        }
    }

    /// Signs claims as whoever has the key.
    fn sign(&self, claims: impl AsRef<[u8]>) -> String {
        self.sign_with(self.header, claims)
    }

    /// The same with more in the header.
    fn sign_with(&self, header: &str, claims: impl AsRef<[u8]>) -> String {
        let header = format!(r#"{{"alg":"{}"{header}}}"#, self.signer.alg());
        self.signer.sign(&header, claims)
    }

    /// A token of Ada that is accepted.
    fn good(&self) -> String {
        self.sign(good_claims())
    }

    /// Shows each token at the handshake, over HTTP, and to `refresh-token`, several at a time.
    async fn refuses(&self, cases: &[Case]) {
        let tab = self.comes_in(&self.good()).await;
        let refusing = cases.iter().map(|case| self.refuses_one(&tab, case));
        stream::iter(refusing)
            .for_each_concurrent(AT_A_TIME, |refusing| refusing)
            .await;
        assert!(tab.online().await.contains(&ADA), "it goes on");
        assert!(tab.payloads("kicked").is_empty());
    }

    async fn refuses_one(&self, tab: &Client, case: &Case) {
        let Case {
            what,
            refusal,
            token,
        } = case;
        let connecting = Connecting::token(token);
        let refused = self.cluster.refusal(0, connecting).await;
        assert_eq!(refused, *refusal, "{what}: {token}");

        let payload = json!({ "token": token });
        let answer = tab.emit_ack("refresh-token", payload).await;
        assert_eq!(answer["error"], "invalid_token", "{what}: {token}");

        // Some tokens fit into no header.
        let Ok(value) = HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()) else {
            return;
        };
        for (method, path) in [
            (Method::GET, format!("/api/v1/users/{ADA}")),
            (Method::DELETE, "/api/v1/me".to_owned()),
        ] {
            let request = self.cluster.request_as(None, 0, method, &path);
            let request = request.header("authorization", value.clone());
            let answer = self.cluster.send(request).await;
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            answer.assert_problem(401);
            let detail = answer.json["detail"].as_str().unwrap_or_default();
            assert!(detail.starts_with(refusal), "{what}: {detail}");
        }
    }

    async fn comes_in(&self, token: &str) -> Client {
        let connecting = Connecting::token(token);
        self.cluster.connect_with(0, connecting).await
    }

    /// After all that: nobody is left online who is not there, a fresh client and a fresh request are served, and what
    /// was shown is in no log.
    async fn is_unharmed(&self, shown: &[Case]) {
        eventually_eq("who is online", json!([]), async || {
            let presence = self.cluster.get(0, "/api/v1/presence").await;
            presence.json["users"].clone()
        })
        .await;
        let claims = format!(r#"{{"sub":"{EVE}","exp":{}}}"#, now_seconds() + 600);
        let eve = self.comes_in(&self.sign(claims)).await;
        eventually("she is online", async || {
            (eve.online().await == [EVE]).then_some(())
        })
        .await;
        let path = format!("/api/v1/users/{ADA}");
        let request = self.cluster.request_as(None, 0, Method::GET, &path);
        let request = request.bearer_auth(self.good());
        assert_eq!(self.cluster.send(request).await.status, 200);

        let log = self.cluster.log(0);
        assert!(log.contains("refused a token"), "it is logged");
        let of_a_token = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let words: HashSet<&str> = log.split(|c| !of_a_token(c)).collect();
        for Case { what, token, .. } in shown {
            let mut parts = token.split(|c| !of_a_token(c));
            let found = parts.find(|part| part.len() > 20 && words.contains(part));
            assert_eq!(found, None, "{what} is in the log");
        }
    }
}

/// The public keys of the tests as a set.
fn key_set() -> String {
    // The points of the public keys in the PEM files.
    let ec = json!({
        "kty": "EC", "crv": "P-256", "kid": "p", "alg": "ES256", "use": "sig",
        "x": "ZBgkjCznrviiozZXS4v6b8kUp_arUzPySLpEW-HfbPs",
        "y": "mJGLXhLdyhKFasd4Ebqb74JsMK7LaE8RW17gJNNhGt4",
    });
    let ed = json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "e",
        "x": "vuyZhLiFUw7aBNcl1j7NOTdWmXLi2wdAQW3DAEYvgSw",
    });
    json!({ "keys": [ec, ed] }).to_string()
}

/// Claims of Ada that nothing is wrong with.
fn good_claims() -> String {
    let now = now_seconds();
    format!(r#"{{"sub":"{ADA}","exp":{},"iat":{now}}}"#, now + 600)
}

async fn is_besieged(target: Target) {
    // Where tokens say that keys are to be had.
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
    elsewhere.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}/keys", elsewhere.local_addr().expect("bound"));

    let mut cases = forged::cases(&target, &url);
    cases.extend(misshapen::cases(&target));
    target.refuses(&cases).await;
    let asked = elsewhere.accept();
    assert!(asked.is_err(), "somebody asked for keys: {asked:?}");
    target.is_unharmed(&cases).await;
}

/// Goal: a node with a secret accepts what was signed with it, and nothing else.
/// Method: forged and misshapen tokens at the handshake, over HTTP and to `refresh-token`; then a look at the node.
#[tokio::test]
async fn a_node_with_a_secret() {
    is_besieged(Target::with_secret().await).await;
}

/// Goal: the same for a node with a public key, which is no secret.
/// Method: the same; the public key is among what tokens are signed with.
#[tokio::test]
async fn a_node_with_a_public_key() {
    is_besieged(Target::with_public_key().await).await;
}

/// Goal: the same for a node with a set of public keys, of which a token can only name one.
/// Method: the same, and names of every kind on tokens that one of the keys has signed.
#[tokio::test]
async fn a_node_with_a_set_of_keys() {
    let target = Target::with_key_set().await;
    target.refuses(&forged::misnamed(&target)).await;
    let claims = good_claims();
    let other = Signer::ec(EC_PRIVATE).sign(r#"{"alg":"ES256","kid":"p"}"#, claims);
    target.comes_in(&other).await;
    is_besieged(target).await;
}

/// Goal: what is at the edge of the possible and was signed by whoever has the key is served like anything else.
/// Method: expiries thousands of years away, the largest id, fields that mean something in other languages.
#[tokio::test]
async fn the_edge_of_the_possible() {
    let target = Target::with_secret().await;
    let soon = now_seconds() + 600;
    let largest = (1_u64 << 53) - 1;
    for (user, claims) in [
        (ADA, format!(r#"{{"sub":"42","exp":{}}}"#, u64::MAX)),
        (ADA, r#"{"sub":"42","exp":1e15}"#.to_owned()),
        (ADA, r#"{"sub":"42","exp":1.8e19}"#.to_owned()),
        (ADA, r#"{"sub":42,"exp":253402300800.5}"#.to_owned()),
        (ADA, format!(r#"{{"sub":"42","exp":{soon},"iat":0}}"#)),
        (ADA, format!(r#"{{"sub":"42","exp":{soon},"iat":null}}"#)),
        (
            ADA,
            format!(r#"{{"sub":"42","exp":{soon},"__proto__":{{"sub":"7"}}}}"#),
        ),
        (
            ADA,
            format!(r#"{{"sub":"42","exp":{soon},"constructor":{{"prototype":{{"sub":"7"}}}}}}"#),
        ),
        (
            ADA,
            format!(r#"{{"sub":"42","exp":{soon},"kid":"x","toString":null,"":[]}}"#),
        ),
        (largest, format!(r#"{{"sub":"{largest}","exp":{soon}}}"#)),
    ] {
        let token = target.sign(&claims);
        let tab = target.comes_in(&token).await;
        eventually("it is online", async || {
            (tab.online().await == [user]).then_some(())
        })
        .await;
        let answer = tab
            .emit_ack("refresh-token", json!({ "token": token }))
            .await;
        let expires_at = answer["expiresAt"].as_u64();
        assert!(expires_at.is_some_and(|ms| ms <= largest), "{answer}");
        assert_eq!(tab.online().await, [user], "{claims}");
        assert!(tab.payloads("kicked").is_empty(), "{claims}");
        assert!(tab.payloads("token-expiring").is_empty(), "{claims}");
        tab.close().await;
        eventually_eq("nobody is left", json!([]), async || {
            let presence = target.cluster.get(0, "/api/v1/presence").await;
            presence.json["users"].clone()
        })
        .await;
    }
}

/// Goal: a token is a text in its place, and nothing else; what is no token makes no user.
/// Method: a good token wrapped in everything that JSON has, at the handshake and to `refresh-token`.
#[tokio::test]
async fn a_token_in_the_wrong_place() {
    let target = Target::with_secret().await;
    let good = target.good();
    let wrapped = [
        json!([good]),
        json!([[good]]),
        json!({ "token": good }),
        json!({ "0": good, "length": 1 }),
        json!({ "toString": good }),
        json!({ "$bytes": "00ff" }),
        json!(true),
        json!(42),
        json!(0),
        json!(-1.5),
    ];
    let tab = target.comes_in(&good).await;
    for token in &wrapped {
        let auth = json!({ "token": token });
        let refused = target.cluster.refusal(0, Connecting::auth(auth.clone()));
        assert_eq!(refused.await, "invalid_token", "{auth}");
        let answer = tab.emit_ack("refresh-token", auth.clone()).await;
        assert_eq!(answer["error"], "invalid_payload", "{auth}");
    }
    for auth in [json!([good]), json!([{ "token": good }]), json!(good)] {
        let refused = target.cluster.refusal(0, Connecting::auth(auth.clone()));
        assert_eq!(refused.await, "invalid_token", "{auth}");
    }
    for payload in [
        json!(good),
        json!([good]),
        json!([{ "token": good }]),
        json!(null),
        json!({}),
        json!({ "Token": good }),
        json!({ "__proto__": { "token": good } }),
    ] {
        let answer = tab.emit_ack("refresh-token", payload.clone()).await;
        assert_eq!(answer["error"], "invalid_payload", "{payload}");
    }
    let proto: Value = serde_json::from_str(&format!(r#"{{"__proto__":{{"token":"{good}"}}}}"#))
        .expect("this is JSON");
    for auth in [
        proto,
        json!({ "Token": good }),
        json!({ "tok\u{0}en": good }),
    ] {
        let guest = target.cluster.connect_with(0, Connecting::auth(auth)).await;
        let answer = guest
            .emit_ack("refresh-token", json!({ "token": good }))
            .await;
        assert_eq!(answer["error"], "not_signed_in", "{answer}");
    }
    drop(tab);
    let shown = [Case::invalid("a good one", good)];
    target.refuses(&[Case::invalid("none", "x")]).await;
    target.is_unharmed(&shown).await;
}

/// Goal: a token as large as a message may be is refused; a larger message is not even read, on either transport.
/// Method: signed tokens from just over the limit of tokens to far over that of messages.
#[tokio::test]
async fn a_token_of_any_size() {
    let target = Target::with_secret().await;
    let sized = |size: usize| {
        let (soon, fill) = (now_seconds() + 600, "x".repeat(size * 3 / 4));
        target.sign(format!(r#"{{"sub":"42","exp":{soon},"fill":"{fill}"}}"#))
    };
    let mut cases = Vec::new();
    for size in [8_200, 10_000, 15_000] {
        cases.push(Case::invalid(size.to_string(), sized(size)));
    }
    target.refuses(&cases).await;
    for size in [17_000, 64_000, 1_000_000] {
        for transport in ["websocket", "polling"] {
            let connecting = Connecting::token(&sized(size)).transports(&[transport]);
            let client = target.cluster.open(0, connecting.once());
            let what = format!("{size} bytes over {transport} come to nothing");
            eventually(&what, async || client.has_failed().then_some(())).await;
        }
    }
    for size in [17_000, 64_000] {
        let path = format!("/api/v1/users/{ADA}");
        let request = target.cluster.request_as(None, 0, Method::GET, &path);
        let answer = target.cluster.send(request.bearer_auth(sized(size))).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    target.is_unharmed(&cases).await;
}
