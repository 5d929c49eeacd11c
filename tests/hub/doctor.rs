//! `vigie doctor`: finds what is wrong with the data, and puts it right without harm to anybody.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Builder, Cluster, Connecting, EVE, MARKER, NODE_KEY, Offline, Online, Redis, SECRET,
    run, vigie,
};

/// What the doctor said, and its exit code.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    /// What `--json` printed.
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// The problems of a category, in order, each as often as it was found.
    fn problems(&self, category: &str) -> Vec<String> {
        let json = self.json();
        let findings = json[category].as_array().expect("a list").iter();
        let problem = |finding: &Value| finding["problem"].as_str().map(str::to_owned);
        let mut problems: Vec<String> = findings.filter_map(problem).collect();
        problems.sort();
        problems
    }
}

async fn doctor_with(env: &[(String, String)], arguments: &[&str]) -> Said {
    let mut words = vec!["doctor"];
    words.extend(arguments);
    let output = run(vigie(&words, env)).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = Said {
        code: output.status.code().expect("it ends by itself"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    said
}

async fn doctor(cluster: &Cluster, arguments: &[&str]) -> Said {
    doctor_with(&cluster.env_of("doctor"), arguments).await
}

async fn assert_clean(cluster: &Cluster) {
    let said = doctor(cluster, &[]).await;
    assert!(said.stdout.starts_with("clean: "), "{}", said.stdout);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

/// Nodes that put nothing right by themselves while the test lasts.
fn quiet() -> Builder {
    // No audit; and who is dead is reaped only by a node that held its lease for a whole one.
    Cluster::builder()
        .nodes(2)
        .env("VIGIE_NODE__AUDIT", "1h")
        .env("VIGIE_NODE__LEASE", "1h")
        .env("VIGIE_NODE__HEARTBEAT", "500ms")
}

/// All that Redis holds but signs of life, to compare with later.
async fn contents(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut contents = BTreeMap::new();
    for key in cluster.redis().keys("*").await {
        if !key.starts_with("vigie:node") {
            let dump = cluster.cli(&["DUMP", &key]).await;
            contents.insert(key, dump);
        }
    }
    contents
}

/// The present incarnation of a node.
async fn incarnation(cluster: &Cluster, node: usize) -> String {
    let leases = cluster.redis().lines(&["ZRANGE", "vigie:nodes", "0", "-1"]);
    let begin = format!("n{node}.");
    let own = |name: &String| name.starts_with(&begin);
    leases.await.into_iter().find(own).expect("it has a lease")
}

/// The only connection of a user, as registered.
async fn only_connection(cluster: &Cluster, user: u64) -> String {
    let key = cluster.key(user, "conns");
    let mut fields = cluster.redis().lines(&["HKEYS", &key]).await;
    assert_eq!(fields.len(), 1, "{fields:?}");
    fields.remove(0)
}

/// Goal: a hub that works is clean, and looking at it changes nothing.
/// Method: users with tabs on two nodes and partitions, guests, one who is just leaving; with and without
/// `--repair` and `--json`; all of Redis before and after.
#[tokio::test]
async fn a_working_hub_is_clean() {
    let cluster = quiet().partitions(3).grace("1h").start().await;
    let _tabs = (
        cluster.connect(0, ADA).await,
        cluster.connect(1, ADA).await,
        cluster.connect(1, BOB).await,
    );
    cluster.connect(0, EVE).await.close().await;
    cluster.wait_for_refcount(EVE, 0).await;
    let before = contents(&cluster).await;

    let said = doctor(&cluster, &[]).await;
    assert_eq!(said.stdout, "clean: 2 nodes, 3 users online\n");
    assert_eq!(said.code, 0);
    for arguments in [&["--json"][..], &["--json", "--repair"]] {
        let said = doctor(&cluster, arguments).await;
        let clean = json!({
            "clean": true, "ghosts": [], "orphans": [], "drift": [], "silentNodes": [], "repaired": 0
        });
        assert_eq!((said.json(), said.code), (clean, 0));
    }
    assert_eq!(contents(&cluster).await, before);
}

/// Goal: a node's answer is whole, however long it is, and so is what is registered.
/// Method: more connections of one user than are told or read in one step.
#[tokio::test]
async fn a_long_answer_is_read_whole() {
    let cluster = quiet()
        .nodes(1)
        .env("VIGIE_LIMITS__CONNECTIONS_PER_USER", "2000")
        .start()
        .await;
    let mut tabs = Vec::new();
    for _ in 0..11 {
        let opened = (0..100).map(|_| cluster.connect_with(0, Connecting::user(ADA)));
        tabs.extend(futures_util::future::join_all(opened).await);
    }
    cluster.wait_for_refcount(ADA, 1100).await;
    let said = doctor(&cluster, &[]).await;
    assert_eq!(said.stdout, "clean: 1 node, 1 user online\n");
}

/// Goal: every kind of ghost and orphan is found, told, left alone without `--repair` and gone with it, and a
/// live user does not notice. Method: planted beside a user with a tab on each node.
#[tokio::test]
async fn ghosts_and_orphans() {
    let cluster = quiet().start().await;
    let tabs = (cluster.connect(0, ADA).await, cluster.connect(1, ADA).await);
    let node = incarnation(&cluster, 0).await;
    let of_node = |connection: u64| format!("{node}/{connection}");
    let plant = [
        // A node that is gone, with all its traces: one user, whom nothing else keeps online.
        &["HSET", "vigie:{0}:conns:7", "gone.1/5", "1000"][..],
        &["SADD", "vigie:{0}:node:gone.1", "7/5"],
        &["SADD", "vigie:{0}:nodes", "gone.1"],
        &["SADD", "vigie:{0}:online", "7"],
        // A node that is gone, with a connection that no set tells of, of the live user.
        &["HSET", "vigie:{0}:conns:42", "lost.1/6", "1000"],
        // A connection that the node does not hold.
        &["HSET", "vigie:{0}:conns:42", &of_node(9999), "1000"],
        &["SADD", &format!("vigie:{{0}}:node:{node}"), "42/9999"],
        // Owed and not registered.
        &["SADD", &format!("vigie:{{0}}:node:{node}"), "42/8888"],
        // A node that tells about itself, and a lease that nobody took away.
        &["HSET", "vigie:node:told.1", "id", "told"],
        &["ZADD", "vigie:nodes", "1000", "over.1"],
    ];
    for words in plant {
        cluster.cli(words).await;
    }
    let before = contents(&cluster).await;

    let said = doctor(&cluster, &["--json"]).await;
    assert_eq!(said.code, 1, "{}", said.stdout);
    assert_eq!(
        said.problems("ghosts"),
        ["node_gone", "node_gone", "node_unaware"]
    );
    assert_eq!(
        said.problems("orphans"),
        [
            "lease_over",
            "owed_by_unknown",
            "owed_unregistered",
            "unknown_member",
            "unknown_node"
        ]
    );
    assert_eq!(said.problems("drift"), Vec::<String>::new());
    assert_eq!(said.problems("silentNodes"), Vec::<String>::new());
    let (json, of) = (said.json(), |connection: &str| {
        let ghosts = said.json()["ghosts"].clone();
        let ghosts = ghosts.as_array().expect("a list").clone();
        let is = |ghost: &Value| ghost["connection"] == connection;
        ghosts.into_iter().find(is).expect("it is told")
    });
    assert_eq!(
        (&json["clean"], &json["repaired"]),
        (&json!(false), &json!(0))
    );
    let mut ghost = of("9999");
    let message = ghost["message"].take();
    assert_eq!(
        ghost,
        json!({
            "problem": "node_unaware", "message": null, "partition": 0, "user": 42,
            "incarnation": node, "connection": "9999",
        })
    );
    let words = format!("connection 9999 of user 42 is registered, but node n0 ({node})");
    assert!(message.to_string().contains(&words), "{message}");
    assert_eq!(contents(&cluster).await, before, "nothing was repaired");

    let said = doctor(&cluster, &["--repair"]).await;
    let last = said.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("clean: 2 nodes"), "{}", said.stdout);
    assert!(
        said.stdout.contains("ghost: partition 0: ")
            && said.stdout.contains("orphan: ")
            && said
                .stdout
                .contains("3 ghosts, 5 orphans, 0 drifts, 0 silent nodes; repaired 8"),
        "{}",
        said.stdout
    );
    assert_eq!(said.code, 0);
    cluster.wait_for_online(&[ADA]).await;
    cluster.wait_for_refcount(ADA, 2).await;
    assert_eq!(tabs.0.online().await, [ADA]);
    assert_eq!(cluster.redis().keys("*gone*").await, Vec::<String>::new());
    assert_eq!(cluster.redis().keys("*told*").await, Vec::<String>::new());
    let leases = cluster.cli(&["ZCARD", "vigie:nodes"]).await;
    assert_eq!(leases, "2", "the nodes keep theirs");
}

/// Goal: what is said about users is made to agree, in every direction; others see who comes and goes, once.
/// Method: on three partitions; a user taken offline behind the back of a tab, one put online, one leaving with a
/// tab, one leaving who is not online, one overdue, a tab that its node does not owe, a node that is not listed.
#[tokio::test]
async fn drift() {
    // Partition of each: 42 -> 0, 7 -> 1, 1815 -> 0, 999 -> 0.
    let cluster = quiet().partitions(3).start().await;
    let _tabs = (
        cluster.connect(0, ADA).await,
        cluster.connect(1, BOB).await,
        cluster.connect(1, EVE).await,
    );
    let (first, second) = (
        incarnation(&cluster, 0).await,
        incarnation(&cluster, 1).await,
    );
    let mut observer = cluster.connect_guest(0).await;
    observer.settle().await;
    let epoch = cluster.cli(&["GET", "vigie:{0}:epoch"]).await;
    let revision = cluster.cli(&["INCR", "vigie:{0}:rev"]).await;
    let offline = format!(r#"{{"epoch":"{epoch}","rev":{revision},"online":[],"offline":[42]}}"#);
    let eve = only_connection(&cluster, EVE).await;
    let (_, number) = eve.split_once('/').expect("a field");
    let plant = [
        &["SREM", "vigie:{0}:online", "42"][..],
        &["SPUBLISH", "vigie:{0}:presence", &offline],
        &["SADD", "vigie:{0}:online", "999"],
        &["ZADD", "vigie:{1}:leaving", "9999999999999", "7"],
        &["ZADD", "vigie:{2}:leaving", "9999999999999", "5"],
        &[
            "SREM",
            &format!("vigie:{{0}}:node:{second}"),
            &format!("1815/{number}"),
        ],
        &["SREM", "vigie:{0}:nodes", &first],
    ];
    for words in plant {
        cluster.cli(words).await;
    }
    assert_eq!(observer.next_status().await, (ADA, Offline));
    let before = contents(&cluster).await;

    let said = doctor(&cluster, &["--json"]).await;
    let expected = [
        "connected_but_offline",
        "leaving_but_offline",
        "leaving_with_connections",
        "not_listed",
        "not_owed",
        "online_without_connections",
    ];
    assert_eq!(said.problems("drift"), expected, "{}", said.stdout);
    assert_eq!(said.code, 1);
    for category in ["ghosts", "orphans", "silentNodes"] {
        assert_eq!(said.problems(category), Vec::<String>::new(), "{category}");
    }
    assert_eq!(contents(&cluster).await, before, "nothing was repaired");

    let said = doctor(&cluster, &["--repair", "--json"]).await;
    assert_eq!(
        (&said.json()["clean"], &said.json()["repaired"], said.code),
        (&json!(true), &json!(6), 0),
        "{}",
        said.stdout
    );
    assert_eq!(observer.next_status().await, (ADA, Online));
    cluster.wait_for_online(&[ADA, BOB, EVE]).await;
    let _marker = cluster.connect(0, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online));
    assert_clean(&cluster).await;
}

/// Goal: a held connection that is not registered is told, and left to its node: nobody goes offline for it.
/// Method: forgotten in Redis; repaired; the user is still online, the finding remains. A node with a short
/// audit then registers it.
#[tokio::test]
async fn a_forgotten_connection_is_left_to_its_node() {
    for (audit, code) in [("1h", 1), ("2s", 0)] {
        let cluster = quiet().env("VIGIE_NODE__AUDIT", audit).start().await;
        let mut observer = cluster.connect_guest(1).await;
        let _tab = cluster.connect(0, ADA).await;
        assert_eq!(observer.next_status().await, (ADA, Online));
        let node = incarnation(&cluster, 0).await;
        cluster.cli(&["DEL", "vigie:{0}:conns:42"]).await;
        let owed = format!("vigie:{{0}}:node:{node}");
        cluster.cli(&["DEL", &owed]).await;
        let said = doctor(&cluster, &["--repair", "--json"]).await;
        assert_eq!(said.code, code, "{}", said.stdout);
        if code == 1 {
            assert_eq!(said.problems("drift"), ["not_registered"]);
            let message = said.json()["drift"][0]["message"].to_string();
            assert!(message.contains("next audit"), "{message}");
        } else {
            cluster.wait_for_refcount(ADA, 1).await;
        }
        let _marker = cluster.connect(0, MARKER).await;
        assert_eq!(observer.next_status().await, (MARKER, Online));
        cluster.wait_for_online(&[ADA, MARKER]).await;
    }
}

/// Goal: a node that was killed counts as alive until its lease is over, so its connections are no ghosts, and
/// repairing touches nothing; without a lease they are, and repairing has those who are gone said offline.
/// Method: a long lease; examined at once; the lease taken away; a user with a tab elsewhere stays.
#[tokio::test]
async fn a_killed_node_is_silent_until_its_lease_is_over() {
    let cluster = quiet().start().await;
    let tab = cluster.connect(0, ADA).await;
    let gone = cluster.connect(1, ADA).await;
    let _bob = cluster.connect(1, BOB).await;
    let node = incarnation(&cluster, 1).await;
    let mut observer = cluster.connect_guest(0).await;
    cluster.kill(1);
    let before = contents(&cluster).await;
    let said = doctor(&cluster, &["--repair", "--json"]).await;
    assert_eq!(said.problems("silentNodes"), ["silent"]);
    assert_eq!(said.json()["silentNodes"][0]["incarnation"], node.as_str());
    assert_eq!(said.problems("ghosts"), Vec::<String>::new());
    assert_eq!(said.code, 1);
    assert_eq!(contents(&cluster).await, before);

    cluster.cli(&["ZREM", "vigie:nodes", &node]).await;
    cluster.cli(&["DEL", &format!("vigie:node:{node}")]).await;
    let said = doctor(&cluster, &["--json"]).await;
    assert_eq!(said.problems("ghosts"), ["node_gone", "node_gone"]);
    assert_eq!(
        said.problems("orphans"),
        ["owed_by_unknown", "unknown_member"]
    );
    let said = doctor(&cluster, &["--repair", "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(said.json()["repaired"], 4);
    assert_eq!(observer.next_status().await, (BOB, Offline));
    cluster.wait_for_online(&[ADA]).await;
    cluster.wait_for_refcount(ADA, 1).await;
    assert_eq!(tab.online().await, [ADA]);
    drop(gone);
}

/// Goal: a node that stands still is silent, and what others hold is compared all the same.
/// Method: frozen beside a planted ghost of the other node; thawed.
#[tokio::test]
async fn a_frozen_node_is_silent() {
    let cluster = quiet()
        .env("VIGIE_REDIS__COMMAND_TIMEOUT", "1s")
        .start()
        .await;
    let _tab = cluster.connect(1, ADA).await;
    let node = incarnation(&cluster, 0).await;
    let ghost = format!("{node}/77");
    cluster
        .cli(&["HSET", "vigie:{0}:conns:42", &ghost, "1"])
        .await;
    cluster.pause(1);
    let said = doctor(&cluster, &["--json"]).await;
    cluster.resume(1);
    assert_eq!(said.problems("silentNodes"), ["silent"], "{}", said.stdout);
    assert_eq!(said.problems("ghosts"), ["node_unaware"], "{}", said.stdout);
    assert_eq!(said.code, 1);
    let said = doctor(&cluster, &["--repair"]).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
    cluster.wait_for_refcount(ADA, 1).await;
}

/// Goal: where every node died, the doctor does what no node is left to do: takes the leases away, releases what
/// they owed, and says who is offline. Method: killed; a short lease; nothing about presence is left.
#[tokio::test]
async fn a_hub_that_died_is_put_in_order() {
    let cluster = quiet()
        .env("VIGIE_NODE__LEASE", "1s")
        .grace("1h")
        .start()
        .await;
    let _tabs = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    cluster.kill(0);
    cluster.kill(1);
    let ended = async || {
        let now = cluster.cli(&["TIME"]).await;
        let now: u64 = now.lines().next()?.parse().ok()?;
        let over = format!("({now}000");
        let left = cluster.cli(&["ZCOUNT", "vigie:nodes", &over, "+inf"]).await;
        (left == "0").then_some(())
    };
    crate::harness::eventually("both leases are over", ended).await;
    let said = doctor(&cluster, &["--json"]).await;
    assert_eq!(said.problems("ghosts"), ["node_gone", "node_gone"]);
    let orphans = said.problems("orphans");
    assert_eq!(orphans.len(), 6, "{orphans:?}");
    let said = doctor(&cluster, &["--repair"]).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
    cluster.wait_until_nobody_is_left().await;
    assert_eq!(cluster.cli(&["EXISTS", "vigie:nodes"]).await, "0");
}

/// Goal: an empty Redis is clean and stays empty; one that holds other data is said to be another hub's.
/// Method: a Redis without anything; then a layout with other partitions.
#[tokio::test]
async fn it_writes_nothing_where_nothing_is() {
    let redis = Redis::start().await;
    let env = [
        ("VIGIE_ENGINE", "redis".to_owned()),
        ("VIGIE_REDIS__URL", redis.url()),
        ("VIGIE_AUTH__SECRET", SECRET.to_owned()),
        ("VIGIE_INTERNAL__API_KEY", NODE_KEY.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    for arguments in [&[][..], &["--repair"]] {
        let said = doctor_with(&env, arguments).await;
        assert_eq!(said.stdout, "clean: 0 nodes, 0 users online\n");
        assert_eq!(said.code, 0);
    }
    assert_eq!(redis.cli(&["DBSIZE"]).await, "0");

    redis
        .cli(&["HSET", "vigie:meta", "layout", "1", "partitions", "8"])
        .await;
    let said = doctor_with(&env, &["--repair"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (2, ""));
    assert!(said.stderr.contains("redis.partitions"), "{}", said.stderr);
    assert_eq!(redis.cli(&["DBSIZE"]).await, "1");
}

/// Goal: what cannot be examined is said, with an exit code that tells it from findings.
/// Method: the memory engine, a Redis that is not there, settings that are wrong.
#[tokio::test]
async fn what_cannot_be_examined_is_said() {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let said = doctor_with(&[], &[]).await;
    assert!(
        said.stdout.contains("nothing to examine"),
        "{}",
        said.stdout
    );
    assert_eq!(said.code, 0);
    let said = doctor_with(&[], &["--json"]).await;
    assert_eq!((&said.json()["clean"], said.code), (&json!(true), 0));

    let env = [
        own("VIGIE_ENGINE", "redis"),
        own("VIGIE_REDIS__URL", "redis://127.0.0.1:1"),
        own("VIGIE_AUTH__SECRET", SECRET),
        own("VIGIE_INTERNAL__API_KEY", NODE_KEY),
    ];
    let said = doctor_with(&env, &["--json"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (2, ""));
    assert!(
        said.stderr.contains("127.0.0.1:1") && said.stderr.contains("cannot be reached"),
        "{}",
        said.stderr
    );
    let said = doctor_with(&[own("VIGIE_REDIS__PREFFIX", "x")], &[]).await;
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("preffix"), "{}", said.stderr);
}
