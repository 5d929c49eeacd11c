//! Validates values and their relations, and warns about insecure ones.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::error::SettingsError;
use super::{
    AuthSettings, DEFAULT_CALLER, HttpSettings, InternalSettings, LimitSettings,
    MatchmakingSettings, NodeSettings, PostgresSettings, RedisSettings, Settings,
};

/// In bytes. The id is part of keys, and of every connection registered in Redis.
pub(super) const NODE_ID_LEN_MAX: usize = 64;

const PREFIX_LEN_MAX: usize = 64;

/// Each partition costs every node a subscription, and a call in every sweep.
const PARTITIONS_MAX: u32 = 1024;

/// A longer leeway than any clock skew only prolongs the life of stolen tokens.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// Redis does not support shorter TTLs; longer ones are mistakes.
const TTL_MIN: Duration = Duration::from_millis(1);
const TTL_MAX: Duration = Duration::from_hours(100 * 366 * 24);

/// Marks a PEM key in place of a shared secret. With a public key as the secret, anybody could sign tokens.
const PEM: &str = "-----BEGIN";

/// Postgres allows 100 connections by default; a larger pool than this is a mistake.
const POOL_MAX: usize = 1000;

/// Postgres cannot answer in less; more is no useful limit.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Largest possible difference between two ratings.
const WINDOW_MAX: u32 = 2_000_000;

/// Bounds of `matchmaking.max_wait`: shorter finds nobody, and after longer nobody is still waiting.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_hours(24);

/// Bounds of `limits.handshake`: clients on slow lines need the minimum, and more defeats the limit.
const HANDSHAKE_MIN: Duration = Duration::from_secs(1);
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

const OUTBOUND_QUEUE_MIN: usize = 8;

/// Shorter stalls are caused by the network, not by a client that does not read.
const STALLED_WRITE_MIN: Duration = Duration::from_millis(100);

/// Bytes of a request besides the message.
const INBOUND_BURST_MIN: usize = 64 * 1024;

/// Claims with a meaning of their own.
const REGISTERED_CLAIMS: [&str; 5] = ["exp", "nbf", "iat", "iss", "aud"];

/// A shorter token secret can be guessed offline from one token (RFC 7518, 3.2).
const SECRET_LEN_GOOD: usize = 32;

/// A shorter API key can be guessed by trying.
const API_KEY_LEN_GOOD: usize = 16;

impl Settings {
    /// One sentence for each setting that works but is insecure.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (key, secret) in [
            ("auth.secret", &self.auth.secret),
            ("auth.previous_secret", &self.auth.previous_secret),
        ] {
            let secret = secret.as_ref().map_or("", |secret| secret.expose());
            if !secret.is_empty() && secret.len() < SECRET_LEN_GOOD {
                warnings.push(format!("{key} is shorter than {SECRET_LEN_GOOD} bytes: whoever has a token can guess it"));
            }
        }
        let named = self.internal.api_keys.iter().map(|named| {
            let which = format!("the key of {} in internal.api_keys", named.name);
            (which, &named.key)
        });
        let api_key = self.internal.api_key.iter();
        let keys = api_key
            .map(|key| ("internal.api_key".to_owned(), key))
            .chain(named);
        for (which, _) in keys.filter(|(_, key)| key.expose().len() < API_KEY_LEN_GOOD) {
            warnings.push(format!(
                "{which} is shorter than {API_KEY_LEN_GOOD} bytes: it can be guessed"
            ));
        }
        warnings.extend(self.open_files());
        if let Some(why) = self.exposed().filter(|_| self.development()) {
            warnings.push(format!(
                "{why}, with a development key that everybody knows: set one of your own"
            ));
        }
        warnings
    }
}

/// Checks everything except whether keys are missing, which [`development`](super::development) does.
pub(super) fn validate(settings: &Settings) -> Result<(), SettingsError> {
    listeners(settings.http.listen, settings.internal.listen)?;
    http(&settings.http)?;
    internal(&settings.internal)?;
    redis(&settings.redis)?;
    postgres(&settings.postgres)?;
    auth(&settings.auth)?;
    node(&settings.node)?;
    matchmaking(&settings.matchmaking)?;
    limits(&settings.limits)?;
    log_level(&settings.log.level)
}

fn check(good: bool, key: &'static str, problem: impl Into<String>) -> Result<(), SettingsError> {
    if good {
        return Ok(());
    }
    Err(SettingsError::Invalid {
        key,
        problem: problem.into(),
    })
}

fn not_empty(key: &'static str, value: Option<&str>) -> Result<(), SettingsError> {
    check(value != Some(""), key, "is set but empty")
}

fn internal(internal: &InternalSettings) -> Result<(), SettingsError> {
    let api_key = internal.api_key.as_ref();
    not_empty("internal.api_key", api_key.map(|key| key.expose()))?;
    let (mut names, mut holders) = (HashSet::new(), HashMap::new());
    for (name, key) in internal.keys() {
        check(
            names.insert(name),
            "internal.api_keys",
            format!(
                "has the name {name:?} twice (internal.api_key is called {DEFAULT_CALLER:?}): rename one"
            ),
        )?;
        if let Some(other) = holders.insert(key.expose(), name) {
            let problem = format!("gives {other:?} and {name:?} the same key: each needs its own");
            check(false, "internal.api_keys", problem)?;
        }
    }
    Ok(())
}

/// The listeners need different ports even on different addresses: firewalls, proxies and services match by port, and would
/// expose the internal listener along with the public one.
fn listeners(public: SocketAddr, internal: SocketAddr) -> Result<(), SettingsError> {
    let same_port = public.port() == internal.port() && public.port() != 0;
    let problem =
        format!("must not have the port of http.listen (\"{public}\"): choose another port");
    check(!same_port, "internal.listen", problem)
}

fn http(http: &HttpSettings) -> Result<(), SettingsError> {
    const KEY: &str = "http.allowed_origins";
    let origins = &http.allowed_origins;
    let any = origins.iter().any(|origin| origin == "*");
    check(
        !any || origins.len() == 1,
        KEY,
        "has \"*\", which allows all, beside others: keep one or the others",
    )?;
    let bad = origins
        .iter()
        .find(|origin| *origin != "*" && !is_origin(origin));
    check(
        bad.is_none(),
        KEY,
        format!(
            "has {:?}, which is no origin: write \"scheme://host[:port]\", in lower case, without the usual port, a path or a final slash",
            bad.map_or("", |origin| origin),
        ),
    )
}

/// Whether a browser could send this as `Origin`.
fn is_origin(text: &str) -> bool {
    let visible = text
        .chars()
        .all(|c| c.is_ascii_graphic() && !c.is_ascii_uppercase());
    let host = text.split_once("://").map_or("", |(_, host)| host);
    // Browsers omit default ports.
    let usual_port = text.starts_with("https://") && host.ends_with(":443")
        || text.starts_with("http://") && host.ends_with(":80");
    visible && !host.is_empty() && !usual_port && !host.contains(['/', '*', '?', '#', '@'])
}

fn redis(redis: &RedisSettings) -> Result<(), SettingsError> {
    check(
        is_redis_url(redis.url.expose()),
        "redis.url",
        "must begin with redis:// or rediss://, or with either and -cluster or -sentinel: \"redis://127.0.0.1:6379\"",
    )?;
    check(
        redis.ca_file.is_none() || is_encrypted(redis.url.expose()),
        "redis.ca_file",
        "is set, but redis.url does not ask for TLS: write rediss://, rediss-cluster:// or rediss-sentinel://",
    )?;
    let good_char = |c: char| c.is_ascii_graphic() && !"{}*?[]\\".contains(c);
    check(
        (1..=PREFIX_LEN_MAX).contains(&redis.prefix.len()) && redis.prefix.chars().all(good_char),
        "redis.prefix",
        format!("must be 1 to {PREFIX_LEN_MAX} visible ASCII characters, none of {{}}*?[]\\"),
    )?;
    check(
        (1..=PARTITIONS_MAX).contains(&redis.partitions),
        "redis.partitions",
        format!("must be 1 to {PARTITIONS_MAX}"),
    )?;
    check(
        (TTL_MIN..=TTL_MAX).contains(&redis.profile_ttl),
        "redis.profile_ttl",
        "must be 1ms to 100years",
    )?;
    check(
        !redis.command_timeout.is_zero(),
        "redis.command_timeout",
        "must be more than 0",
    )
}

fn postgres(postgres: &PostgresSettings) -> Result<(), SettingsError> {
    let url = postgres.url.as_ref().map(|url| url.expose());
    let good_scheme = url.is_none_or(|url| {
        let rest = url.strip_prefix("postgres://");
        rest.or_else(|| url.strip_prefix("postgresql://")).is_some()
    });
    check(
        good_scheme,
        "postgres.url",
        "must begin with postgres:// or postgresql://: \"postgres://vigie:PASSWORD@127.0.0.1/vigie\"",
    )?;
    check(
        (1..=POOL_MAX).contains(&postgres.pool),
        "postgres.pool",
        format!("must be 1 to {POOL_MAX}"),
    )?;
    check(
        (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&postgres.timeout),
        "postgres.timeout",
        "must be 10ms to 1m",
    )
}

/// Checks the scheme only; the client checks the rest.
fn is_redis_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let (server, kind) = scheme.split_once('-').unwrap_or((scheme, "cluster"));
    let known = ["redis", "rediss", "valkey", "valkeys"].contains(&server);
    known && ["cluster", "sentinel"].contains(&kind) && !rest.is_empty()
}

fn is_encrypted(url: &str) -> bool {
    ["rediss", "valkeys"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

fn auth(auth: &AuthSettings) -> Result<(), SettingsError> {
    let sources = [
        ("auth.secret", auth.secret.is_some()),
        ("auth.public_key_file", auth.public_key_file.is_some()),
        ("auth.jwks_file", auth.jwks_file.is_some()),
    ];
    let mut set = sources.into_iter().filter(|(_, set)| *set);
    if let (Some((first, _)), Some((second, _))) = (set.next(), set.next()) {
        return Err(SettingsError::Both { first, second });
    }
    not_empty(
        "auth.secret",
        auth.secret.as_ref().map(|secret| secret.expose()),
    )?;
    previous_key(auth)?;
    for (key, secret) in [
        ("auth.secret", &auth.secret),
        ("auth.previous_secret", &auth.previous_secret),
    ] {
        let is_pem = secret
            .as_ref()
            .is_some_and(|secret| secret.expose().contains(PEM));
        let problem = "is a key in PEM: name its file in auth.public_key_file or auth.previous_public_key_file";
        check(!is_pem, key, problem)?;
    }
    not_empty("auth.issuer", auth.issuer.as_deref())?;
    not_empty("auth.audience", auth.audience.as_deref())?;
    let claim = auth.user_id_claim.as_str();
    check(
        !claim.is_empty() && !REGISTERED_CLAIMS.contains(&claim),
        "auth.user_id_claim",
        format!(
            "must name the claim that holds the user id: not empty and none of {}",
            REGISTERED_CLAIMS.join(", ")
        ),
    )?;
    check(
        auth.leeway <= LEEWAY_MAX,
        "auth.leeway",
        format!("must be at most {}", humantime::format_duration(LEEWAY_MAX)),
    )?;
    check(
        (TTL_MIN..=TTL_MAX).contains(&auth.revocation_ttl),
        "auth.revocation_ttl",
        "must be 1ms to 100years, and longer than any token lives",
    )
}

/// Checks that at most one previous key is set, along with a present key and the time when it ends.
fn previous_key(auth: &AuthSettings) -> Result<(), SettingsError> {
    const SECRET: &str = "auth.previous_secret";
    const PUBLIC_KEY: &str = "auth.previous_public_key_file";
    const UNTIL: &str = "auth.previous_until";
    let secret = auth.previous_secret.as_ref();
    let key = match (secret, &auth.previous_public_key_file) {
        (Some(_), Some(_)) => {
            let (first, second) = (SECRET, PUBLIC_KEY);
            return Err(SettingsError::Both { first, second });
        }
        (Some(_), None) => SECRET,
        (None, Some(_)) => PUBLIC_KEY,
        (None, None) => {
            let problem = "is set without a previous key: set auth.previous_secret, auth.previous_secret_file or \
                           auth.previous_public_key_file, or remove it";
            return check(auth.previous_until.is_none(), UNTIL, problem);
        }
    };
    not_empty(SECRET, secret.map(|secret| secret.expose()))?;
    check(
        auth.has_key(),
        key,
        "is set without a key that came after it: set auth.secret, auth.public_key_file or auth.jwks_file, too",
    )?;
    check(
        auth.previous_until.is_some(),
        UNTIL,
        format!(
            "must be set with {key}: until when its tokens are accepted, \"2026-12-01T00:00:00Z\""
        ),
    )
}

pub(super) fn is_node_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

fn node(node: &NodeSettings) -> Result<(), SettingsError> {
    let good =
        |id: &str| (1..=NODE_ID_LEN_MAX).contains(&id.len()) && id.chars().all(is_node_id_char);
    check(
        node.id.as_deref().is_none_or(good),
        "node.id",
        format!("must be 1 to {NODE_ID_LEN_MAX} of letters, digits, \"_\", \".\" and \"-\""),
    )?;
    check(
        !node.heartbeat.is_zero(),
        "node.heartbeat",
        "must be more than 0",
    )?;
    check(!node.audit.is_zero(), "node.audit", "must be more than 0")?;
    // The lease must survive one failed renewal.
    check(
        node.heartbeat.saturating_mul(2) <= node.lease,
        "node.heartbeat",
        format!(
            "must be at most half of node.lease ({}): a third of it is a good choice",
            humantime::format_duration(node.lease),
        ),
    )
}

fn matchmaking(matchmaking: &MatchmakingSettings) -> Result<(), SettingsError> {
    check(
        matchmaking.rating_window <= WINDOW_MAX,
        "matchmaking.rating_window",
        format!("must be from 0 to {WINDOW_MAX}"),
    )?;
    check(
        matchmaking.widen_per_second <= WINDOW_MAX,
        "matchmaking.widen_per_second",
        format!("must be from 0 to {WINDOW_MAX}"),
    )?;
    check(
        (WAIT_MIN..=WAIT_MAX).contains(&matchmaking.max_wait),
        "matchmaking.max_wait",
        "must be from 1s to 1day",
    )
}

fn limits(limits: &LimitSettings) -> Result<(), SettingsError> {
    for (key, limit) in [
        (
            "limits.events_per_second",
            limits.events_per_second as usize,
        ),
        ("limits.events_burst", limits.events_burst as usize),
        ("limits.watches", limits.watches),
        ("limits.message", limits.message),
        ("limits.inbound_rate", limits.inbound_rate),
        ("limits.connections", limits.connections),
        ("limits.connections_per_user", limits.connections_per_user),
        ("limits.http_body", limits.http_body),
        ("limits.outbound_queue", limits.outbound_queue),
    ] {
        check(
            limit > 0,
            key,
            "must be more than 0: it does not mean unlimited",
        )?;
    }
    // A read from the socket counts as a whole, and the burst must admit the largest message.
    let burst_min = limits.message.saturating_add(INBOUND_BURST_MIN);
    check(
        limits.inbound_burst >= burst_min,
        "limits.inbound_burst",
        format!("must be at least limits.message and 64KiB more, {burst_min} bytes"),
    )?;
    check(
        limits.outbound_queue >= OUTBOUND_QUEUE_MIN,
        "limits.outbound_queue",
        format!("must be at least {OUTBOUND_QUEUE_MIN}"),
    )?;
    check(
        limits.stalled_write >= STALLED_WRITE_MIN,
        "limits.stalled_write",
        "must be at least 100ms",
    )?;
    check(
        (HANDSHAKE_MIN..=HANDSHAKE_MAX).contains(&limits.handshake),
        "limits.handshake",
        "must be from 1s to 1m",
    )
}

fn log_level(level: &str) -> Result<(), SettingsError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const KEY: &str = "log.level";
    // `EnvFilter` takes a lone unknown word for a target, and silences everything else.
    let lone =
        |part: &str| !part.contains(['=', '[']) && !LEVELS.contains(&part.to_lowercase().as_str());
    let bad = level.split(',').find(|part| lone(part));
    check(
        bad.is_none(),
        KEY,
        format!(
            "has {:?}, which is no level: write one of {}, or \"info,vigie=debug\"",
            bad.unwrap_or_default(),
            LEVELS.join(", "),
        ),
    )?;
    let parsed = EnvFilter::builder().parse(level);
    check(
        parsed.is_ok(),
        KEY,
        "is no list of levels and targets: write for example \"info,vigie=debug\"",
    )
}

#[cfg(test)]
mod tests;
