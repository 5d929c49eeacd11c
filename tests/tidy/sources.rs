//! The sources: layers, and words that are not said.

use crate::rust::{block_after, code_of, identifier, line_of, without_tests, words};
use crate::{files, read, report};

/// What each part of the library may import of the others. `app` puts them together.
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

/// What the program may do in tests and nowhere else, and what to do instead.
const UNSAID: [(&str, &str, &str); 6] = [
    (
        "unwrap",
        "()",
        "return an error, or `expect` with the invariant",
    ),
    (
        "panic",
        "!",
        "return an error, or `expect` with the invariant",
    ),
    ("todo", "!", "do it"),
    ("unimplemented", "!", "do it"),
    ("unbounded_channel", "", "every queue is bounded"),
    ("dbg", "!", "log it"),
];

/// A file under `src`: its path, the part of the library it belongs to, its code.
struct Source {
    file: String,
    part: String,
    code: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let sources = files("src", "rs").into_iter().map(|file| {
            let within = file.trim_start_matches("src/").trim_end_matches(".rs");
            let part = within.split('/').next().unwrap_or_default().to_owned();
            let code = code_of(&read(&file));
            Self { file, part, code }
        });
        sources.collect()
    }

    /// Whether this is the program, which calls the library from outside.
    fn is_program(&self) -> bool {
        self.part == "main"
    }

    /// The code that is not for tests: those are inside the file, or in `tests.rs` beside it.
    fn shipped(&self) -> String {
        if self.file.ends_with("/tests.rs") {
            return String::new();
        }
        without_tests(&self.code)
    }

    /// The parts of the library that the code names, with the line.
    fn imports(&self, aliases: &[(String, String)]) -> Vec<(usize, String)> {
        let root = if self.is_program() { "vigie" } else { "crate" };
        let mut imports = Vec::new();
        for (line, after) in words(&self.code, root) {
            let Some(path) = after.strip_prefix("::") else {
                continue;
            };
            for name in first_names(path) {
                let alias = aliases.iter().find(|(alias, _)| alias == name);
                let part = alias.map_or(name, |(_, part)| part.as_str());
                imports.push((line, part.to_owned()));
            }
        }
        imports
    }
}

/// Goal: imports go down only: transport → domain → engine, and only `cli` imports `app`.
/// Method: every path that begins with `crate::` (or `vigie::` in the program), tests included.
#[test]
fn imports_go_down_only() {
    let aliases = reexports();
    let mut findings = Vec::new();
    for source in Source::all() {
        let known = LAYERS.iter().find(|(part, _)| *part == source.part);
        if known.is_none() && !source.is_program() && source.part != "lib" {
            findings.push(format!(
                "{}: say in LAYERS what `{}` may import",
                source.file, source.part
            ));
            continue;
        }
        for (line, import) in source.imports(&aliases) {
            let own = import == source.part || source.is_program();
            let allowed = known.is_none_or(|(_, allowed)| allowed.contains(&import.as_str()));
            if !own && !allowed {
                let part = &source.part;
                findings.push(format!(
                    "{}:{line}: `{part}` imports `{import}`",
                    source.file
                ));
            }
        }
    }
    report(
        "Imports go down only (the map is in src/lib.rs).",
        &findings,
    );
}

/// Goal: an import shows where it leads, so that the rule above sees it.
/// Method: no chain of `super::` is as long as the file's own path, tests left out.
#[test]
fn nobody_climbs_to_the_root() {
    let mut findings = Vec::new();
    for source in Source::all() {
        let depth = source.file.trim_end_matches(".rs").split('/').count() - 1;
        let code = source.shipped();
        for (line, mut after) in words(&code, "super") {
            let mut climbed = 1;
            while let Some(rest) = after.strip_prefix("::super") {
                (climbed, after) = (climbed + 1, rest);
            }
            if climbed >= depth {
                findings.push(format!(
                    "{}:{line}: write `crate::` for the root",
                    source.file
                ));
            }
        }
    }
    report("Paths from the root begin with `crate::`.", &findings);
}

/// Goal: Socket.IO, HTTP, Redis and Postgres are each known to one layer.
/// Method: every path that begins with a library's name.
#[test]
fn libraries_stay_in_their_layer() {
    let mut findings = Vec::new();
    for source in Source::all() {
        for (library, parts) in LIBRARIES {
            if parts.contains(&source.part.as_str()) {
                continue;
            }
            for (at, _) in source.code.match_indices(library) {
                let begins =
                    source.code[..at].ends_with(|c: char| c.is_whitespace() || "({<&,".contains(c));
                let name = identifier(&source.code[at..]);
                let after = &source.code[at + name.len()..];
                if begins && (after.starts_with("::") || after.starts_with(';')) {
                    let line = line_of(&source.code, at);
                    let parts = parts.join(" and ");
                    findings.push(format!(
                        "{}:{line}: only {parts} may import `{name}`",
                        source.file
                    ));
                }
            }
        }
    }
    report("Each library is known to one layer.", &findings);
}

/// Goal: a module is called after its file: `socket.rs` beside `socket/`. Method: no file `mod.rs`.
#[test]
fn no_file_is_called_mod() {
    let all = files("src", "rs").into_iter().chain(files("tests", "rs"));
    let findings: Vec<String> = all.filter(|file| file.ends_with("/mod.rs")).collect();
    report("A module is called after its file.", &findings);
}

/// Goal: the hub does not fall over, and no queue of it grows without end.
/// Method: certain words do not occur in the code, tests left out.
#[test]
fn some_words_are_not_said() {
    let mut findings = Vec::new();
    for source in Source::all() {
        let code = source.shipped();
        for (word, follows, instead) in UNSAID {
            for (line, _) in words(&code, word).filter(|(_, after)| after.starts_with(follows)) {
                findings.push(format!(
                    "{}:{line}: `{word}{follows}`; {instead}",
                    source.file
                ));
            }
        }
    }
    report("Some words are not said outside tests.", &findings);
}

/// What `lib.rs` offers under a shorter name: the name, and the part that it comes from.
fn reexports() -> Vec<(String, String)> {
    let code = code_of(&read("src/lib.rs"));
    let mut names = Vec::new();
    for statement in code
        .split(';')
        .filter_map(|text| text.trim().strip_prefix("pub use "))
    {
        let part = identifier(
            statement
                .trim_start_matches("crate::")
                .trim_start_matches("self::"),
        );
        let offered = statement.split(|c: char| !c.is_alphanumeric() && c != '_');
        names.extend(offered.map(|name| (name.to_owned(), part.to_owned())));
    }
    names
}

/// The first names of a path: several where it begins with a list in braces.
fn first_names(path: &str) -> Vec<&str> {
    if !path.starts_with('{') {
        return vec![identifier(path)];
    }
    let list = block_after(path, "{");
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0, false);
    for (at, c) in list.char_indices() {
        match c {
            '{' => (depth, fresh) = (depth + 1, depth == 0),
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.push(identifier(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

/// Goal: the rules above see what they are to see. Method: lists, nested lists, plain paths.
#[test]
fn first_names_are_found() {
    assert_eq!(first_names("engine::{a, b};"), ["engine"]);
    assert_eq!(
        first_names("{ engine::{a, b}, ids::c, settings };"),
        ["engine", "ids", "settings"]
    );
}
