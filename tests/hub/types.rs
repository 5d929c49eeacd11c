//! `vigie types`: front ends type-check with what it prints, against the official client.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{project_root, run, scratch, tethered, vigie};

/// The output of `vigie types`.
async fn types() -> String {
    let output = run(vigie(&["types"], &[])).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("types are text")
}

/// The front end, which has every event, and what makes it wrong.
fn front_end() -> String {
    fs::read_to_string(project_root().join("tests/client/typed.ts")).expect("it is there")
}

/// Runs `tsc --strict` on a front end and these types, in a folder of their own.
async fn check(folder: &Path, front_end: &str, types: &str) -> Output {
    let packages = project_root().join("tests/client/node_modules");
    let settings = json!({
        "compilerOptions": {
            "strict": true, "noEmit": true, "noUncheckedIndexedAccess": true, "types": [],
            "target": "es2022", "module": "esnext", "moduleResolution": "bundler", "lib": ["es2022", "dom"],
        },
        "files": ["typed.ts"],
    });
    for (name, text) in [
        ("vigie.ts", types),
        ("typed.ts", front_end),
        ("tsconfig.json", &settings.to_string()),
    ] {
        fs::write(folder.join(name), text).expect("the folder is writable");
    }
    if !folder.join("node_modules").exists() {
        symlink(&packages, folder.join("node_modules")).expect("the folder is writable");
    }
    let mut compiler: Command = tethered("node");
    compiler.arg(packages.join("typescript/bin/tsc"));
    compiler.arg("--project").arg(folder);
    run(compiler).await
}

/// Goal: with these types and the official client, every right use of every event type-checks, and wrong uses do not.
/// Method: `tsc --strict` on `tests/client/typed.ts`, where `@ts-expect-error` stands above what is wrong; an event that
/// is missing there is missed here.
#[tokio::test]
async fn front_ends_type_check() {
    let (_folder, folder) = scratch();
    let (front_end, types) = (front_end(), types().await);
    let output = check(&folder, &front_end, &types).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{types}");

    let events = types.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("  \"")?.split_once("\": (")?;
        rest.ends_with("=> void;").then_some(name)
    });
    let events: Vec<&str> = events.collect();
    assert!(events.len() >= 18, "{events:?}");
    for event in events {
        let used = [".on", ".emit"].map(|call| front_end.contains(&format!("{call}(\"{event}\"")));
        assert!(used.contains(&true), "typed.ts does not use {event}");
    }
}

/// Goal: the check above can fail. Method: types that say less, more or something else than the front end relies on.
#[tokio::test]
async fn other_types_do_not_fit() {
    let (_folder, folder) = scratch();
    let (front_end, types) = (front_end(), types().await);
    for (before, after) in [
        ("userId: number;", "userId: string;"),
        (
            "\"match-timeout\": ()",
            "\"match-timeout\": (payload: number)",
        ),
        ("username: string | null;", "username: string;"),
        (
            "  | \"unknown_event\"",
            "  | \"unknown_event\" | \"forbidden\"",
        ),
        (
            "\"leave-matchmaking\": (answer?",
            "\"leave-matchmaking\": (answer",
        ),
    ] {
        assert!(types.contains(before), "{before} is not in\n{types}");
        let output = check(&folder, &front_end, &types.replace(before, after)).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{after} is taken");
        assert!(said.contains("typed.ts("), "{said}");
    }
}
