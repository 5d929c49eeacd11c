//! `vigie migrate`.

use futures_util::future::join_all;

use crate::harness::{Cluster, Postgres, eventually, run, vigie};

/// Runs `vigie migrate`; returns whether it went well, and what it said.
async fn migrate(url: Option<&str>) -> (bool, String) {
    let env: Vec<(String, String)> = url
        .map(|url| ("VIGIE_POSTGRES__URL".to_owned(), url.to_owned()))
        .into_iter()
        .collect();
    let output = run(vigie(&["migrate"], &env)).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

/// Goal: the schema is applied once. Method: twice, one after the other.
#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let postgres = Postgres::start_empty().await;
    let (good, said) = migrate(Some(&postgres.url())).await;
    assert!(good && said.contains("V1__profiles"), "{said}");
    postgres
        .psql("INSERT INTO users (id, username) VALUES (42, 'ada')")
        .await;
    let (good, said) = migrate(Some(&postgres.url())).await;
    assert!(good && said.contains("up to date"), "{said}");
    assert_eq!(postgres.psql("SELECT username FROM users").await, "ada");
}

/// Goal: nodes that migrate at the same time do not collide. Method: six of them on an empty database.
#[tokio::test]
async fn migrating_at_once_applies_everything_once() {
    let postgres = Postgres::start_empty().await;
    let url = postgres.url();
    let outcomes = join_all((0..6).map(|_| migrate(Some(&url)))).await;
    let good = outcomes.iter().filter(|(good, _)| *good).count();
    let applied = outcomes
        .iter()
        .filter(|(_, said)| said.contains("applied V1__profiles"));
    assert_eq!((good, applied.count()), (6, 1), "{outcomes:?}");
}

/// Goal: the schema goes where unqualified names lead, and works there.
/// Method: another schema in the URL's search path, and a write from outside it.
#[tokio::test]
async fn the_schema_goes_where_the_url_says() {
    let postgres = Postgres::start_empty().await;
    postgres.psql("CREATE SCHEMA games").await;
    let url = format!("{}?options=-c%20search_path%3Dgames", postgres.url());
    let (good, said) = migrate(Some(&url)).await;
    assert!(good, "{said}");
    postgres
        .psql("INSERT INTO games.users (id, username) VALUES (42, 'ada')")
        .await;
    assert_eq!(
        postgres.psql("SELECT count(*) FROM games.changes").await,
        "1"
    );
}

/// Goal: the URL can come from a file. Method: a file with a line break at its end.
#[tokio::test]
async fn the_url_can_come_from_a_file() {
    let postgres = Postgres::start_empty().await;
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let file = directory.path().join("url");
    std::fs::write(&file, postgres.url() + "\n").expect("the directory is the test's own");
    let path = file.to_str().expect("a plain path").to_owned();
    let output = run(vigie(
        &["migrate"],
        &[("VIGIE_POSTGRES__URL_FILE".to_owned(), path)],
    ))
    .await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(postgres.psql("SELECT count(*) FROM users").await, "0");
}

/// Goal: a node starts while Postgres is away, and brings the schema up to date once it is there, where it is told to.
/// Method: a server that is down when the node starts.
#[tokio::test]
async fn a_node_migrates_when_postgres_is_there() {
    let postgres = Postgres::start_alone().await;
    postgres.psql("CREATE SCHEMA games").await;
    postgres.stop().await;
    let url = format!("{}?options=-c%20search_path%3Dgames", postgres.url());
    let _cluster = Cluster::builder()
        .memory()
        .env("VIGIE_POSTGRES__URL", &url)
        .env("VIGIE_POSTGRES__MIGRATE", "true")
        .start()
        .await;
    postgres.start_again().await;
    eventually("the schema is there", async || {
        let read = postgres.try_psql("SELECT count(*) FROM games.users").await;
        read.ok()
    })
    .await;
}

/// Goal: what is missing is named. Method: no URL, nobody there, a URL that cannot be used.
#[tokio::test]
async fn what_is_missing_is_named() {
    let postgres = Postgres::start_empty().await;
    let wrong_database = format!("{}-none", postgres.url());
    for (url, named) in [
        (None, "VIGIE_POSTGRES__URL"),
        (
            Some("postgres://vigie:pa55@127.0.0.1:1/vigie"),
            "postgres cannot be reached",
        ),
        (Some("mysql://127.0.0.1/vigie"), "postgres.url"),
        (
            Some("postgres://vigie:pa55@127.0.0.1/vigie?sslmode=perhaps"),
            "sslmode=perhaps",
        ),
        (
            Some("postgres://vigie:pa55@127.0.0.1/vigie?sslmode=require&colour=blue"),
            "colour",
        ),
        (Some(&wrong_database), "does not exist"),
    ] {
        let (good, said) = migrate(url).await;
        assert!(!good && said.contains(named), "{url:?}: {said}");
        assert!(!said.contains("pa55"), "{said}");
    }
    let without_schema = postgres.profiles().ping().await;
    let said = without_schema.expect_err("there is no schema").to_string();
    assert!(said.contains("vigie migrate"), "{said}");
}
