//! With a million users: how statements find their rows, and how long loading takes.

use std::time::{Duration, Instant};

use vigie::internals::NewMatch;

use super::{account, id};
use crate::harness::Postgres;

/// A million users, three million requests of which two are friendships, two million matches.
const LOAD: [&str; 5] = [
    "INSERT INTO users (id, username, avatar) SELECT n, 'user ' || n, '' FROM generate_series(1, 1000000) n",
    "INSERT INTO game_stats (user_id, wins, losses) SELECT n, n % 100, n % 70 FROM generate_series(1, 1000000) n",
    "INSERT INTO friendships (user_id, friend_id)
     SELECT a, b FROM (SELECT n AS a, n % 1000000 + 1 AS b FROM generate_series(1, 1000000) n) p
     UNION ALL SELECT b, a FROM (SELECT n AS a, n % 1000000 + 1 AS b FROM generate_series(1, 1000000) n) p
     UNION ALL SELECT n, (n + 4999) % 1000000 + 1 FROM generate_series(1, 1000000) n",
    "INSERT INTO matches (player_a, player_b, winner, score_a, score_b, played_at)
     SELECT n, n % 1000000 + 1, n, 11, 7, now() - n * interval '1 second'
       FROM generate_series(1, 1000000) n, generate_series(1, 2)",
    "ANALYZE",
];

/// Goal: every call finds what it needs through indexes, however many users there are, and loading them is feasible.
/// Method: `auto_explain` writes the plan of every statement, those inside triggers too, into the log; each call is made
/// once and a table of this size must not be read from one end to the other.
#[tokio::test]
#[ignore = "takes minutes: a million users"]
async fn no_call_reads_a_whole_table() {
    let postgres = Postgres::start_alone().await;
    for sql in LOAD {
        let begin = Instant::now();
        postgres.patiently(sql).await;
        eprintln!(
            "{:>6.1} s  {}",
            begin.elapsed().as_secs_f32(),
            sql.lines().next().unwrap_or_default()
        );
    }
    let pending = postgres.psql("SELECT count(*) FROM changes").await;
    assert_eq!(
        pending, "4000000",
        "each user: profile, stats, friends, matches"
    );
    for setting in [
        "session_preload_libraries = auto_explain",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
    ] {
        let set = format!("ALTER DATABASE %I SET {setting}");
        let sql = format!("DO $$ BEGIN EXECUTE format('{set}', current_database()); END $$");
        postgres.psql(&sql).await;
    }

    let profiles = postgres.profiles();
    // Statements are planned anew a few times before Postgres settles on one plan.
    for n in 0..8 {
        let (one, other, third) = (id(1000 + n), id(2000 + n), id(3000 + n));
        account(&profiles, one.get()).await;
        let many: Vec<_> = (1..=200).map(|k| id(k * 4000 + n)).collect();
        assert_eq!(profiles.read(&many).await.expect("read").len(), 200);
        assert_eq!(profiles.summaries(&many).await.expect("read").len(), 200);
        profiles
            .put_account(one, "changed", Some("/x.png"))
            .await
            .expect("stored");
        profiles.rename(other, "changed").await.expect("stored");
        profiles.ask_friendship(one, other).await.expect("asked");
        profiles.ask_friendship(other, one).await.expect("asked");
        profiles.end_friendship(one, other).await.expect("ended");
        let new = NewMatch {
            players: [one, other],
            winner: one,
            score: [1, 0],
            played_at_ms: None,
        };
        profiles.record_match(&new).await.expect("recorded");
        profiles.delete_account(third).await.expect("deleted");
        let mut stream = profiles.changes();
        let batch = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
        let batch = batch.expect("a batch comes").expect("the listener lives");
        let revision = batch.changes()[0].revision;
        batch.published();
        let next = stream.next().await.expect("the listener lives");
        assert!(next.changes()[0].revision >= revision);
    }
    let log = postgres.log();
    assert!(log.contains("Index Scan"), "plans are logged");
    let whole = log.lines().filter(|line| {
        let tables = ["users", "friendships", "game_stats", "matches", "changes"];
        let scanned = line
            .split("Seq Scan on ")
            .nth(1)
            .map(|rest| rest.split(' ').next().unwrap_or_default());
        scanned.is_some_and(|table| tables.contains(&table))
    });
    let whole: Vec<&str> = whole.collect();
    assert!(whole.is_empty(), "{whole:?}");
}
