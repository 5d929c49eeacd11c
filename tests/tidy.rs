//! What no compiler checks: that documentation names what exists, that Lua headers are true, that
//! imports go down only, that the files under `config/` fit the code, that what watches a hub asks for what it tells. Reads
//! files, starts nothing.

// The root of a test program looks for its modules beside it; these are in a folder of their own.
#[path = "tidy/deployment.rs"]
mod deployment;
#[path = "tidy/documentation.rs"]
mod documentation;
#[path = "tidy/lua.rs"]
mod lua;
#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/metrics.rs"]
mod metrics;
#[path = "tidy/monitoring.rs"]
mod monitoring;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The text of a file of the project.
fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every file with this ending under a folder, by its path in the project, in order.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("the folder can be read");
        for path in entries.map(|entry| entry.expect("the folder can be read").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                found.push(in_project(&path));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there is no *.{ending} in {folder}");
    found
}

fn in_project(path: &Path) -> String {
    let path = path
        .strip_prefix(root())
        .expect("the path is in the project");
    path.to_string_lossy().into_owned()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with everything that was found, a line each.
fn report(rule: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{rule}\n\n  {}\n",
        findings.join("\n  ")
    );
}

/// What is missing or superfluous where, of what is documented compared with what exists.
fn differences(
    (documented_in, documented): (&str, &BTreeSet<String>),
    (exists_in, existing): (&str, &BTreeSet<String>),
) -> Vec<String> {
    assert!(
        !existing.is_empty(),
        "nothing was found in {exists_in}: has it changed its shape?"
    );
    let missing = existing.difference(documented);
    let superfluous = documented.difference(existing);
    missing
        .map(|name| format!("missing in {documented_in}: `{name}`, which is in {exists_in}"))
        .chain(superfluous.map(|name| {
            format!("superfluous in {documented_in}: `{name}`, which is not in {exists_in}")
        }))
        .collect()
}
