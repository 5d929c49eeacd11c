//! Encrypted connections to Redis and Postgres: to whom they lead, and to whom they do not.

use serde_json::json;

use crate::harness::{
    ADA, Authority, Builder, Cluster, NODE_KEY, Postgres, Redis, SECRET, run, vigie,
};

/// Runs `vigie` with these settings, which must fail; returns what it says.
async fn refusal(command: &str, env: &[(&str, &str)]) -> String {
    let always = [
        ("VIGIE_AUTH__SECRET", SECRET),
        ("VIGIE_INTERNAL__API_KEY", NODE_KEY),
        ("VIGIE_HTTP__LISTEN", "127.0.0.1:0"),
        ("VIGIE_INTERNAL__LISTEN", "127.0.0.1:0"),
    ];
    let env: Vec<(String, String)> = always
        .iter()
        .chain(env)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let output = run(vigie(&[command], &env)).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{env:?}: {said}");
    said
}

async fn refused_redis(url: &str, ca_file: Option<&str>) -> String {
    let mut env = vec![("VIGIE_ENGINE", "redis"), ("VIGIE_REDIS__URL", url)];
    env.extend(ca_file.map(|file| ("VIGIE_REDIS__CA_FILE", file)));
    refusal("serve", &env).await
}

async fn refused_postgres(url: &str) -> String {
    refusal("migrate", &[("VIGIE_POSTGRES__URL", url)]).await
}

fn encrypted(redis: &Redis) -> String {
    format!("rediss://127.0.0.1:{}", redis.encrypted_port())
}

/// Two nodes that have no Redis of their own.
fn two_nodes() -> Builder {
    Cluster::builder().memory().nodes(2)
}

/// Updates and presence reach from one node to the other.
async fn assert_fan_out(cluster: &Cluster) {
    let mut guest = cluster.connect_guest(1).await;
    guest.watch(ADA).await;
    let tab = cluster.connect(0, ADA).await;
    let profile = json!({ "userID": ADA, "username": "ada" });
    let revision = cluster.notify_profile(0, ADA, profile.clone()).await;
    let told = guest.next_event("profile-update").await;
    assert_eq!(told, json!({ "user": profile, "revision": revision }));
    tab.close().await;
}

/// Goal: a hub works over encrypted connections to a Redis whose certificate its own authority has signed.
/// Method: two nodes; an update and presence from one to the other. Every connection of theirs is on the encrypted port.
#[tokio::test]
async fn a_hub_works_over_encrypted_redis() {
    let authority = Authority::new();
    let redis = Redis::start_encrypted(&authority.sign("127.0.0.1")).await;
    let cluster = two_nodes()
        .env("VIGIE_ENGINE", "redis")
        .env("VIGIE_REDIS__URL", &encrypted(&redis))
        .env("VIGIE_REDIS__CA_FILE", &authority.file())
        .start()
        .await;
    assert_fan_out(&cluster).await;
    let clients = redis.lines(&["CLIENT", "LIST"]).await;
    let own = format!(" laddr=127.0.0.1:{} ", redis.encrypted_port());
    let (own, others): (Vec<_>, Vec<_>) = clients.iter().partition(|line| line.contains(&own));
    assert!(own.len() >= 4, "two connections of each node: {clients:#?}");
    let is_operator = |line: &&String| line.contains("cmd=client");
    assert!(others.iter().all(is_operator), "{others:#?}");
}

/// Goal: a Redis that does not prove who it is is not spoken to, and the error says what to do.
/// Method: an authority that is not trusted (one of the same name, too), another host, a certificate that has expired.
#[tokio::test]
async fn a_redis_that_does_not_prove_who_it_is_is_refused() {
    let authority = Authority::new();
    let trusted = authority.file();
    let good = Redis::start_encrypted(&authority.sign("127.0.0.1")).await;
    let elsewhere = Redis::start_encrypted(&authority.sign("redis.example")).await;
    let expired = Redis::start_encrypted(&authority.sign_expired("127.0.0.1")).await;
    let namesake = Authority::new();
    let namesake = namesake.file();
    let of_cluster = encrypted(&elsewhere).replace("rediss", "rediss-cluster");
    for (url, ca_file, advice) in [
        (encrypted(&good), Some(&namesake), "redis.ca_file"),
        (encrypted(&good), None, "redis.ca_file"),
        (encrypted(&elsewhere), Some(&trusted), "for another host"),
        (of_cluster, Some(&trusted), "for another host"),
        (encrypted(&expired), Some(&trusted), "has expired"),
    ] {
        let said = refused_redis(&url, ca_file.map(String::as_str)).await;
        let says = said.contains("does not prove who it is") && said.contains(advice);
        assert!(says, "{url}: {said}");
    }
    for redis in [&good, &elsewhere, &expired] {
        assert_eq!(redis.keys("*").await, Vec::<String>::new());
    }
    // The one whose certificate is right is spoken to: nothing else was wrong.
    let cluster = two_nodes()
        .env("VIGIE_ENGINE", "redis")
        .env("VIGIE_REDIS__URL", &encrypted(&good))
        .env("VIGIE_REDIS__CA_FILE", &trusted)
        .start()
        .await;
    cluster.connect(0, ADA).await;
}

/// Goal: whoever mixes up encrypted and plain ports is told so, and a file that is no list of certificates is refused
/// before anybody connects.
/// Method: each port by the URL of the other; files that are none, with `check-config`, too.
#[tokio::test]
async fn mistakes_about_encryption_are_explained() {
    let authority = Authority::new();
    let redis = Redis::start_encrypted(&authority.sign("127.0.0.1")).await;
    let plain_to_encrypted = encrypted(&redis).replace("rediss", "redis");
    let said = refused_redis(&plain_to_encrypted, None).await;
    assert!(said.contains("write rediss://"), "{said}");
    let encrypted_to_plain = redis.url().replace("redis", "rediss");
    let said = refused_redis(&encrypted_to_plain, Some(&authority.file())).await;
    assert!(said.contains("write redis://"), "{said}");

    let empty = tempfile::NamedTempFile::new().expect("a writable directory");
    let empty = empty.path().to_str().expect("a plain path");
    for command in ["check-config", "serve", "doctor"] {
        for (url, ca_file, problem) in [
            ("rediss://127.0.0.1:1", "/nowhere.pem", "cannot be read"),
            (
                "rediss-sentinel://127.0.0.1:1?sentinelServiceName=m",
                empty,
                "no certificate",
            ),
            (
                "redis://127.0.0.1:1",
                &authority.file(),
                "does not ask for TLS",
            ),
        ] {
            let env = [
                ("VIGIE_ENGINE", "redis"),
                ("VIGIE_REDIS__URL", url),
                ("VIGIE_REDIS__CA_FILE", ca_file),
            ];
            let said = refusal(command, &env).await;
            let says = said.contains("redis.ca_file") && said.contains(problem);
            assert!(says, "{command} {url}: {said}");
        }
    }
}

/// Goal: with `sslmode=verify-full` accounts are kept in a Postgres that proves who it is, and in no other.
/// Method: a server with a certificate for its address; its authority, another one, and the system's. Then certificates
/// for another host and of the past. Who only asks for encryption gets it from each.
#[tokio::test]
async fn postgres_proves_who_it_is() {
    let authority = Authority::new();
    let postgres = Postgres::start_alone().await;
    let with = |sslmode: &str, root: &str| {
        let root = match root {
            "" => String::new(),
            file => format!("&sslrootcert={file}"),
        };
        format!("{}?sslmode={sslmode}{root}", postgres.url())
    };
    let namesake = Authority::new();
    let (trusted, other) = (authority.file(), namesake.file());
    let said = refused_postgres(&with("verify-full", &trusted)).await;
    assert!(said.contains("does not support TLS"), "{said}");

    postgres.encrypt(&authority.sign("127.0.0.1")).await;
    let builder = Cluster::builder().memory();
    let cluster = builder
        .env("VIGIE_POSTGRES__URL", &with("verify-full", &trusted))
        .start()
        .await;
    let put = cluster.request(0, reqwest::Method::PUT, "/api/v1/users/42");
    let put = put
        .bearer_auth(NODE_KEY)
        .json(&json!({ "username": "ada" }));
    assert_eq!(cluster.send(put).await.status, 200);
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE application_name <> 'psql' AND backend_type = 'client backend' AND NOT ssl";
    assert_eq!(postgres.psql(plain).await, "0");
    drop(cluster);

    for root in [&other, ""] {
        let said = refused_postgres(&with("verify-full", root)).await;
        assert!(said.contains("sslrootcert of postgres.url"), "{said}");
    }
    for (certificate, problem) in [
        (authority.sign("postgres.example"), "not valid for name"),
        (authority.sign_expired("127.0.0.1"), "expired"),
    ] {
        postgres.encrypt(&certificate).await;
        let said = refused_postgres(&with("verify-full", &trusted)).await;
        assert!(said.contains(problem), "{said}");
        let env = [("VIGIE_POSTGRES__URL".to_owned(), with("require", ""))];
        let output = run(vigie(&["migrate"], &env)).await;
        assert!(output.status.success(), "{output:?}");
    }
}
