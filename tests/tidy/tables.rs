//! The tables in the README files, generated from the code.
//!
//! A table stands between a line `<!-- table: NAME -->` and a line `<!-- end -->`, in any Markdown file of the project.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use vigie::internals::{ConnectErrorCode, ErrorCode, KickCode, describe_internal};

use crate::{files, keys, lua, read, report, root, routes, rows};

const COMMAND: &str = "UPDATE_TABLES=1 cargo test --test tidy tables";
const MARK: &str = "\n<!-- table: ";
const END: &str = "<!-- end -->";

/// The cells of a row.
pub(crate) type Row = Vec<String>;

/// Name, heads of the columns, and rows.
type Table = (&'static str, &'static str, fn() -> Vec<Row>);

const ROUTES: &str = "route | body | answer | meaning";

const TABLES: [Table; 14] = [
    (
        "client events",
        "client → hub | payload | acknowledgement | meaning",
        rows::client_events,
    ),
    (
        "server events",
        "hub → client | payload | meaning",
        rows::server_events,
    ),
    ("error codes", "error | meaning", || {
        rows::codes(ErrorCode::ALL)
    }),
    ("connect errors", "message | meaning", || {
        rows::codes(ConnectErrorCode::ALL)
    }),
    ("kick codes", "`kicked.code` | meaning", || {
        rows::codes(KickCode::ALL)
    }),
    ("routes", ROUTES, || routes::rows(&describe_internal())),
    ("public routes", ROUTES, routes::public),
    ("settings", "key | default | meaning", rows::settings),
    ("metrics", "metric | type | meaning", rows::metrics),
    ("log fields", "field | meaning", rows::log_fields),
    ("commands", "command | effect", rows::commands),
    (
        "keys",
        "key | type | holds | lives | written by",
        keys::keys,
    ),
    (
        "channels",
        "channel | carries | published by",
        keys::channels,
    ),
    (
        "scripts",
        "script | effect | returns | publishes",
        lua::rows,
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
                findings.push(format!("{file}: there is no table \"{name}\""));
                generated += piece;
            }
        }
    }
    generated
}

/// A table in Markdown.
fn table(head: &str, rows: &[Row]) -> String {
    let columns = head.split(" | ").count();
    let mut table = format!("| {head} |\n|{}\n", "---|".repeat(columns));
    for row in rows {
        assert_eq!(row.len(), columns, "{row:?}");
        let cells = row.join("\t").replace('|', "\\|").replace('\n', " ");
        table += &format!("| {} |\n", cells.replace('\t', " | "));
    }
    table
}

/// The lines that go and those that come; none where they only stand in another order.
fn changed_lines(file: &str, before: &str, after: &str) -> Vec<String> {
    let lines_of = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (before, after) = (lines_of(before), lines_of(after));
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let new = after.difference(&before).map(|line| format!("+ {line}"));
    [format!("{file} differs:")]
        .into_iter()
        .chain(gone)
        .chain(new)
        .collect()
}
