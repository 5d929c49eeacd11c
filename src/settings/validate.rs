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
mod tests {
    use super::*;
    use crate::settings::{NamedKey, PostgresUrl, RedisUrl, Secret};

    /// What `change` makes of the defaults: nothing wrong, or the key at fault.
    fn fault(change: impl FnOnce(&mut Settings)) -> Option<String> {
        let mut settings = Settings::default();
        change(&mut settings);
        validate(&settings).err().map(|error| match error {
            SettingsError::Invalid { key, .. } => key.to_owned(),
            other => other.to_string(),
        })
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(fault(|_| ()), None);
    }

    #[test]
    fn each_listener_has_a_port_of_its_own() {
        let listen = |public: &str, internal: &str| {
            let (public, internal) = (public.parse().unwrap(), internal.parse().unwrap());
            fault(|settings| (settings.http.listen, settings.internal.listen) = (public, internal))
        };
        assert_eq!(listen("127.0.0.1:0", "127.0.0.1:0"), None);
        assert_eq!(listen("127.0.0.1:80", "127.0.0.1:81"), None);
        for (public, internal) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("[::1]:80", "127.0.0.1:80"),
        ] {
            assert_eq!(listen(public, internal).as_deref(), Some("internal.listen"));
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        let origins = |list: &[&str]| {
            let list = list.iter().map(|origin| origin.to_string()).collect();
            fault(|settings| settings.http.allowed_origins = list)
        };
        for good in [
            &["*"][..],
            &[],
            &["https://a.example", "http://localhost:3000", "app://x"],
        ] {
            assert_eq!(origins(good), None, "{good:?}");
        }
        for bad in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://*.example",
            "HTTPS://a",
            "https://a.example:443",
            "http://a.example:80",
            "https://a b",
        ] {
            assert!(origins(&[bad]).is_some(), "{bad}");
        }
        assert!(origins(&["*", "https://a.example"]).is_some());
    }

    #[test]
    fn redis_settings_make_sense() {
        for good in [
            "redis://h",
            "rediss://h",
            "valkey-cluster://h",
            "rediss-sentinel://h?sentinelServiceName=m",
        ] {
            assert_eq!(
                fault(|settings| settings.redis.url = RedisUrl::new(good)),
                None,
                "{good}"
            );
        }
        for bad in ["", "h:6379", "http://h", "redis://", "redis-foo://h"] {
            assert!(
                fault(|settings| settings.redis.url = RedisUrl::new(bad)).is_some(),
                "{bad}"
            );
        }
        let with_ca = |url: &str| {
            fault(|settings| {
                settings.redis.url = RedisUrl::new(url);
                settings.redis.ca_file = Some("ca.pem".into());
            })
        };
        for encrypted in ["rediss://h", "valkeys-cluster://h", "rediss-sentinel://h"] {
            assert_eq!(with_ca(encrypted), None, "{encrypted}");
        }
        assert_eq!(with_ca("redis://h").as_deref(), Some("redis.ca_file"));
        for bad in ["", "a b", "a{b}", "é", "a*"] {
            assert!(
                fault(|settings| settings.redis.prefix = bad.to_owned()).is_some(),
                "{bad}"
            );
        }
        for bad in [0, 1025] {
            assert!(
                fault(|settings| settings.redis.partitions = bad).is_some(),
                "{bad}"
            );
        }
    }

    #[test]
    fn postgres_settings_make_sense() {
        let url = |url: &str| {
            fault(|settings| settings.postgres.url = Some(PostgresUrl::new(url))).as_deref()
                == Some("postgres.url")
        };
        assert!(!url("postgres://h/db") && !url("postgresql://a:b@h:5432/db?sslmode=require"));
        for bad in ["", "h:5432", "mysql://h", "host=h user=vigie"] {
            assert!(url(bad), "{bad}");
        }
        for bad in [0, 1001] {
            let fault = fault(|settings| settings.postgres.pool = bad);
            assert_eq!(fault.as_deref(), Some("postgres.pool"), "{bad}");
        }
        for bad in [Duration::ZERO, Duration::from_secs(61)] {
            let fault = fault(|settings| settings.postgres.timeout = bad);
            assert_eq!(fault.as_deref(), Some("postgres.timeout"), "{bad:?}");
        }
    }

    #[test]
    fn each_caller_has_a_name_and_a_key_of_its_own() {
        let keys = |default: Option<&str>, named: &[(&str, &str)]| {
            fault(|settings| {
                settings.internal.api_key = default.map(Secret::new);
                let named = named.iter().map(|(name, key)| NamedKey {
                    name: name.to_string(),
                    key: Secret::new(*key),
                });
                settings.internal.api_keys = named.collect();
            })
        };
        assert_eq!(keys(Some("x"), &[("a", "y"), ("A", "z")]), None);
        assert_eq!(keys(None, &[("default", "y")]), None);
        assert_eq!(keys(Some(""), &[]).as_deref(), Some("internal.api_key"));
        for (default, named) in [
            (Some("x"), [("default", "y"), ("b", "z")]),
            (Some("x"), [("a", "x"), ("b", "y")]),
            (None, [("a", "x"), ("a", "y")]),
            (None, [("a", "x"), ("b", "x")]),
        ] {
            let fault = keys(default, &named);
            assert_eq!(fault.as_deref(), Some("internal.api_keys"), "{named:?}");
        }
    }

    #[test]
    fn one_source_of_token_keys_is_enough() {
        let both = fault(|settings| {
            settings.auth.secret = Some(Secret::new("s"));
            settings.auth.jwks_file = Some("keys.json".into());
        });
        assert_eq!(
            both.as_deref(),
            Some("auth.secret and auth.jwks_file are both set: remove one of them")
        );
        assert!(fault(|settings| settings.auth.secret = Some(Secret::new(""))).is_some());
        assert!(fault(|settings| settings.auth.user_id_claim = "exp".to_owned()).is_some());
        assert!(fault(|settings| settings.auth.leeway = Duration::from_secs(601)).is_some());
    }

    #[test]
    fn a_previous_key_stands_beside_a_present_one_and_ends() {
        let fault = |change: fn(&mut AuthSettings)| {
            fault(|settings| {
                settings.auth.secret = Some(Secret::new("s"));
                settings.auth.previous_until = Some(std::time::UNIX_EPOCH);
                change(&mut settings.auth);
            })
        };
        let secret = |auth: &mut AuthSettings| auth.previous_secret = Some(Secret::new("p"));
        assert_eq!(fault(secret), None);
        for good in [
            |auth: &mut AuthSettings| auth.previous_public_key_file = Some("key.pem".into()),
            |auth: &mut AuthSettings| {
                auth.secret = None;
                auth.jwks_file = Some("keys.json".into());
                auth.previous_secret = Some(Secret::new("p"));
            },
        ] {
            assert_eq!(fault(good), None);
        }

        let key = |change: fn(&mut AuthSettings)| fault(change).unwrap_or_default();
        assert_eq!(key(|_| ()), "auth.previous_until");
        assert_eq!(
            key(|auth| {
                auth.previous_secret = Some(Secret::new("p"));
                auth.previous_until = None;
            }),
            "auth.previous_until"
        );
        assert_eq!(
            key(|auth| auth.previous_secret = Some(Secret::new(""))),
            "auth.previous_secret"
        );
        assert_eq!(
            key(|auth| {
                auth.previous_public_key_file = Some("key.pem".into());
                auth.secret = None;
            }),
            "auth.previous_public_key_file"
        );
        assert_eq!(
            key(|auth| {
                auth.previous_secret = Some(Secret::new("p"));
                auth.previous_public_key_file = Some("key.pem".into());
            }),
            "auth.previous_secret and auth.previous_public_key_file are both set: remove one of them"
        );
    }

    #[test]
    fn a_revocation_is_kept_for_a_while() {
        for (bad, good) in [
            (Duration::from_micros(999), Duration::from_millis(1)),
            (Duration::MAX, Duration::from_hours(24 * 36525)),
        ] {
            let ttl = |ttl| fault(|settings| settings.auth.revocation_ttl = ttl);
            assert_eq!(ttl(bad).as_deref(), Some("auth.revocation_ttl"));
            assert_eq!(ttl(good), None);
        }
    }

    #[test]
    fn a_lease_outlives_two_heartbeats() {
        let lease = |heartbeat_ms: u64, lease_ms: u64| {
            let millis = Duration::from_millis;
            fault(|settings| {
                (settings.node.heartbeat, settings.node.lease) =
                    (millis(heartbeat_ms), millis(lease_ms))
            })
        };
        assert_eq!(lease(200, 600), None);
        assert_eq!(lease(1, 2), None);
        assert_eq!(lease(301, 600).as_deref(), Some("node.heartbeat"));
        assert_eq!(lease(0, 600).as_deref(), Some("node.heartbeat"));
    }

    #[test]
    fn node_ids_fit_into_keys() {
        for (id, good) in [
            ("eu.west-1_b", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(
                fault(|settings| settings.node.id = Some(id.to_owned())).is_none(),
                good,
                "{id}"
            );
        }
    }

    #[test]
    fn no_limit_is_zero() {
        assert_eq!(
            fault(|settings| settings.limits.watches = 0).as_deref(),
            Some("limits.watches")
        );
    }

    #[test]
    fn levels_are_levels() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,vigie=debug",
            "warn,fred=trace",
            "vigie[{user=42}]=debug",
        ] {
            assert_eq!(
                fault(|settings| settings.log.level = good.to_owned()),
                None,
                "{good}"
            );
        }
        for bad in ["", "inof", "info,debgu", "vigie=loud", "info,"] {
            assert!(
                fault(|settings| settings.log.level = bad.to_owned()).is_some(),
                "{bad}"
            );
        }
    }

    #[test]
    fn development_keys_in_the_open_are_warned_about() {
        let mut settings = Settings::default();
        settings.internal.api_key = Some(Secret::new(crate::settings::DEVELOPMENT_API_KEY));
        assert!(settings.warnings().is_empty());
        settings.http.listen = "0.0.0.0:8181".parse().unwrap();
        assert_eq!(settings.warnings().len(), 1);
    }
}
