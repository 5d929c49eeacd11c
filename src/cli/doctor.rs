//! `vigie doctor`: says what is wrong with the data of a running hub, and puts it right.

use std::fmt::Write;
use std::process::ExitCode;

use crate::app::doctor::{self, Category, Diagnosis, Finding, Report};
use crate::settings::Settings;
use clap::Args;
use serde_json::{Value, json};

use super::{EXIT_CONFIG, block_on, fail, print};

/// Something is wrong with the data.
const EXIT_FINDINGS: u8 = 1;

/// A category: one of it, several of it, its name for programs.
type Names = (Category, &'static str, &'static str, &'static str);

/// The categories in the order of the output.
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

/// What to do with what is found, and how to tell it.
#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Puts right what is found, and examines again
    #[arg(long)]
    repair: bool,
    /// Prints one JSON object instead of lines for people
    #[arg(long)]
    json: bool,
}

/// Examines; the exit code is 0 only when nothing is wrong (any more).
pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> ExitCode {
    let diagnosis = match block_on(doctor::examine(settings, args.repair), EXIT_CONFIG) {
        Ok(Ok(diagnosis)) => diagnosis,
        Ok(Err(error)) => return fail(EXIT_CONFIG, error),
        Err(code) => return code,
    };
    let text = match (&diagnosis, args.json) {
        (diagnosis, true) => format!("{}\n", as_json(&diagnosis.clone().unwrap_or_default())),
        (Some(diagnosis), false) => in_words(diagnosis),
        (None, false) => {
            "the memory engine keeps everything in its process: there is nothing to examine outside it\n"
                .to_owned()
        }
    };
    let printed = print(&text);
    match diagnosis.is_none_or(|diagnosis| diagnosis.now.is_clean()) {
        true => printed,
        false => ExitCode::from(EXIT_FINDINGS),
    }
}

/// One line for each finding, and a summary.
fn in_words(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    if let Some(before) = &diagnosis.before {
        text += &lines(before);
        // A string to write into never fails.
        let _ = writeln!(
            text,
            "{}; repaired {}, examined again",
            counts(before),
            diagnosis.repaired()
        );
    }
    let now = &diagnosis.now;
    text += &lines(now);
    let _ = match now.is_clean() {
        true => writeln!(
            text,
            "clean: {}, {} online",
            several(now.nodes as u64, "node", "nodes"),
            several(now.users, "user", "users")
        ),
        false => writeln!(text, "{}", counts(now)),
    };
    text
}

fn lines(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(text, "{}: {finding}", names(finding.problem.category()).1);
    }
    for note in &report.notes {
        // A string to write into never fails.
        let _ = writeln!(text, "note: {note}");
    }
    if report.more {
        text += "and more, which are told once these are repaired\n";
    }
    text
}

/// The categories of data, found or not, and those of settings that have findings.
fn categories(report: &Report) -> impl Iterator<Item = &'static Names> {
    let is_told = |(category, ..): &&Names| {
        *category != Category::Setting || of(report, *category).next().is_some()
    };
    CATEGORIES.iter().filter(is_told)
}

/// How many there are of each category.
fn counts(report: &Report) -> String {
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

fn of(report: &Report, category: Category) -> impl Iterator<Item = &Finding> {
    let findings = report.findings.iter();
    findings.filter(move |finding| finding.problem.category() == category)
}

/// The same for programs.
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
    let mut object = json!({ "problem": finding.problem.as_str(), "message": finding.to_string() });
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
    fn a_clean_hub_is_told_so() {
        let mut diagnosis = Diagnosis::default();
        (diagnosis.now.nodes, diagnosis.now.users) = (2, 1);
        assert_eq!(in_words(&diagnosis), "clean: 2 nodes, 1 user online\n");
        let empty = json!({
            "clean": true, "ghosts": [], "orphans": [], "drift": [], "silentNodes": [], "repaired": 0
        });
        assert_eq!(as_json(&diagnosis), empty);
    }
}
