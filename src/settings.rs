//! What an operator can set: one struct per section, loaded once, valid from then on.
//!
//! Defaults ← `config/vigie.toml` (or `--config FILE`) ← `VIGIE_<SECTION>__<KEY>`. The environment
//! comes in as an argument: nothing here reads the process's own. `config/vigie.toml` documents every
//! key and is compiled in, so that errors can show an example; a test holds it against the defaults below.

mod api_keys;
mod development;
mod error;
mod files;
mod load;
mod reference;
mod validate;
mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use api_keys::{DEFAULT_CALLER, NamedKey};
pub use development::{DEVELOPMENT_API_KEY, DEVELOPMENT_SECRET};
pub use error::SettingsError;
pub use load::DEFAULT_FILE;
pub use values::{PostgresUrl, RedisUrl, Secret};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where presence, profiles and topics live.
    #[serde(deserialize_with = "values::choice")]
    pub engine: EngineKind,
    /// The public listener.
    pub http: HttpSettings,
    /// The listener for back ends and operators.
    pub internal: InternalSettings,
    /// How Redis is reached and what the hub does there.
    pub redis: RedisSettings,
    /// Where accounts, friendships and results are kept, if anywhere.
    pub postgres: PostgresSettings,
    /// Which tokens are valid.
    pub auth: AuthSettings,
    /// This process as one of many.
    pub node: NodeSettings,
    /// Who hears that somebody came or went, and when.
    pub presence: PresenceSettings,
    /// How opponents are found.
    pub matchmaking: MatchmakingSettings,
    /// What one client, user or request may use.
    pub limits: LimitSettings,
    /// What strangers see of a user.
    pub visibility: VisibilitySettings,
    /// What is logged and how.
    pub log: LogSettings,
    /// The settings file, where a secret stands in it.
    #[serde(skip)]
    pub secrets_in: Option<PathBuf>,
}

/// Where presence, profiles and topics live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// In this process: one node, nothing to install.
    #[default]
    Memory,
    /// In Redis, shared by any number of nodes.
    Redis,
}

impl EngineKind {
    /// The name it has in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// `[http]`: the public listener, for browsers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Origins whose pages may connect, as `scheme://host[:port]`; `*` alone allows all.
    #[serde(deserialize_with = "values::list")]
    pub allowed_origins: Vec<String>,
    /// Addresses and networks of proxies that say in `X-Forwarded-For` for whom they speak.
    #[serde(with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
}

/// `[internal]`: the listener for back ends and operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InternalSettings {
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The key that callers present. After [`Settings::load`] it is set, or there are `api_keys`.
    pub api_key: Option<Secret>,
    /// File that holds `api_key`.
    pub api_key_file: Option<PathBuf>,
    /// Further keys, each with a name by which the log says who called.
    #[serde(deserialize_with = "api_keys::list")]
    pub api_keys: Vec<NamedKey>,
    /// File that holds `api_keys`, one on each line; [`Settings::load`] has read it into `api_keys`.
    pub api_keys_file: Option<PathBuf>,
}

/// `[redis]`: how Redis is reached and what the hub does there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Server, sentinels or cluster; may carry a password.
    pub url: RedisUrl,
    /// File that holds `url`; [`Settings::load`] has read it into `url`.
    pub url_file: Option<PathBuf>,
    /// PEM file with the authorities that sign certificates of encrypted servers, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// What every key and channel starts with.
    pub prefix: String,
    /// Over how many hash tags users are spread, 1 to 1024; every node has the same number.
    #[serde(deserialize_with = "values::number")]
    pub partitions: u32,
    /// How long the last update of a profile is kept.
    #[serde(with = "humantime_serde")]
    pub profile_ttl: Duration,
    /// How long an answer may take before the command counts as failed.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
}

/// `[postgres]`: where accounts, friendships and results are kept. Without `url` the hub does without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// The database; may carry a password.
    pub url: Option<PostgresUrl>,
    /// File that holds `url`; [`Settings::load`] has read it into `url`.
    pub url_file: Option<PathBuf>,
    /// Whether a node that starts brings the schema up to date.
    pub migrate: bool,
    /// Connections of this node, besides the one that listens for changes.
    #[serde(deserialize_with = "values::number")]
    pub pool: usize,
    /// How long getting a connection may take, and then the work on it.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// `[auth]`: which tokens are valid. At most one of `secret`, `public_key_file` and `jwks_file` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Shared secret of HS256, HS384 and HS512.
    pub secret: Option<Secret>,
    /// File that holds `secret`; [`Settings::load`] has read it into `secret`.
    pub secret_file: Option<PathBuf>,
    /// PEM file with one RSA, EC (P-256, P-384) or Ed25519 public key.
    pub public_key_file: Option<PathBuf>,
    /// JSON file with a set of public keys (RFC 7517), chosen by `kid`.
    pub jwks_file: Option<PathBuf>,
    /// Shared secret that was in use before the present key; accepted until `previous_until`.
    pub previous_secret: Option<Secret>,
    /// File that holds `previous_secret`; [`Settings::load`] has read it into `previous_secret`.
    pub previous_secret_file: Option<PathBuf>,
    /// PEM file with the public key that was in use before the present key; accepted until `previous_until`.
    pub previous_public_key_file: Option<PathBuf>,
    /// Until when the previous key is accepted; set exactly where there is one.
    #[serde(with = "values::time")]
    pub previous_until: Option<SystemTime>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must contain; without it `aud` is ignored.
    pub audience: Option<String>,
    /// Name of the claim that holds the user id, a string or a number.
    pub user_id_claim: String,
    /// How far the clocks of issuer and hub may differ, for `exp`, `nbf` and `iat`; whole seconds count.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// How long it is kept in mind that a user's tokens were revoked; longer than any token lives.
    #[serde(with = "humantime_serde")]
    pub revocation_ttl: Duration,
}

/// `[node]`: this process as one of many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Name of this node, 1 to 64 of `A-Za-z0-9_.-`. Always set after [`Settings::load`].
    pub id: Option<String>,
    /// How long a node that fell silent still counts as alive.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How often the lease is renewed; at most half of it.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Over how long connections are closed on shutdown.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// How often a node compares the connections it holds with those registered.
    #[serde(with = "humantime_serde")]
    pub audit: Duration,
}

/// `[presence]`: who hears that somebody came or went, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceSettings {
    /// How long a user without connections still counts as online; 0 says offline at once.
    #[serde(with = "humantime_serde")]
    pub offline_grace: Duration,
    /// Who receives `user-status-change`.
    #[serde(deserialize_with = "values::choice")]
    pub audience: Audience,
}

/// Who receives `user-status-change`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Every connection.
    #[default]
    Everyone,
    /// The connections that watch the user.
    Watchers,
}

/// `[matchmaking]`: how opponents are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchmakingSettings {
    /// Difference in rating that is fine at once.
    #[serde(deserialize_with = "values::number")]
    pub rating_window: u32,
    /// By how much each second of waiting widens it.
    #[serde(deserialize_with = "values::number")]
    pub widen_per_second: u32,
    /// How long a user waits at most.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
}

/// `[limits]`: what one client, user or request may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Events that a connection may send per second, in the long run.
    #[serde(deserialize_with = "values::number")]
    pub events_per_second: u32,
    /// Events that a connection may send at once after a pause.
    #[serde(deserialize_with = "values::number")]
    pub events_burst: u32,
    /// Profiles that a connection may watch.
    #[serde(deserialize_with = "values::number")]
    pub watches: usize,
    /// Largest message from a client, in bytes.
    #[serde(with = "values::size")]
    pub message: usize,
    /// Bytes that a TCP connection may send per second, in the long run.
    #[serde(with = "values::size")]
    pub inbound_rate: usize,
    /// Bytes that a TCP connection may send at once after a pause.
    #[serde(with = "values::size")]
    pub inbound_burst: usize,
    /// How long a TCP connection may take to its first request, and a session to join a namespace.
    #[serde(with = "humantime_serde")]
    pub handshake: Duration,
    /// Connections of this node.
    #[serde(deserialize_with = "values::number")]
    pub connections: usize,
    /// Connections of one user on all nodes together.
    #[serde(deserialize_with = "values::number")]
    pub connections_per_user: usize,
    /// Connections of one address on this node; 0 sets no limit.
    #[serde(deserialize_with = "values::number")]
    pub connections_per_address: usize,
    /// Largest body of an HTTP request, in bytes.
    #[serde(with = "values::size")]
    pub http_body: usize,
    /// Packets that may wait for one connection before it is closed as too slow.
    #[serde(deserialize_with = "values::number")]
    pub outbound_queue: usize,
    /// How long the write of a connection may not move before it is closed.
    #[serde(with = "humantime_serde")]
    pub stalled_write: Duration,
}

/// `[visibility]`: what strangers see of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisibilitySettings {
    /// Fields of a profile that guests and non-friends get.
    #[serde(deserialize_with = "values::list")]
    pub public_fields: Vec<String>,
}

/// `[log]`: what is logged and how. Logs go to stderr.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// For people or for programs.
    #[serde(deserialize_with = "values::choice")]
    pub format: LogFormat,
    /// A level, or several per target: `info`, `info,vigie=debug`.
    pub level: String,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text, coloured on a terminal.
    #[default]
    Pretty,
    /// One JSON object.
    Json,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8181)),
            allowed_origins: vec!["*".to_owned()],
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for InternalSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8182)),
            api_key: None,
            api_key_file: None,
            api_keys: Vec::new(),
            api_keys_file: None,
        }
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: RedisUrl::new("redis://127.0.0.1:6379"),
            url_file: None,
            ca_file: None,
            prefix: "vigie".to_owned(),
            partitions: 1,
            profile_ttl: Duration::from_hours(30 * 24),
            command_timeout: Duration::from_secs(2),
        }
    }
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            migrate: false,
            pool: 8,
            timeout: Duration::from_secs(2),
        }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            secret: None,
            secret_file: None,
            public_key_file: None,
            jwks_file: None,
            previous_secret: None,
            previous_secret_file: None,
            previous_public_key_file: None,
            previous_until: None,
            issuer: None,
            audience: None,
            user_id_claim: "sub".to_owned(),
            leeway: Duration::from_secs(5),
            revocation_ttl: Duration::from_hours(400 * 24),
        }
    }
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            id: None,
            lease: Duration::from_secs(6),
            heartbeat: Duration::from_secs(2),
            drain: Duration::from_secs(10),
            audit: Duration::from_secs(60),
        }
    }
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self {
            offline_grace: Duration::from_secs(2),
            audience: Audience::default(),
        }
    }
}

impl Default for MatchmakingSettings {
    fn default() -> Self {
        Self {
            rating_window: 100,
            widen_per_second: 20,
            max_wait: Duration::from_secs(300),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            events_per_second: 200,
            events_burst: 1000,
            watches: 100,
            message: 16 * 1024,
            inbound_rate: 256 * 1024,
            inbound_burst: 1024 * 1024,
            handshake: Duration::from_secs(10),
            connections: 100_000,
            connections_per_user: 50,
            connections_per_address: 0,
            http_body: 256 * 1024,
            outbound_queue: 1024,
            stalled_write: Duration::from_secs(5),
        }
    }
}

impl Default for VisibilitySettings {
    fn default() -> Self {
        let fields = ["userID", "userId", "id", "username", "avatar", "stats"];
        Self {
            public_fields: fields.map(str::to_owned).to_vec(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            level: "info".to_owned(),
        }
    }
}
