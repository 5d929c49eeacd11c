//! Redis: what it refuses is named, at the start and later, and what it needs is enough.

use std::path::Path;

use serde_json::{Value, json};

use super::{detail, failure, not_ready, quick, ready, readyz, vigie_says};
use crate::harness::{
    ADA, Answer, BOB, Builder, Cluster, Connecting, EVE, NODE_KEY, Postgres, Redis, SECRET,
    Servers, eventually, profile, project_root, scratch, tethered,
};

/// The user that tests log in with.
const USER: &str = "vigie";
const PASSWORD: &str = "PASSWORD";

async fn post_update(cluster: &Cluster) -> Answer {
    let body = json!({ "user": { "userID": ADA, "username": "ada" } });
    cluster.tell(ADA, "profile-update", &body).await
}

/// Posts an update, which is refused with these words, and not with others.
async fn assert_refused(cluster: &Cluster, words: &[&str]) {
    let answer = post_update(cluster).await;
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    let said = detail(&answer);
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains("cannot be reached"), "{said}");
}

/// The arguments of `redis-cli`, as an operator types them.
fn typed(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .map(|word| word.trim_matches('\''))
        .collect()
}

/// The page that grants a Redis user of the hub its rights.
fn readme() -> String {
    std::fs::read_to_string(project_root().join("config/README.md")).expect("a README")
}

/// Its line for a user of the hub's own.
fn readme_line() -> String {
    let readme = readme();
    let mut lines = readme.lines();
    let line = lines.find_map(|line| line.strip_prefix("redis-cli ACL SETUSER "));
    format!(
        "ACL SETUSER {}",
        line.expect("config/README.md has the line")
    )
}

/// The `ACL SETUSER` that the message suggests.
fn grant_in(said: &str) -> &str {
    let (_, line) = said.split_once("grant it: ").expect(said);
    line.lines().next().unwrap_or_default()
}

/// A Redis with a user who has the documented rights and no others, after these lines.
async fn with_user(lines: &[&str]) -> Redis {
    let redis = Redis::start().await;
    let readme = readme_line();
    for line in [&[readme.as_str()], lines].concat() {
        assert_eq!(redis.cli(&typed(line)).await, "OK", "{line}");
    }
    redis
}

fn url_of_user(redis: &Redis, password: &str) -> String {
    redis
        .url()
        .replace("redis://", &format!("redis://{USER}:{password}@"))
}

fn on_user(builder: Builder, redis: &Redis) -> Builder {
    let builder = builder.memory().on_redis(redis);
    builder.env("VIGIE_REDIS__URL", &url_of_user(redis, PASSWORD))
}

/// A node that is not expected to start: what it says.
async fn start_says(url: &str) -> String {
    let env = [
        ("VIGIE_ENGINE", "redis"),
        ("VIGIE_REDIS__URL", url),
        ("VIGIE_AUTH__SECRET", SECRET),
        ("VIGIE_INTERNAL__API_KEY", NODE_KEY),
        ("VIGIE_HTTP__LISTEN", "127.0.0.1:0"),
        ("VIGIE_INTERNAL__LISTEN", "127.0.0.1:0"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (code, said) = vigie_says(&["serve"], &env).await;
    assert_ne!(code, 0, "{said}");
    said
}

/// Goal: a Redis that is full is named everywhere, and the node goes on by itself once it has room.
/// Method: a limit below what is used, and none again.
#[tokio::test]
async fn a_full_redis_is_named() {
    let cluster = quick().start().await;
    assert_eq!(
        cluster.cli(&["CONFIG", "SET", "maxmemory", "1"]).await,
        "OK"
    );
    let reason = not_ready(&cluster, "lease", "OOM").await;
    assert!(
        reason.starts_with("not renewed for ") && reason.contains("node.lease is 2s"),
        "{reason}"
    );
    not_ready(&cluster, "commands", "raise maxmemory").await;
    assert_eq!(
        failure(&readyz(&cluster).await, "canary"),
        None,
        "messages arrive"
    );
    assert_refused(&cluster, &["OOM", "raise maxmemory"]).await;
    let log = cluster.log(0);
    assert!(
        log.contains("could not renew the lease; trying again error=redis refuses: OOM"),
        "{log}"
    );

    assert_eq!(
        cluster.cli(&["CONFIG", "SET", "maxmemory", "0"]).await,
        "OK"
    );
    ready(&cluster, &[]).await;
    assert_eq!(post_update(&cluster).await.status, 200);
}

/// Goal: a server that becomes a replica is named. Method: `REPLICAOF` a closed port, then `REPLICAOF NO ONE`.
#[tokio::test]
async fn a_replica_is_named() {
    let cluster = quick().start().await;
    assert_eq!(cluster.cli(&["REPLICAOF", "127.0.0.1", "1"]).await, "OK");
    not_ready(&cluster, "lease", "READONLY").await;
    not_ready(&cluster, "redis", "READONLY").await;
    not_ready(&cluster, "commands", "READONLY").await;
    assert_refused(&cluster, &["READONLY", "redis-sentinel://"]).await;

    assert_eq!(cluster.cli(&["REPLICAOF", "NO", "ONE"]).await, "OK");
    ready(&cluster, &[]).await;
    assert_eq!(post_update(&cluster).await.status, 200);
}

/// Goal: a server that cannot save its data, and takes none, is named. Method: a folder where its file belongs.
#[tokio::test]
async fn a_server_that_cannot_save_is_named() {
    let cluster = quick().start().await;
    let answer = cluster.cli(&["CONFIG", "GET", "dir"]).await;
    let folder = Path::new(answer.lines().last().expect("a folder")).join("dump.rdb");
    std::fs::create_dir(&folder).expect("the folder of Redis is the test's own");
    assert_eq!(
        cluster.cli(&["CONFIG", "SET", "save", "3600 1"]).await,
        "OK"
    );
    cluster.cli(&["BGSAVE"]).await;

    not_ready(&cluster, "lease", "MISCONF").await;
    not_ready(&cluster, "commands", "MISCONF").await;
    assert_refused(&cluster, &["MISCONF", "disk"]).await;
    // It would refuse new connections, too: those that there are carry messages.
    assert_eq!(failure(&readyz(&cluster).await, "replica"), None);
    assert_eq!(
        warnings(&cluster, "opening connections anew"),
        0,
        "{}",
        cluster.log(0)
    );

    std::fs::remove_dir(&folder).expect("it is empty");
    cluster.cli(&["BGSAVE"]).await;
    ready(&cluster, &[]).await;
    assert_eq!(post_update(&cluster).await.status, 200);
}

/// Goal: a refusal at the start is named. Method: wrong and missing passwords, of a user and of the
/// server; a replica; a full server.
#[tokio::test]
async fn refusals_at_the_start_are_named() {
    let redis = with_user(&[]).await;
    let says = async |url: &str, word: &str| {
        let said = start_says(url).await;
        assert!(said.contains(word), "{word}: {said}");
        assert!(
            !said.contains("cannot be reached") && !said.contains("wrong-one"),
            "{said}"
        );
    };
    says(&url_of_user(&redis, "wrong-one"), "WRONGPASS").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    says(&url_of_user(&redis, PASSWORD), "OOM").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    says(&url_of_user(&redis, PASSWORD), "READONLY").await;
    redis.cli(&["CONFIG", "SET", "requirepass", "right"]).await;
    says(&redis.url(), "NOAUTH").await;
}

/// Goal: rights that are missing at the start are named all at once, with the line that grants them.
/// Method: users who lack some; each runs the line in the error, and the node starts.
#[tokio::test]
async fn rights_missing_at_the_start_are_named_with_the_line_to_add() {
    for (lines, named) in [
        (
            &["ACL SETUSER vigie -hincrby -zadd"][..],
            &["HINCRBY, ZADD", "+hincrby +zadd"][..],
        ),
        (
            &["ACL SETUSER vigie -ssubscribe"],
            &["SSUBSCRIBE", "+ssubscribe"],
        ),
        (&["ACL SETUSER vigie -info"], &["INFO", "+info"]),
        (
            &["ACL SETUSER vigie resetchannels"],
            &["the channels vigie:*", "&vigie:*"],
        ),
        (
            &["ACL SETUSER vigie resetkeys ~other:*"],
            &["the keys vigie:*", "~vigie:*"],
        ),
        (
            &["ACL SETUSER vigie -@all"],
            &["EVAL", "EVALSHA", "SSUBSCRIBE", "+@scripting"],
        ),
    ] {
        let redis = with_user(lines).await;
        let said = start_says(&url_of_user(&redis, PASSWORD)).await;
        assert!(
            said.contains("NOPERM") && named.iter().all(|word| said.contains(word)),
            "{lines:?}: {said}"
        );
        let line = grant_in(&said);
        assert!(line.starts_with("ACL SETUSER vigie "), "{line}");
        assert_eq!(redis.cli(&typed(line)).await, "OK", "{line}");
        let cluster = on_user(Cluster::builder(), &redis).start().await;
        assert_eq!(post_update(&cluster).await.status, 200, "{lines:?}");
    }
}

/// Goal: a right that is withdrawn while a node runs is named, where it matters and with the line that grants it; a script
/// that fails each time it is run is a warning, and only one.
/// Method: rights of the sweep, of the canary, of all scripts, of subscriptions, each withdrawn, and granted by the line in the reason.
#[tokio::test]
async fn rights_withdrawn_while_a_node_runs_are_named() {
    let redis = with_user(&[]).await;
    let cluster = on_user(quick(), &redis).start().await;
    for (command, check) in [
        ("zrangebyscore", "commands"),
        ("hincrby", "commands"),
        ("ssubscribe", "commands"),
        ("spublish", "redis"),
        ("evalsha", "lease"),
    ] {
        let line = format!("ACL SETUSER vigie -{command}");
        assert_eq!(redis.cli(&typed(&line)).await, "OK");
        let reason = not_ready(&cluster, check, "NOPERM").await;
        assert!(!reason.contains("reached"), "{reason}");
        let reason = not_ready(&cluster, "commands", &command.to_uppercase()).await;
        if command == "zrangebyscore" {
            // The sweep fails every second or so.
            let errors = cluster.metric(0, "vigie_redis_script_errors_total").await;
            eventually("the sweep fails again and again", async || {
                let now = cluster.metric(0, "vigie_redis_script_errors_total").await;
                (now >= errors + 4.0).then_some(())
            })
            .await;
            assert_eq!(
                warnings(&cluster, "could not take users offline"),
                1,
                "{}",
                cluster.log(0)
            );
        }
        if command == "evalsha" {
            assert_refused(&cluster, &["NOPERM", "config/README.md"]).await;
        }
        assert_eq!(redis.cli(&typed(grant_in(&reason))).await, "OK");
        ready(&cluster, &[]).await;
    }
    let log = cluster.log(0);
    assert!(
        log.contains("commands that the hub needs are refused") && log.contains("accepted again"),
        "{log}"
    );
    assert_eq!(warnings(&cluster, "opening connections anew"), 0, "{log}");
}

/// How many warnings with these words the first node has logged.
fn warnings(cluster: &Cluster, words: &str) -> usize {
    let log = cluster.log(0);
    let lines = log.lines();
    lines
        .filter(|line| line.contains(" WARN ") && line.contains(words))
        .count()
}

/// Goal: a password that was changed under a running node is named. Method: another password, and connections that are
/// closed; the old one again.
#[tokio::test]
async fn a_password_that_was_changed_is_named() {
    let redis = with_user(&[]).await;
    let cluster = on_user(quick(), &redis).start().await;
    assert_eq!(
        redis
            .cli(&["ACL", "SETUSER", USER, "resetpass", ">another"])
            .await,
        "OK"
    );
    redis.cli(&["CLIENT", "KILL", "USER", USER]).await;
    not_ready(&cluster, "redis", "WRONGPASS").await;
    let reason = not_ready(&cluster, "lease", "WRONGPASS").await;
    assert!(!reason.contains("reached"), "{reason}");
    assert_refused(&cluster, &["WRONGPASS", "redis.url"]).await;
    assert_eq!(
        warnings(&cluster, "redis refuses the connection"),
        1,
        "{}",
        cluster.log(0)
    );

    assert_eq!(
        redis.cli(&["ACL", "SETUSER", USER, ">PASSWORD"]).await,
        "OK"
    );
    ready(&cluster, &[]).await;
    assert_eq!(post_update(&cluster).await.status, 200);
}

/// Goal: a server that is too old is refused with its version.
/// Method: the installed server, whose program was changed to say another version.
#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let redis = Redis::start().await;
    let info = redis.cli(&["INFO", "server"]).await;
    let version = info
        .lines()
        .find_map(|line| line.trim().strip_prefix("redis_version:"));
    let version = version.expect("Redis says its version").to_owned();
    let old = format!("6{}", &version[1..]);

    let installed = Path::new("/usr/bin/redis-server");
    let mut program = std::fs::read(installed).expect("redis-server is installed");
    let digits = version.as_bytes();
    let mut at = 0;
    while let Some(found) = program[at..]
        .windows(digits.len())
        .position(|bytes| bytes == digits)
    {
        program[at + found] = b'6';
        at += found + digits.len();
    }
    let (_directory, folder) = scratch();
    let changed = folder.join("redis-server");
    std::fs::write(&changed, program).expect("the folder is the test's own");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&changed, executable).expect("the file is the test's own");

    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = socket.local_addr().expect("it is bound").port().to_string();
    drop(socket);
    let mut server = tethered(changed.to_str().expect("a plain path"))
        .args([
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(&folder)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) is installed");
    let url = format!("redis://127.0.0.1:{port}");
    let said = eventually("the old server answers", async || {
        let said = start_says(&url).await;
        (!said.contains("ConnectionRefused")).then_some(said)
    })
    .await;
    let _ = server.kill();
    let _ = server.wait();
    assert!(
        said.contains(&format!(
            "is Redis {old}; vigie needs Redis 7.0 or Valkey 7.2"
        )),
        "{said}"
    );
}

/// Goal: a server that drops data when it is full is reported: at the start, in `/readyz`, by the doctor. The node works.
/// Method: another policy before the start; `noeviction` while the node runs.
#[tokio::test]
async fn a_server_that_evicts_is_reported() {
    let redis = Redis::start().await;
    let set = async |policy: &str| {
        redis
            .cli(&["CONFIG", "SET", "maxmemory-policy", policy])
            .await
    };
    assert_eq!(set("allkeys-lru").await, "OK");
    let cluster = quick().memory().on_redis(&redis).start().await;
    ready(&cluster, &["eviction"]).await;
    let reason = failure(&readyz(&cluster).await, "eviction").expect("it fails");
    assert!(
        reason.contains("allkeys-lru") && reason.contains("noeviction"),
        "{reason}"
    );
    assert_eq!(
        warnings(&cluster, "maxmemory-policy is allkeys-lru"),
        1,
        "{}",
        cluster.log(0)
    );

    let (code, said) = vigie_says(&["doctor", "--json"], &cluster.env_of("doctor")).await;
    let found: Value = serde_json::from_str(&said).expect("one object");
    assert_eq!((code, &found["clean"]), (1, &json!(false)), "{said}");
    assert_eq!(found["settings"][0]["problem"], "evicting", "{said}");
    let (code, said) = vigie_says(&["doctor", "--repair"], &cluster.env_of("doctor")).await;
    assert!(
        code == 1 && said.contains("set maxmemory-policy noeviction"),
        "{said}"
    );

    assert_eq!(set("noeviction").await, "OK");
    ready(&cluster, &[]).await;
    let (code, said) = vigie_says(&["doctor"], &cluster.env_of("doctor")).await;
    assert!(code == 0 && said.starts_with("clean: "), "{said}");
}

/// Goal: the rights in `config/README.md` are enough for everything that nodes, the doctor and `vigie inspect` do.
/// Method: a user with these alone; users who connect, watch, are updated, matched, deleted; a node that dies with
/// connections, one that is restarted; every view; then Redis's log of what it denied.
#[tokio::test]
async fn the_rights_in_readme_are_enough() {
    let redis = with_user(&["ACL LOG RESET"]).await;
    let postgres = Postgres::start().await;
    let builder = on_user(quick(), &redis)
        .nodes(3)
        .partitions(2)
        .on_postgres(&postgres);
    let mut cluster = builder.env("VIGIE_NODE__AUDIT", "1s").start().await;

    let mut ada = cluster.connect(0, ADA).await;
    let mut bob = cluster.connect(1, BOB).await;
    let mut guest = cluster.connect_guest(1).await;
    guest.watch(ADA).await;
    cluster
        .notify_profile(0, ADA, json!({ "userID": ADA, "username": "ada" }))
        .await;
    guest.next_event("profile-update").await;
    let event = json!({ "event": "hello", "data": 1 });
    assert_eq!(
        cluster
            .post(1, &format!("/api/v1/users/{ADA}/events"), &event)
            .await
            .status,
        200
    );
    ada.next_event("hello").await;
    guest.unwatch(ADA).await;
    for client in [&ada, &bob] {
        assert_eq!(
            client.emit_ack("join-matchmaking", Value::Null).await["ok"],
            true
        );
    }
    ada.next_event("match-found").await;
    bob.next_event("match-found").await;
    assert_eq!(
        ada.emit_ack("join-matchmaking", Value::Null).await["ok"],
        true
    );
    assert_eq!(
        ada.emit_ack("leave-matchmaking", Value::Null).await["ok"],
        true
    );
    for path in [
        "nodes",
        "presence",
        "presence/42",
        "matchmaking",
        "admin/users/42",
    ] {
        assert_eq!(
            cluster.get(1, &format!("/api/v1/{path}")).await.status,
            200,
            "{path}"
        );
    }

    let _eve = cluster.connect_with(2, Connecting::user(EVE)).await;
    cluster.wait_for_refcount(EVE, 1).await;
    for words in [
        "inspect",
        "inspect online",
        "inspect user 42",
        "inspect nodes",
        "inspect topics",
        "inspect queue",
        "doctor",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let (code, said) = vigie_says(&words, &cluster.env_of("operator")).await;
        assert_eq!(code, 0, "{words:?}: {said}");
    }
    cluster.kill(2);
    cluster.wait_for_refcount(EVE, 0).await;
    cluster.stop(1).await;
    cluster.start_again(1).await;

    let revoke = json!({ "revoke": true });
    assert_eq!(cluster.tell(BOB, "disconnect", &revoke).await.status, 200);
    assert_eq!(
        cluster
            .tell(ADA, "account-deleted", &json!({}))
            .await
            .status,
        200
    );
    ada.next_args("account-deleted").await;
    cluster.wait_for_refcount(ADA, 0).await;
    let (code, said) = vigie_says(&["doctor", "--repair"], &cluster.env_of("operator")).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        redis.cli(&["ACL", "LOG"]).await,
        "",
        "Redis denied something"
    );
}

/// Goal: with the right that `config/README.md` adds for a Redis Cluster they are enough there.
/// Method: a user with these alone on three masters; a node starts, a slot moves, users connect and are updated.
#[tokio::test]
async fn the_rights_in_readme_are_enough_in_a_cluster() {
    let mut servers = Servers::split_cluster(3, None).await;
    let readme = readme();
    let added = readme.split_once("in a Cluster also `");
    let (added, _) = added
        .and_then(|(_, rest)| rest.split_once('`'))
        .expect("config/README.md names it");
    for server in servers.all() {
        let line = format!("{} {added}", readme_line());
        assert_eq!(server.cli(&typed(&line)).await, "OK", "{line}");
        server.cli(&["ACL", "LOG", "RESET"]).await;
    }
    servers.log_in_as(USER, PASSWORD);
    let cluster = quick().nodes(2).partitions(6).on_servers(servers);
    let cluster = cluster.start().await;
    let watcher = cluster.connect_guest(1).await;
    for user in 1..=6 {
        cluster.connect(0, user).await;
        watcher.watch(user).await;
        cluster.notify_profile(0, user, profile(user, "x")).await;
    }
    let slot = cluster.servers().slot(&cluster.tag(0)).await;
    let to = (cluster.servers().owner(slot).await + 1) % 3;
    cluster.servers().move_slot(slot, to, async {}).await;
    // Of partition 0, like the slot.
    let body = json!({ "user": profile(6, "y") });
    eventually("the partition is served", async || {
        let answer = cluster.tell(6, "profile-update", &body).await;
        (answer.status == 200).then_some(())
    })
    .await;
    for server in cluster.servers().all() {
        assert_eq!(server.cli(&["ACL", "LOG"]).await, "");
    }
}
