//! The tables in the README files, generated from the code.
//!
//! A table stands between a line `<!-- table: NAME -->` and a line `<!-- end -->`, in any Markdown file of the project.

use std::collections::BTreeMap;
use std::fs;

use crate::{files, keys, read, report, root, rows};

const COMMAND: &str = "UPDATE_TABLES=1 cargo test --test tidy tables";
const MARK: &str = "\n<!-- table: ";
const END: &str = "<!-- end -->";

/// Tables that are written by hand; `lua.rs` reads them.
const BY_HAND: [&str; 1] = ["scripts"];

/// The cells of a row.
pub(crate) type Row = Vec<String>;

/// Name, heads of the columns, and rows.
type Table = (&'static str, &'static [&'static str], fn() -> Vec<Row>);

const TABLES: [Table; 13] = [
    (
        "client events",
        &["client → hub", "payload", "acknowledgement", "meaning"],
        rows::client_events,
    ),
    (
        "server events",
        &["hub → client", "payload", "meaning"],
        rows::server_events,
    ),
    ("error codes", &["error", "meaning"], rows::error_codes),
    (
        "connect errors",
        &["message", "meaning"],
        rows::connect_errors,
    ),
    (
        "kick codes",
        &["`kicked.code`", "meaning"],
        rows::kick_codes,
    ),
    (
        "routes",
        &["route", "body", "answer", "meaning"],
        rows::routes,
    ),
    (
        "public routes",
        &["route", "body", "answer", "meaning"],
        rows::public_routes,
    ),
    ("settings", &["key", "default", "meaning"], rows::settings),
    ("metrics", &["metric", "type", "meaning"], rows::metrics),
    ("log fields", &["field", "meaning"], rows::log_fields),
    ("commands", &["command", "effect"], rows::commands),
    (
        "keys",
        &["key", "type", "holds", "lives", "written by"],
        keys::keys,
    ),
    (
        "channels",
        &["channel", "carries", "published by"],
        keys::channels,
    ),
];

/// Goal: each table stands in one place and says what the code says. Method: generates the text between the marks of each
/// table, and compares it or, where the environment has `UPDATE_TABLES`, writes it.
#[test]
fn tables() {
    let mut findings = Vec::new();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files("", "md") {
        let text = read(&file);
        let generated = generate(&file, &text, &mut places, &mut findings);
        if generated == text {
            continue;
        }
        if std::env::var_os("UPDATE_TABLES").is_some() {
            fs::write(root().join(&file), generated).expect("the file can be written");
        } else {
            findings.extend(changed_lines(&file, &text, &generated));
        }
    }
    for (name, ..) in TABLES {
        match places.get(name).map_or(&[][..], Vec::as_slice) {
            [_] => {}
            [] => findings.push(format!("no file has the table \"{name}\"")),
            several => findings.push(format!(
                "{} have the table \"{name}\"",
                several.join(" and ")
            )),
        }
    }
    report(
        &format!("The tables in *.md are generated from the code: run `{COMMAND}`."),
        &findings,
    );
}

/// The text of a file with its tables generated.
fn generate(
    file: &str,
    text: &str,
    places: &mut BTreeMap<&str, Vec<String>>,
    findings: &mut Vec<String>,
) -> String {
    let mut pieces = text.split(MARK);
    let mut generated = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        generated += MARK;
        let name = piece.split(" -->").next().unwrap_or_default();
        let known = TABLES.iter().find(|(known, ..)| *known == name);
        match (known, piece.split_once(END)) {
            (Some((name, head, rows)), Some((_, after))) => {
                places.entry(name).or_default().push(file.to_owned());
                generated += &format!("{name} -->\n\n{}\n{END}{after}", table(head, &rows()));
            }
            (Some(_), None) => {
                findings.push(format!(
                    "{file}: the table \"{name}\" has no line `{END}` after it"
                ));
                generated += piece;
            }
            (None, _) => {
                if !BY_HAND.contains(&name) {
                    findings.push(format!("{file}: there is no table \"{name}\""));
                }
                generated += piece;
            }
        }
    }
    generated
}

/// A table in Markdown.
fn table(head: &[&str], rows: &[Row]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head_line = line(head.iter().map(|cell| (*cell).to_owned()).collect());
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let rows = rows.iter().map(|row| {
        assert_eq!(row.len(), head.len(), "{row:?}");
        line(
            row.iter()
                .map(|cell| cell.replace('|', "\\|").replace('\n', " "))
                .collect(),
        )
    });
    head_line + &rule + &rows.collect::<String>()
}

/// The lines that go and those that come.
fn changed_lines(file: &str, before: &str, after: &str) -> Vec<String> {
    let missing = |sign: char, lines: &str, others: &str| -> Vec<String> {
        let missing = lines
            .lines()
            .filter(|line| !others.lines().any(|other| other == *line));
        missing
            .map(|line| format!("{file}: {sign} {line}"))
            .collect()
    };
    let mut changed = missing('-', before, after);
    changed.extend(missing('+', after, before));
    // Lines that are all there stand in another order.
    if changed.is_empty() {
        changed.push(format!("{file}: rows are in another order"));
    }
    changed
}
