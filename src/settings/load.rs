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
mod tests;
