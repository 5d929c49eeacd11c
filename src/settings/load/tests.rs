use proptest::prelude::*;
use proptest::sample::select;

use std::time::Duration;

use super::*;
use crate::settings::{DEVELOPMENT_SECRET, EngineKind, LogFormat};

/// Loads from an empty file, so that the file of the working directory stays out of it.
fn load(environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    load_text("", environment)
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vigie.toml");
    fs::write(&file, text).unwrap();
    let environment = environment
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    Settings::load(Some(&file), environment)
}

fn error(text: &str, environment: &[(&str, &str)]) -> String {
    load_text(text, environment).unwrap_err().to_string()
}

#[test]
fn nothing_configured_is_the_defaults_with_development_keys() {
    let settings = load(&[]).unwrap();
    assert!(settings.development());
    assert!(settings.node.id.is_some());

    let mut plain = settings;
    (plain.auth.secret, plain.internal.api_key, plain.node.id) = (None, None, None);
    assert_eq!(plain, Settings::default());
}

#[test]
fn the_environment_overrides_the_file_which_overrides_the_defaults() {
    let text = "[node]\nlease = \"9s\"\ndrain = \"1s\"";
    let settings = load_text(text, &[("VIGIE_NODE__DRAIN", "500ms"), ("UNRELATED", "1")]).unwrap();
    assert_eq!(settings.node.heartbeat, Duration::from_secs(2));
    assert_eq!(settings.node.lease, Duration::from_secs(9));
    assert_eq!(settings.node.drain, Duration::from_millis(500));
}

#[test]
fn values_from_the_environment_are_read_as_their_keys_want_them() {
    let settings = load(&[
        ("VIGIE_LOG__FORMAT", "json"),
        (
            "VIGIE_HTTP__ALLOWED_ORIGINS",
            "https://a.example, http://localhost:3000",
        ),
        ("VIGIE_REDIS__PARTITIONS", "64"),
        ("VIGIE_REDIS__PROFILE_TTL", "2h 30m"),
        ("VIGIE_LIMITS__MESSAGE", "64KiB"),
        ("VIGIE_LIMITS__HTTP_BODY", "1000"),
        ("VIGIE_PRESENCE__OFFLINE_GRACE", "0s"),
        ("VIGIE_AUTH__SECRET", "00123"),
        ("VIGIE_INTERNAL__API_KEY", "true"),
        ("VIGIE_NODE__ID", "7"),
        ("VIGIE_AUTH__AUDIENCE", ""),
    ])
    .unwrap();
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(
        settings.http.allowed_origins,
        ["https://a.example", "http://localhost:3000"]
    );
    assert_eq!(settings.redis.partitions, 64);
    assert_eq!(settings.redis.profile_ttl, Duration::from_secs(9000));
    assert_eq!(settings.limits.message, 65536);
    assert_eq!(settings.limits.http_body, 1000);
    assert!(settings.presence.offline_grace.is_zero());
    assert_eq!(settings.auth.secret.unwrap().expose(), "00123");
    assert_eq!(settings.internal.api_key.unwrap().expose(), "true");
    assert_eq!(settings.node.id.unwrap(), "7");
    assert_eq!(settings.auth.audience, None);
}

#[test]
fn unknown_keys_are_named_with_those_that_exist() {
    let message = error("[http]\nlitsen = \"x\"", &[]);
    assert!(
        message.starts_with("unknown key http.litsen in /"),
        "{message}"
    );
    assert!(
        message.ends_with("section http has listen, allowed_origins, trusted_proxies"),
        "{message}"
    );

    let message = error("[htpp]\n", &[]);
    assert!(message.contains("unknown key htpp "), "{message}");
    assert!(message.contains("engine, http, internal,"), "{message}");

    let message = error("", &[("VIGIE_HTTP__LITSEN", "x")]);
    assert!(
        message.contains("unknown key http.litsen in the environment (VIGIE_HTTP__LITSEN)"),
        "{message}"
    );

    let message = error("", &[("VIGIE_HTTP_ALLOWED_ORIGINS", "x")]);
    assert!(
        message.ends_with("VIGIE_HTTP__ALLOWED_ORIGINS in the environment"),
        "{message}"
    );

    for (text, key) in [
        ("http = 5", "http"),
        ("[http.listen]\nport = 1", "http.listen.port"),
    ] {
        let message = error(text, &[]);
        assert!(
            message.starts_with(&format!("unknown key {key} ")),
            "{message}"
        );
    }
}

#[test]
fn what_kubernetes_says_about_services_is_no_setting() {
    let links = [
        ("VIGIE_SERVICE_HOST", "10.0.0.1"),
        ("VIGIE_PORT", "tcp://10.0.0.1:8181"),
        ("VIGIE_PORT_8181_TCP_ADDR", "10.0.0.1"),
        ("VIGIE_REDIS_SERVICE_PORT", "6379"),
    ];
    load(&links).unwrap();
    let message = error("", &[("VIGIE_HTTP_PORT", "8080")]);
    assert!(message.starts_with("unknown key http_port"), "{message}");
}

#[test]
fn a_bad_value_is_explained_with_an_example() {
    for (variable, value, expected) in [
        (
            "VIGIE_ENGINE",
            "postgres",
            "unknown variant `postgres`, expected `memory` or `redis`; write for example \"memory\"",
        ),
        (
            "VIGIE_HTTP__LISTEN",
            "localhost:1",
            "write for example \"127.0.0.1:8181\"",
        ),
        ("VIGIE_NODE__LEASE", "6", "write for example \"6s\""),
        (
            "VIGIE_LIMITS__MESSAGE",
            "big",
            "\"big\" is no size; write for example \"16KiB\"",
        ),
        (
            "VIGIE_LIMITS__WATCHES",
            "-1",
            "\"-1\" is no whole number; write for example 100",
        ),
        (
            "VIGIE_REDIS__PARTITIONS",
            "4294967297",
            "4294967297 is too large; write for example 1",
        ),
    ] {
        let message = error("", &[(variable, value)]);
        assert!(message.contains(&format!("({variable})")), "{message}");
        assert!(message.ends_with(expected), "{message}");
    }
    for text in [
        "[limits]\nwatches = 1.5",
        "[limits]\nwatches = true",
        "[http]\nallowed_origins = [[1]]",
    ] {
        let message = error(text, &[]);
        assert!(message.contains("write for example"), "{message}");
    }
}

#[test]
fn a_settings_file_with_a_secret_is_remembered() {
    let holds = |text: &str| load_text(text, &[]).unwrap().secrets_in.is_some();
    for text in [
        "[auth]\nsecret = \"s3cr3t\"",
        "[internal]\napi_key = \"k3y\"",
        "[internal]\napi_keys = [\"billing=k3y\"]",
        "[redis]\nurl = \"redis://:pa55@db\"",
        "[postgres]\nurl = \"postgres://vigie:pa55@db/vigie\"",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "",
        "[auth]\nissuer = \"me\"",
        "[redis]\nurl = \"redis://db\"",
        "[postgres]\nurl = \"postgres://vigie@db/vigie?sslmode=require\"",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn a_syntax_error_does_not_quote_the_line() {
    let message = error("[auth]\nsecret = \"hunter2", &[]);
    assert!(message.contains("line 2"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_named_file_must_exist() {
    let missing = Path::new("/nowhere/vigie.toml");
    let message = Settings::load(Some(missing), []).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read /nowhere/vigie.toml, which --config names"),
        "{message}"
    );
}

#[test]
fn secrets_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret, key) = (path("secret", "s3cr3t \n"), path("key", "k3y"));
    let url = path("url", "redis://:pa55@db:6379\r\n");
    let settings = load(&[
        ("VIGIE_AUTH__SECRET_FILE", &secret),
        ("VIGIE_INTERNAL__API_KEY_FILE", &key),
        ("VIGIE_REDIS__URL_FILE", &url),
    ])
    .unwrap();
    assert!(!settings.development());
    assert_eq!(settings.auth.secret.as_ref().unwrap().expose(), "s3cr3t ");
    assert_eq!(settings.internal.api_key.as_ref().unwrap().expose(), "k3y");
    assert_eq!(settings.redis.url.expose(), "redis://:pa55@db:6379");

    let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
    for hidden in ["s3cr3t", "k3y", "pa55"] {
        assert!(!shown.contains(hidden), "{shown}");
    }

    let message = error(
        "",
        &[
            ("VIGIE_AUTH__SECRET", "x"),
            ("VIGIE_AUTH__SECRET_FILE", &secret),
        ],
    );
    assert_eq!(
        message,
        "auth.secret and auth.secret_file are both set: remove one of them"
    );
    let message = error("[auth]\nsecret_file = \"/nowhere\"", &[]);
    assert!(
        message.starts_with("cannot read /nowhere, which auth.secret_file names"),
        "{message}"
    );
}

#[test]
fn a_previous_key_is_read_with_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "0ld s3cr3t\n").unwrap();
    let previous = [
        ("VIGIE_AUTH__SECRET", "x"),
        ("VIGIE_AUTH__PREVIOUS_SECRET_FILE", path.to_str().unwrap()),
        ("VIGIE_AUTH__PREVIOUS_UNTIL", "2026-12-01T00:00:00Z"),
    ];
    let settings = load(&previous).unwrap();
    let secret = settings.auth.previous_secret.as_ref().unwrap();
    assert_eq!(secret.expose(), "0ld s3cr3t");
    let shown = serde_json::to_string(&settings.auth).unwrap();
    assert!(
        shown.contains(r#""previous_until":"2026-12-01T00:00:00Z""#),
        "{shown}"
    );
    assert!(!shown.contains("0ld s3cr3t"), "{shown}");
    let in_toml = "[auth]\nprevious_until = 2026-12-01T00:00:00Z";
    let until = load_text(in_toml, &previous[..2]).unwrap();
    assert_eq!(until.auth.previous_until, settings.auth.previous_until);

    for bad in [
        "tomorrow",
        "2026-12-01",
        "2026-12-01T00:00:00",
        "2026-12-01T00:00:00+01:00",
        "2026-13-01T00:00:00Z",
        "1795358406",
    ] {
        let until = ("VIGIE_AUTH__PREVIOUS_UNTIL", bad);
        let message = error("", &[previous[0], previous[1], until]);
        assert!(
            message.contains("(VIGIE_AUTH__PREVIOUS_UNTIL)"),
            "{message}"
        );
        assert!(
            message.ends_with("write for example \"2026-12-01T00:00:00Z\""),
            "{message}"
        );
    }
    let message = error("", &[previous[0], previous[2]]);
    assert!(
        message.starts_with("auth.previous_until (VIGIE_AUTH__PREVIOUS_UNTIL) is set without"),
        "{message}"
    );
    let both = ("VIGIE_AUTH__PREVIOUS_SECRET", "y");
    assert_eq!(
        error("", &[previous[0], previous[1], previous[2], both]),
        "auth.previous_secret and auth.previous_secret_file are both set: remove one of them"
    );
}

#[test]
fn a_development_secret_that_is_still_accepted_counts_as_one() {
    let settings = load(&[
        ("VIGIE_AUTH__SECRET", "x"),
        ("VIGIE_INTERNAL__API_KEY", "y"),
        ("VIGIE_AUTH__PREVIOUS_SECRET", DEVELOPMENT_SECRET),
        ("VIGIE_AUTH__PREVIOUS_UNTIL", "2026-12-01T00:00:00Z"),
    ])
    .unwrap();
    assert!(settings.development());
}

#[test]
fn callers_have_keys_of_their_own() {
    let named = |settings: &Settings| {
        let keys = settings.internal.keys();
        let pairs = keys.map(|(name, key)| format!("{name}={}", key.expose()));
        pairs.collect::<Vec<_>>().join(" ")
    };
    let both = [
        ("VIGIE_INTERNAL__API_KEYS", "billing=k3y, games=pa55"),
        ("VIGIE_INTERNAL__API_KEY", "s3cr3t"),
    ];
    let settings = load(&both).unwrap();
    assert_eq!(named(&settings), "default=s3cr3t billing=k3y games=pa55");
    assert_eq!(settings.warnings().len(), 3, "short, each");
    let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
    assert!(shown.contains("billing=***"), "{shown}");
    for hidden in ["s3cr3t", "k3y", "pa55"] {
        let told = format!("{shown} {:?}", settings.warnings());
        assert!(!told.contains(hidden), "{told}");
    }

    let text = "[internal]\napi_keys = [\"billing=k3y\"]";
    let exposed = [
        ("VIGIE_ENGINE", "redis"),
        ("VIGIE_AUTH__JWKS_FILE", "keys.json"),
    ];
    let settings = load_text(text, &exposed).unwrap();
    assert_eq!(named(&settings), "billing=k3y");
    assert!(!load(&both[..1]).unwrap().uses_development_api_key());
    let known = load(&[("VIGIE_INTERNAL__API_KEYS", "x=vigie-development-key")]).unwrap();
    assert!(known.uses_development_api_key());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "# who pays\nbilling=k3y\n").unwrap();
    let file = file.to_str().unwrap();
    let settings = load(&[("VIGIE_INTERNAL__API_KEYS_FILE", file)]).unwrap();
    assert_eq!(named(&settings), "billing=k3y");
    let both = format!("{text}\napi_keys_file = {file:?}");
    assert!(error(&both, &[]).contains("both set"));
}

#[test]
fn what_the_environment_says_in_the_other_way_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    fs::write(&file, "redis://from-file\n").unwrap();
    let file = file.to_str().unwrap();
    let text = "[redis]\nurl = \"redis://in-settings\"\nprefix = \"games\"";
    let settings = load_text(text, &[("VIGIE_REDIS__URL_FILE", file)]).unwrap();
    assert_eq!(settings.redis.url.expose(), "redis://from-file");
    assert_eq!(settings.redis.prefix, "games");
    let text = format!("[redis]\nurl_file = {file:?}");
    let settings = load_text(&text, &[("VIGIE_REDIS__URL", "redis://other")]).unwrap();
    assert_eq!(settings.redis.url.expose(), "redis://other");
}

#[test]
fn keys_that_cannot_be_read_are_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "billing=k3y\npa55\n").unwrap();
    let file = file.to_str().unwrap();
    for (variable, value, place) in [
        ("VIGIE_INTERNAL__API_KEYS", "billing=k3y,pa55", "item 2"),
        ("VIGIE_INTERNAL__API_KEYS", "pa55==", "item 1"),
        ("VIGIE_INTERNAL__API_KEYS_FILE", file, "line 2"),
        ("VIGIE_INTERNAL__API_KEYS", "a=pa55,a=k3y", "\"a\" twice"),
        (
            "VIGIE_INTERNAL__API_KEYS",
            "a=pa55,b=pa55",
            "\"a\" and \"b\"",
        ),
    ] {
        let message = error("", &[(variable, value)]);
        assert!(message.contains(variable), "{message}");
        assert!(message.contains(place), "{message}");
        assert!(
            !message.contains("pa55") && !message.contains("k3y"),
            "{message}"
        );
    }
    for text in [
        "[internal]\napi_keys = 5577",
        "[internal]\napi_keys = [[\"5577\"]]",
    ] {
        let message = error(text, &[]);
        assert!(message.contains("internal.api_keys"), "{message}");
        assert!(!message.contains("5577"), "{message}");
    }
}

#[test]
fn whoever_can_be_reached_needs_keys_of_its_own() {
    for exposed in [
        ("VIGIE_ENGINE", "redis"),
        ("VIGIE_HTTP__LISTEN", "0.0.0.0:8181"),
        ("VIGIE_INTERNAL__LISTEN", "[::]:8182"),
    ] {
        let message = error("", &[exposed]);
        assert!(message.contains("VIGIE_AUTH__SECRET"), "{message}");
        assert!(message.contains("VIGIE_INTERNAL__API_KEY"), "{message}");

        let message = error("", &[exposed, ("VIGIE_AUTH__JWKS_FILE", "keys.json")]);
        assert!(!message.contains("VIGIE_AUTH__SECRET"), "{message}");
        let message = error("", &[exposed, ("VIGIE_INTERNAL__API_KEY", "key")]);
        assert!(!message.contains("VIGIE_INTERNAL"), "{message}");

        let keys = [
            ("VIGIE_AUTH__SECRET", "test-secret"),
            ("VIGIE_INTERNAL__API_KEY", "key"),
        ];
        let settings = load(&[exposed, keys[0], keys[1]]).unwrap();
        assert!(!settings.development());
        assert_eq!(settings.warnings().len(), 2, "short, but not refused");
    }
}

#[test]
fn each_development_key_stands_in_for_a_missing_one_alone() {
    let settings = load(&[
        ("VIGIE_AUTH__SECRET", "x"),
        ("VIGIE_HTTP__LISTEN", "[::1]:0"),
    ])
    .unwrap();
    assert!(settings.uses_development_api_key() && !settings.uses_development_secret());
    assert!(settings.development());
    assert_eq!(settings.engine, EngineKind::Memory);
}

#[test]
fn the_default_node_id_is_valid_whatever_the_host_is_called() {
    let long = "x".repeat(300);
    for host in ["web-1", "", "böse host/{1}", &long] {
        let settings = load(&[("HOSTNAME", host)]).unwrap();
        let id = settings.node.id.as_deref().unwrap();
        assert!(load(&[("VIGIE_NODE__ID", id)]).is_ok(), "{id}");
    }
}

#[test]
fn the_reference_file_lists_every_key_with_its_default() {
    let text = fs::read_to_string(DEFAULT_FILE).unwrap();
    let mut settings = load_text(&text, &[]).unwrap();
    (
        settings.auth.secret,
        settings.internal.api_key,
        settings.node.id,
    ) = (None, None, None);
    assert_eq!(settings, Settings::default());

    let mut fields = Vec::new();
    for (section, value) in serde_json::to_value(&settings)
        .unwrap()
        .as_object()
        .unwrap()
    {
        match value.as_object() {
            Some(keys) => fields.extend(keys.keys().map(|key| format!("{section}.{key}"))),
            None => fields.push(section.clone()),
        }
    }
    let known = Reference::read();
    let mut listed: Vec<_> = known.names().collect();
    fields.sort();
    listed.sort();
    assert_eq!(listed, fields);
}

#[test]
fn the_reference_file_explains_every_key() {
    let lines: Vec<_> = fs::read_to_string(DEFAULT_FILE)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    for (above, line) in lines.iter().zip(&lines[1..]) {
        if line.contains(" = ") && !line.starts_with("# ") {
            assert!(above.starts_with("# "), "no comment above {line}");
        }
    }
}

#[test]
fn every_file_in_config_loads() {
    for entry in fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let keys = [
                ("VIGIE_AUTH__SECRET", "test-secret"),
                ("VIGIE_INTERNAL__API_KEY", "key"),
            ];
            let environment = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
            Settings::load(Some(&path), environment).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1024)
    })]

    #[test]
    fn a_value_is_taken_or_refused_by_name(
        key in select(Reference::read().names().map(str::to_owned).collect::<Vec<_>>()),
        value in prop_oneof![
            "[0-9]{1,22}( ?(ms|s|m|h|days|KiB|GiB|EiB|B|%))?",
            "[a-z]{1,12}",
            "[0-9.:a-f,\\[\\]*/]{1,30}",
            "[^\0]{1,40}",
        ],
    ) {
        // The content of a file of that name does not matter.
        prop_assume!(!key.ends_with("_file"));
        let variable = format!("VIGIE_{}", key.replace('.', "__").to_uppercase());
        if let Err(error) = load(&[(&variable, &value)]) {
            let message = error.to_string();
            let (section, name) = key.split_once('.').unwrap_or(("", &key));
            let named = message.contains(name) && message.contains(section);
            prop_assert!(named, "{} = {:?}: {}", variable, value, message);
        }
    }

    #[test]
    fn no_file_makes_it_fail(
        text in "(\\[[a-z.]{0,9}\\]\n|[a-z_.]{0,12} ?= ?(\"[^\"]{0,9}\"|[0-9]{0,4}|\\[.{0,9})\n){0,6}|.*",
    ) {
        if let Err(error) = load_text(&text, &[]) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
