//! Secrets stay secret: whatever happens to them, nobody finds them in what the hub says.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    ADA, BOB, Cluster, Connecting, Postgres, Redis, eventually, now_seconds, project_root, run,
    sign, vigie,
};

/// Every secret of this file begins so, and nothing else does.
const MARK: &str = "SESAME";

const API_KEY: &str = "SESAME-api-key-of-default";
const BILLING_KEY: &str = "SESAME-api-key-of-billing";
const TOKEN_SECRET: &str = "SESAME-secret-of-tokens-which-is-long-enough";
const PREVIOUS_SECRET: &str = "SESAME-secret-of-tokens-before-it-was-changed";
const REDIS_PASSWORD: &str = "SESAME-password-of-redis";
const POSTGRES_PASSWORD: &str = "SESAME-password-of-postgres";

/// A wrong key: it may be nearly right, or right elsewhere, so it is a secret, too.
const WRONG: &str = "SESAME-which-is-wrong";

/// The libraries that log, by their targets: those that are kept quiet say all that they can only where they are named.
const LIBRARIES: [&str; 16] = [
    "fred",
    "redis_protocol",
    "tokio_postgres",
    "deadpool",
    "deadpool_postgres",
    "refinery_core",
    "socketioxide",
    "engineioxide",
    "tungstenite",
    "tokio_tungstenite",
    "hyper",
    "hyper_util",
    "axum",
    "tower_http",
    "rustls",
    "jsonwebtoken",
];

/// Everything that the hub has said so far, and what must not be in it.
#[derive(Default)]
struct Said {
    texts: Vec<(String, String)>,
    tokens: Vec<String>,
}

impl Said {
    fn hear(&mut self, what: &str, text: impl Into<String>) {
        self.texts.push((what.to_owned(), text.into()));
    }

    /// A token that is about to be used: nobody is to read it anywhere.
    fn token(&mut self, claims: &Value, secret: &str) -> String {
        let token = sign(claims, secret);
        self.tokens.push(token.clone());
        token
    }

    /// Fails the test where a secret is in anything that was said, also as bytes, or escaped.
    fn assert_harmless(&self) {
        let bytes: Vec<String> = MARK.bytes().map(|byte| byte.to_string()).collect();
        let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut wanted = vec![MARK.to_owned(), bytes.join(", "), bytes.join(","), hex];
        for token in &self.tokens {
            let signature = token.rsplit('.').next().expect("a token has a signature");
            wanted.push(signature.to_owned());
            let bytes: Vec<String> = token
                .bytes()
                .take(40)
                .map(|byte| byte.to_string())
                .collect();
            wanted.push(bytes.join(", "));
        }
        let mut found = Vec::new();
        for (what, text) in &self.texts {
            for line in text.lines() {
                let leak = wanted
                    .iter()
                    .find(|wanted| line.to_lowercase().contains(&wanted.to_lowercase()));
                if let Some(leak) = leak {
                    let line: String = line.chars().take(600).collect();
                    found.push(format!("{what}: {leak:?} in {line}"));
                }
            }
        }
        assert!(
            found.is_empty(),
            "{} leaks:\n{}",
            found.len(),
            found.join("\n")
        );
    }
}

/// Redis and Postgres with passwords, and the files that hold some of the secrets.
struct Site {
    redis: Redis,
    postgres: Postgres,
    folder: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let set = ["CONFIG", "SET", "requirepass", REDIS_PASSWORD];
        assert_eq!(redis.cli(&set).await, "OK");
        let postgres = Postgres::start_alone().await;
        postgres.demand_password("vigie", POSTGRES_PASSWORD).await;
        let folder = tempfile::tempdir().expect("the temporary directory is writable");
        let site = Self {
            redis,
            postgres,
            folder,
        };
        site.file("api-keys", &format!("billing={BILLING_KEY}\n"));
        site
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the directory is the test's own");
        path.to_str().expect("a plain path").to_owned()
    }

    fn redis_url(&self, password: &str) -> String {
        let url = self.redis.url();
        url.replace("://", &format!("://default:{password}@"))
    }

    fn postgres_url(&self, password: &str) -> String {
        let url = self.postgres.url();
        url.replace("postgres@", &format!("vigie:{password}@"))
    }

    /// `redis-cli` with the password, which is not shown to anybody.
    async fn redis_cli(&self, arguments: &[&str]) -> String {
        let with_password = ["--no-auth-warning", "-a", REDIS_PASSWORD];
        self.redis.cli(&[&with_password, arguments].concat()).await
    }

    /// The settings of a node, with every secret that there is.
    fn env(&self) -> Vec<(String, String)> {
        let keys = self.folder.path().join("api-keys");
        let mut env = vec![
            ("VIGIE_ENGINE", "redis".to_owned()),
            ("VIGIE_REDIS__URL", self.redis_url(REDIS_PASSWORD)),
            ("VIGIE_POSTGRES__URL", self.postgres_url(POSTGRES_PASSWORD)),
            ("VIGIE_AUTH__SECRET", TOKEN_SECRET.to_owned()),
            ("VIGIE_INTERNAL__API_KEY", API_KEY.to_owned()),
            ("VIGIE_INTERNAL__API_KEYS_FILE", keys.display().to_string()),
            ("VIGIE_LOG__LEVEL", loudest()),
        ];
        if has_setting("previous_secret") {
            env.push(("VIGIE_AUTH__PREVIOUS_SECRET", PREVIOUS_SECRET.to_owned()));
            env.push((
                "VIGIE_AUTH__PREVIOUS_UNTIL",
                "2100-01-01T00:00:00Z".to_owned(),
            ));
        }
        let env = env
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        env.collect()
    }
}

/// Whether there is a setting of this name.
fn has_setting(name: &str) -> bool {
    let file = project_root().join("config/vigie.toml");
    let text = std::fs::read_to_string(file).expect("the settings are listed");
    let mut lines = text.lines().map(|line| line.trim_start_matches("# "));
    lines.any(|line| line.starts_with(&format!("{name} = ")))
}

/// Everything, of everybody.
fn loudest() -> String {
    let libraries = LIBRARIES.map(|library| format!("{library}=trace"));
    format!("trace,{}", libraries.join(","))
}

/// Goal: no secret and no token is in what the hub says: in its logs at their loudest, in either format, in metrics, in
/// answers, in its process's arguments.
/// Method: a node on a Redis and a Postgres with passwords lives through what happens: sockets and calls with right and
/// wrong keys and tokens, a Redis and a Postgres that refuse the password, and take it again.
#[tokio::test]
async fn no_secret_is_in_what_a_node_says() {
    let site = Site::start().await;
    for format in ["pretty", "json"] {
        let mut said = Said::default();
        let mut builder = Cluster::builder().memory().without_lookouts();
        for (name, value) in site.env() {
            builder = builder.env(&name, &value);
        }
        let cluster = builder.env("VIGIE_LOG__FORMAT", format).start().await;
        use_keys(&cluster, &mut said).await;
        use_tokens(&cluster, &mut said).await;
        for path in ["/metrics", "/admin"] {
            let page = cluster.request(0, Method::GET, path);
            said.hear(path, cluster.send(page).await.text);
        }
        redis_refuses_the_password(&site, &cluster, &mut said).await;
        postgres_refuses_the_password(&site, &cluster, &mut said).await;
        said.hear("arguments", cluster.command_line(0));
        said.hear(&format!("log, {format}"), cluster.log(0));
        cluster.stop(0).await;
        said.hear("log at the end", cluster.log(0));
        for library in ["fred", "tokio_postgres", "tungstenite", "vigie"] {
            assert!(cluster.log(0).contains(library), "{library} says something");
        }
        said.assert_harmless();
    }
}

async fn use_keys(cluster: &Cluster, said: &mut Said) {
    let put = json!({ "username": "ada" });
    for key in [API_KEY, BILLING_KEY, WRONG, "SESAME-api-key-of-defaul"] {
        for user in [ADA, BOB] {
            let path = format!("/api/v1/users/{user}");
            let request = cluster.request(0, Method::PUT, &path).json(&put);
            let answer = cluster.send(request.bearer_auth(key)).await;
            let right = [API_KEY, BILLING_KEY].contains(&key);
            assert_eq!(answer.status, if right { 200 } else { 401 }, "{answer:?}");
            said.hear("an answer to a key", format!("{answer:?}"));
        }
        for path in ["/metrics", "/api/v1/openapi.json", "/nothing"] {
            let request = cluster.request(0, Method::GET, path);
            let answer = cluster.send(request.header("x-api-key", key)).await;
            said.hear("an answer to a key", format!("{answer:?}"));
        }
        let request = cluster.request(0, Method::POST, "/api/v1/notifications");
        let answer = cluster.send(request.bearer_auth(key).body(key)).await;
        assert!(answer.status >= 400, "{answer:?}");
    }
}

async fn use_tokens(cluster: &Cluster, said: &mut Said) {
    let until = |seconds: i64| now_seconds() + seconds;
    let good = said.token(&json!({ "sub": "42", "exp": until(3600) }), TOKEN_SECRET);
    let next = said.token(&json!({ "sub": "42", "exp": until(7200) }), TOKEN_SECRET);
    let bad = [
        said.token(&json!({ "sub": "42", "exp": until(-3600) }), TOKEN_SECRET),
        said.token(&json!({ "sub": "42", "exp": until(3600) }), WRONG),
        said.token(&json!({ "sub": "-1", "exp": until(3600) }), TOKEN_SECRET),
        said.token(&json!({ "sub": "42" }), TOKEN_SECRET),
        format!("{WRONG}.is.no-token"),
        WRONG.to_owned(),
    ];
    for transports in [&["websocket"][..], &["polling"], &["polling", "websocket"]] {
        let opening = |token: &str| Connecting::token(token).transports(transports);
        let tab = cluster.connect_with(0, opening(&good)).await;
        if transports.len() > 1 {
            // The library's own library for WebSockets has its say about sessions that move.
            eventually("the session moves", async || {
                cluster.log(0).contains("tungstenite").then_some(())
            })
            .await;
        }
        tab.watch(BOB).await;
        let answer = tab
            .emit_ack("refresh-token", json!({ "token": next }))
            .await;
        assert_eq!(answer["ok"], true, "{answer}");
        for token in &bad {
            let message = cluster.refusal(0, opening(token)).await;
            said.hear("a refused socket", message);
            let answer = tab
                .emit_ack("refresh-token", json!({ "token": token }))
                .await;
            assert_eq!(answer["ok"], false, "{answer}");
            said.hear("a refused refresh", answer.to_string());
            let answer = tab.emit_ack(token, json!({ "token": token })).await;
            assert_eq!(answer["ok"], false, "{answer}");
        }
        tab.close().await;
    }
    for token in bad.iter().chain([&good]) {
        for path in ["/api/v1/users/42", "/api/v1/me/friends/7"] {
            let method = match path.ends_with('7') {
                true => Method::PUT,
                false => Method::GET,
            };
            let request = cluster.request_as(None, 0, method, path);
            let answer = cluster.send(request.bearer_auth(token)).await;
            assert_eq!(answer.status == 200, token == &good, "{answer:?}");
            said.hear("an answer to a token", format!("{answer:?}"));
        }
    }
}

async fn readiness(cluster: &Cluster, wanted: u16, said: &mut Said) {
    let texts = eventually("readiness changes", async || {
        let answer = cluster.get_public(0, "/readyz").await;
        (answer.status == wanted).then_some(answer.text)
    })
    .await;
    said.hear("/readyz", texts);
}

async fn redis_refuses_the_password(site: &Site, cluster: &Cluster, said: &mut Said) {
    let set = ["CONFIG", "SET", "requirepass", WRONG];
    assert_eq!(site.redis_cli(&set).await, "OK");
    let with_other = ["--no-auth-warning", "-a", WRONG];
    for kind in ["normal", "pubsub"] {
        let kill = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
        site.redis.cli(&[&with_other[..], &kill].concat()).await;
    }
    readiness(cluster, 503, said).await;
    let request = cluster.request(0, Method::POST, "/api/v1/users/42/disconnect");
    let answer = cluster.send(request.bearer_auth(API_KEY)).await;
    answer.assert_problem(503);
    said.hear("an answer without Redis", format!("{answer:?}"));
    let back = ["CONFIG", "SET", "requirepass", REDIS_PASSWORD];
    let answer = site.redis.cli(&[&with_other[..], &back].concat()).await;
    assert_eq!(answer, "OK");
    readiness(cluster, 200, said).await;
}

async fn postgres_refuses_the_password(site: &Site, cluster: &Cluster, said: &mut Said) {
    let change = |password: &str| format!("ALTER ROLE vigie PASSWORD '{password}'");
    site.postgres.psql(&change(WRONG)).await;
    let end =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'vigie'";
    site.postgres.psql(end).await;
    let refused = eventually("Postgres is asked, and refuses", async || {
        let answer = cluster.get_public(0, "/api/v1/users/42").await;
        let is_refused = cluster.log(0).contains("password authentication failed");
        (answer.status == 503 && is_refused).then_some(answer)
    })
    .await;
    said.hear("an answer without Postgres", format!("{refused:?}"));
    let ready = cluster.get_public(0, "/readyz").await;
    said.hear("/readyz without Postgres", ready.text);
    site.postgres.psql(&change(POSTGRES_PASSWORD)).await;
    eventually("Postgres takes the password again", async || {
        let answer = cluster.get_public(0, "/api/v1/users/42").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Goal: the commands keep secrets, too, when they work and when they do not.
/// Method: every command with right settings, with passwords that are refused, and with settings that cannot be read,
/// each of which has a secret in what is wrong with it.
#[tokio::test]
async fn no_secret_is_in_what_commands_say() {
    let site = Site::start().await;
    let mut said = Said::default();
    let commands = [
        &["check-config"][..],
        &["inspect"],
        &["inspect", "--json"],
        &["inspect", "user", "42"],
        &["doctor"],
        &["doctor", "--json"],
        &["migrate"],
        &["types"],
    ];
    for arguments in commands {
        let succeeded = hear(&mut said, arguments, &site.env()).await;
        assert!(succeeded, "{arguments:?}");
    }
    let broken_file = site.file("broken.toml", &format!("[auth]\nsecret = \"{WRONG}\nx"));
    let typo_file = site.file("typo.toml", &format!("[auth]\nsecrte = \"{WRONG}\""));
    let type_file = site.file(
        "type.toml",
        &format!("[internal]\napi_keys = {{ \"{WRONG}\" = 1 }}"),
    );
    let faults = [
        ("VIGIE_REDIS__URL", site.redis_url(WRONG)),
        ("VIGIE_POSTGRES__URL", site.postgres_url(WRONG)),
        ("VIGIE_REDIS__URL", WRONG.to_owned()),
        ("VIGIE_REDIS__URL", format!("redis://:{WRONG}@host:port")),
        ("VIGIE_REDIS__URL", format!("redis://:{WRONG}@")),
        ("VIGIE_REDIS__URL", format!("{WRONG}://host")),
        (
            "VIGIE_REDIS__URL",
            format!("redis://127.0.0.1:1?password={WRONG}"),
        ),
        ("VIGIE_POSTGRES__URL", WRONG.to_owned()),
        (
            "VIGIE_POSTGRES__URL",
            format!("postgres://a:{WRONG}@host:port/d"),
        ),
        (
            "VIGIE_POSTGRES__URL",
            format!("postgres://a:p@ss?{WRONG}=1@127.0.0.1:1/d"),
        ),
        (
            "VIGIE_POSTGRES__URL",
            format!("postgres://a:{WRONG}@127.0.0.1:1/d?sslmode=x"),
        ),
        ("VIGIE_INTERNAL__API_KEYS", WRONG.to_owned()),
        ("VIGIE_INTERNAL__API_KEYS", format!("a={WRONG},b={WRONG}")),
        ("VIGIE_INTERNAL__API_KEYS", format!("{WRONG}=")),
        ("VIGIE_AUTH__SECRET_FILE", "/nowhere".to_owned()),
    ];
    for (name, value) in faults {
        let mut env = site.env();
        env.retain(|(other, _)| !other.starts_with(name));
        env.push((name.to_owned(), value));
        for arguments in [
            &["check-config"][..],
            &["serve"],
            &["doctor"],
            &["inspect"],
            &["migrate"],
        ] {
            // A node whose Postgres is away starts all the same, and would not end.
            if arguments != ["serve"] || name != "VIGIE_POSTGRES__URL" {
                hear(&mut said, arguments, &env).await;
            }
        }
    }
    for file in [broken_file, typo_file, type_file] {
        let arguments = ["check-config", "--config", &file];
        assert!(!hear(&mut said, &arguments, &[]).await, "{file}");
    }
    let in_file = format!(
        "[auth]\nsecret = \"{TOKEN_SECRET}\"\n[redis]\nurl = \"{}\"",
        site.redis_url(REDIS_PASSWORD)
    );
    let in_file = site.file("good.toml", &in_file);
    let arguments = ["check-config", "--config", &in_file];
    assert!(hear(&mut said, &arguments, &[]).await);
    said.assert_harmless();
}

/// Runs a command and keeps what it says; returns whether it went well.
async fn hear(said: &mut Said, arguments: &[&str], env: &[(String, String)]) -> bool {
    let output = run(vigie(arguments, env)).await;
    for text in [&output.stdout, &output.stderr] {
        said.hear(&format!("{arguments:?}"), String::from_utf8_lossy(text));
    }
    output.status.success()
}
