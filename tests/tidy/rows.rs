//! The rows of the tables, each from where the code says it.

use std::collections::BTreeSet;

use vigie::internals::{self, EventDeclaration, LOG_FIELDS, TypeDeclaration};

use crate::metrics::page;
use crate::tables::Row;
use crate::tokens::{logged_fields, tokens_of};
use crate::{files, read, report};

/// The reply to a refused event, which README describes once for all.
const REFUSAL: &str = "Refusal";

pub(crate) fn client_events() -> Vec<Row> {
    let row = |event: EventDeclaration| {
        let reply = event.reply.iter().filter(|reply| reply.name != REFUSAL);
        let (payload, reply) = (shapes_of(&event.payload), shapes_of(reply));
        vec![code(event.name), payload, reply, joined(event.docs)]
    };
    internals::client_events().into_iter().map(row).collect()
}

pub(crate) fn server_events() -> Vec<Row> {
    let row = |event: EventDeclaration| {
        vec![
            code(event.name),
            shapes_of(&event.payload),
            joined(event.docs),
        ]
    };
    internals::server_events().into_iter().map(row).collect()
}

fn shapes_of<'a>(types: impl IntoIterator<Item = &'a TypeDeclaration>) -> String {
    let shapes: Vec<String> = types
        .into_iter()
        .map(|declared| code(&declared.shape))
        .collect();
    if shapes.is_empty() {
        "none".to_owned()
    } else {
        shapes.join(" or ")
    }
}

pub(crate) fn codes(codes: &[(&str, &[&str])]) -> Vec<Row> {
    codes
        .iter()
        .map(|(text, docs)| vec![code(text), joined(docs)])
        .collect()
}

/// The keys of `config/vigie.toml`, which another test holds against the defaults, with the first sentence of each comment.
/// Keys without a default are commented out there.
pub(crate) fn settings() -> Vec<Row> {
    let (mut rows, mut section, mut comment) = (Vec::new(), String::new(), Vec::new());
    let text = read("config/vigie.toml");
    for line in text.lines() {
        let name = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'));
        let assignment = line.trim_start_matches("# ").split_once(" = ");
        let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if let Some(name) = name {
            section = format!("{name}.");
        } else if let Some((key, value)) = assignment.filter(|(key, _)| is_key(key)) {
            let default = if line.starts_with('#') {
                "–".to_owned()
            } else {
                code(value.trim_matches('"'))
            };
            let comment: String = comment.join(" ");
            let meaning = comment.split(". ").next().unwrap_or_default();
            rows.push(vec![
                code(&format!("{section}{key}")),
                default,
                meaning.trim_end_matches('.').to_owned(),
            ]);
        } else if let Some(line) = line.strip_prefix("# ") {
            comment.push(line);
            continue;
        }
        comment.clear();
    }
    rows
}

/// The page `/metrics`, with something in every family.
pub(crate) fn metrics() -> Vec<Row> {
    let page = page();
    let about = |head: &'static str| {
        page.lines()
            .filter_map(move |line| line.strip_prefix(head)?.split_once(' '))
    };
    let rows = about("# HELP ")
        .zip(about("# TYPE "))
        .map(|((name, help), (of, kind))| {
            assert_eq!(name, of, "help and type follow each other");
            let ending = if kind == "counter" { "_total" } else { "" };
            vec![
                code(&format!("{name}{ending}")),
                kind.to_owned(),
                help.trim_end_matches('.').to_owned(),
            ]
        });
    rows.collect()
}

pub(crate) fn log_fields() -> Vec<Row> {
    LOG_FIELDS
        .iter()
        .map(|(name, meaning)| vec![code(name), (*meaning).to_owned()])
        .collect()
}

/// Goal: the list of fields names every field that a line of the log may have.
/// Method: the arguments of the macros that log, and what the format adds.
#[test]
fn fields_of_the_log_are_listed() {
    let added = ["timestamp", "level", "node", "target", "message"];
    let mut logged: BTreeSet<String> = added.map(str::to_owned).into();
    logged.extend(
        files("src", "rs")
            .iter()
            .flat_map(|file| logged_fields(tokens_of(file))),
    );
    let listed: BTreeSet<String> = LOG_FIELDS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let missing = logged
        .difference(&listed)
        .map(|name| format!("`{name}` is logged and not listed"));
    let idle = listed
        .difference(&logged)
        .map(|name| format!("`{name}` is listed and never logged"));
    report(
        "src/telemetry/log_fields.rs lists the fields of log lines.",
        &missing.chain(idle).collect::<Vec<_>>(),
    );
}

pub(crate) fn commands() -> Vec<Row> {
    let program = internals::command();
    let rows = program.get_subcommands().map(|command| {
        let about = command.get_about().map(ToString::to_string);
        vec![
            code(&format!("vigie {}", command.get_name())),
            about.unwrap_or_default(),
        ]
    });
    rows.collect()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The lines of a doc comment as one.
fn joined(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}
