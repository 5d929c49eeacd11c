//! The listener for changes, and connections that fail.

use std::collections::BTreeSet;
use std::time::Duration;

use vigie::internals::{ChangeBatch, ChangeStream, Part, Profiles, ProfilesError};

use super::{id, noted, populate, populated};
use crate::harness::{ADA, BOB, DEADLINE, EVE, Postgres, eventually, eventually_eq};

/// The next batch, which has to come.
async fn next(stream: &mut ChangeStream) -> ChangeBatch {
    let next = tokio::time::timeout(DEADLINE, stream.next()).await;
    next.expect("a batch comes").expect("the listener lives")
}

/// The changes of the next batch, marked as published.
async fn published(stream: &mut ChangeStream) -> Vec<(u64, Part)> {
    let batch = next(stream).await;
    let told = super::told(batch.changes());
    batch.published();
    told
}

/// Waits until somebody holds the lock of the listener; returns who, as Postgres numbers its sessions.
async fn holder(postgres: &Postgres) -> String {
    eventually("somebody listens", async || {
        let sql = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = \
                   (SELECT oid FROM pg_database WHERE datname = current_database())";
        let pid = postgres.psql(sql).await;
        (!pid.is_empty()).then_some(pid)
    })
    .await
}

/// Goal: what another writer changes is handed out once, and forgotten when it has been published.
/// Method: updates through `psql`; then a marker, before which nothing else may come.
#[tokio::test]
async fn a_foreign_update_arrives_once() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let mut stream = profiles.changes();
    holder(&postgres).await;
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    assert_eq!(published(&mut stream).await, [(ADA, Part::Profile)]);
    eventually_eq("nothing is noted any more", Vec::new(), async || {
        noted(&postgres).await
    })
    .await;
    // Nothing changed for her, so nothing comes: the next is a marker.
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    postgres
        .psql("UPDATE users SET username = 'Bob' WHERE id = 7")
        .await;
    assert_eq!(published(&mut stream).await, [(BOB, Part::Profile)]);

    let changes = profiles.rename(id(EVE), "Eve").await.expect("renamed");
    let batch = next(&mut stream).await;
    assert_eq!(batch.changes(), changes);
    // The stream does not hand out changes that were published by other means.
    batch.published();
    let changes = profiles.rename(id(BOB), "Bobby").await.expect("renamed");
    drop(stream);
    profiles.published(&changes).await.expect("forgotten");
    eventually_eq("nothing is noted any more", Vec::new(), async || {
        noted(&postgres).await
    })
    .await;
}

/// Goal: what was noted while nobody listened is handed out, all of it, in batches.
/// Method: a thousand users before the listener begins.
#[tokio::test]
async fn nothing_is_lost_while_nobody_listens() {
    let postgres = Postgres::start().await;
    postgres
        .psql("INSERT INTO users (id, username) SELECT n, 'u' FROM generate_series(1, 1000) n")
        .await;
    let mut stream = postgres.profiles().changes();
    let mut seen = BTreeSet::new();
    while seen.len() < 1000 {
        let batch = next(&mut stream).await;
        assert!(batch.changes().len() <= 200);
        seen.extend(batch.changes().iter().map(|change| change.user));
        batch.published();
    }
    eventually_eq("nothing is noted any more", Vec::new(), async || {
        noted(&postgres).await
    })
    .await;
}

/// Goal: a batch that could not be published comes again; a change that is newer than the one published stays.
/// Method: a batch dropped; a change made between reading and publishing.
#[tokio::test]
async fn what_was_not_published_comes_again() {
    let postgres = populated().await;
    let mut stream = postgres.profiles().changes();
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    let first = next(&mut stream).await;
    let change = first.changes()[0];
    drop(first);
    let again = next(&mut stream).await;
    assert_eq!(again.changes(), [change]);
    postgres
        .psql("UPDATE users SET username = 'Ada L.' WHERE id = 42")
        .await;
    again.published();
    let newer = next(&mut stream).await;
    assert_eq!(newer.changes().len(), 1);
    assert!(newer.changes()[0].revision > change.revision);
    newer.published();
    eventually_eq("nothing is noted any more", Vec::new(), async || {
        noted(&postgres).await
    })
    .await;
}

/// Goal: a writer who takes long holds up nobody else's changes, and is not disturbed.
/// Method: a transaction left open over one user while another user is changed.
#[tokio::test]
async fn an_open_transaction_holds_up_nobody() {
    let postgres = populated().await;
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    let long = postgres.psql(
        "UPDATE users SET username = 'Ada L.' WHERE id = 42; SELECT pg_sleep(4); \
         UPDATE users SET avatar = '/a.png' WHERE id = 42",
    );
    let meanwhile = async {
        eventually("the transaction is under way", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(4)%' \
                       AND wait_event = 'PgSleep' AND datname = current_database()";
            (postgres.psql(sql).await == "1").then_some(())
        })
        .await;
        let mut stream = postgres.profiles().changes();
        postgres
            .psql("UPDATE users SET username = 'Bob' WHERE id = 7")
            .await;
        assert_eq!(published(&mut stream).await, [(BOB, Part::Profile)]);
        stream
    };
    let (_, mut stream) = tokio::join!(long, meanwhile);
    assert_eq!(published(&mut stream).await, [(ADA, Part::Profile)]);
}

/// Goal: one listens, and when it goes another takes over.
/// Method: two streams; the one that listens is dropped.
#[tokio::test]
async fn another_takes_over_from_one_that_is_gone() {
    let postgres = populated().await;
    let mut first = postgres.profiles().changes();
    let pid = holder(&postgres).await;
    let mut second = postgres.profiles().changes();
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    // Taken and not published: whoever takes over gets it.
    let unpublished = next(&mut first).await;
    let waiting = tokio::time::timeout(Duration::from_millis(10), second.next()).await;
    assert!(waiting.is_err(), "one listens at a time");
    drop((unpublished, first));
    assert_eq!(published(&mut second).await, [(ADA, Part::Profile)]);
    assert_ne!(holder(&postgres).await, pid);
}

/// Goal: a holder that stands still loses its turn. Method: its session falls silent, as that of a stopped process
/// does; the other one gets what is noted.
#[tokio::test]
async fn a_holder_that_stands_still_is_replaced() {
    let postgres = populated().await;
    let url = postgres.url();
    // A runtime of its own that nobody drives any more once it is blocked is a process that stands still.
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let (started, starts) = tokio::sync::oneshot::channel();
    let still = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let profiles = crate::harness::profiles(&url);
            let mut stream = profiles.changes();
            let batch = next(&mut stream).await;
            assert_eq!(super::told(batch.changes()), [(BOB, Part::Profile)]);
            batch.published();
            tokio::time::sleep(Duration::from_millis(300)).await;
            started.send(()).expect("the test waits");
            // Blocks the only thread: nothing of this runtime goes on.
            let _ = stopped.recv();
            // Awake again, it gets its turn after the other one, or never: it does no harm.
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
    });
    postgres
        .psql("UPDATE users SET username = 'Bob' WHERE id = 7")
        .await;
    starts.await.expect("it listens");
    let mut second = postgres.profiles().changes();
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    assert_eq!(published(&mut second).await, [(ADA, Part::Profile)]);
    stop.send(()).expect("it still stands there");
    still.join().expect("no panic");
    postgres
        .psql("UPDATE users SET username = 'Eve' WHERE id = 1815")
        .await;
    assert_eq!(published(&mut second).await, [(EVE, Part::Profile)]);
}

/// Goal: a listener whose consumer takes long keeps its turn. Method: a batch held for longer than the server bears
/// with silence; the session is the same afterwards.
#[tokio::test]
async fn a_slow_consumer_keeps_its_turn() {
    let postgres = populated().await;
    let mut stream = postgres.profiles().changes();
    postgres
        .psql("UPDATE users SET username = 'Ada' WHERE id = 42")
        .await;
    let batch = next(&mut stream).await;
    let pid = holder(&postgres).await;
    // Longer than `idle_session_timeout`: the one thing here that only time shows.
    tokio::time::sleep(Duration::from_secs(7)).await;
    batch.published();
    eventually_eq("nothing is noted any more", Vec::new(), async || {
        noted(&postgres).await
    })
    .await;
    assert_eq!(holder(&postgres).await, pid);
}

/// Goal: the server's restart costs a moment: queries work again, and the listener goes on by itself.
/// Method: killed and stopped, with connections in the pool; calls in between fail as unavailable.
#[tokio::test]
async fn a_restart_costs_a_moment() {
    let postgres = Postgres::start_alone().await;
    populate(&postgres).await;
    let profiles = postgres.profiles();
    let mut stream = profiles.changes();
    for killed in [true, false] {
        let pings = futures_util::future::join_all((0..4).map(|_| profiles.ping())).await;
        assert!(pings.iter().all(Result::is_ok), "{pings:?}");
        match killed {
            true => postgres.kill().await,
            false => postgres.stop().await,
        }
        assert!(is_unavailable(&profiles).await);
        postgres.start_again().await;
        for _ in 0..8 {
            assert_eq!(profiles.ping().await, Ok(()));
        }
        let name = format!("Ada {killed}");
        profiles.rename(id(ADA), &name).await.expect("renamed");
        assert_eq!(published(&mut stream).await, [(ADA, Part::Profile)]);
    }
    // Sessions that are ended from outside are no reason to fail.
    postgres
        .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vigie'")
        .await;
    assert_eq!(profiles.ping().await, Ok(()));
    profiles.rename(id(ADA), "Ada L.").await.expect("renamed");
    assert_eq!(published(&mut stream).await, [(ADA, Part::Profile)]);
}

/// Goal: a server that does not answer is waited for no longer than the timeout, and is used again when it does.
/// Method: paused with connections in the pool, and resumed.
#[tokio::test]
async fn a_silent_server_is_not_waited_for() {
    let postgres = Postgres::start_alone().await;
    populate(&postgres).await;
    let options = vigie::internals::PostgresOptions {
        url: postgres.url(),
        pool: 2,
        timeout: Duration::from_millis(500),
    };
    let profiles = Profiles::new(&options).expect("the URL is one");
    assert_eq!(profiles.ping().await, Ok(()));
    postgres.pause();
    for _ in 0..4 {
        assert!(is_unavailable(&profiles).await);
    }
    postgres.resume();
    eventually("it answers again", async || profiles.ping().await.ok()).await;
    // A row that somebody has locked is not waited for either.
    let lock = postgres
        .psql("BEGIN; SELECT FROM users WHERE id = 42 FOR UPDATE; SELECT pg_sleep(2); COMMIT");
    let (_, renamed) = tokio::join!(lock, async {
        eventually("it is locked", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            (postgres.psql(sql).await == "1").then_some(())
        })
        .await;
        profiles.rename(id(ADA), "Ada").await
    });
    assert!(
        matches!(renamed, Err(ProfilesError::Unavailable(_))),
        "{renamed:?}"
    );
    profiles
        .rename(id(ADA), "Ada")
        .await
        .expect("it is free again");
}

async fn is_unavailable(profiles: &Profiles) -> bool {
    matches!(profiles.ping().await, Err(ProfilesError::Unavailable(_)))
}
