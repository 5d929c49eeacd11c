//! How a socket is opened, and as whom.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::cluster::SECRET;

/// How a socket is opened.
#[derive(Clone, Debug)]
pub struct Connecting {
    pub(super) auth: Option<Value>,
    pub(super) namespace: &'static str,
    pub(super) options: Value,
    pub(super) token_ms: Option<u64>,
    pub(super) steady: bool,
    pub(super) from: Option<String>,
}

/// The variable that names the transports of clients which do not say otherwise, separated by commas.
pub const TRANSPORTS: &str = "TRANSPORTS";

fn default_transports() -> Vec<String> {
    let transports = std::env::var(TRANSPORTS).unwrap_or_else(|_| "websocket".to_owned());
    transports.split(',').map(str::to_owned).collect()
}

impl Connecting {
    /// With `auth` as it stands.
    pub fn auth(auth: Value) -> Self {
        let options = json!({ "transports": default_transports() });
        Self {
            auth: Some(auth),
            namespace: "/socket.io/",
            options,
            token_ms: None,
            steady: false,
            from: None,
        }
    }

    /// Without `auth` at all.
    pub fn no_auth() -> Self {
        Self {
            auth: None,
            ..Self::guest()
        }
    }

    /// As front ends do it before anybody has signed in.
    pub fn guest() -> Self {
        Self::auth(json!({ "token": null }))
    }

    /// With this token.
    pub fn token(token: &str) -> Self {
        Self::auth(json!({ "token": token }))
    }

    /// As this user.
    pub fn user(user: u64) -> Self {
        Self::token(&token(user))
    }

    /// `/` or `/socket.io/` (the default).
    pub fn namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = namespace;
        self
    }

    /// Which transports, in which order; more than one means an upgrade.
    pub fn transports(mut self, transports: &[&str]) -> Self {
        self.options["transports"] = json!(transports);
        self
    }

    /// On the transport of the sockets opened so before to the same node.
    pub fn shared(mut self) -> Self {
        self.options["forceNew"] = json!(false);
        self
    }

    /// As a page of this origin.
    pub fn origin(self, origin: &str) -> Self {
        self.header("origin", origin)
    }

    /// With a header on every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.options["extraHeaders"][name] = json!(value);
        self
    }

    /// From an address of its own: on loopback every machine has all of 127.0.0.0/8.
    pub fn from(mut self, address: &str) -> Self {
        self.from = Some(address.to_owned());
        self
    }

    /// With the official client's own pauses between attempts to connect again; those of the tests are shorter.
    pub fn with_own_backoff(mut self) -> Self {
        self.options["reconnectionDelay"] = json!(1000);
        self.options["reconnectionDelayMax"] = json!(5000);
        self
    }

    /// Fetches its token for so long, each time the transport is open, before it sends CONNECT.
    pub fn fetching_its_token(mut self, takes: Duration) -> Self {
        self.token_ms = Some(takes.as_millis() as u64);
        self
    }

    /// As a front end that means it: asks who is online and watches again whenever it is connected.
    pub fn steady(mut self) -> Self {
        self.steady = true;
        self
    }

    /// Goes on to the next transport where one does not open.
    pub fn trying_all_transports(mut self) -> Self {
        self.options["tryAllTransports"] = json!(true);
        self
    }

    /// Stays away once the transport has closed.
    pub fn once(mut self) -> Self {
        self.options["reconnection"] = json!(false);
        self
    }
}

/// A token of a user, good for an hour. It does not say when it was issued.
pub fn token(user: u64) -> String {
    sign(
        &json!({ "sub": user.to_string(), "exp": now_seconds() + 3600 }),
        SECRET,
    )
}

/// The same, issued at this time, in ms since 1970.
pub fn issued(user: u64, ms: u64) -> String {
    let (sub, exp) = (user.to_string(), now_seconds() + 3600);
    let claims = json!({ "sub": sub, "exp": exp, "iat": ms as f64 / 1000.0 });
    sign(&claims, SECRET)
}

/// Signs claims with HS256.
pub fn sign(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key)
        .expect("claims are JSON, the secret is bytes")
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs() as i64
}
