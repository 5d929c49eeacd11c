//! Loads settings: merges the layers, refuses unknown keys, reads secret files, validates.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use config::{Config, ConfigError, File, FileFormat, Source, Value, ValueKind};

use super::error::SettingsError;
use super::reference::Reference;
use super::{PostgresUrl, RedisUrl, Secret, Settings, api_keys, development, validate};
use crate::ids::random_name;

/// Settings file if `--config` is absent; it need not exist.
pub const DEFAULT_FILE: &str = "config/vigie.toml";

/// Values that may come from a file of their own, with the keys that name the files. All are secret.
const FROM_FILES: [(&str, &str); 6] = [
    ("internal.api_key", "internal.api_key_file"),
    ("internal.api_keys", "internal.api_keys_file"),
    ("redis.url", "redis.url_file"),
    ("postgres.url", "postgres.url_file"),
    ("auth.secret", "auth.secret_file"),
    ("auth.previous_secret", "auth.previous_secret_file"),
];

impl Settings {
    /// Merges defaults, `file` (or [`DEFAULT_FILE`], if it exists) and `environment`, in ascending precedence, and
    /// validates the result.
    ///
    /// Reads only variables `VIGIE_…`, and ignores empty ones.
    ///
    /// # Errors
    /// When a layer cannot be read, a key is unknown, or a value is invalid.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let from_file = read_file(path, file.is_some())?;
        let holds_secret = from_file.as_ref().is_some_and(holds_secret);
        let layers = merge(from_file, from_environment(&environment)?)?;
        let mut settings = deserialize(layers)?;
        settings.secrets_in = holds_secret.then(|| path.to_owned());
        read_secret_files(&mut settings)?;
        settings
            .node
            .id
            .get_or_insert_with(|| default_node_id(&environment));
        validate::validate(&settings)?;
        development::fill_in(&mut settings)?;
        Ok(settings)
    }
}

/// Parses the settings file; `None` if an optional file does not exist.
fn read_file(path: &Path, must_exist: bool) -> Result<Option<Config>, SettingsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if !must_exist && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let (path, asked_by) = (path.to_owned(), "--config");
            return Err(SettingsError::Unreadable {
                path,
                asked_by,
                source,
            });
        }
    };
    let parsed = Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .build();
    let config = parsed.map_err(|error| SettingsError::Syntax {
        path: path.to_owned(),
        problem: without_source_lines(&error.to_string()),
    })?;
    refuse_unknown_in(&config, path)?;
    Ok(Some(config))
}

/// Whether errors must not quote the value of this key.
fn is_secret(key: &str) -> bool {
    FROM_FILES.iter().any(|(secret, _)| *secret == key)
}

/// Whether the settings file itself contains a secret.
fn holds_secret(file: &Config) -> bool {
    FROM_FILES.iter().any(|(key, _)| match *key {
        "redis.url" => file
            .get(key)
            .is_ok_and(|url: RedisUrl| url.carries_secret()),
        "postgres.url" => file
            .get(key)
            .is_ok_and(|url: PostgresUrl| url.carries_secret()),
        key => file.get::<Value>(key).is_ok(),
    })
}

/// Drops the lines of a parse error that quote the file (`3 | secret = …`).
fn without_source_lines(message: &str) -> String {
    let quotes = |line: &&str| {
        line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())
            .starts_with('|')
    };
    let kept: Vec<_> = message.lines().filter(|line| !quotes(line)).collect();
    kept.join(": ")
}

fn refuse_unknown_in(file: &Config, path: &Path) -> Result<(), SettingsError> {
    let known = Reference::read();
    let mut unknown = Vec::new();
    for (key, value) in file.collect().map_err(unmergeable)? {
        collect_unknown(key, value, &known, &mut unknown);
    }
    match unknown.into_iter().min() {
        Some(key) => Err(SettingsError::Unknown {
            hint: known.hint(&key),
            place: path.display().to_string(),
            key,
        }),
        None => Ok(()),
    }
}

/// Collects all unknown keys at and below `key`.
fn collect_unknown(key: String, value: Value, known: &Reference, unknown: &mut Vec<String>) {
    match value.kind {
        // A table in place of a secret may contain it, so its keys are not quoted.
        _ if is_secret(&key) => {}
        ValueKind::Table(table) if known.has_section(&key) || !table.is_empty() => {
            for (name, value) in table {
                collect_unknown(format!("{key}.{name}"), value, known, unknown);
            }
        }
        _ if known.has(&key) => {}
        _ => unknown.push(key),
    }
}

/// Keys and values of the variables `VIGIE_…`.
fn from_environment(
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, &str)>, SettingsError> {
    let known = Reference::read();
    let mut pairs = Vec::new();
    for (variable, value) in environment {
        let Some(name) = variable.strip_prefix("VIGIE_") else {
            continue;
        };
        if value.is_empty() || is_service_link(name, value) {
            continue;
        }
        let key = name.replace("__", ".").to_lowercase();
        if !known.has(&key) {
            let hint = known.hint(&key);
            let place = format!("the environment ({variable})");
            return Err(SettingsError::Unknown { key, place, hint });
        }
        pairs.push((key, value.as_str()));
    }
    Ok(pairs)
}

/// Whether Kubernetes sets this variable. It does so in every pod for each service, and a service named `vigie` or
/// `vigie-internal` must not prevent nodes from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let address = name.ends_with("SERVICE_HOST") || name.contains("SERVICE_PORT");
    let url = name.ends_with("PORT") && value.contains("://");
    let part_of_url = name
        .split_once("PORT_")
        .is_some_and(|(_, port)| port.starts_with(|c: char| c.is_ascii_digit()));
    !name.contains("__") && (address || url || part_of_url)
}

/// Merges the file and the environment, which takes precedence.
fn merge(file: Option<Config>, environment: Vec<(String, &str)>) -> Result<Config, SettingsError> {
    let merged = || {
        let mut builder = Config::builder();
        if let Some(mut file) = file {
            drop_overridden(&mut file, &environment);
            builder = builder.add_source(file);
        }
        for (key, value) in environment {
            builder = builder.set_override(key, value)?;
        }
        builder.build()
    };
    merged().map_err(unmergeable)
}

/// Drops a value from the file if the environment names a file for it, and the reverse; otherwise both would be set.
fn drop_overridden(file: &mut Config, environment: &[(String, &str)]) {
    let is_set = |key: &str| environment.iter().any(|(set, _)| set == key);
    for (first, second) in FROM_FILES {
        for (set, dropped) in [(first, second), (second, first)] {
            if is_set(set) {
                remove(&mut file.cache, dropped);
            }
        }
    }
}

fn remove(table: &mut Value, key: &str) {
    let ValueKind::Table(table) = &mut table.kind else {
        return;
    };
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Some(section) = table.get_mut(section) {
                remove(section, rest);
            }
        }
        None => drop(table.remove(key)),
    }
}

fn unmergeable(error: ConfigError) -> SettingsError {
    SettingsError::Merge(error.to_string())
}

fn deserialize(layers: Config) -> Result<Settings, SettingsError> {
    for (first, second) in FROM_FILES {
        if layers.get::<Value>(first).is_ok() && layers.get::<Value>(second).is_ok() {
            return Err(SettingsError::Both { first, second });
        }
    }
    layers.try_deserialize().map_err(unparsable)
}

/// Converts an error of the library into one that quotes an example.
fn unparsable(error: ConfigError) -> SettingsError {
    let (key, problem) = match error {
        ConfigError::At {
            error,
            key: Some(key),
            ..
        } => (key, error.to_string()),
        ConfigError::Type {
            unexpected,
            expected,
            key: Some(key),
            ..
        } => (key, format!("{unexpected} is not {expected}")),
        other => return SettingsError::Merge(other.to_string()),
    };
    // For an item of a list the library returns `key[3]`.
    let key = key.split('[').next().unwrap_or_default().to_owned();
    let problem = if is_secret(&key) {
        without_value(problem)
    } else {
        problem
    };
    match Reference::read().example(&key) {
        Some(example) => SettingsError::Unparsable {
            key,
            problem,
            example,
        },
        None => SettingsError::Merge(format!("{key}: {problem}")),
    }
}

/// Drops the value from a type error: a secret of the wrong type is still a secret.
fn without_value(problem: String) -> String {
    let needed = problem.rsplit_once(" expected ");
    let needed = needed.or_else(|| problem.rsplit_once(" is not "));
    match needed {
        Some((_, needed)) => format!("what it is set to is not {needed}"),
        None => problem,
    }
}

fn read_secret_files(settings: &mut Settings) -> Result<(), SettingsError> {
    if let Some(path) = &settings.internal.api_key_file {
        settings.internal.api_key = Some(Secret::new(read_secret(path, "internal.api_key_file")?));
    }
    if let Some(path) = &settings.internal.api_keys_file {
        let key = "internal.api_keys_file";
        let keys = api_keys::lines(&read_secret(path, key)?);
        let named = keys.map_err(|problem| SettingsError::Invalid { key, problem })?;
        if named.is_empty() {
            let problem = "names a file that has no key in it: write name=key on a line".to_owned();
            return Err(SettingsError::Invalid { key, problem });
        }
        settings.internal.api_keys = named;
    }
    if let Some(path) = &settings.redis.url_file {
        settings.redis.url = RedisUrl::new(read_secret(path, "redis.url_file")?);
    }
    if let Some(path) = &settings.postgres.url_file {
        let url = PostgresUrl::new(read_secret(path, "postgres.url_file")?);
        settings.postgres.url = Some(url);
    }
    if let Some(path) = &settings.auth.secret_file {
        settings.auth.secret = Some(Secret::new(read_secret(path, "auth.secret_file")?));
    }
    if let Some(path) = &settings.auth.previous_secret_file {
        let secret = Secret::new(read_secret(path, "auth.previous_secret_file")?);
        settings.auth.previous_secret = Some(secret);
    }
    Ok(())
}

/// Reads a file without its final line break, which editors add.
fn read_secret(path: &Path, asked_by: &'static str) -> Result<String, SettingsError> {
    let text = fs::read_to_string(path).map_err(|source| {
        let path = path.to_owned();
        SettingsError::Unreadable {
            path,
            asked_by,
            source,
        }
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The host name, for people, with a random suffix, because a host may run several nodes.
fn default_node_id(environment: &BTreeMap<String, String>) -> String {
    let host = match environment.get("HOSTNAME") {
        Some(name) => name.clone(),
        None => fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
    };
    let allowed = host
        .trim()
        .chars()
        .filter(|&c| validate::is_node_id_char(c));
    let mut host: String = allowed.take(validate::NODE_ID_LEN_MAX - 5).collect();
    if host.is_empty() {
        host.push_str("vigie");
    }
    format!("{host}-{}", &random_name()[..4])
}

#[cfg(test)]
mod tests {
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
        let settings =
            load_text(text, &[("VIGIE_NODE__DRAIN", "500ms"), ("UNRELATED", "1")]).unwrap();
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
}
