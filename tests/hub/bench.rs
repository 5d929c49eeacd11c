//! `vigie-bench`: every scenario counts right on two nodes, leaves nobody behind, and says what is wrong where it cannot.

mod scale;

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Cluster, NODE_KEY, Online, SECRET, eventually, run, signal, vigie_bench};

/// Two nodes that nobody else is connected to.
async fn two_nodes() -> Cluster {
    let builder = Cluster::builder().nodes(2).without_lookouts();
    builder.start().await
}

/// The options that name the nodes of a cluster and their processes.
fn options(cluster: &Cluster) -> Vec<String> {
    let mut options = vec!["--redis-pid".to_owned(), cluster.redis().pid().to_string()];
    for node in cluster.running() {
        let pid = cluster.pid(node).to_string();
        for (option, value) in [
            ("--node", cluster.public_url(node)),
            ("--internal", cluster.internal_url(node)),
            ("--pid", pid.as_str()),
        ] {
            options.extend([option.to_owned(), value.to_owned()]);
        }
    }
    options
}

/// Runs `vigie-bench` with these words, and these keys in its surroundings.
async fn bench(words: &str, options: &[String], (secret, key): (&str, &str)) -> Output {
    let mut arguments: Vec<&str> = words.split(' ').collect();
    arguments.extend(options.iter().map(String::as_str));
    let env = [
        ("VIGIE_AUTH__SECRET", secret),
        ("VIGIE_INTERNAL__API_KEY", key),
    ];
    let env: Vec<(String, String)> = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    run(vigie_bench(&arguments, &env)).await
}

/// The figures of a run that goes well.
async fn figures(cluster: &Cluster, words: &str) -> Value {
    let output = bench(
        &format!("{words} --json"),
        &options(cluster),
        (SECRET, NODE_KEY),
    )
    .await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(words.split(' ').next().expect("a scenario")),
        "it says what it does: {said}"
    );
    figures_of(&output)
}

fn figures_of(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The error of a run without figures.
async fn complaint(words: &str, options: &[String], keys: (&str, &str)) -> String {
    let output = bench(words, options, keys).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{words} went well: {said}");
    assert!(output.stdout.is_empty(), "{words} has figures");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Checks numbers of things.
fn assert_counts(figures: &Value, counts: &[(&str, u64)]) {
    for (name, count) in counts {
        assert_eq!(figures[name], *count, "{name} of {figures:#}");
    }
}

/// Checks that something was used; how much is up to the machine.
fn assert_used(figures: &Value, names: &[&str]) {
    for name in names {
        let value = figures[name].as_f64();
        assert!(
            value.is_some_and(|value| value > 0.0),
            "{name} of {figures:#}"
        );
    }
}

/// Checks what a run whose clients have left leaves behind.
async fn assert_nobody_is_left(cluster: &Cluster) {
    cluster.wait_until_nobody_is_left().await;
    for node in cluster.running() {
        assert_eq!(
            cluster
                .metric(node, "vigie_connections_overflowed_total")
                .await,
            0.0
        );
    }
}

/// Goal: connections are opened, held and closed, and what they take is told.
/// Method: `connect` and `idle` with few of them, and what the nodes have counted.
#[tokio::test]
async fn connections_are_counted() {
    let cluster = two_nodes().await;
    let connect = figures(&cluster, "connect --connections 50").await;
    assert_counts(
        &connect,
        &[
            ("nodes", 2),
            ("connections", 50),
            ("opened", 40),
            ("dropped", 0),
        ],
    );
    assert_used(
        &connect,
        &[
            "cpu_per_connection_us",
            "load_cpu_per_connection_us",
            "opening_p50_ms",
        ],
    );
    assert!(
        connect["memory_per_connection_kib"].is_number(),
        "{connect:#}"
    );
    for node in cluster.running() {
        let accepted = cluster
            .metric(node, "vigie_connections_accepted_total")
            .await;
        assert_eq!(accepted, 25.0, "they are spread over the nodes");
    }
    let idle = figures(&cluster, "idle --connections 20 --seconds 2").await;
    assert_counts(&idle, &[("connections", 20), ("dropped", 0)]);
    assert_used(&idle, &["idle_cpu_percent", "idle_redis_cpu_percent"]);
    assert_nobody_is_left(&cluster).await;
}

/// Goal: every delivery of an update is counted once, whatever the pace.
/// Method: `fanout` one after the other, at a rate and to one node of two; `burst`; `selective`.
#[tokio::test]
async fn updates_are_counted() {
    let cluster = two_nodes().await;
    let in_order = [
        ("lost", 0),
        ("lost_elsewhere", 0),
        ("duplicates", 0),
        ("out_of_order", 0),
        ("dropped", 0),
    ];
    let fanout = figures(&cluster, "fanout --connections 20 --updates 15").await;
    assert_counts(&fanout, &in_order);
    assert_counts(&fanout, &[("updates", 15), ("deliveries", 300)]);
    assert_used(
        &fanout,
        &[
            "cpu_per_delivery_us",
            "redis_cpu_per_update_us",
            "latency_p50_ms",
            "latency_elsewhere_max_ms",
        ],
    );
    let paced = figures(&cluster, "fanout --connections 4 --rate 20 --seconds 1").await;
    assert_counts(&paced, &in_order);
    assert_counts(&paced, &[("updates", 20), ("deliveries", 80)]);
    let one = figures(
        &cluster,
        "fanout --connections 4 --updates 5 --interested 1",
    )
    .await;
    assert_counts(&one, &in_order);
    assert_counts(&one, &[("deliveries", 20)]);
    assert!(one.get("latency_elsewhere_p50_ms").is_none(), "{one:#}");

    let burst = figures(&cluster, "burst --updates 200").await;
    assert_counts(&burst, &in_order);
    assert_counts(&burst, &[("connections", 2), ("updates", 200)]);
    assert_used(&burst, &["cpu_per_update_us", "updates_per_second"]);

    let selective = figures(&cluster, "selective --updates 50").await;
    assert_counts(&selective, &in_order);
    assert_counts(&selective, &[("updates", 50), ("messages_elsewhere", 0)]);
    assert!(
        selective["elsewhere_cpu_per_update_us"].is_number(),
        "{selective:#}"
    );
    assert_nobody_is_left(&cluster).await;
}

/// Goal: every coming and going is counted once.
/// Method: `churn`, `signin` and `online`, each of which ends with everybody offline.
#[tokio::test]
async fn coming_and_going_is_counted() {
    let cluster = two_nodes().await;
    let nothing_lost = [("lost", 0), ("duplicates", 0), ("dropped", 0)];
    let churn = figures(&cluster, "churn --connections 10 --users 12").await;
    assert_counts(&churn, &nothing_lost);
    assert_counts(&churn, &[("users", 12)]);
    let events = churn["events"].as_u64().expect("a number");
    assert!(events >= 2 * 10 * 12, "{churn:#}");
    assert_used(&churn, &["cpu_per_event_us", "redis_cpu_per_change_us"]);

    let signin = figures(&cluster, "signin --connections 12").await;
    assert_counts(&signin, &nothing_lost);
    assert_used(
        &signin,
        &["events", "cpu_per_event_us", "redis_cpu_per_signin_us"],
    );

    let online = figures(&cluster, "online --connections 12 --calls 30").await;
    assert_counts(&online, &nothing_lost);
    assert_counts(&online, &[("calls", 30), ("ids_min", 12)]);
    assert_used(&online, &["cpu_per_call_us", "answer_p50_ms"]);
    assert_nobody_is_left(&cluster).await;
}

/// Goal: people get a table, and many threads count as one does.
/// Method: the same run with four of them, without `--json` and without processes.
#[tokio::test]
async fn people_get_a_table() {
    let cluster = two_nodes().await;
    let mut options = options(&cluster);
    let pid = |word: &String| word == "--pid" || word == "--redis-pid";
    while let Some(place) = options.iter().position(pid) {
        options.drain(place..place + 2);
    }
    let words = "fanout --connections 9 --updates 4 --threads 4";
    let output = bench(words, &options, (SECRET, NODE_KEY)).await;
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    let line = |label: &str| {
        let mut lines = table.lines().map(str::trim);
        lines
            .find(|line| line.starts_with(label))
            .map(str::to_owned)
    };
    let deliveries = line("deliveries ").expect("a line about them");
    assert!(deliveries.ends_with(" 36"), "{table}");
    assert!(
        line("processor time of the nodes").is_none(),
        "nobody said which processes they are: {table}"
    );
    assert!(
        line("processor time of this load per delivery").is_some(),
        "{table}"
    );
}

/// Goal: a node that is told of more than it can tell skips what is out of date, and only that, for everybody alike.
/// Method: updates of one user at full speed for 2,000 watchers; nothing comes out of order or twice, nobody is closed, and
/// what did not arrive is what was skipped, by each node for each of its watchers. Whether any was is up to the machine.
#[tokio::test]
async fn what_is_out_of_date_is_skipped() {
    const WATCHERS: u64 = 2_000;
    let cluster = two_nodes().await;
    let words = format!("burst --connections {WATCHERS} --updates 3000");
    let burst = figures(&cluster, &words).await;
    assert_counts(
        &burst,
        &[("out_of_order", 0), ("duplicates", 0), ("dropped", 0)],
    );
    let skipped = burst["skipped"].as_u64().expect("a number");
    assert_eq!(burst["lost"], skipped * WATCHERS / 2, "{burst:#}");
    assert_nobody_is_left(&cluster).await;
}

/// Goal: what cannot be measured is said, with what to do about it.
/// Method: a node that is not there, one that is stopped, wrong keys, processes that are not there, scenarios without what
/// they need.
#[tokio::test]
async fn what_is_wrong_is_said() {
    let cluster = two_nodes().await;
    let (all, keys) = (options(&cluster), (SECRET, NODE_KEY));
    let complaints = [
        (
            "fanout --node http://127.0.0.1:1",
            vec![],
            keys,
            "http://127.0.0.1:1/",
        ),
        (
            "connect --node https://127.0.0.1",
            vec![],
            keys,
            "http://HOST:PORT",
        ),
        (
            "connect --connections 5",
            all.clone(),
            ("another secret, long enough for anybody", NODE_KEY),
            "",
        ),
        (
            "fanout --connections 5",
            all.clone(),
            (SECRET, "another key"),
            "VIGIE_INTERNAL__API_KEY",
        ),
        (
            "signin --connections 5",
            all.clone(),
            ("another secret, long enough for anybody", NODE_KEY),
            "VIGIE_AUTH__SECRET",
        ),
        (
            "connect --connections 5 --pid 2147483647",
            all.clone(),
            keys,
            "--pid",
        ),
        (
            "connect --connections 0",
            all.clone(),
            keys,
            "--connections",
        ),
        ("fanout --rate 10 --updates 10", all.clone(), keys, "--rate"),
    ];
    for (words, options, keys, expected) in complaints {
        if expected.is_empty() {
            // Guests need no token.
            let output = bench(words, &options, keys).await;
            assert!(output.status.success(), "{words}: {output:?}");
            continue;
        }
        let said = complaint(words, &options, keys).await;
        assert!(
            said.contains(expected),
            "{words} does not say {expected}: {said}"
        );
    }
    let one: Vec<String> = [
        "--node",
        cluster.public_url(0),
        "--internal",
        cluster.internal_url(0),
    ]
    .map(str::to_owned)
    .to_vec();
    let said = complaint("selective", &one, keys).await;
    assert!(said.contains("two"), "{said}");
    let said = complaint("fanout --connections 5", &one[..2], keys).await;
    assert!(said.contains("--internal"), "{said}");

    cluster.stop(1).await;
    let said = complaint("connect --connections 5", &all, keys).await;
    let port = cluster.public_address(1).port().to_string();
    assert!(said.contains("--pid") || said.contains(&port), "{said}");
}

/// Goal: real users notice nothing of a run, and nothing of it stays.
/// Method: user 1, who has a profile and is watched, before each scenario; what a guest sees, and what Redis holds
/// afterwards.
#[tokio::test]
async fn real_users_are_left_alone() {
    const REAL: u64 = 1;
    let cluster = two_nodes().await;
    let profile = json!({ "userID": REAL, "username": "ada" });
    let revision = cluster.notify_profile(0, REAL, profile).await;
    let mut guest = cluster.connect_guest(1).await;
    let _tab = cluster.connect(0, REAL).await;
    assert_eq!(guest.next_status().await, (REAL, Online));
    let watched = guest.watch(REAL).await;
    let stored = async || {
        let key = cluster.key(REAL, "profile");
        cluster.cli(&["HGETALL", &key]).await
    };
    let before = stored().await;

    for words in [
        "connect --connections 5",
        "idle --connections 5 --seconds 1",
        "fanout --connections 4 --updates 3",
        "burst --updates 20",
        "selective --updates 4",
        "churn --connections 2 --users 3",
        "signin --connections 3",
        "online --connections 3 --calls 3",
    ] {
        figures(&cluster, words).await;
        let left = cluster.redis().keys("*:9000*").await;
        assert_eq!(left, Vec::<String>::new(), "{words}");
    }
    cluster.wait_for_online(&[REAL]).await;
    assert_eq!(stored().await, before);
    assert_eq!(guest.watch(REAL).await["revisions"], watched["revisions"]);
    assert_eq!(watched["revisions"]["profile"], revision);
    assert_eq!(guest.payloads("profile-update"), Vec::<Value>::new());
    let others = guest.payloads("user-status-change");
    let seen = others.iter().map(|status| status["userId"].as_u64());
    let (real, synthetic): (Vec<_>, Vec<_>) = seen.partition(|user| *user == Some(REAL));
    assert_eq!(real.len(), 1, "it came, and never went");
    assert!(synthetic.len() >= 18, "{others:?}");
    assert!(
        synthetic.iter().all(|user| *user > Some(9_000_000_000_000)),
        "{others:?}"
    );

    let ids = ["--first-user", "1"].map(str::to_owned);
    let options = [&options(&cluster)[..], &ids].concat();
    let said = complaint("fanout --connections 2", &options, (SECRET, NODE_KEY)).await;
    assert!(said.contains("--first-user"), "{said}");
}

/// Goal: what was posted is deleted however a run ends. Method: SIGINT while updates are posted.
#[tokio::test]
async fn an_interrupted_run_leaves_nothing() {
    let cluster = two_nodes().await;
    let options = options(&cluster);
    let mut words = vec![
        "fanout",
        "--connections",
        "4",
        "--rate",
        "50",
        "--seconds",
        "60",
    ];
    words.extend(options.iter().map(String::as_str));
    let keys = [
        ("VIGIE_AUTH__SECRET", SECRET),
        ("VIGIE_INTERNAL__API_KEY", NODE_KEY),
    ];
    let env = keys.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut command = vigie_bench(&words, &env);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = command.spawn().expect("setpriv (util-linux) is installed");
    let stored = async || !cluster.redis().keys("*:profile:9000*").await.is_empty();
    eventually("updates are stored", async || stored().await.then_some(())).await;
    signal(&running, "INT");
    let status = eventually("it ends", async || running.try_wait().expect("a child")).await;
    assert!(!status.success());
    assert!(!stored().await);
}
