//! The commands, completions and the manual, and the settings with which the hub refuses to start.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::Value;

use crate::harness::{
    ADA, Cluster, Connecting, NODE_KEY, Redis, SECRET, run, scratch, tethered, vigie,
};

/// Runs `vigie` to its end.
async fn run_vigie(arguments: &[&str], env: &[(&str, &str)]) -> (Output, String) {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let env: Vec<(String, String)> = env.iter().map(own).collect();
    let output = run(vigie(arguments, &env)).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let said = said.into_owned();
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    (output, said)
}

/// Settings with which a node on Redis would start, if there were a Redis.
fn complete() -> Vec<(&'static str, &'static str)> {
    vec![
        ("VIGIE_ENGINE", "redis"),
        ("VIGIE_REDIS__URL", "redis://127.0.0.1:1"),
        ("VIGIE_AUTH__SECRET", SECRET),
        ("VIGIE_INTERNAL__API_KEY", NODE_KEY),
        ("VIGIE_HTTP__LISTEN", "127.0.0.1:0"),
        ("VIGIE_INTERNAL__LISTEN", "127.0.0.1:0"),
    ]
}

fn without<'a>(name: &str) -> Vec<(&'a str, &'a str)> {
    complete()
        .into_iter()
        .filter(|(other, _)| *other != name)
        .collect()
}

fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut env = without(name);
    env.push((name, value));
    env
}

/// Goal: `check-config` accepts good settings without needing Redis.
/// Method: complete settings, and none at all.
#[tokio::test]
async fn check_config_accepts_good_settings() {
    let mut with_names = without("VIGIE_INTERNAL__API_KEY");
    let named = format!("billing={NODE_KEY}");
    with_names.push(("VIGIE_INTERNAL__API_KEYS", &named));
    for env in [complete(), vec![], with_names] {
        let (output, said) = run_vigie(&["check-config"], &env).await;
        assert!(output.status.success(), "{env:?}: {said}");
        let shown = said.contains("api_keys = [\"billing=***\"]");
        assert_eq!(
            shown,
            env.contains(&("VIGIE_INTERNAL__API_KEYS", &named)),
            "{said}"
        );
        assert!(
            !said.contains(SECRET) && !said.contains(NODE_KEY),
            "secrets stay secret: {said}"
        );
    }
}

/// Goal: bad settings are refused, by `check-config` and by `serve`, in words that name the key.
/// Method: one fault at a time.
#[tokio::test]
async fn bad_settings_are_refused_by_name() {
    let faults = [
        (without("VIGIE_AUTH__SECRET"), "auth"),
        (without("VIGIE_INTERNAL__API_KEY"), "internal.api_key"),
        (
            vec![
                ("VIGIE_HTTP__LISTEN", "0.0.0.0:0"),
                ("VIGIE_INTERNAL__LISTEN", "127.0.0.1:0"),
            ],
            "auth",
        ),
        (
            vec![
                ("VIGIE_INTERNAL__LISTEN", "0.0.0.0:0"),
                ("VIGIE_AUTH__SECRET", SECRET),
                ("VIGIE_HTTP__LISTEN", "127.0.0.1:0"),
            ],
            "internal.api_key",
        ),
        (with("VIGIE_NODE__LEESE", "6s"), "leese"),
        (with("VIGIE_NO_SUCH_SECTION__KEY", "1"), "no_such_section"),
        (with("VIGIE_ENGINE", "paper"), "engine"),
        (with("VIGIE_HTTP__LISTEN", "nowhere"), "http.listen"),
        (with("VIGIE_REDIS__PARTITIONS", "0"), "redis.partitions"),
        (with("VIGIE_REDIS__PARTITIONS", "many"), "partitions"),
        (
            with("VIGIE_PRESENCE__OFFLINE_GRACE", "soon"),
            "offline_grace",
        ),
        (with("VIGIE_PRESENCE__AUDIENCE", "nobody"), "audience"),
        (with("VIGIE_NODE__HEARTBEAT", "60s"), "node.heartbeat"),
        (with("VIGIE_LIMITS__HTTP_BODY", "much"), "http_body"),
        (
            vec![
                ("VIGIE_HTTP__LISTEN", "127.0.0.1:8181"),
                ("VIGIE_INTERNAL__LISTEN", "127.0.0.2:8181"),
            ],
            "internal.listen",
        ),
        (with("VIGIE_INTERNAL__API_KEYS", "k3y"), "internal.api_keys"),
        (
            with("VIGIE_INTERNAL__API_KEYS", "a=b,a=c"),
            "internal.api_keys",
        ),
    ];
    for (env, key) in faults {
        for command in ["check-config", "serve"] {
            let (output, said) = run_vigie(&[command], &env).await;
            assert!(
                !output.status.success(),
                "{command} with {env:?} went well: {said}"
            );
            assert!(
                said.to_lowercase().contains(key),
                "{command} with {env:?} does not name {key}: {said}"
            );
        }
    }
}

/// Goal: `--config FILE` is read, the environment goes over it, and its unknown keys are errors.
/// Method: a file with one good and one with a misspelt key.
#[tokio::test]
async fn a_file_can_hold_the_settings() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let file = directory.path().join("hub.toml");
    let path = file.to_str().expect("a plain path");
    let check = async |text: &str, env: &[(&str, &str)]| {
        std::fs::write(&file, text).expect("the directory is the test's own");
        run_vigie(&["check-config", "--config", path], env).await
    };
    let (output, said) = check("[presence]\noffline_grace = \"3s\"\n", &[]).await;
    assert!(output.status.success(), "{said}");
    let (output, said) = check("[presence]\noffline_grase = \"3s\"\n", &[]).await;
    assert!(
        !output.status.success() && said.contains("offline_grase"),
        "{said}"
    );
    let (output, said) = check("[presence]\noffline_grace = \"soon\"\n", &[]).await;
    assert!(
        !output.status.success() && said.contains("offline_grace"),
        "{said}"
    );
    let over = [("VIGIE_PRESENCE__OFFLINE_GRACE", "1s")];
    let (output, said) = check("[presence]\noffline_grace = \"soon\"\n", &over).await;
    assert!(
        output.status.success(),
        "the environment goes over the file: {said}"
    );
    let (output, _) = run_vigie(&["check-config", "--config", "/no/such/file.toml"], &[]).await;
    assert!(
        !output.status.success(),
        "a file that is named must be there"
    );
}

/// Goal: `vigie token` makes a token that a hub with the same secret accepts.
/// Method: made by the command, used to connect; bad users are refused.
#[tokio::test]
async fn a_token_from_the_command_line_opens_the_door() {
    let cluster = Cluster::start_memory().await;
    let env = [("VIGIE_AUTH__SECRET", SECRET)];
    for arguments in [
        &["token", "--user", "42"][..],
        &["token", "--user", "42", "--ttl", "5m"],
    ] {
        let (output, said) = run_vigie(arguments, &env).await;
        assert!(output.status.success(), "{said}");
        let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let _tab = cluster.connect_with(0, Connecting::token(&token)).await;
        cluster.wait_until_seen(ADA).await;
    }
    for user in ["0", "-1", "ada", "9007199254740992"] {
        let (output, said) = run_vigie(&["token", "--user", user], &env).await;
        assert!(!output.status.success(), "--user {user}: {said}");
    }
}

/// Goal: `vigie types` prints the contract for TypeScript.
/// Method: both interfaces, every event of the contract.
#[tokio::test]
async fn types_are_printed() {
    let (output, said) = run_vigie(&["types"], &[]).await;
    assert!(output.status.success(), "{said}");
    let events = [
        "ClientToServerEvents",
        "ServerToClientEvents",
        "get-online-users",
        "watch-profile",
        "unwatch-profile",
        "refresh-token",
        "user-status-change",
        "profile-update",
        "game-stats-update",
        "friend-list-update",
        "match-history-update",
        "account-deleted",
        "profile-deleted",
        "token-expiring",
        "kicked",
        "exception",
    ];
    for event in events {
        assert!(said.contains(event), "no {event} in {said}");
    }
}

/// Goal: `vigie healthcheck` tells an orchestrator by its exit code whether a node is alive, or can do its work.
/// Method: a node that is well, whose Redis stands still, and that has ended; a listener on all addresses; settings that
/// name no port, or are wrong. Never an exit code but 0 and 1.
#[tokio::test]
async fn healthcheck_says_how_the_node_is() {
    let cluster = Cluster::start(1).await;
    let here = cluster.internal_url(0).trim_start_matches("http://");
    let (_, port) = here.rsplit_once(':').expect("a port");
    let check = async |arguments: &[&str], listen: &str| {
        let arguments = [&["healthcheck"], arguments].concat();
        let mut env = without("VIGIE_INTERNAL__LISTEN");
        env.push(("VIGIE_INTERNAL__LISTEN", listen));
        // A proxy of the surroundings has no part in it.
        env.push(("http_proxy", "http://127.0.0.1:1"));
        let (output, said) = run_vigie(&arguments, &env).await;
        (output.status.code(), said)
    };
    for listen in [here.to_owned(), format!("0.0.0.0:{port}")] {
        for arguments in [&[][..], &["--ready"]] {
            let (code, said) = check(arguments, &listen).await;
            assert_eq!(
                (code, said.as_str()),
                (Some(0), ""),
                "{listen} {arguments:?}"
            );
        }
    }
    cluster.redis().pause();
    let (code, said) = check(&["--ready"], here).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("answers 503") && said.contains("canary"),
        "{said}"
    );
    assert_eq!(check(&[], here).await.0, Some(0), "it is alive");
    cluster.redis().resume();

    cluster.stop(0).await;
    let (code, said) = check(&[], here).await;
    assert!(
        code == Some(1) && said.contains("cannot be reached"),
        "{said}"
    );
    for (listen, advice) in [
        ("127.0.0.1:0", "set a port"),
        ("nowhere", "internal.listen"),
    ] {
        let (code, said) = check(&[], listen).await;
        assert!(code == Some(1) && said.contains(advice), "{said}");
    }
}

/// Goal: what the command line does not know, it refuses.
/// Method: an unknown command and an unknown flag; help and version are there.
#[tokio::test]
async fn unknown_commands_are_refused() {
    for arguments in [
        &["no-such-command"][..],
        &["serve", "--no-such-flag"],
        &["token"],
    ] {
        let (output, said) = run_vigie(arguments, &[]).await;
        assert!(!output.status.success(), "{arguments:?}: {said}");
    }
    let (output, said) = run_vigie(&["--help"], &[]).await;
    assert!(
        output.status.success() && said.contains("check-config"),
        "{said}"
    );
    let (output, said) = run_vigie(&["--version"], &[]).await;
    assert!(
        output.status.success() && said.contains(env!("CARGO_PKG_VERSION")),
        "{said}"
    );
}

/// Goal: a secret on the command line, which everybody on the machine can read, is refused with what to do instead.
/// Method: URLs with a user, a password, and a password of the Sentinels; every command; the URL is not repeated.
#[tokio::test]
async fn secrets_are_not_taken_from_the_command_line() {
    for url in [
        "redis://:pa55@127.0.0.1:1",
        "redis://ada@127.0.0.1:1",
        "redis-sentinel://127.0.0.1:1?sentinelServiceName=m&sentinelPassword=pa55",
    ] {
        for command in ["serve", "check-config", "doctor", "migrate"] {
            let (output, said) = run_vigie(&[command, "--redis-url", url], &complete()).await;
            assert_eq!(output.status.code(), Some(2), "{said}");
            for advice in ["VIGIE_REDIS__URL", "redis.url_file"] {
                assert!(said.contains(advice), "{said}");
            }
            assert!(!said.contains("pa55") && !said.contains("ada"), "{said}");
        }
    }
    let plain = ["check-config", "--redis-url", "redis://127.0.0.1:1"];
    let (output, said) = run_vigie(&plain, &complete()).await;
    assert!(output.status.success(), "{said}");
}

/// Goal: files with secrets that others may read draw a warning, which says what to run; then there is none.
/// Method: a file with a secret, and settings with one in them; what is advised is done.
#[tokio::test]
async fn files_that_others_may_read_draw_a_warning() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("the directory is the test's own");
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, mode).expect("the file is ours");
        path.to_str().expect("a plain path").to_owned()
    };
    let keys = file("keys", &format!("billing={NODE_KEY}\n"));
    let settings = file("hub.toml", &format!("[auth]\nsecret = \"{SECRET}\"\n"));
    let env = [("VIGIE_INTERNAL__API_KEYS_FILE", keys.as_str())];
    let arguments = ["check-config", "--config", &settings];
    let (output, said) = run_vigie(&arguments, &env).await;
    assert!(output.status.success(), "{said}");
    for path in [&keys, &settings] {
        let advice = format!("chmod g-w,o= {path}");
        assert!(said.contains(&advice), "no {advice:?} in {said}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &advice]);
        assert!(run(command).await.status.success(), "{advice}");
    }
    let (output, said) = run_vigie(&arguments, &env).await;
    assert!(output.status.success() && !said.contains("chmod"), "{said}");
}

/// Goal: nodes that would spread users differently do not share a Redis.
/// Method: a node with two partitions joins one whose data has a single partition.
#[tokio::test]
async fn nodes_agree_on_partitions() {
    let cluster = Cluster::start(1).await;
    let env = cluster.env_of("other");
    let mut env: Vec<(&str, &str)> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    env.push(("VIGIE_REDIS__PARTITIONS", "2"));
    let (output, said) = run_vigie(&["serve"], &env).await;
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("partitions"), "it says why: {said}");
    cluster.connect(0, ADA).await;
}

/// Goal: other data in the same Redis is left alone, and two hubs with different prefixes do not
/// see each other.
/// Method: a second cluster's node under another prefix; a foreign key.
#[tokio::test]
async fn a_prefix_keeps_hubs_apart() {
    let redis = Redis::start().await;
    redis.cli(&["SET", "foreign", "untouched"]).await;
    let hub = async |prefix: &str| {
        // No Redis of its own, but that one.
        let builder = Cluster::builder().memory().on_redis(&redis);
        builder.env("VIGIE_REDIS__PREFIX", prefix).start().await
    };
    let (one, two) = (hub("one").await, hub("two").await);
    let tab = one.connect(0, ADA).await;
    assert_eq!(tab.online().await, [ADA]);
    assert_eq!(two.connect_guest(0).await.online().await, Vec::<u64>::new());
    let keys = redis.keys("*").await;
    let own = |key: &&String| key.starts_with("one:") || key.starts_with("two:");
    assert_eq!(
        keys.iter().filter(|key| !own(key)).collect::<Vec<_>>(),
        ["foreign"]
    );
    assert_eq!(redis.cli(&["SMEMBERS", "one:{0}:online"]).await, "42");
}

/// Goal: started with nothing configured, the hub says where it listens, that its key is for
/// development, and what to try next.
/// Method: only the ports are changed, since the usual ones may be taken.
#[tokio::test]
async fn starting_with_nothing_configured_explains_itself() {
    let cluster = Cluster::unconfigured().await;
    let said = cluster.log(0);
    assert!(said.contains("engine=memory"), "{said}");
    assert!(said.to_lowercase().contains("development"), "{said}");
    assert!(
        said.contains("vigie token") && said.contains("curl"),
        "what to try next: {said}"
    );
    cluster.connect_with(0, Connecting::guest()).await;
    // `vigie token` signs with the same development key.
    let (output, said) = run_vigie(&["token", "--user", "42"], &[]).await;
    assert!(output.status.success(), "{said}");
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let tab = cluster.connect_with(0, Connecting::token(&token)).await;
    let answer: Value = tab.emit_args_ack("get-online-users", vec![]).await;
    assert!(answer.is_array(), "{answer}");
}

/// Goal: shells take the completions, and complete commands, their words and their flags with them.
/// Method: bash reads its script and is asked as the Tab key asks; the others print something of their own.
#[tokio::test]
async fn shells_complete_the_command_line() {
    for (shell, mark) in [
        ("zsh", "#compdef vigie"),
        ("fish", "complete -c vigie"),
        ("elvish", "'vigie;inspect'"),
    ] {
        let (output, said) = run_vigie(&["completions", shell], &[]).await;
        assert!(
            output.status.success() && said.contains(mark),
            "{shell}: {said}"
        );
    }
    let (output, _) = run_vigie(&["completions", "bash"], &[]).await;
    let (_folder, folder) = scratch();
    let script = folder.join("vigie.bash");
    std::fs::write(&script, &output.stdout).expect("the folder is writable");
    let complete = async |words: &[&str]| {
        let ask = r#". "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vigie "$1" "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[*]}""#;
        let mut bash = tethered("bash");
        bash.args(["--norc", "-u", "-c", ask])
            .arg(&script)
            .args(words);
        let output = run(bash).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(complete(&["vigie", "ins"]).await, "inspect");
    assert_eq!(complete(&["vigie", "inspect", "to"]).await, "topics");
    assert_eq!(complete(&["vigie", "token", "--us"]).await, "--user");
    assert_eq!(complete(&["vigie", "--engine", "r"]).await, "redis");
}

/// Goal: there is a page of the manual for the program and for every command. Method: each command that a page names has a
/// page, with a name, a synopsis and a description.
#[tokio::test]
async fn every_command_has_a_page_of_the_manual() {
    let mut pages = vec![vec!["man".to_owned()]];
    let mut read = 0;
    while let Some(words) = pages.pop() {
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let (output, page) = run_vigie(&arguments, &[]).await;
        assert!(output.status.success(), "{words:?}: {page}");
        let name = [&["vigie"], &arguments[1..]].concat().join("-");
        for part in [
            format!(".TH {name} 1"),
            ".SH SYNOPSIS".to_owned(),
            ".SH DESCRIPTION".to_owned(),
        ] {
            assert!(
                page.contains(&part),
                "{part} is not in the page of {words:?}:\n{page}"
            );
        }
        let begin = format!("{}\\-", name.replace('-', "\\-"));
        let named = page
            .lines()
            .filter_map(|line| line.strip_prefix(&begin)?.strip_suffix("(1)"));
        for command in named.filter(|command| !command.starts_with("help")) {
            pages.push([&words[..], &[command.replace("\\-", "-")]].concat());
        }
        read += 1;
    }
    assert!(read >= 15, "{read} pages");
    let (output, said) = run_vigie(&["man", "dance"], &[]).await;
    assert!(
        output.status.code() == Some(2) && said.contains("dance"),
        "{said}"
    );
}
