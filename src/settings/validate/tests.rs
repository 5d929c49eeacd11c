use super::*;
use crate::settings::{NamedKey, PostgresUrl, RedisUrl, Secret};

/// Validates the defaults after `change`. Returns the key at fault.
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
