//! `vigie doctor`: finds and repairs inconsistent data of a running hub.

use std::fmt::Write;
use std::process::ExitCode;

use crate::app::doctor::{self, Category, Diagnosis, DoctorReport, Finding};
use crate::settings::Settings;
use clap::Args;
use serde_json::{Value, json};

use super::{EXIT_CONFIG, block_on, fail, print};

/// Findings remain.
const EXIT_FINDINGS: u8 = 1;

/// A category: singular, plural, name in JSON.
type Names = (Category, &'static str, &'static str, &'static str);

/// In output order.
const CATEGORIES: [Names; 5] = [
    (Category::Ghost, "ghost", "ghosts", "ghosts"),
    (Category::Orphan, "orphan", "orphans", "orphans"),
    (Category::Drift, "drift", "drifts", "drift"),
    (
        Category::SilentNode,
        "silent node",
        "silent nodes",
        "silentNodes",
    ),
    (
        Category::Setting,
        "setting of redis",
        "settings of redis",
        "settings",
    ),
];

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Repairs what is found, then examines again
    #[arg(long)]
    repair: bool,
    /// Prints one JSON object instead of lines of text
    #[arg(long)]
    json: bool,
}

/// Exit code 0 only when no findings remain.
pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> ExitCode {
    let diagnosis = match block_on(doctor::examine(settings, args.repair), EXIT_CONFIG) {
        Ok(Ok(diagnosis)) => diagnosis,
        Ok(Err(error)) => return fail(EXIT_CONFIG, error),
        Err(code) => return code,
    };
    let text = match (&diagnosis, args.json) {
        (diagnosis, true) => format!("{}\n", as_json(&diagnosis.clone().unwrap_or_default())),
        (Some(diagnosis), false) => as_text(diagnosis),
        (None, false) => {
            "the memory engine keeps everything in its process: there is nothing to examine outside it\n"
                .to_owned()
        }
    };
    let printed = print(&text);
    if diagnosis.is_none_or(|diagnosis| diagnosis.now.is_clean()) {
        printed
    } else {
        ExitCode::from(EXIT_FINDINGS)
    }
}

/// One line per finding, and a summary.
fn as_text(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    if let Some(before) = &diagnosis.before {
        text += &lines(before);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "{}; repaired {}, examined again",
            counts(before),
            diagnosis.repaired()
        );
    }
    let now = &diagnosis.now;
    text += &lines(now);
    let _ = if now.is_clean() {
        let nodes = several(now.nodes as u64, "node", "nodes");
        let users = several(now.users, "user", "users");
        writeln!(text, "clean: {nodes}, {users} online")
    } else {
        writeln!(text, "{}", counts(now))
    };
    text
}

fn lines(report: &DoctorReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(text, "{}: {finding}", names(finding.kind.category()).1);
    }
    for note in &report.notes {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "note: {note}");
    }
    if report.more {
        text += "and more, which are listed once these are repaired\n";
    }
    text
}

/// Every category of data, and settings only when they have findings.
fn categories(report: &DoctorReport) -> impl Iterator<Item = &'static Names> {
    let is_listed = |(category, ..): &&Names| {
        *category != Category::Setting || of(report, *category).next().is_some()
    };
    CATEGORIES.iter().filter(is_listed)
}

/// The number of findings by category.
fn counts(report: &DoctorReport) -> String {
    let counts = categories(report).map(|(category, one, many, _)| {
        let findings = of(report, *category);
        several(findings.count() as u64, one, many)
    });
    counts.collect::<Vec<_>>().join(", ")
}

fn several(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn names(category: Category) -> &'static Names {
    let names = CATEGORIES.iter().find(|(known, ..)| *known == category);
    names.unwrap_or(&CATEGORIES[0])
}

fn of(report: &DoctorReport, category: Category) -> impl Iterator<Item = &Finding> {
    let findings = report.findings.iter();
    findings.filter(move |finding| finding.kind.category() == category)
}

fn as_json(diagnosis: &Diagnosis) -> Value {
    let now = &diagnosis.now;
    let mut object = json!({ "clean": now.is_clean(), "repaired": diagnosis.repaired() });
    for (category, _, _, name) in categories(now) {
        object[name] = of(now, *category).map(finding_as_json).collect();
    }
    if !now.notes.is_empty() {
        object["notes"] = json!(now.notes);
    }
    if now.more {
        object["more"] = json!(true);
    }
    object
}

fn finding_as_json(finding: &Finding) -> Value {
    let mut object = json!({ "problem": finding.kind.into_str(), "message": finding.to_string() });
    let text = |bytes| Value::from(String::from_utf8_lossy(bytes));
    let fields = [
        ("key", finding.key.clone().map(Value::from)),
        ("entry", finding.entry.as_deref().map(text)),
        ("partition", finding.partition.map(Value::from)),
        ("user", finding.user.map(|user| Value::from(user.get()))),
        ("incarnation", finding.incarnation.clone().map(Value::from)),
        (
            "connection",
            finding.connection.map(|id| Value::from(id.to_string())),
        ),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            object[name] = value;
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_hub_is_reported_as_clean() {
        let mut diagnosis = Diagnosis::default();
        (diagnosis.now.nodes, diagnosis.now.users) = (2, 1);
        assert_eq!(as_text(&diagnosis), "clean: 2 nodes, 1 user online\n");
        let empty = json!({
            "clean": true, "ghosts": [], "orphans": [], "drift": [], "silentNodes": [], "repaired": 0
        });
        assert_eq!(as_json(&diagnosis), empty);
    }
}
