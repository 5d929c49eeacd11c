//! Layers: who may import whom.

use crate::tokens::{Path, paths, tokens_of};
use crate::{files, report};

/// The parts of the library that each part may import. `app` puts them together.
const LAYERS: [(&str, &[&str]); 11] = [
    ("clock", &[]),
    ("ids", &[]),
    ("tls", &[]),
    ("settings", &["ids"]),
    ("telemetry", &["settings"]),
    ("engine", &["clock", "ids", "telemetry", "tls"]),
    ("profiles", &["ids", "tls"]),
    (
        "domain",
        &["clock", "engine", "ids", "profiles", "telemetry"],
    ),
    ("transport", &["clock", "domain", "ids", "telemetry"]),
    (
        "app",
        &[
            "domain",
            "engine",
            "ids",
            "profiles",
            "settings",
            "telemetry",
            "transport",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "clock",
            "domain",
            "engine",
            "ids",
            "settings",
            "telemetry",
            "transport",
        ],
    ),
];

/// Libraries that only some parts know, by how their names begin.
const LIBRARIES: [(&str, &[&str]); 8] = [
    ("socketioxide", &["transport"]),
    ("engineioxide", &["transport"]),
    ("axum", &["transport", "app"]),
    ("fred", &["engine"]),
    ("tokio_postgres", &["profiles"]),
    ("deadpool_postgres", &["profiles"]),
    ("refinery", &["profiles"]),
    ("rustls", &["engine", "profiles", "tls"]),
];

/// A file under `src`: its path, the part of the library it belongs to, the paths that it names.
struct Source {
    file: String,
    part: String,
    paths: Vec<Path>,
}

impl Source {
    fn all() -> impl Iterator<Item = Self> {
        files("src", "rs").into_iter().map(|file| {
            let within = file.trim_start_matches("src/").trim_end_matches(".rs");
            let part = within.split('/').next().unwrap_or_default().to_owned();
            let paths = paths(tokens_of(&file));
            Self { file, part, paths }
        })
    }
}

/// The findings of the rule about every path under `src`, with the file and the path.
fn findings(rule: impl Fn(&Source, &Path) -> Option<String>) -> Vec<String> {
    let mut findings: Vec<String> = Source::all()
        .flat_map(|source| {
            let about = |path: &Path| {
                let finding = rule(&source, path)?;
                Some(format!(
                    "{}: {}: {finding}",
                    source.file,
                    path.names.join("::")
                ))
            };
            source.paths.iter().filter_map(about).collect::<Vec<_>>()
        })
        .collect();
    findings.dedup();
    findings
}

/// Goal: imports go down only: transport → domain → engine, and only `cli` imports `app`.
/// Method: every path that begins with `crate::`, tests included. `lib.rs` and `main.rs` are no part.
#[test]
fn imports_go_down_only() {
    let imports = findings(|source, path| {
        let [root, import, ..] = path.names.as_slice() else {
            return None;
        };
        if root != "crate" || *import == source.part || source.part == "lib" {
            return None;
        }
        let Some((part, allowed)) = LAYERS.iter().find(|(part, _)| *part == source.part) else {
            return Some(format!("say in LAYERS what `{}` may import", source.part));
        };
        let allowed = allowed.contains(&import.as_str());
        (!allowed).then(|| format!("`{part}` may not import `{import}`"))
    });
    report("Imports go down only (the map is in src/lib.rs).", &imports);
}

/// Goal: an import shows where it leads, so that the rule above sees it.
/// Method: no chain of `super::` leads to the root of the library.
#[test]
fn nobody_climbs_to_the_root() {
    let climbs = findings(|source, path| {
        let depth = source.file.split('/').count() - 1 + path.modules;
        let climbed = path
            .names
            .iter()
            .take_while(|name| *name == "super")
            .count();
        (climbed >= depth).then(|| "write `crate::` for the root".to_owned())
    });
    report("Paths from the root begin with `crate::`.", &climbs);
}

/// Goal: Socket.IO, HTTP, Redis and Postgres are each known to one layer.
/// Method: every path that begins with a library's name.
#[test]
fn libraries_stay_in_their_layer() {
    let imports = findings(|source, path| {
        let (_, parts) = LIBRARIES
            .iter()
            .find(|(library, _)| path.names[0].starts_with(library))?;
        let allowed = parts.contains(&source.part.as_str());
        (!allowed).then(|| format!("only {} may import this library", parts.join(" and ")))
    });
    report("Each library is known to one layer.", &imports);
}
