//! Postgres: without its tables a node is not ready; one that is only away leaves it so.

use reqwest::Method;
use serde_json::json;

use super::{detail, not_ready, ready, readyz, vigie_says};
use crate::harness::{ADA, Answer, Cluster, NODE_KEY, Postgres, eventually};

async fn put_account(cluster: &Cluster) -> Answer {
    let path = format!("/api/v1/users/{ADA}");
    let request = cluster.request(0, Method::PUT, &path);
    let body = json!({ "username": "ada" });
    cluster
        .send(request.bearer_auth(NODE_KEY).json(&body))
        .await
}

/// Goal: a node without tables is not ready, says what to do, and is ready by itself once that is done.
/// Method: an empty database; a call for an account; `vigie migrate`; the call again.
#[tokio::test]
async fn tables_that_are_missing_are_named() {
    let postgres = Postgres::start_empty().await;
    let cluster = Cluster::builder()
        .memory()
        .on_postgres(&postgres)
        .ready_or_not()
        .start()
        .await;
    not_ready(&cluster, "postgres", "run `vigie migrate`").await;

    let answer = put_account(&cluster).await;
    answer.assert_problem(503);
    let said = detail(&answer);
    assert!(
        said.contains("tables") && said.contains("vigie migrate"),
        "{said}"
    );
    assert!(!said.contains("reached"), "{said}");

    let (code, said) = vigie_says(&["migrate"], &cluster.env_of("operator")).await;
    assert_eq!(code, 0, "{said}");
    ready(&cluster, &[]).await;
    assert_eq!(put_account(&cluster).await.status, 200);
}

/// Goal: as soon as a node says that it is ready, accounts can be created.
/// Method: again and again a node that is to migrate an empty database, asked from its first moment on.
#[tokio::test]
async fn a_node_is_ready_only_once_the_tables_are_there() {
    for round in 0..8 {
        let postgres = Postgres::start_empty().await;
        let cluster = Cluster::builder()
            .memory()
            .on_postgres(&postgres)
            .env("VIGIE_POSTGRES__MIGRATE", "true")
            .ready_or_not()
            .start()
            .await;
        ready(&cluster, &[]).await;
        let answer = put_account(&cluster).await;
        assert_eq!(answer.status, 200, "round {round}: {answer:?}");
    }
}

/// Goal: while migrations run, here or on another node, a node is not ready and says so.
/// Method: a session of the test's holds the lock of migrations, and is ended.
#[tokio::test]
async fn a_migration_under_way_is_named() {
    let postgres = Postgres::start_empty().await;
    let lock = "SELECT pg_advisory_lock(1986622054, hashtext('public')), pg_sleep(600)";
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND query LIKE 'SELECT pg_advisory_lock%pg_sleep%'";
    let held = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database \
                WHERE locktype = 'advisory' AND granted AND datname = current_database()";
    let test = async {
        eventually("the lock is held", async || {
            (postgres.psql(held).await == "1").then_some(())
        })
        .await;
        let cluster = Cluster::builder()
            .memory()
            .on_postgres(&postgres)
            .env("VIGIE_POSTGRES__MIGRATE", "true")
            .ready_or_not()
            .start()
            .await;
        not_ready(&cluster, "postgres", "migrations are running").await;
        postgres.psql(end).await;
        ready(&cluster, &[]).await;
        assert_eq!(put_account(&cluster).await.status, 200);
    };
    let (held, ()) = tokio::join!(postgres.try_psql(lock), test);
    assert!(held.is_err(), "the session was ended: {held:?}");
}

/// Goal: migrations that Postgres refuses are named, and tried again. Method: a role that may not create tables, and then may.
#[tokio::test]
async fn migrations_that_fail_are_named_and_tried_again() {
    let postgres = Postgres::start_alone().await;
    postgres.psql("CREATE ROLE poor LOGIN").await;
    postgres.psql("CREATE SCHEMA games").await;
    postgres.psql("GRANT USAGE ON SCHEMA games TO poor").await;
    let url = postgres.url().replace("postgres@", "poor@");
    let cluster = Cluster::builder()
        .memory()
        .env(
            "VIGIE_POSTGRES__URL",
            &format!("{url}?options=-c%20search_path%3Dgames"),
        )
        .env("VIGIE_POSTGRES__MIGRATE", "true")
        .ready_or_not()
        .start()
        .await;
    let reason = not_ready(&cluster, "postgres", "the migrations fail: ").await;
    assert!(reason.contains("permission denied"), "{reason}");
    let log = cluster.log(0);
    assert!(log.contains("cannot be brought up to date"), "{log}");

    postgres.psql("GRANT CREATE ON SCHEMA games TO poor").await;
    ready(&cluster, &[]).await;
}

/// Goal: a Postgres that is away when a node starts takes no sockets away, although the node is to migrate it; once it is
/// there, the migrations come first. Method: a server that is down when the node starts.
#[tokio::test]
async fn a_postgres_that_is_away_leaves_a_node_ready() {
    let postgres = Postgres::start_alone().await;
    postgres.psql("CREATE SCHEMA games").await;
    postgres.stop().await;
    let cluster = Cluster::builder()
        .memory()
        .env(
            "VIGIE_POSTGRES__URL",
            &format!("{}?options=-c%20search_path%3Dgames", postgres.url()),
        )
        .env("VIGIE_POSTGRES__MIGRATE", "true")
        .start()
        .await;
    ready(&cluster, &["postgres"]).await;
    let answer = readyz(&cluster).await;
    let reason = super::failure(&answer, "postgres");
    assert_eq!(reason.as_deref(), Some("cannot be reached"));
    postgres.start_again().await;
    ready(&cluster, &[]).await;
    assert_eq!(put_account(&cluster).await.status, 200);
}

/// Goal: a Postgres that rejects the login is not said to be out of reach. Method: a wrong password.
#[tokio::test]
async fn a_wrong_password_is_named() {
    let postgres = Postgres::start_alone().await;
    postgres.demand_password("hub", "right").await;
    let url = postgres.url().replace("postgres@", "hub:wrong@");
    let cluster = Cluster::builder()
        .memory()
        .env("VIGIE_POSTGRES__URL", &url)
        .start()
        .await;
    ready(&cluster, &["postgres"]).await;
    let answer = readyz(&cluster).await;
    let reason = super::failure(&answer, "postgres").expect("it fails");
    assert!(
        reason.contains("password authentication failed"),
        "{reason}"
    );
    let answer = put_account(&cluster).await;
    answer.assert_problem(503);
    assert!(!detail(&answer).contains("reached"), "{answer:?}");
    assert!(
        !cluster.log(0).contains("wrong"),
        "passwords are not logged"
    );
}
