//! `vigie inspect`: operators see what is there, programs read it, and Redis notices nothing.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Cluster, Servers, eventually, run, tethered, vigie};

/// A user who has just left.
const GONE: u64 = 9;

/// Runs `vigie inspect` with these words, as an operator of the cluster.
async fn inspect(cluster: &Cluster, words: &str) -> String {
    let output = try_inspect(cluster, words, &[]).await;
    assert!(output.status.success(), "{words}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

async fn try_inspect(cluster: &Cluster, words: &str, more: &[(&str, &str)]) -> Output {
    let mut env = cluster.env_of("operator");
    env.extend(
        more.iter()
            .map(|(name, value)| (name.to_string(), value.to_string())),
    );
    let words = words.split_whitespace();
    let arguments: Vec<&str> = ["inspect"].into_iter().chain(words).collect();
    run(vigie(&arguments, &env)).await
}

async fn json_of(cluster: &Cluster, words: &str) -> Value {
    let text = inspect(cluster, &format!("{words} --json")).await;
    serde_json::from_str(&text).expect("one JSON object")
}

/// Goal: operators and programs see nodes, users and connections as they are.
/// Method: two nodes with users of both, one watched elsewhere, one told of an update, one in the queue; all views, both
/// ways.
#[tokio::test]
async fn what_is_there_is_shown() {
    let cluster = Cluster::builder()
        .nodes(2)
        .partitions(3)
        .grace("60s")
        .start()
        .await;
    let _phone = cluster.connect(0, ADA).await;
    let laptop = cluster.connect(1, ADA).await;
    let bob = cluster.connect(1, BOB).await;
    bob.emit_ack("join-matchmaking", Value::Null).await;
    let gone = cluster.connect(0, GONE).await;
    gone.close().await;
    cluster.wait_for_refcount(GONE, 0).await;
    let revision = cluster
        .notify_profile(0, ADA, json!({ "userID": ADA, "secret": "hidden" }))
        .await;

    let user = json_of(&cluster, &format!("user {ADA}")).await;
    assert_eq!(user["status"], "online");
    assert_eq!(user["connectionCount"], 2);
    let nodes = user["connections"].as_array().expect("a list").iter();
    let mut nodes: Vec<_> = nodes
        .map(|connection| connection["node"].as_str())
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [Some("n0"), Some("n1")]);
    assert_eq!(user["updates"]["profile"]["revision"], revision);
    assert_eq!(user["listeningNodes"], 2);
    assert_eq!(user["leavingAt"], Value::Null);
    let text = inspect(&cluster, &format!("user {ADA}")).await;
    for part in [
        "user 42: online, 2 connections",
        "2 nodes listen",
        "n0",
        "n1",
        "profile",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(
        !text.contains("hidden") && !user.to_string().contains("hidden"),
        "payloads are nobody's business"
    );
    assert!(
        inspect(&cluster, &format!("user {BOB}"))
            .await
            .contains("waits for an opponent")
    );
    assert!(
        inspect(&cluster, &format!("user {GONE}"))
            .await
            .contains("leaving, offline in")
    );
    assert!(
        inspect(&cluster, "user 999")
            .await
            .starts_with("user 999: offline, 0 connections\n")
    );

    // Reports of nodes are as old as their last heartbeat.
    eventually("the nodes tell of all connections", async || {
        let nodes = json_of(&cluster, "nodes").await;
        let connections = |node: usize| nodes["nodes"][node]["connections"].as_u64().unwrap_or(0);
        let users = |node: usize| nodes["nodes"][node]["users"].as_u64().unwrap_or(0);
        let left = nodes["nodes"][0]["leaseLeftMs"].as_u64()?;
        (users(0) == 1 && users(1) == 2 && connections(1) >= 2 && left > 0).then_some(())
    })
    .await;
    let overview = json_of(&cluster, "").await;
    assert_eq!(overview["online"], 3, "{overview:#}");
    assert_eq!(overview["leaving"], 1);
    assert_eq!(overview["partitions"], 3);
    assert_eq!(overview["queue"]["queueLength"], 1);
    assert_eq!(overview["nodes"].as_array().map(Vec::len), Some(2));
    let text = inspect(&cluster, "").await;
    for part in [
        "3 online, 1 of them leaving",
        "1 waiting",
        "lease left",
        "n0.",
        "n1.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    let path = format!("/api/v1/users/{ADA}/disconnect");
    assert_eq!(
        cluster
            .post(0, &path, &json!({ "revoke": true }))
            .await
            .status,
        200
    );
    cluster.wait_for_refcount(ADA, 0).await;
    assert_eq!(
        cluster
            .post(0, "/api/v1/users/8/account-deleted", &json!({}))
            .await
            .status,
        200
    );
    let user = json_of(&cluster, &format!("user {ADA}")).await;
    assert!(
        user["revokedBefore"].is_u64() && user["disconnectedAt"].is_u64(),
        "{user:#}"
    );
    assert!(json_of(&cluster, "user 8").await["deletedAt"].is_u64());
    drop(laptop);
}

/// Goal: pages are as long as asked for, and together tell everybody once, however many there are.
/// Method: 700 users, written as scripts would, over three partitions, where sets are large and small; every length.
#[tokio::test]
async fn everybody_is_on_one_page() {
    let cluster = Cluster::builder()
        .partitions(3)
        .without_lookouts()
        .start()
        .await;
    let key = |user: u64| cluster.key(user, "conns");
    let all: Vec<u64> = (1..=700).filter(|id| id % 3 != 1 || *id < 30).collect();
    for user in &all {
        cluster
            .cli(&[
                "SADD",
                &format!("vigie:{}:online", cluster.tag(user % 3)),
                &user.to_string(),
            ])
            .await;
    }
    cluster.cli(&["HSET", &key(3), "n0.gone/1", "1"]).await;
    for limit in [1000, 300, 150] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = json_of(&cluster, &format!("online --limit {limit} {cursor}")).await;
            let users = page["users"].as_array().expect("a list").clone();
            assert!(users.len() <= limit, "{} of {limit}", users.len());
            assert_eq!(page["online"], all.len());
            seen.extend(
                users
                    .iter()
                    .map(|user| user["userId"].as_u64().expect("an id")),
            );
            pages += 1;
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("--cursor {next}"),
                None => break,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, all, "{limit}");
        assert!(pages >= all.len() / limit, "{pages}");
    }
    let text = inspect(&cluster, "online --limit 2").await;
    assert!(
        text.starts_with(&format!("{} users online\n", all.len())),
        "{text}"
    );
    assert!(text.contains("more with --cursor 0-"), "{text}");
    let topics = json_of(&cluster, "topics --limit 1").await;
    assert_eq!(topics["nodes"][0]["id"], "n0");
    assert_eq!(topics["users"][0]["nodes"], 0);
}

/// Goal: inspecting writes nothing, and never asks for everything at once. Method: a hub that was killed, so that nobody else
/// asks Redis; its counts of commands, of changes, and its keys.
#[tokio::test]
async fn nothing_is_written() {
    let builder = Cluster::builder().without_lookouts();
    let cluster = builder.env("VIGIE_NODE__LEASE", "10m").start().await;
    let ada = cluster.connect(0, ADA).await;
    ada.emit_ack("join-matchmaking", Value::Null).await;
    cluster.kill(0);
    let keys = async || cluster.redis().keys("*").await;
    let changes = async || {
        let info = cluster.cli(&["INFO", "persistence"]).await;
        let mut lines = info.lines();
        let changes = lines.find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        changes.expect("Redis counts changes").trim().to_owned()
    };
    let before = (keys().await, changes().await);
    cluster.cli(&["CONFIG", "RESETSTAT"]).await;
    for words in [
        "", "nodes", "online", "topics", "user 42", "user 1", "queue",
    ] {
        inspect(&cluster, words).await;
    }
    let asked = cluster.cli(&["INFO", "commandstats"]).await;
    for command in ["sscan", "hscan", "hmget"] {
        assert!(asked.contains(&format!("cmdstat_{command}:")), "{asked}");
    }
    for command in [
        "keys", "smembers", "hkeys", "setnx", "set", "hset", "sadd", "zadd", "del",
    ] {
        let used = asked.contains(&format!("cmdstat_{command}:"));
        assert!(!used, "{command}:\n{asked}");
    }
    assert_eq!((keys().await, changes().await), before);
}

/// Goal: on a Redis Cluster everything is found, on whichever server it is. Method: four partitions on three masters; who
/// listens to a topic is known to one of them alone.
#[tokio::test]
async fn a_redis_cluster_is_inspected_whole() {
    let builder = Cluster::builder().nodes(2).partitions(4);
    let cluster = builder.on_servers(Servers::cluster(3).await).start().await;
    let users: Vec<u64> = (1..=4).collect();
    let mut clients = Vec::new();
    for user in &users {
        clients.push(cluster.connect(0, *user).await);
    }
    let watcher = cluster.connect_guest(1).await;
    watcher.watch(3).await;
    let topics = json_of(&cluster, "topics").await;
    let listeners = topics["users"].as_array().expect("a list").iter();
    let listeners: BTreeMap<_, _> = listeners
        .map(|user| (user["userId"].as_u64(), user["nodes"].as_u64()))
        .collect();
    let expected = [(1, 1), (2, 1), (3, 2), (4, 1)].map(|(user, nodes)| (Some(user), Some(nodes)));
    assert_eq!(listeners, expected.into());
    assert_eq!(json_of(&cluster, "").await["online"], 4);
    for user in users {
        let user = json_of(&cluster, &format!("user {user}")).await;
        assert_eq!(user["connections"][0]["node"], "n0", "{user}");
    }
}

/// Goal: colours are there on a terminal that shows them, and nowhere else.
/// Method: `script`, which gives a command a terminal; `NO_COLOR`; a pipe.
#[tokio::test]
async fn colours_are_for_terminals() {
    let cluster = Cluster::builder().without_lookouts().start().await;
    let on_a_terminal = async |env: &[(&str, &str)]| {
        let mut command = tethered("script");
        let line = format!("{} inspect nodes", env!("CARGO_BIN_EXE_vigie"));
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command
            .envs(cluster.env_of("operator"))
            .envs(env.iter().copied());
        let output = run(command).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = on_a_terminal(&[]).await;
    assert!(
        shown.contains("\u{1b}[") && shown.contains("n0"),
        "{shown:?}"
    );
    for plain in [
        on_a_terminal(&[("NO_COLOR", "1")]).await,
        inspect(&cluster, "nodes").await,
    ] {
        assert!(
            !plain.contains('\u{1b}') && plain.contains("n0"),
            "{plain:?}"
        );
    }
}

/// Goal: where there is nothing to inspect, or no such thing, it is said what to do. Method: the memory engine, a Redis
/// that is away, bad words.
#[tokio::test]
async fn what_cannot_be_shown_is_explained() {
    let cluster = Cluster::builder().without_lookouts().start().await;
    for (words, env, expected) in [
        (
            "nodes",
            &[("VIGIE_ENGINE", "memory")][..],
            "GET /api/v1/nodes",
        ),
        (
            "",
            &[("VIGIE_REDIS__URL", "redis://127.0.0.1:1")],
            "redis.url",
        ),
        ("", &[("VIGIE_REDIS__PARTITIONS", "2")], "redis.partitions"),
        ("user ada", &[], "from 1 to"),
        ("online --cursor x", &[], "the previous page"),
        ("online --limit 0", &[], "--limit"),
    ] {
        let output = try_inspect(&cluster, words, env).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {said}");
        assert!(output.stdout.is_empty(), "{words}");
        assert!(
            said.contains(expected),
            "{words} does not say {expected}: {said}"
        );
    }
}
