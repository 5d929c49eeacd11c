//! README's tables against what exists.

use std::collections::BTreeSet;

use crate::metrics::page;
use crate::rust::{block_after, code_of, identifier, without_tests, words};
use crate::{differences, files, markdown, read, report};

const README: &str = "README.md";
const RULE: &str = "Documentation names exactly what exists.";
const EVENTS: &str = "src/transport/protocol/events.rs";
const CODES: &str = "src/transport/protocol/codes.rs";

/// Every table that a test below reads.
const TABLES: [&str; 12] = [
    "client events",
    "commands",
    "connect errors",
    "error codes",
    "keys",
    "kick codes",
    "log fields",
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

/// Goal: README names every event. Method: the declarations in `events.rs`, each direction.
#[test]
fn events() {
    let tables = [
        ("client events", "pub mod client_event "),
        ("server events", "pub mod server_event "),
    ];
    compare_declared(EVENTS, &tables);
}

/// Goal: README names every code that a client may get. Method: the declarations in `codes.rs`.
#[test]
fn codes() {
    let tables = [
        ("error codes", "pub enum ErrorCode "),
        ("connect errors", "pub enum ConnectErrorCode "),
        ("kick codes", "pub enum KickCode "),
    ];
    compare_declared(CODES, &tables);
}

/// Compares tables with the texts in blocks of `NAME = "text"`.
fn compare_declared(file: &str, tables: &[(&str, &str)]) {
    let source = read(file);
    let mut findings = Vec::new();
    for (table, head) in tables {
        let (place, documented) = documented(table);
        let lines = block_after(&source, head).lines();
        let declared =
            lines.filter_map(|line| Some(line.split_once(" = \"")?.1.split_once('"')?.0));
        let existing: BTreeSet<String> = declared.map(str::to_owned).collect();
        findings.extend(differences(
            (&place, &documented),
            (&format!("{file}, {head}"), &existing),
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

/// Goal: README names every command. Method: the variants of the enum that the command line is read into.
#[test]
fn commands() {
    let file = "src/cli.rs";
    let code = code_of(&read(file));
    let variants = block_after(&code, "enum Command ").lines().skip(1);
    let names = variants.map(|line| identifier(line.trim()));
    let existing: BTreeSet<String> = names
        .filter(|name| !name.is_empty())
        .map(|name| format!("vigie {}", kebab_case(name)))
        .collect();
    let (place, documented) = documented("commands");
    let findings = differences((&place, &documented), (file, &existing));
    report(RULE, &findings);
}

/// `CheckConfig` → `check-config`.
fn kebab_case(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase());
    }
    kebab
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

/// Goal: README names every field that a line of the log may have. Method: the arguments of the macros that log, up to
/// the message, and what the format adds.
#[test]
fn log_fields() {
    let (place, documented) = documented("log fields");
    let added = ["timestamp", "level", "node", "target", "message"];
    let mut existing: BTreeSet<String> = added.map(str::to_owned).into();
    for file in files("src", "rs") {
        let code = without_tests(&code_of(&read(&file)));
        for macro_name in ["error", "warn", "info", "debug", "trace"] {
            let calls = words(&code, macro_name).filter_map(|(_, after)| after.strip_prefix("!("));
            existing.extend(calls.flat_map(logged_fields));
        }
    }
    let findings = differences(
        (&place, &documented),
        ("the macros that log in src", &existing),
    );
    report(RULE, &findings);
}

/// The names of the fields in `name = value, %name, ?name, name, "message", …)`, where texts are blank.
fn logged_fields(call: &str) -> Vec<String> {
    let (mut depth, mut fields, mut begin) = (0_usize, Vec::new(), 0);
    for (at, c) in call.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' | ')' if depth == 0 => {
                let field = identifier(call[begin..at].trim().trim_start_matches(['%', '?']));
                if field.is_empty() {
                    break;
                }
                fields.push(field.to_owned());
                begin = at + 1;
            }
            _ => {}
        }
    }
    fields
}

/// Goal: README grants a Redis user the rights that an error of the node would name.
/// Method: the text in `preflight.rs`. That it is enough is shown by `tests/hub/readiness.rs`.
#[test]
fn rights_in_redis() {
    let source = read("src/engine/redis/preflight.rs");
    let rights = source
        .split_once("const RIGHTS: &str =")
        .and_then(|(_, text)| text.split('"').nth(1))
        .expect("a text follows");
    let line = format!("'~vigie:*' '&vigie:*' {rights}\n");
    assert!(read(README).contains(&line), "README lacks {line}");
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

/// The routes in `#[utoipa::path(method, path = "…", …)]`, and in rows `post "…" =>` of a macro that writes such.
fn declared_routes(source: &str) -> BTreeSet<String> {
    let declarations = source.split("#[utoipa::path(").skip(1);
    let routes = declarations.filter_map(|declaration| {
        let method = identifier(declaration.trim_start()).to_uppercase();
        let (_, path) = declaration.split_once("path = ")?;
        let (path, _) = path.strip_prefix('"')?.split_once('"')?;
        Some(format!("{method} {path}"))
    });
    let rows = source.lines().filter_map(|line| {
        let (path, _) = line.trim().strip_prefix("post \"")?.split_once("\" =>")?;
        Some(format!("POST {path}"))
    });
    routes.chain(rows).collect()
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
