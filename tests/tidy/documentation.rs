//! README's tables against what exists.

use std::collections::BTreeSet;

use crate::metrics::page;
use crate::rust::{block_after, code_of, identifier};
use crate::{differences, files, markdown, read, report};

const README: &str = "README.md";
const RULE: &str = "Documentation names exactly what exists.";
const PROTOCOL: &str = "src/transport/protocol.rs";

/// Every table that a test below reads.
const TABLES: [&str; 10] = [
    "client events",
    "connect errors",
    "error codes",
    "keys",
    "kick codes",
    "metrics",
    "public routes",
    "routes",
    "server events",
    "settings",
];

fn documented(table: &str) -> (String, BTreeSet<String>) {
    let names = markdown::names(README, &read(README), table);
    (format!("{README}, table \"{table}\""), names)
}

/// Goal: no table is left unread. Method: the marks in README are those that the tests know.
#[test]
fn every_table_is_read() {
    let readme = read(README);
    let unread: Vec<String> = markdown::tables(&readme)
        .into_iter()
        .filter(|table| !TABLES.contains(table))
        .map(|table| format!("{README}: no test reads the table \"{table}\""))
        .collect();
    report(
        "Every table in README is compared with what exists.",
        &unread,
    );
}

/// Goal: README names every event. Method: the constants in `protocol.rs`, each direction.
#[test]
fn events() {
    let mut findings = Vec::new();
    for (table, module) in [
        ("client events", "client_event"),
        ("server events", "server_event"),
    ] {
        let (place, documented) = documented(table);
        let source = read(PROTOCOL);
        let constants = block_after(&source, &format!("pub mod {module} "));
        let texts = constants
            .lines()
            .filter(|line| line.trim().starts_with("pub const "));
        let existing: BTreeSet<String> = texts
            .map(|line| {
                let text = line.split('"').nth(1);
                text.unwrap_or_else(|| panic!("{PROTOCOL}: no text in {line}"))
                    .to_owned()
            })
            .collect();
        findings.extend(differences(
            (&place, &documented),
            (&format!("{PROTOCOL}, {module}"), &existing),
        ));
    }
    report(RULE, &findings);
}

/// Goal: README names every code that a client may get. Method: the variants of the enums.
#[test]
fn codes() {
    let mut findings = Vec::new();
    for (table, name) in [
        ("error codes", "ErrorCode"),
        ("connect errors", "ConnectErrorCode"),
        ("kick codes", "KickCode"),
    ] {
        let (place, documented) = documented(table);
        let code = code_of(&read(PROTOCOL));
        let variants = block_after(&code, &format!("pub enum {name} "));
        let names = variants
            .lines()
            .filter_map(|line| line.trim().strip_suffix(','));
        let existing: BTreeSet<String> = names.map(snake_case).collect();
        findings.extend(differences(
            (&place, &documented),
            (&format!("{PROTOCOL}, {name}"), &existing),
        ));
    }
    report(RULE, &findings);
}

/// Goal: README names every route, of each listener. Method: what the handlers declare for OpenAPI, and what the
/// routers add by hand; the public router adds all of its own so.
#[test]
fn routes() {
    let mut existing = BTreeSet::new();
    for file in files("src/transport/http", "rs") {
        existing.extend(declared_routes(&read(&file)));
    }
    let internal = added_routes(&read("src/transport/http.rs"));
    assert!(
        !internal.is_empty(),
        "src/transport/http.rs adds no route by hand: has it changed its shape?"
    );
    existing.extend(internal);

    let router = "src/transport/http/public.rs";
    let mut public = added_routes(&read(router));
    public.insert("/socket.io/".to_owned());
    let mut findings = Vec::new();
    for (table, place, existing) in [
        ("routes", "src/transport/http", &existing),
        ("public routes", router, &public),
    ] {
        let (documented_in, documented) = documented(table);
        findings.extend(differences(
            (&documented_in, &documented),
            (place, existing),
        ));
    }
    report(RULE, &findings);
}

/// Goal: README names every setting. Method: the keys of `config/vigie.toml`, which another test holds
/// against the defaults; keys without a default are commented out there.
#[test]
fn settings() {
    let file = "config/vigie.toml";
    let (place, documented) = documented("settings");
    let (mut existing, mut section) = (BTreeSet::new(), String::new());
    for line in read(file).lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = format!("{name}.");
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let key = identifier(line);
        if !key.is_empty() && line[key.len()..].starts_with(" = ") {
            existing.insert(format!("{section}{key}"));
        }
    }
    let findings = differences((&place, &documented), (file, &existing));
    report(RULE, &findings);
}

/// Goal: README names every metric as `/metrics` does. Method: that page, with something in every family.
#[test]
fn metrics() {
    let (place, documented) = documented("metrics");
    let page = page();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let existing: BTreeSet<String> = types
        .map(|line| match line.split_once(' ') {
            Some((name, "counter")) => format!("{name}_total"),
            Some((name, _)) => name.to_owned(),
            None => panic!("# TYPE {line}"),
        })
        .collect();
    let shown = "what src/telemetry/metrics.rs shows (a family with something in it: see tests/tidy/metrics.rs)";
    let findings = differences((&place, &documented), (shown, &existing));
    report(RULE, &findings);
}

/// Goal: README and `lua/README.md` name every key, and the latter every channel, too.
/// Method: the spellings in `keys.rs`, whatever the placeholders are called.
#[test]
fn keys_and_channels() {
    let lua = "lua/README.md";
    let text = read(lua);
    let keys = markdown::names(lua, &text, "keys");
    let channels = markdown::names(lua, &text, "channels");
    let (place, documented) = documented("keys");
    let in_lua = format!("{lua}, table \"keys\"");
    let mut findings = differences((&place, &documented), (&in_lua, &keys));

    let all: BTreeSet<String> = keys
        .union(&channels)
        .map(|name| unnamed(name, '<', '>'))
        .collect();
    let file = "src/engine/redis/keys.rs";
    findings.extend(differences(
        (&format!("{lua}, tables of keys and channels"), &all),
        (file, &spelled(&read(file))),
    ));
    report(RULE, &findings);
}

/// The keys and channels that `keys.rs` spells, with `<>` for what varies.
fn spelled(source: &str) -> BTreeSet<String> {
    const HELPERS: [(&str, &str, &str); 4] = [
        ("self.of_matchmaking(", "vigie:{mm}:", ""),
        ("self.of_partition(", "vigie:{p}:", ""),
        ("self.of_user(", "vigie:{p}:", ":<>"),
        ("format!(\"{}:", "vigie:", ""),
    ];
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut names = BTreeSet::new();
    for (call, before, after) in HELPERS {
        for (at, _) in source.match_indices(call) {
            let arguments = &source[at + call.len()..];
            let name = match call.ends_with(':') {
                true => arguments.split('"').next(),
                false => arguments.split('"').nth(1),
            };
            let name = name.unwrap_or_default();
            // The helpers spell with `format!` themselves, for any name. What ends with a colon is the
            // beginning of keys that are spelled elsewhere.
            if !name.contains("{name}") && !name.ends_with(':') {
                names.insert(format!("{before}{}{after}", unnamed(name, '{', '}')));
            }
        }
    }
    names
}

/// The text with `<>` for everything between `open` and `close`.
fn unnamed(text: &str, open: char, close: char) -> String {
    let mut unnamed = String::new();
    for (at, piece) in text.split(open).enumerate() {
        match piece.split_once(close).filter(|_| at > 0) {
            Some((_, rest)) => unnamed.extend(["<>", rest]),
            None => unnamed.push_str(piece),
        }
    }
    unnamed
}

/// The routes in `#[utoipa::path(method, path = "…", …)]`.
fn declared_routes(source: &str) -> BTreeSet<String> {
    let declarations = source.split("#[utoipa::path(").skip(1);
    let routes = declarations.map(|declaration| {
        let method = identifier(declaration.trim_start()).to_uppercase();
        let path = declaration
            .split_once("path = \"")
            .and_then(|(_, path)| path.split_once('"'));
        let (path, _) = path.unwrap_or_else(|| panic!("no path in {declaration}"));
        format!("{method} {path}")
    });
    routes.collect()
}

/// The routes in `.route("…", method(…))`.
fn added_routes(source: &str) -> BTreeSet<String> {
    let calls = source.split(".route(").skip(1);
    let routes = calls.map(|call| {
        let mut pieces = call.trim_start().split('"').skip(1);
        let (path, rest) = (
            pieces.next().unwrap_or_default(),
            pieces.next().unwrap_or_default(),
        );
        let method = identifier(rest.trim_start_matches([',', ' ', '\n']));
        format!("{} {path}", method.to_uppercase())
    });
    routes.collect()
}

/// `TooManyWatches` → `too_many_watches`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}
