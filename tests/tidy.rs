//! Checks that no compiler makes: that Lua headers are true, that imports go down only, that the files under `config/` fit the
//! code, that monitoring asks for metrics that exist. Generates the tables in the README files from the code. Reads files,
//! starts nothing. Words that the code must not use are in `.clippy.toml` and `Cargo.toml`.

#![allow(clippy::panic, reason = "a test fails by it")]

// The root of a test program looks for its modules beside it; these are in a folder of their own.
#[path = "tidy/deployment.rs"]
mod deployment;
#[path = "tidy/keys.rs"]
mod keys;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/lua.rs"]
mod lua;
#[path = "tidy/metrics.rs"]
mod metrics;
#[path = "tidy/monitoring.rs"]
mod monitoring;
#[path = "tidy/rights.rs"]
mod rights;
#[path = "tidy/routes.rs"]
mod routes;
#[path = "tidy/rows.rs"]
mod rows;
#[path = "tidy/tables.rs"]
mod tables;
#[path = "tidy/tokens.rs"]
mod tokens;

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
                folders.extend((!is_generated(&path)).then_some(path));
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

/// Whether the folder is not ours: what tools make, and hidden ones.
fn is_generated(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || matches!(&*name, "target" | "node_modules")
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
