//! Revisions and records of changes when others write with plain SQL.

use futures_util::future::join_all;

use super::{forget, noted, notes_of, populated, revisions};
use crate::harness::{ADA, BOB, EVE, Postgres};

/// Goal: an account that somebody inserts begins with one revision for everything, in microseconds of now.
/// Method: the insert that other writers use; a row that claims revisions of its own.
#[tokio::test]
async fn an_inserted_account_is_numbered_and_noted() {
    let postgres = Postgres::start().await;
    let insert = "INSERT INTO users (id, username, avatar) VALUES (42, 'ada', '/a.png')";
    assert_eq!(notes_of(&postgres, insert).await, ["42 profile"]);
    let numbers = revisions(&postgres, ADA).await;
    assert_eq!(numbers, [numbers[0]; 5]);
    let age = postgres
        .psql("SELECT abs(extract(epoch FROM now()) * 1000000 - revision) < 60000000 FROM users")
        .await;
    assert_eq!(age, "t");

    let claims =
        "INSERT INTO users (id, username, revision, stats_revision) VALUES (7, 'bob', 5, 9)";
    assert_eq!(notes_of(&postgres, claims).await, ["7 profile"]);
    let numbers = revisions(&postgres, BOB).await;
    assert_eq!(numbers, [numbers[0]; 5]);
    assert!(numbers[0] > 1_000_000_000_000_000);

    let deleted = "INSERT INTO users (id, username, deleted_at) VALUES (1815, 'eve', now())";
    assert_eq!(notes_of(&postgres, deleted).await, ["1815 deleted"]);
}

/// Goal: a change of name or avatar moves the profile's revision and no other; what changes nothing leaves no trace.
/// Method: one statement after the other.
#[tokio::test]
async fn a_changed_profile_is_noted_and_an_unchanged_one_is_not() {
    let postgres = populated().await;
    for sql in [
        "UPDATE users SET username = 'ada 2' WHERE id = 42",
        "UPDATE users SET avatar = 'https://pics.example/a.png' WHERE id = 42",
        "UPDATE users SET username = 'ada 3', revision = 1 WHERE id = 42",
        "UPDATE users SET profile_revision = 1 WHERE id = 42",
        "INSERT INTO users (id, username) VALUES (42, 'ada 4') ON CONFLICT (id) DO UPDATE SET username = excluded.username",
    ] {
        let before = revisions(&postgres, ADA).await;
        assert_eq!(notes_of(&postgres, sql).await, ["42 profile"], "{sql}");
        let after = revisions(&postgres, ADA).await;
        assert!(after[0] > before[0], "{sql}");
        assert_eq!(after[1], after[0], "{sql}");
        assert_eq!(after[2..], before[2..], "{sql}");
        let noted = postgres.psql("SELECT revision FROM changes").await;
        assert_eq!(noted, after[0].to_string(), "{sql}");
    }
    for sql in [
        "UPDATE users SET username = username, avatar = avatar",
        "UPDATE users SET revision = 5",
        "UPDATE users SET username = 'nobody' WHERE id = 99",
        "INSERT INTO users (id, username) VALUES (42, 'x') ON CONFLICT DO NOTHING",
        "UPDATE friendships SET asked_at = now()",
    ] {
        let before = revisions(&postgres, ADA).await;
        assert!(notes_of(&postgres, sql).await.is_empty(), "{sql}");
        assert_eq!(revisions(&postgres, ADA).await, before, "{sql}");
    }
}

/// Goal: one statement about many users notes each that it changes, and no other.
/// Method: bulk insert, an update of all that changes two thirds, a transaction that touches one user thrice.
#[tokio::test]
async fn bulk_statements_note_every_row_that_they_change() {
    let postgres = Postgres::start().await;
    postgres
        .psql("INSERT INTO users (id, username) SELECT n, 'u' || n FROM generate_series(1, 3000) n")
        .await;
    assert_eq!(noted(&postgres).await.len(), 3000);
    let update =
        "UPDATE users SET username = CASE WHEN id % 3 = 0 THEN username ELSE 'v' || id END";
    assert_eq!(notes_of(&postgres, update).await.len(), 2000);
    let thrice = "UPDATE users SET username = 'a' WHERE id = 1; UPDATE users SET username = 'b' WHERE id = 1; \
                  UPDATE users SET username = 'c' WHERE id = 1";
    assert_eq!(notes_of(&postgres, thrice).await, ["1 profile"]);
    let same =
        "SELECT (SELECT revision FROM changes) = (SELECT profile_revision FROM users WHERE id = 1)";
    assert_eq!(postgres.psql(same).await, "t");
    let numbered = "SELECT count(*) FROM changes c JOIN users u ON u.id = c.user_id WHERE c.revision = u.revision";
    forget(&postgres).await;
    postgres.psql("UPDATE users SET avatar = 'x'").await;
    assert_eq!(postgres.psql(numbered).await, "3000");
}

/// Goal: a list of friends changes for both when a friendship begins or ends, and for nobody when one only asks.
/// Method: each row on its own, both at once, one of two, bulk.
#[tokio::test]
async fn friendships_are_noted_when_they_begin_and_end() {
    let postgres = populated().await;
    let both = ["7 friends", "42 friends"];
    let nobody: [&str; 0] = [];
    for (sql, wanted) in [
        (
            "INSERT INTO friendships (user_id, friend_id) VALUES (42, 7)",
            &nobody[..],
        ),
        (
            "INSERT INTO friendships (user_id, friend_id) VALUES (42, 7) ON CONFLICT DO NOTHING",
            &nobody[..],
        ),
        ("DELETE FROM friendships WHERE user_id = 42", &nobody[..]),
        (
            "INSERT INTO friendships (user_id, friend_id) VALUES (42, 7)",
            &nobody[..],
        ),
        (
            "INSERT INTO friendships (user_id, friend_id) VALUES (7, 42)",
            &both[..],
        ),
        (
            "UPDATE friendships SET asked_at = now() - interval '1 day'",
            &nobody[..],
        ),
        ("DELETE FROM friendships WHERE user_id = 7", &both[..]),
        ("DELETE FROM friendships", &nobody[..]),
        (
            "INSERT INTO friendships (user_id, friend_id) VALUES (42, 7), (7, 42), (1815, 7)",
            &both[..],
        ),
        ("DELETE FROM friendships", &both[..]),
    ] {
        let before = (
            revisions(&postgres, ADA).await,
            revisions(&postgres, BOB).await,
        );
        assert_eq!(notes_of(&postgres, sql).await, wanted, "{sql}");
        let after = (
            revisions(&postgres, ADA).await,
            revisions(&postgres, BOB).await,
        );
        for (before, after) in [(before.0, after.0), (before.1, after.1)] {
            assert_eq!(before[3] != after[3], !wanted.is_empty(), "{sql}");
            assert_eq!(
                (before[1], before[2], before[4]),
                (after[1], after[2], after[4]),
                "{sql}"
            );
        }
    }
    for refused in [
        "INSERT INTO friendships (user_id, friend_id) VALUES (42, 42)",
        "INSERT INTO friendships (user_id, friend_id) VALUES (42, 99)",
    ] {
        assert!(postgres.try_psql(refused).await.is_err(), "{refused}");
    }
    postgres
        .psql("INSERT INTO friendships (user_id, friend_id) VALUES (42, 7)")
        .await;
    let moved = postgres
        .try_psql("UPDATE friendships SET friend_id = 1815")
        .await;
    assert!(moved.is_err_and(|error| error.contains("never changes")));
}

/// Goal: two who ask each other in the same moment become friends, and both are told.
/// Method: many pairs, each from two sessions at once.
#[tokio::test]
async fn asking_each_other_at_once_is_noticed() {
    let postgres = Postgres::start().await;
    postgres
        .psql("INSERT INTO users (id, username) SELECT n, 'u' FROM generate_series(1, 60) n")
        .await;
    forget(&postgres).await;
    let ask = |from: u64, to: u64| {
        let postgres = &postgres;
        async move {
            let sql = format!("INSERT INTO friendships (user_id, friend_id) VALUES ({from}, {to})");
            postgres.psql(&sql).await
        }
    };
    let pairs = (1..=30).flat_map(|n| [ask(n, n + 30), ask(n + 30, n)]);
    join_all(pairs).await;
    assert_eq!(noted(&postgres).await.len(), 60);
}

/// Goal: results are noted for whom they concern.
/// Method: inserts, changes, no-ops and deletions of statistics and matches.
#[tokio::test]
async fn statistics_and_matches_are_noted() {
    let postgres = populated().await;
    let played = "INSERT INTO matches (player_a, player_b, winner, score_a, score_b)";
    for (sql, wanted) in [
        (
            "INSERT INTO game_stats (user_id, wins) VALUES (42, 1), (7, 0)".to_owned(),
            &["7 stats", "42 stats"][..],
        ),
        (
            "UPDATE game_stats SET wins = 2 WHERE user_id = 42".to_owned(),
            &["42 stats"],
        ),
        (
            "UPDATE game_stats SET wins = wins, losses = losses".to_owned(),
            &[],
        ),
        (
            "UPDATE game_stats SET losses = losses + 1".to_owned(),
            &["7 stats", "42 stats"],
        ),
        (
            "DELETE FROM game_stats WHERE user_id = 7".to_owned(),
            &["7 stats"],
        ),
        (
            format!("{played} VALUES (42, 7, 42, 11, 7)"),
            &["7 matches", "42 matches"],
        ),
        (
            format!("{played} VALUES (1815, 7, 7, 1, 2), (42, 1815, 42, 3, 0)"),
            &["7 matches", "42 matches", "1815 matches"],
        ),
        (
            "UPDATE matches SET score_a = 12 WHERE player_a = 42 AND player_b = 7".to_owned(),
            &["7 matches", "42 matches"],
        ),
        ("UPDATE matches SET score_a = score_a".to_owned(), &[]),
        (
            "DELETE FROM matches WHERE player_a = 1815".to_owned(),
            &["7 matches", "1815 matches"],
        ),
    ] {
        assert_eq!(notes_of(&postgres, &sql).await, wanted, "{sql}");
    }
    let numbers = revisions(&postgres, EVE).await;
    assert_eq!(
        (numbers[4], numbers[2], numbers[3]),
        (numbers[0], numbers[1], numbers[1])
    );
    for refused in [
        format!("{played} VALUES (42, 7, 1815, 1, 0)"),
        format!("{played} VALUES (42, 42, 42, 1, 0)"),
        format!("{played} VALUES (42, 99, 42, 1, 0)"),
        "UPDATE game_stats SET wins = -1".to_owned(),
    ] {
        assert!(postgres.try_psql(&refused).await.is_err(), "{refused}");
    }
}

/// Goal: a deleted account takes its friendships and its picture along, its friends are told, and it stays deleted.
/// Method: `deleted_at` set by somebody else, then whatever else could be tried.
#[tokio::test]
async fn a_deleted_account_leaves_its_friends() {
    let postgres = populated().await;
    postgres
        .psql(
            "INSERT INTO friendships (user_id, friend_id) VALUES (42, 7), (7, 42), (42, 1815);
             INSERT INTO avatars VALUES (42, 'h', 'image/png', 'x');
             UPDATE users SET username = 'ada 2' WHERE id = 42",
        )
        .await;
    // Earlier records about the account are not published any more.
    postgres
        .psql("UPDATE users SET deleted_at = now() WHERE id = 42")
        .await;
    assert_eq!(noted(&postgres).await, ["7 friends", "42 deleted"]);
    assert_eq!(postgres.psql("SELECT count(*) FROM friendships").await, "0");
    assert_eq!(postgres.psql("SELECT count(*) FROM avatars").await, "0");
    for sql in [
        "UPDATE users SET deleted_at = now() + interval '1 hour' WHERE id = 42",
        "UPDATE users SET username = 'somebody' WHERE id = 42",
        "INSERT INTO game_stats (user_id) VALUES (42)",
        "DELETE FROM users WHERE id = 42",
    ] {
        assert!(notes_of(&postgres, sql).await.is_empty(), "{sql}");
    }
    postgres
        .psql("UPDATE users SET deleted_at = now() WHERE id = 7")
        .await;
    let restored = postgres
        .try_psql("UPDATE users SET deleted_at = NULL WHERE id = 7")
        .await;
    assert!(restored.is_err_and(|error| error.contains("stays deleted")));
    let renumbered = postgres
        .try_psql("UPDATE users SET id = 8 WHERE id = 1815")
        .await;
    assert!(renumbered.is_err_and(|error| error.contains("never changes")));
}

/// Goal: a row that is deleted counts as a deleted account, and takes everything along.
/// Method: one with a friend, a match and statistics; all of them at once.
#[tokio::test]
async fn a_row_that_is_deleted_is_a_deleted_account() {
    let postgres = populated().await;
    postgres
        .psql(
            "INSERT INTO friendships (user_id, friend_id) VALUES (42, 7), (7, 42);
             INSERT INTO game_stats (user_id) VALUES (42);
             INSERT INTO matches (player_a, player_b, winner, score_a, score_b) VALUES (42, 1815, 42, 1, 0)",
        )
        .await;
    let before = revisions(&postgres, ADA).await[0];
    let deletion = "DELETE FROM users WHERE id = 42";
    assert_eq!(
        notes_of(&postgres, deletion).await,
        ["7 friends", "42 deleted", "1815 matches"]
    );
    let revision = postgres
        .psql("SELECT revision FROM changes WHERE kind = 'deleted'")
        .await;
    assert!(revision.parse::<u64>().expect("a number") > before);
    assert_eq!(
        notes_of(&postgres, "DELETE FROM users").await,
        ["7 deleted", "1815 deleted"]
    );
}

/// Goal: revisions of a user go up strictly, and none is given twice, whoever writes at the same time.
/// Method: eight writers of one user; what each of them was given.
#[tokio::test]
async fn revisions_go_up_under_concurrent_writers() {
    let postgres = populated().await;
    let writer = |number: usize| {
        let postgres = &postgres;
        async move {
            let sql = format!(
                "DO $$ BEGIN FOR n IN 1..50 LOOP \
                     UPDATE users SET username = '{number}-' || n WHERE id = 42; COMMIT; \
                     INSERT INTO seen SELECT revision FROM users WHERE id = 42; COMMIT; \
                 END LOOP; END $$"
            );
            postgres.psql(&sql).await
        }
    };
    // Every revision that a user ever has is kept by a trigger of the test's own.
    postgres
        .psql(
            "CREATE TABLE seen (revision bigint);
             CREATE TABLE given (place serial, revision bigint UNIQUE);
             CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO given (revision) VALUES (NEW.revision); RETURN NULL; END $$;
             CREATE TRIGGER keep AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        .await;
    join_all((0..8).map(writer)).await;
    assert_eq!(postgres.psql("SELECT count(*) FROM given").await, "400");
    let down = "SELECT count(*) FROM (SELECT revision - lag(revision) OVER (ORDER BY place) AS step FROM given) s WHERE step <= 0";
    assert_eq!(postgres.psql(down).await, "0");

    // A clock that goes back does not take them along.
    let ahead = "SELECT max(revision) + 1000000000000 FROM given";
    let ahead: u64 = postgres.psql(ahead).await.parse().expect("a number");
    let set = format!(
        "ALTER TABLE users DISABLE TRIGGER users_revise; UPDATE users SET revision = {ahead} WHERE id = 42; \
         ALTER TABLE users ENABLE TRIGGER users_revise; UPDATE users SET username = 'late' WHERE id = 42"
    );
    postgres.psql(&set).await;
    assert_eq!(revisions(&postgres, ADA).await[0], ahead + 1);
}

/// Goal: writers need rights on what they write and on nothing else, and may have any search path.
/// Method: a role that may only change users; another session's schema of the same names in front.
#[tokio::test]
async fn writers_need_no_rights_on_the_notes() {
    let postgres = populated().await;
    let update = "CREATE ROLE backend; GRANT SELECT, UPDATE ON users TO backend; SET ROLE backend; \
                  UPDATE users SET username = 'ada 2' WHERE id = 42; RESET ROLE; \
                  DROP OWNED BY backend; DROP ROLE backend";
    assert_eq!(notes_of(&postgres, update).await, ["42 profile"]);
    let elsewhere = "CREATE SCHEMA other; CREATE TABLE other.changes (user_id int); SET search_path = other; \
                     UPDATE public.users SET username = 'ada 3' WHERE id = 42";
    assert_eq!(notes_of(&postgres, elsewhere).await, ["42 profile"]);
}
