//! `vigie-bench scale`: starts what it measures, shows two builds side by side, and leaves nothing running.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{assert_used, figures_of};
use crate::harness::{eventually, run_within, scratch, signal, vigie_bench};

/// Starting nodes twice, and measuring them, takes its time.
const RUNS_AT_MOST: Duration = Duration::from_secs(240);

const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");

/// The smallest plan.
const SMALL: [&str; 11] = [
    "scale",
    "--quick",
    "--nodes",
    "2",
    "--partitions",
    "2",
    "--churn",
    "0,5",
    "--seconds",
    "1",
    "--json",
];

/// Its surroundings: whatever it starts works under this folder.
fn surroundings(folder: &Path) -> [(String, String); 1] {
    [("TMPDIR".to_owned(), folder.display().to_string())]
}

async fn scale(words: &[&str], folder: &Path) -> Output {
    run_within(RUNS_AT_MOST, vigie_bench(words, &surroundings(folder))).await
}

/// How many processes work under a folder.
fn processes_under(folder: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").expect("this is Linux");
    let works_there = |process: &Path| {
        let place = std::fs::read_link(process.join("cwd"));
        place.is_ok_and(|place| place.starts_with(folder))
    };
    processes
        .filter_map(Result::ok)
        .filter(|process| works_there(&process.path()))
        .count()
}

fn assert_nothing_is_left(folder: &Path) {
    assert_eq!(processes_under(folder), 0);
    let files = std::fs::read_dir(folder).expect("the folder is there");
    assert_eq!(files.count(), 0, "files in {folder:?}");
}

/// Goal: idle, coming and going, and what one thing costs are measured, on one Redis, for both builds in turn.
/// Method: two nodes and two partitions; this build beside itself.
#[tokio::test]
async fn two_builds_are_measured() {
    let (_directory, folder) = scratch();
    let words = [&SMALL[..], &["--before", VIGIE]].concat();
    let figures = figures_of(&scale(&words, &folder).await);
    assert_nothing_is_left(&folder);

    let cells = figures["cells"].as_array().expect("a list");
    assert_eq!((cells.len(), &figures["masters"]), (2, &Value::from(1)));
    let (cell, plain) = (&cells[0], &cells[1]);
    assert_eq!(
        (&cell["nodes"], &cell["partitions"]),
        (&Value::from(2), &Value::from(2))
    );
    assert_eq!(cell["audience"], "everyone");
    for build in [cell, &cell["before"]] {
        assert_used(
            build,
            &[
                "idle_redis_percent",
                "idle_scripts_per_second",
                "churn5_came_per_second",
                "churn5_went_per_second",
                "churn5_scripts_per_second",
                "churn5_redis_per_departure_us",
                "signin_redis_us",
                "signin_script_us",
                "update_redis_us",
                "update_everywhere_redis_us",
                "redis_per_update_bytes",
                "redis_per_topic_bytes",
            ],
        );
        for noisy in [
            "redis_per_user_bytes",
            "nodes_per_user_bytes",
            "node_per_topic_bytes",
            "node_per_user_elsewhere_bytes",
        ] {
            assert!(build[noisy].is_number(), "{noisy} of {build:#}");
        }
    }
    assert_used(
        &cell["ratio"],
        &["churn5_redis_per_departure_us", "signin_redis_us"],
    );
    assert_used(
        plain,
        &[
            "hincrby_redis_us",
            "set_publish_redis_us",
            "set_publish_command_us",
        ],
    );
}

/// Goal: a Redis Cluster, and nodes that have nobody interested. Method: two masters, audience watchers.
#[tokio::test]
async fn a_redis_cluster_is_measured() {
    let (_directory, folder) = scratch();
    let words = [&SMALL[..], &["--masters", "2", "--audience", "watchers"]].concat();
    let figures = figures_of(&scale(&words, &folder).await);
    assert_nothing_is_left(&folder);
    let cell = &figures["cells"][0];
    assert_eq!(
        (&figures["masters"], &cell["audience"]),
        (&Value::from(2), &Value::from("watchers"))
    );
    assert_used(
        cell,
        &[
            "churn5_went_per_second",
            "churn5_redis_per_departure_us",
            "redis_clients_per_node",
        ],
    );
    let messages = &cell["churn5_elsewhere_messages_per_second"];
    assert!(messages.is_number(), "{cell:#}");
}

/// Goal: people get tables, and from the default plan what gives out first. Method: `--quick --reckon`.
#[tokio::test]
async fn what_gives_out_first_is_reckoned() {
    let (_directory, folder) = scratch();
    let output = scale(&["scale", "--quick", "--seconds", "1", "--reckon"], &folder).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let table = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "| 2 nodes, 64 partitions: idle: Redis, of one core | ",
        "| 1 million online, 10 nodes | ",
        "| 10 million online, 1000 nodes | ",
        "| audience watchers | 3 masters | 6 masters | 16 masters |",
    ] {
        assert!(table.contains(expected), "no {expected:?} in {table}");
    }
    assert_nothing_is_left(&folder);
}

/// Goal: a build that cannot be started is named, with what it says. Method: files that are not there, no program, or end
/// at once; options of the other scenarios.
#[tokio::test]
async fn a_build_that_does_not_start_is_named() {
    let (_files, files) = scratch();
    let text = files.join("text");
    std::fs::write(&text, "no program").expect("the folder is ours");
    let (missing, text) = (files.join("missing"), text.display().to_string());
    let missing = missing.display().to_string();
    for (option, value, expected) in [
        ("--vigie", missing.as_str(), "missing"),
        ("--before", missing.as_str(), "missing"),
        ("--vigie", text.as_str(), "text"),
        ("--vigie", "/bin/false", "exit status: 1"),
        ("--node", "http://127.0.0.1:1", "--node"),
    ] {
        let (_directory, folder) = scratch();
        let words = [&SMALL[..], &[option, value]].concat();
        let output = scale(&words, &folder).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option} {value}: {said}");
        assert!(
            said.contains(expected) && !said.contains("panicked"),
            "{option} {value}: {said}"
        );
        assert!(output.stdout.is_empty(), "{option} {value} has figures");
        assert_nothing_is_left(&folder);
    }
}

/// Goal: Redis and nodes end with the run, whatever way it ends. Method: SIGINT and SIGKILL while it measures.
#[tokio::test]
async fn whatever_was_started_ends() {
    for name in ["INT", "KILL"] {
        let (_directory, folder) = scratch();
        let words = [&SMALL[..8], &["--seconds", "100"]].concat();
        let mut command = vigie_bench(&words, &surroundings(&folder));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = command.spawn().expect("setpriv (util-linux) is installed");
        let started = "a Redis and two nodes run";
        eventually(started, async || {
            (processes_under(&folder) == 3).then_some(())
        })
        .await;
        signal(&running, name);
        let status = eventually("it ends", async || running.try_wait().expect("a child")).await;
        assert!(!status.success(), "{name}");
        let ended = "they have ended";
        eventually(ended, async || {
            (processes_under(&folder) == 0).then_some(())
        })
        .await;
        if name == "INT" {
            assert_eq!(status.code(), Some(2));
            assert_nothing_is_left(&folder);
        }
    }
}
