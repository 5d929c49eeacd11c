//! `vigie doctor`: finds what is wrong with the data, and puts it right without harm to anybody.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::{
    ADA, BOB, Builder, Cluster, Connecting, EVE, MARKER, NODE_KEY, Offline, Online, Redis, SECRET,
    run, vigie,
};

/// The doctor's output and exit code.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    /// The output of `--json`.
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
    let key = |partition, name: &str| format!("vigie:{}:{name}", cluster.tag(partition));
    let epoch = cluster.cli(&["GET", &key(0, "epoch")]).await;
    let revision = cluster.cli(&["INCR", &key(0, "rev")]).await;
    let offline = format!(r#"{{"epoch":"{epoch}","rev":{revision},"online":[],"offline":[42]}}"#);
    let eve = only_connection(&cluster, EVE).await;
    let (_, number) = eve.split_once('/').expect("a field");
    let (online, presence) = (key(0, "online"), key(0, "presence"));
    let (leaving_one, leaving_two) = (key(1, "leaving"), key(2, "leaving"));
    let (owed, nodes) = (key(0, &format!("node:{second}")), key(0, "nodes"));
    let entry = format!("1815/{number}");
    let plant = [
        &["SREM", &online, "42"][..],
        &["SPUBLISH", &presence, &offline],
        &["SADD", &online, "999"],
        &["ZADD", &leaving_one, "9999999999999", "7"],
        &["ZADD", &leaving_two, "9999999999999", "5"],
        &["SREM", &owed, &entry],
        &["SREM", &nodes, &first],
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
        .cli(&["HSET", "vigie:meta", "layout", "2", "partitions", "8"])
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

/// Goal: a registered connection that no node can have registered is found, and its user goes offline once it is gone.
/// Method: entries of each kind planted while a user is there, who leaves; others see the user go after the repair only.
/// A field that is no text is one of them.
#[tokio::test]
async fn connections_that_cannot_be_read() {
    let cluster = quiet().start().await;
    let mut observer = cluster.connect_guest(1).await;
    let tab = cluster.connect(0, BOB).await;
    assert_eq!(observer.next_status().await, (BOB, Online));
    let node = incarnation(&cluster, 0).await;
    let key = cluster.key(BOB, "conns");
    let fields = [
        "garbage",
        "n0/5",
        ".x1/5",
        "a b.x1/5",
        "gone.x1/",
        &format!("{node}/007"),
        &format!("{node}/+7"),
        &format!("{node}/x"),
    ];
    for field in fields {
        cluster.cli(&["HSET", &key, field, "1000"]).await;
    }
    let script = "return redis.call('HSET', KEYS[1], '\\255.x1/5', '1000')";
    cluster.cli(&["EVAL", script, "1", &key]).await;
    tab.close().await;
    cluster
        .wait_for_refcount(BOB, fields.len() as u64 + 1)
        .await;

    let said = doctor(&cluster, &["--json"]).await;
    let found = vec!["unreadable_connection"; fields.len() + 1];
    assert_eq!(said.problems("ghosts"), found, "{}", said.stdout);
    let ghosts = said.json()["ghosts"].clone();
    let told: Vec<_> = ghosts.as_array().expect("a list").iter().collect();
    for field in fields {
        let is_told = |ghost: &&&Value| {
            (&ghost["entry"], &ghost["key"], &ghost["user"])
                == (&json!(field), &json!(key), &json!(BOB))
        };
        assert!(
            told.iter().any(|ghost| is_told(&ghost)),
            "{field}: {ghosts:#}"
        );
    }
    for category in ["orphans", "drift", "silentNodes"] {
        assert_eq!(said.problems(category), Vec::<String>::new(), "{category}");
    }
    assert_eq!(said.code, 1);

    let marker = cluster.connect(0, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online), "BOB stays");
    let said = doctor(&cluster, &["--repair"]).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert_eq!(observer.next_status().await, (BOB, Offline));
    cluster.wait_for_online(&[MARKER]).await;
    assert_clean(&cluster).await;
    drop(marker);
}

/// Goal: what is said of a living connection is put right, and its user stays.
/// Method: times that are none, or far ahead, in the entries of two tabs; what no node wrote beside them.
#[tokio::test]
async fn times_that_cannot_be() {
    let cluster = quiet().start().await;
    let mut observer = cluster.connect_guest(1).await;
    let _tabs = (cluster.connect(0, ADA).await, cluster.connect(1, EVE).await);
    for user in [ADA, EVE] {
        assert_eq!(observer.next_status().await, (user, Online));
    }
    for (user, since) in [(ADA, "x"), (EVE, "99999999999999")] {
        let field = only_connection(&cluster, user).await;
        let key = cluster.key(user, "conns");
        cluster.cli(&["HSET", &key, &field, since]).await;
    }
    // Nobody would take this one offline before the year 2286.
    let (online, leaving) = (
        beside(&cluster, BOB, "online"),
        beside(&cluster, BOB, "leaving"),
    );
    cluster.cli(&["SADD", &online, "7"]).await;
    cluster.cli(&["ZADD", &leaving, "9999999999999", "7"]).await;

    let said = doctor(&cluster, &["--json"]).await;
    let unreadable = ["unreadable_connection", "unreadable_connection"];
    assert_eq!(said.problems("ghosts"), unreadable, "{}", said.stdout);
    assert_eq!(
        said.problems("drift"),
        ["leaving_too_late"],
        "{}",
        said.stdout
    );
    let said = doctor(&cluster, &["--repair"]).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
    cluster.wait_for_online(&[ADA, EVE]).await;
    for user in [ADA, EVE] {
        cluster.wait_for_refcount(user, 1).await;
        let path = format!("/api/v1/presence/{user}");
        assert_eq!(cluster.get(0, &path).await.status, 200);
    }
    let _marker = cluster.connect(0, MARKER).await;
    assert_eq!(
        observer.next_status().await,
        (MARKER, Online),
        "nobody left"
    );
}

/// A key of the partition of a user.
fn beside(cluster: &Cluster, user: u64, name: &str) -> String {
    let key = cluster.key(user, "");
    let (tag, _) = key.split_once("}:").expect("a hash tag");
    format!("{tag}}}:{name}")
}

/// Goal: whatever else no node can have written is found under its key, and gone afterwards; who is there stays, and who
/// could not come can. Keys that are none of the hub's are named and left alone.
/// Method: planted in every key that nodes write, on three partitions.
#[tokio::test]
async fn what_no_node_can_have_written() {
    const FAR: &str = "99999999999999";
    let cluster = quiet().partitions(3).start().await;
    let _tab = cluster.connect(0, ADA).await;
    let node = incarnation(&cluster, 0).await;
    let info = cluster.cli(&["INFO", "server"]).await;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let server = format!("{} {FAR}", run_id.expect("it says so").trim());
    let of_ada = |name: &str| beside(&cluster, ADA, name);
    let of_5 = |name: &str| beside(&cluster, 5, name);
    let key = |user: u64, kind: &str| cluster.key(user, kind);
    let mm = |name: &str| format!("vigie:{{mm}}:{name}");
    // How to plant it, and the entry that is told.
    let entries: Vec<(Vec<String>, &str)> = [
        (vec!["SADD", &of_ada("online"), "x"], "x"),
        (vec!["SADD", &of_ada("online"), "5"], "5"),
        (vec!["ZADD", &of_ada("leaving"), FAR, "x"], "x"),
        (vec!["ZADD", &of_ada("leaving"), FAR, "5"], "5"),
        (vec!["SADD", &of_ada(&format!("node:{node}")), "x"], "x"),
        (vec!["SADD", &of_ada(&format!("node:{node}")), "5/9"], "5/9"),
        (vec!["ZADD", "vigie:nodes", FAR, "nonsense"], "nonsense"),
        (vec!["ZADD", "vigie:nodes", FAR, "far.x1"], "far.x1"),
        (vec!["SET", &of_5("epoch"), "\""], "\""),
        (vec!["SET", &of_5("rev"), "x"], "x"),
        (vec!["SET", &of_5("server"), &server], &server),
        (
            vec!["HSET", &key(5, "profile"), "profile.revision", "x"],
            "profile.revision",
        ),
        (
            vec!["HSET", &key(5, "profile"), "stats.at", FAR],
            "stats.at",
        ),
        (
            vec!["HSET", &key(5, "profile"), "friends.full", "{"],
            "friends.full",
        ),
        (
            vec!["HSET", &key(5, "profile"), "disconnected", FAR],
            "disconnected",
        ),
        (vec!["SET", &key(11, "revoked"), "x"], "x"),
        (vec!["SET", &key(8, "revoked"), FAR], FAR),
        (vec!["ZADD", &mm("ratings"), "1500", "x"], "x"),
        (vec!["HSET", &mm("ticket:5"), "place", "x"], "place"),
        (vec!["HSET", &mm("playing"), "5", "x"], "5"),
        (vec!["HSET", &mm("match:1-1"), "player1", "x"], "player1"),
        (vec!["ZADD", &mm("pending"), FAR, "1-2"], "1-2"),
        (vec!["ZADD", &mm("timeouts"), FAR, "x"], "x"),
        (vec!["SET", &mm("count"), "x"], "x"),
        (vec!["HSET", &mm("scan"), "next", FAR], "next"),
        (vec!["HSET", &mm("made"), FAR, "1"], FAR),
    ]
    .map(|(words, entry)| (words.into_iter().map(str::to_owned).collect(), entry))
    .to_vec();
    let types = [
        of_5("leaving"),
        key(7, "conns"),
        key(4, "profile"),
        mm("queue"),
    ];
    let misplaced = [
        of_ada("conns:5"),
        "vigie:{77}:node:gone.x1".to_owned(),
        mm("ticket:8"),
        mm("match:1-3"),
    ];
    let strangers = ["vigie:x", "vigie:eu:{0}:online"];
    for (words, _) in &entries {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cluster.cli(&words).await;
    }
    for key in types.iter().map(String::as_str).chain(strangers) {
        cluster.cli(&["SETBIT", key, "7", "1"]).await;
    }
    cluster
        .cli(&["HSET", &misplaced[0], "gone.x1/5", "1"])
        .await;
    cluster.cli(&["SADD", &misplaced[1], "5/5"]).await;
    // Well-formed, but in no index.
    cluster.cli(&["HSET", &misplaced[2], "place", "1"]).await;
    cluster.cli(&["HSET", &misplaced[3], "state", "made"]).await;

    let said = doctor(&cluster, &["--json"]).await;
    let orphans = said.json()["orphans"].clone();
    let told = orphans.as_array().expect("a list");
    let is_told = |problem: &str, key: &str, entry: Value| {
        let is_it = |orphan: &&Value| {
            (&orphan["problem"], &orphan["key"], &orphan["entry"])
                == (&json!(problem), &json!(key), &entry)
        };
        assert!(
            told.iter().any(|orphan| is_it(&orphan)),
            "{key} {entry}: {orphans:#}"
        );
    };
    for (words, entry) in &entries {
        is_told("unreadable", &words[1], json!(entry));
    }
    for key in &types {
        is_told("wrong_type", key, Value::Null);
    }
    for key in &misplaced {
        is_told("misplaced", key, Value::Null);
    }
    assert_eq!(told.len(), entries.len() + types.len() + misplaced.len());
    assert_eq!(
        said.problems("silentNodes"),
        ["silent", "silent"],
        "{}",
        said.stdout
    );
    let notes = said.json()["notes"].to_string();
    assert!(strangers.iter().all(|key| notes.contains(key)), "{notes}");
    assert_eq!(said.code, 1);

    let said = doctor(&cluster, &["--repair"]).await;
    assert_eq!(said.code, 0, "{}", said.stdout);
    assert!(said.stdout.contains("note: 2 "), "{}", said.stdout);
    for key in strangers {
        assert_eq!(cluster.cli(&["EXISTS", key]).await, "1", "{key}");
    }
    cluster.wait_for_online(&[ADA]).await;
    cluster.wait_for_refcount(ADA, 1).await;
    // Nothing is left that stands in anybody's way.
    for user in [5, BOB] {
        let tab = cluster.connect(1, user).await;
        assert_eq!(
            tab.emit_ack("join-matchmaking", json!(null)).await["ok"],
            true
        );
        assert_eq!(
            tab.emit_ack("leave-matchmaking", json!(null)).await["ok"],
            true
        );
        tab.close().await;
    }
    // Nobody knows before when its tokens are refused, so all that were issued before now are.
    let revoked: u64 = cluster.redis().number(&["GET", &key(8, "revoked")]).await;
    assert!(revoked > 1_600_000_000_000, "{revoked}");
}

/// Goal: where the list of leases is none, nobody is taken for dead.
/// Method: a string in its place, with a user on each node; repaired, the nodes take leases, and nobody goes offline.
#[tokio::test]
async fn a_list_of_leases_that_is_none() {
    let cluster = quiet().env("VIGIE_NODE__AUDIT", "1s").start().await;
    let _tabs = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    let mut observer = cluster.connect_guest(0).await;
    cluster.cli(&["SET", "vigie:nodes", "x"]).await;
    let said = doctor(&cluster, &["--json"]).await;
    assert_eq!(said.problems("orphans"), ["wrong_type"], "{}", said.stdout);
    doctor(&cluster, &["--repair"]).await;
    crate::harness::eventually("all is clean", async || {
        let said = doctor(&cluster, &["--repair"]).await;
        (said.code == 0).then_some(())
    })
    .await;
    cluster.wait_for_online(&[ADA, BOB]).await;
    let _marker = cluster.connect(0, MARKER).await;
    assert_eq!(
        observer.next_status().await,
        (MARKER, Online),
        "nobody left"
    );
}

/// Goal: whatever nodes write is right.
/// Method: updates of every kind, revocations, a deleted account, players who wait, who were matched and whose ticket ran
/// out; examined while they are there, and when they are gone.
#[tokio::test]
async fn a_busy_hub_is_clean() {
    let cluster = quiet()
        .partitions(3)
        .env("VIGIE_MATCHMAKING__MAX_WAIT", "1s")
        .start()
        .await;
    let players = [ADA, BOB, EVE, 5];
    let mut tabs = Vec::new();
    for (place, user) in players.into_iter().enumerate() {
        tabs.push(cluster.connect(place % 2, user).await);
    }
    for (kind, body) in [
        (
            "profile-update",
            json!({ "user": { "userID": ADA, "username": "ada" } }),
        ),
        ("game-stats-update", json!({ "stats": { "wins": 1.5 } })),
        (
            "friend-list-update",
            json!({ "friends": [], "revision": 9_007_199_254_740_991_u64 }),
        ),
        ("match-history-update", json!({ "matches": [] })),
    ] {
        for user in [ADA, 1_000_001] {
            let path = format!("/api/v1/users/{user}/{kind}");
            assert_eq!(cluster.post(0, &path, &body).await.status, 200);
        }
    }
    for (user, revoke) in [(1_000_002, true), (1_000_003, false)] {
        let path = format!("/api/v1/users/{user}/disconnect");
        let answer = cluster.post(0, &path, &json!({ "revoke": revoke })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let path = "/api/v1/users/1000004/account-deleted";
    assert_eq!(cluster.post(0, path, &json!({})).await.status, 200);
    for tab in &tabs[..3] {
        tab.emit_ack("join-matchmaking", json!(null)).await;
    }
    let said = doctor(&cluster, &["--json"]).await;
    assert_eq!(
        (said.code, &said.json()["notes"]),
        (0, &Value::Null),
        "{}",
        said.stdout
    );
    for tab in tabs {
        tab.close().await;
    }
    cluster.wait_for_online(&[]).await;
    let said = doctor(&cluster, &["--json"]).await;
    assert_eq!(
        (said.code, &said.json()["notes"]),
        (0, &Value::Null),
        "{}",
        said.stdout
    );
}

/// Goal: a user to whose topic no node listens is found: updates, disconnects and deletions would not arrive.
/// Method: Redis takes the right to the topics from the nodes, which ends their subscriptions, and gives it back.
#[tokio::test]
async fn users_to_whom_nobody_listens_are_found() {
    let cluster = quiet().start().await;
    let _ada = cluster.connect(0, ADA).await;
    assert_clean(&cluster).await;
    let rights = |channels: &'static [&'static str]| {
        let mut words = vec!["ACL", "SETUSER", "default", "resetchannels"];
        words.extend(channels);
        words
    };
    let own_channels = rights(&["&vigie:node:*"]);
    assert_eq!(cluster.cli(&own_channels).await, "OK");
    eventually("the doctor finds it", async || {
        let said = doctor(&cluster, &["--json"]).await;
        (said.problems("drift") == ["not_heard"]).then_some(())
    })
    .await;
    assert_eq!(cluster.cli(&rights(&["allchannels"])).await, "OK");
    cluster.wait_for_subscribers(ADA, 1).await;
    assert_clean(&cluster).await;
}
