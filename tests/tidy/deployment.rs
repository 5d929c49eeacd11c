//! The files under `config/` that put nodes to work, against what a node is. The tests of the hub run two of them; these
//! hold for what cannot be run here, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use vigie::Settings;
use vigie::internals::Metrics;
use vigie::settings::SettingsError;

use crate::{files, read, report, root};

const COMPOSE: &str = "config/compose.yml";
const DOCKERFILE: &str = "config/Dockerfile";
const HAPROXY: &str = "config/haproxy.cfg";
const KUBERNETES: &str = "config/kubernetes.yaml";
const NGINX: &str = "config/nginx.conf";
const UNIT: &str = "config/vigie.service";

/// Where these files have secrets, each of which would be a file there.
const SECRETS: [&str; 3] = ["/run/secrets/vigie/", "/run/secrets/", "%d/"];

/// The longest time that a stopping node may take after `node.drain`: for connections that do not close, to give back what it
/// owes, and for its threads to end.
const GOODBYE: Duration = Duration::from_secs(11);

/// Open files of a node besides its connections.
const FILES_BESIDES: usize = 2304;

/// Goal: what is YAML can be read. Method: a parser, each file.
#[test]
fn yaml_is_yaml() {
    for ending in ["yml", "yaml"] {
        for file in files("config", ending) {
            let documents = yaml(&file);
            let objects = documents.iter().all(Value::is_object);
            assert!(objects && !documents.is_empty(), "{file}: {documents:?}");
        }
    }
}

/// Goal: no file names a setting that there is not. Method: a node's own word on each variable.
#[test]
fn variables_are_settings() {
    let mut findings = Vec::new();
    for file in all_files() {
        let text = read(&file);
        for name in words(&text, "VIGIE_") {
            if name == "VIGIE_ENGINE" || name.contains("__") {
                let variable = (name.to_owned(), "0".to_owned());
                let loaded = Settings::load(Some(Path::new("/dev/null")), [variable]);
                if let Err(SettingsError::Unknown { hint, .. }) = loaded {
                    findings.push(format!("{file}: {name}: {hint}"));
                }
            }
        }
    }
    report("Every variable is a setting.", &findings);
}

/// Goal: with the settings of each file a node would start, behind a proxy that it trusts, with keys of its own.
/// Method: they are loaded as a node loads them, with files for the secrets; the ports are those of the defaults.
#[test]
fn settings_are_whole() {
    let defaults = Settings::default();
    let image = variables_of_image();
    let compose = one_yaml(COMPOSE);
    let shipped = read("config/vigie.toml");
    let mut nodes = vec![("unit".to_owned(), load(&shipped, variables_of_unit()))];
    for node in ["a", "b"] {
        let environment = &compose["services"][node]["environment"];
        let mut variables = image.clone();
        variables.extend(
            environment
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), text(value).to_owned())),
        );
        nodes.push((format!("{COMPOSE}, {node}"), load("", variables)));
    }
    let map = of_kind("ConfigMap");
    let file = text(&map["data"]["vigie.toml"]);
    nodes.push((KUBERNETES.to_owned(), load(file, image)));
    for (place, settings) in nodes {
        assert!(!settings.development(), "{place}");
        assert!(settings.auth.secret.is_some(), "{place}");
        assert_eq!(settings.http.listen.port(), defaults.http.listen.port());
        let port = defaults.internal.listen.port();
        assert_eq!(settings.internal.listen.port(), port, "{place}");
        let is_alone = settings.http.listen.ip().is_loopback();
        let trusts = !settings.http.trusted_proxies.is_empty();
        assert!(is_alone || trusts, "{place}");
    }
}

/// Goal: whatever ends a node waits until it has drained. Method: the times in each file, and the defaults.
#[test]
fn a_drain_has_the_time_it_takes() {
    let needed = Settings::default().node.drain + GOODBYE;
    for node in ["a", "b"] {
        let grace = &one_yaml(COMPOSE)["services"][node]["stop_grace_period"];
        assert!(duration(text(grace)) >= needed, "{COMPOSE}: {grace}");
    }
    let stop = after(&read(UNIT), "TimeoutStopSec=");
    assert!(duration(&stop) >= needed, "{UNIT}: {stop}");
    let pod = pod();
    let sleep = &pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(0);
    let left = Duration::from_secs(grace - sleep.as_u64().expect("preStop sleeps"));
    assert!(left >= needed, "{KUBERNETES}: {left:?}");
}

/// Goal: balancers and nodes agree on addresses, paths and limits. Method: the defaults of a node in each file.
#[test]
fn balancers_fit_nodes() {
    let defaults = Settings::default();
    let first = defaults.http.listen.to_string();
    let (nginx, haproxy) = (read(NGINX), read(HAPROXY));
    for (file, text) in [(NGINX, &nginx), (HAPROXY, &haproxy)] {
        let groups = text.matches(&format!("server {first}")).count()
            + text.matches(&format!("server a {first}")).count();
        assert_eq!(groups, 2, "{file}: {first} in both groups");
    }
    // An account of failures never lets a node back whose connections do not end.
    for line in lines(&nginx, " server 127.0.0.1:") {
        assert!(line.ends_with(" max_fails=0;"), "{NGINX}: {line}");
    }
    // compose.yml changes nginx.conf to this.
    let compose = read(COMPOSE);
    for address in ["127.0.0.1:8181", "127.0.0.1:8281"] {
        let pattern = address.replace('.', "\\.");
        assert!(compose.contains(&format!("s/{pattern}/")), "{address}");
        assert!(nginx.contains(address), "{address}");
    }
    let body = defaults.limits.http_body;
    assert!(nginx.contains(&format!("client_max_body_size {}k;", body / 1024)));
    assert!(haproxy.contains(&format!("req.body_size gt {body} ")));
    let handshake = defaults.limits.handshake.as_secs();
    assert!(nginx.contains(&format!("client_header_timeout {handshake}s;")));
    assert!(haproxy.contains(&format!("timeout http-request {handshake}s")));
    assert!(haproxy.contains("uri /readyz"));
}

/// Goal: whoever asks how a node is asks where it answers, and every node may open as many files as it needs.
/// Method: probes, ports and limits in each file, and the defaults.
#[test]
fn nodes_are_asked_where_they_answer() {
    let defaults = Settings::default();
    let ports = [
        u64::from(defaults.http.listen.port()),
        u64::from(defaults.internal.listen.port()),
    ];
    let container = &pod()["containers"][0];
    for (place, name) in ["public", "internal"].iter().enumerate() {
        assert_eq!(container["ports"][place]["name"], *name);
        assert_eq!(container["ports"][place]["containerPort"], ports[place]);
    }
    for (probe, path) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(
            (&asked["path"], &asked["port"]),
            (&path.into(), &"internal".into())
        );
    }
    let exposed = format!("EXPOSE {} {}", ports[0], ports[1]);
    assert!(read(DOCKERFILE).lines().any(|line| line == exposed));

    let needed = defaults.limits.connections + FILES_BESIDES;
    let allowed = after(&read(UNIT), "LimitNOFILE=");
    assert!(
        allowed
            .parse::<usize>()
            .is_ok_and(|allowed| allowed >= needed)
    );
    for node in ["a", "b"] {
        let allowed = &one_yaml(COMPOSE)["services"][node]["ulimits"]["nofile"];
        assert!(
            allowed
                .as_u64()
                .is_some_and(|allowed| allowed >= needed as u64)
        );
    }
}

/// Goal: nodes are added for a metric that there is. Method: the page of a new node.
#[test]
fn metrics_of_the_autoscaler_exist() {
    let page = Metrics::new().encode().expect("metrics are text");
    let scaler = of_kind("HorizontalPodAutoscaler");
    let name = text(&scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]).to_owned();
    assert!(page.contains(&format!("# TYPE {name} gauge")), "{name}");
    for named in words(&read(KUBERNETES), "vigie_") {
        assert_eq!(named, name, "{KUBERNETES} names another one");
    }
}

/// Goal: an image is built from all that a build reads. Method: what Cargo.toml names and the code includes is in the
/// list of what a build gets to see.
#[test]
fn a_build_sees_what_it_reads() {
    let seen = read("config/Dockerfile.dockerignore");
    let is_seen = |path: &str| {
        let mut seen = seen.lines().filter_map(|line| line.strip_prefix('!'));
        seen.any(|seen| path == seen || path.starts_with(&format!("{seen}/")))
    };
    let manifest = read("Cargo.toml");
    let mut read_files: Vec<String> = ["Cargo.toml", "Cargo.lock", "config/migrations"]
        .map(str::to_owned)
        .into();
    read_files.extend(
        lines(&manifest, "path = \"")
            .iter()
            .map(|line| after(line, "path = \"")),
    );
    for file in files("src", "rs") {
        for line in lines(&read(&file), "include_str!(\"") {
            let path = after(&line, "include_str!(\"");
            let folder = Path::new(&file).parent().expect("a file is in a folder");
            let path = fs::canonicalize(root().join(folder).join(path)).expect("it is there");
            let path = path.strip_prefix(root()).expect("it is ours");
            read_files.push(path.to_string_lossy().into_owned());
        }
        read_files.push(file);
    }
    assert!(
        read_files.len() > 100,
        "has Cargo.toml or src changed its shape?"
    );
    let hidden: Vec<String> = read_files
        .into_iter()
        .filter(|path| !is_seen(path))
        .collect();
    report("A build sees what it reads.", &hidden);
}

fn all_files() -> Vec<String> {
    let entries = fs::read_dir(root().join("config")).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let files = paths.filter(|path| path.is_file());
    files.map(|path| crate::in_project(&path)).collect()
}

/// The words of a text that begin so.
fn words<'a>(text: &'a str, begin: &str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(move |c: char| !is_part(c));
    words.filter(move |word| word.starts_with(begin) && word.len() > begin.len())
}

fn lines(text: &str, with: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains(with));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    lines
}

/// The text after `mark`, to the next quotation mark or blank.
fn after(text: &str, mark: &str) -> String {
    let (_, rest) = text
        .split_once(mark)
        .unwrap_or_else(|| panic!("no {mark} in {text}"));
    let end = rest.find(['"', ' ', '\n']).unwrap_or(rest.len());
    rest[..end].to_owned()
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn yaml(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn one_yaml(file: &str) -> Value {
    yaml(file).pop().expect("a file has one document at least")
}

/// The first thing of this kind that goes to Kubernetes.
fn of_kind(kind: &str) -> Value {
    let mut things = yaml(KUBERNETES).into_iter();
    let found = things.find(|thing| thing["kind"] == kind);
    found.unwrap_or_else(|| panic!("{KUBERNETES} has no {kind}"))
}

fn pod() -> Value {
    of_kind("Deployment")["spec"]["template"]["spec"].take()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

fn variables_of_unit() -> BTreeMap<String, String> {
    let unit = read(UNIT);
    let set = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment="));
    set.map(|line| split(line, "=")).collect()
}

fn variables_of_image() -> BTreeMap<String, String> {
    let text = read(DOCKERFILE);
    let set = text
        .lines()
        .map(|line| line.trim().trim_start_matches("ENV "));
    let set = set.filter(|line| line.starts_with("VIGIE_"));
    set.map(|line| split(line.trim_end_matches(" \\"), "="))
        .collect()
}

fn split(line: &str, at: &str) -> (String, String) {
    let (name, value) = line
        .split_once(at)
        .unwrap_or_else(|| panic!("no {at} in {line}"));
    (name.to_owned(), value.to_owned())
}

/// Loads settings as a node does, with each secret in a file of the test's own.
fn load(file: &str, variables: BTreeMap<String, String>) -> Settings {
    let folder = tempfile::tempdir().expect("the temporary directory is writable");
    let here = format!("{}/", folder.path().display());
    let moved = |text: &str| {
        let mut text = text.to_owned();
        SECRETS
            .iter()
            .for_each(|place| text = text.replace(place, &here));
        text
    };
    let secret = "a secret that is long enough for every key";
    for (name, value) in [
        ("api-key", secret),
        ("postgres-url", "postgres://vigie@postgres/vigie"),
        ("redis-url", "redis://redis"),
        ("token-secret", secret),
    ] {
        fs::write(folder.path().join(name), value).expect("the folder is ours");
    }
    let settings = folder.path().join("vigie.toml");
    fs::write(&settings, moved(file)).expect("the folder is ours");
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name, moved(&value)));
    Settings::load(Some(&settings), variables).unwrap_or_else(|error| panic!("{error}"))
}
