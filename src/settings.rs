//! Typed settings: one struct per section, valid once loaded.
//!
//! Layers: defaults, `config/vigie.toml` (or `--config FILE`), `VIGIE_<SECTION>__<KEY>`. The environment is an argument;
//! nothing here reads that of the process. `config/vigie.toml` documents every key and is compiled in, so that errors can
//! quote an example; a test compares it with the defaults below.

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

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the state of the hub is kept.
    #[serde(deserialize_with = "values::choice")]
    pub engine: EngineKind,
    /// The public listener.
    pub http: HttpSettings,
    /// The listener for back ends and operators.
    pub internal: InternalSettings,
    /// The connection to Redis, and the layout of its data.
    pub redis: RedisSettings,
    /// The database of accounts, if any.
    pub postgres: PostgresSettings,
    /// Validity of tokens.
    pub auth: AuthSettings,
    /// This node as a member of the cluster.
    pub node: NodeSettings,
    /// Status changes: when, and for whom.
    pub presence: PresenceSettings,
    /// Rules for pairing opponents.
    pub matchmaking: MatchmakingSettings,
    /// Limits on clients, users and requests.
    pub limits: LimitSettings,
    /// The public view of a user.
    pub visibility: VisibilitySettings,
    /// Level and format of logs.
    pub log: LogSettings,
    /// The settings file, if it contains a secret.
    #[serde(skip)]
    pub secrets_in: Option<PathBuf>,
}

/// Where presence, last updates and topics are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum EngineKind {
    /// In this process: one node, nothing to install.
    #[default]
    Memory,
    /// In Redis, shared by any number of nodes.
    Redis,
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
    /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted.
    #[serde(with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
}

/// `[internal]`: the listener for back ends and operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InternalSettings {
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Key that callers present. After [`Settings::load`] this or `api_keys` is set.
    pub api_key: Option<Secret>,
    /// File that holds `api_key`.
    pub api_key_file: Option<PathBuf>,
    /// Further keys, each with a name that the log shows.
    #[serde(deserialize_with = "api_keys::list")]
    pub api_keys: Vec<NamedKey>,
    /// File that holds `api_keys`, one per line; [`Settings::load`] reads it into `api_keys`.
    pub api_keys_file: Option<PathBuf>,
}

/// `[redis]`: the connection to Redis, and the layout of its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Server, sentinels or cluster; may carry a password.
    pub url: RedisUrl,
    /// File that holds `url`; [`Settings::load`] reads it into `url`.
    pub url_file: Option<PathBuf>,
    /// PEM file with certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Prefix of every key and channel.
    pub prefix: String,
    /// Number of hash tags over which users are spread, 1 to 1024; the same on every node.
    #[serde(deserialize_with = "values::number")]
    pub partitions: u32,
    /// How long last updates are kept.
    #[serde(with = "humantime_serde")]
    pub profile_ttl: Duration,
    /// Time limit of a command.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
}

/// `[postgres]`: the database of accounts, friendships and results; not used without `url`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// The database; may carry a password.
    pub url: Option<PostgresUrl>,
    /// File that holds `url`; [`Settings::load`] reads it into `url`.
    pub url_file: Option<PathBuf>,
    /// Whether the node migrates the schema when it starts.
    pub migrate: bool,
    /// Size of the pool, without the connection that listens for changes.
    #[serde(deserialize_with = "values::number")]
    pub pool: usize,
    /// Time limit for getting a connection, and again for the work on it.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// `[auth]`: validity of tokens. At most one of `secret`, `public_key_file` and `jwks_file` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Shared secret of HS256, HS384 and HS512.
    pub secret: Option<Secret>,
    /// File that holds `secret`; [`Settings::load`] reads it into `secret`.
    pub secret_file: Option<PathBuf>,
    /// PEM file with one RSA, EC (P-256, P-384) or Ed25519 public key.
    pub public_key_file: Option<PathBuf>,
    /// JSON file with a set of public keys (RFC 7517), chosen by `kid`.
    pub jwks_file: Option<PathBuf>,
    /// Previous shared secret; accepted until `previous_until`.
    pub previous_secret: Option<Secret>,
    /// File that holds `previous_secret`; [`Settings::load`] reads it into `previous_secret`.
    pub previous_secret_file: Option<PathBuf>,
    /// PEM file with the previous public key; accepted until `previous_until`.
    pub previous_public_key_file: Option<PathBuf>,
    /// When the previous key ceases to be accepted; required with one, otherwise refused.
    #[serde(with = "values::time")]
    pub previous_until: Option<SystemTime>,
    /// Required value of `iss`; without it `iss` is ignored.
    pub issuer: Option<String>,
    /// Required entry of `aud`; without it `aud` is ignored.
    pub audience: Option<String>,
    /// Name of the claim that holds the user id, a string or a number.
    pub user_id_claim: String,
    /// Tolerated clock skew for `exp`, `nbf` and `iat`, in whole seconds.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// How long a revocation is kept; must exceed the lifetime of tokens.
    #[serde(with = "humantime_serde")]
    pub revocation_ttl: Duration,
}

/// `[node]`: this node as a member of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Name of this node, 1 to 64 of `A-Za-z0-9_.-`. Always set after [`Settings::load`].
    pub id: Option<String>,
    /// How long a node counts as alive after its last heartbeat.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Interval of renewals of the lease; at most half of it.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Period over which connections are closed on shutdown.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Interval at which the node compares its connections with those registered.
    #[serde(with = "humantime_serde")]
    pub audit: Duration,
}

/// `[presence]`: status changes, when and for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceSettings {
    /// How long a user without connections still counts as online; 0 means not at all.
    #[serde(with = "humantime_serde")]
    pub offline_grace: Duration,
    /// Recipients of `user-status-change`.
    #[serde(deserialize_with = "values::choice")]
    pub audience: PresenceAudience,
}

/// Recipients of `user-status-change`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceAudience {
    /// Every connection.
    #[default]
    Everyone,
    /// The connections that watch the user.
    Watchers,
}

/// `[matchmaking]`: rules for pairing opponents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchmakingSettings {
    /// Largest difference in rating without waiting.
    #[serde(deserialize_with = "values::number")]
    pub rating_window: u32,
    /// Increase of that difference for each second of waiting.
    #[serde(deserialize_with = "values::number")]
    pub widen_per_second: u32,
    /// Longest wait; then the user leaves the queue.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
}

/// `[limits]`: limits on clients, users and requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Sustained rate of events from a connection, per second.
    #[serde(deserialize_with = "values::number")]
    pub events_per_second: u32,
    /// Burst of events from a connection.
    #[serde(deserialize_with = "values::number")]
    pub events_burst: u32,
    /// Profiles that a connection may watch.
    #[serde(deserialize_with = "values::number")]
    pub watches: usize,
    /// Largest message from a client, in bytes.
    #[serde(with = "values::size")]
    pub message: usize,
    /// Sustained inbound rate of a TCP connection, in bytes per second.
    #[serde(with = "values::size")]
    pub inbound_rate: usize,
    /// Inbound burst of a TCP connection, in bytes.
    #[serde(with = "values::size")]
    pub inbound_burst: usize,
    /// Time limit for the first request of a TCP connection, and for a session to join a namespace.
    #[serde(with = "humantime_serde")]
    pub handshake: Duration,
    /// Connections of this node.
    #[serde(deserialize_with = "values::number")]
    pub connections: usize,
    /// Connections of one user, on all nodes.
    #[serde(deserialize_with = "values::number")]
    pub connections_per_user: usize,
    /// Connections of one address on this node; 0 sets no limit.
    #[serde(deserialize_with = "values::number")]
    pub connections_per_address: usize,
    /// Largest body of an HTTP request, in bytes.
    #[serde(with = "values::size")]
    pub http_body: usize,
    /// Length of the outbound queue of a connection; beyond it, the connection is closed as a slow consumer.
    #[serde(deserialize_with = "values::number")]
    pub outbound_queue: usize,
    /// How long a write may make no progress before the connection is closed.
    #[serde(with = "humantime_serde")]
    pub stalled_write: Duration,
}

/// `[visibility]`: the public view of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisibilitySettings {
    /// Fields that guests and non-friends get.
    #[serde(deserialize_with = "values::list")]
    pub public_fields: Vec<String>,
}

/// `[log]`: level and format of logs, which go to stderr.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Text for people, or JSON for programs.
    #[serde(deserialize_with = "values::choice")]
    pub format: LogFormat,
    /// A level, or a list of levels by target: `info`, `info,vigie=debug`.
    pub level: String,
}

/// Format of a log line.
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
            audience: PresenceAudience::default(),
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
