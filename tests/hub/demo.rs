//! `vigie-bench demo`: its users come, are seen, change, and are gone when it ends.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::harness::{Cluster, NODE_KEY, SECRET, Transcript, eventually, run, signal, vigie_bench};

/// The first user of the demo.
const FIRST: u64 = 9_000_000_000_001;

/// A demo that runs; killed when dropped.
struct Demo {
    child: Child,
    said: Transcript,
    told: Transcript,
}

impl Demo {
    fn start(cluster: &Cluster, words: &str) -> Self {
        let arguments = arguments(cluster, words);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = vigie_bench(&arguments, &keys((SECRET, NODE_KEY)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) is installed");
        let (said, _) = Transcript::of(child.stderr.take().expect("stderr is piped"));
        let (told, _) = Transcript::of(child.stdout.take().expect("stdout is piped"));
        Self { child, said, told }
    }

    /// Waits for the end, which must be a good one; returns what it summed up.
    async fn ended(&mut self) -> String {
        let status = eventually("the demo ends", async || {
            self.child.try_wait().expect("a child")
        })
        .await;
        assert!(status.success(), "{status}: {}", self.said.text());
        eventually("it says so", async || {
            let told = self.told.text();
            told.contains("everybody has left").then_some(told)
        })
        .await
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the demo\n{}\n----", self.said.text());
        }
    }
}

fn arguments(cluster: &Cluster, words: &str) -> Vec<String> {
    let mut arguments: Vec<String> = ["demo"]
        .into_iter()
        .chain(words.split(' '))
        .map(str::to_owned)
        .collect();
    for node in cluster.running() {
        for (flag, url) in [
            ("--node", cluster.public_url(node)),
            ("--internal", cluster.internal_url(node)),
        ] {
            arguments.extend([flag.to_owned(), url.to_owned()]);
        }
    }
    arguments
}

fn keys((secret, key): (&str, &str)) -> Vec<(String, String)> {
    let keys = [
        ("VIGIE_AUTH__SECRET", secret),
        ("VIGIE_INTERNAL__API_KEY", key),
    ];
    keys.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Goal: users come online on both nodes, are told from real ones, change, and are all gone after Ctrl-C.
/// Method: a guest who watches one of them sees the updates and hears of coming and going; then SIGINT.
#[tokio::test]
async fn users_come_change_and_leave() {
    let cluster = Cluster::builder().nodes(2).grace("2s").start().await;
    let mut observer = cluster.connect_guest(0).await;
    observer.watch(FIRST).await;
    let mut demo = Demo::start(&cluster, "--users 6 --rate 50");
    let update = observer.next_event("profile-update").await;
    assert_eq!(update["user"]["username"], "demo-ada-0", "{update}");
    let stats = observer.next_event("game-stats-update").await;
    assert!(stats["stats"]["games"].is_u64(), "{stats}");
    for node in 0..2 {
        eventually("users of the demo are on every node", async || {
            (cluster.metric(node, "vigie_users").await >= 1.0).then_some(())
        })
        .await;
    }
    eventually(
        "several are online at once, and watch each other",
        async || {
            let online = cluster.online_in_redis().await;
            assert!(
                online.iter().all(|user| (FIRST..FIRST + 6).contains(user)),
                "{online:?}"
            );
            (online.len() >= 3 && cluster.metric(0, "vigie_client_events_total").await >= 3.0)
                .then_some(())
        },
    )
    .await;

    signal(&demo.child, "INT");
    let summary = demo.ended().await;
    assert!(
        !summary.starts_with("0 visits") && summary.contains("updates posted"),
        "{summary}"
    );
    let online = cluster.online_in_redis().await;
    assert!(
        online.is_empty(),
        "it ends before they are offline: {online:?}"
    );
    cluster.wait_until_nobody_is_left().await;
    let left = cluster.redis().keys("*:9000*").await;
    assert_eq!(left, Vec::<String>::new(), "what was posted about them");
    assert_eq!(cluster.cli(&["ZCARD", "vigie:{mm}:queue"]).await, "0");
    assert_eq!(cluster.cli(&["ZCARD", "vigie:{mm}:pending"]).await, "0");
}

/// Goal: it ends by itself after `--seconds`, also on the memory engine, and also when a node goes meanwhile.
/// Method: one node without Redis; two nodes, of which the second is stopped while users are on it.
#[tokio::test]
async fn it_ends_by_itself() {
    let cluster = Cluster::start_memory().await;
    let mut demo = Demo::start(&cluster, "--users 3 --rate 0 --seconds 4");
    let summary = demo.ended().await;
    assert!(summary.contains(" 0 updates posted"), "{summary}");
    let online = cluster.get(0, "/api/v1/presence").await;
    assert_eq!(online.json["online"], 0, "{}", online.text);

    let cluster = Cluster::start(2).await;
    let mut demo = Demo::start(&cluster, "--users 8 --seconds 8");
    eventually("users of the demo are on the second node", async || {
        (cluster.metric(1, "vigie_users").await >= 1.0).then_some(())
    })
    .await;
    cluster.stop(1).await;
    demo.ended().await;
    let said = demo.said.text();
    assert!(
        said.contains(" connections, "),
        "it says what happens without a terminal, too: {said}"
    );
    cluster.wait_until_nobody_is_left().await;
}

/// Goal: it begins nothing where it may not, and says what to do. Method: a wrong key, a wrong secret, no node, no internal
/// listener, too many users.
#[tokio::test]
async fn what_is_wrong_is_said() {
    let cluster = Cluster::start(1).await;
    let (good, all) = ((SECRET, NODE_KEY), arguments(&cluster, "--users 2"));
    let no_internal = all[..all.len() - 2].to_vec();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for (arguments, pair, expected) in [
        (
            all.clone(),
            (SECRET, "another key"),
            "VIGIE_INTERNAL__API_KEY",
        ),
        (
            all,
            ("another secret, long enough for anybody", NODE_KEY),
            "VIGIE_AUTH__SECRET",
        ),
        (
            words("demo --node http://127.0.0.1:1"),
            good,
            "http://127.0.0.1:1/",
        ),
        (no_internal, good, "--internal"),
        (words("demo --users 2001"), good, "--users"),
        (words("demo --rate 1001"), good, "--rate"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(vigie_bench(&arguments, &keys(pair))).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.contains(expected),
            "{arguments:?} does not say {expected}: {said}"
        );
    }
    let nobody: Value = cluster.get(0, "/api/v1/presence").await.json;
    assert_eq!(nobody["online"], 0);
}
