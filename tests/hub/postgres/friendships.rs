//! Friendships as the hub changes and reads them.

use futures_util::future::join_all;
use vigie::internals::{Friendship, Part, ProfilesError};

use super::{account, assert_noted, forget, friends, id, populated, told};
use crate::harness::{ADA, BOB, EVE, eventually, eventually_eq};

/// Goal: a friendship holds from the moment at which both have asked until either ends it.
/// Method: each step and its repeat; what is returned, noted and read.
#[tokio::test]
async fn a_friendship_takes_two_and_ends_with_one() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let both = vec![(BOB, Part::Friends), (ADA, Part::Friends)];
    for (from, to, wanted, changed) in [
        (ADA, BOB, Friendship::Requested, vec![]),
        (ADA, BOB, Friendship::Requested, vec![]),
        (BOB, ADA, Friendship::Friends, both.clone()),
        (BOB, ADA, Friendship::Friends, vec![]),
        (ADA, BOB, Friendship::Friends, vec![]),
    ] {
        forget(&postgres).await;
        let (friendship, changes) = profiles
            .ask_friendship(id(from), id(to))
            .await
            .expect("asked");
        assert_eq!((friendship, told(&changes)), (wanted, changed));
        assert_noted(&postgres, &changes).await;
    }
    let ada = account(&profiles, ADA).await;
    assert_eq!(
        (ada.friends[0].user_id, ada.friends[0].username.as_str()),
        (id(BOB), "bob")
    );
    let lists = friends(&profiles, &[ADA, BOB, EVE, 99]).await;
    assert_eq!(
        lists,
        [(BOB, vec![ADA]), (ADA, vec![BOB]), (EVE, vec![])].into()
    );

    forget(&postgres).await;
    let changes = profiles
        .end_friendship(id(ADA), id(BOB))
        .await
        .expect("ended");
    assert_eq!(told(&changes), both);
    assert_noted(&postgres, &changes).await;
    assert_eq!(profiles.end_friendship(id(ADA), id(BOB)).await, Ok(vec![]));
    assert!(account(&profiles, BOB).await.friends.is_empty());
    // Taking back a request changes nobody's list.
    profiles
        .ask_friendship(id(ADA), id(BOB))
        .await
        .expect("asked");
    assert_eq!(profiles.end_friendship(id(BOB), id(ADA)).await, Ok(vec![]));
    assert_eq!(postgres.psql("SELECT count(*) FROM friendships").await, "0");
}

/// Goal: friends are live accounts, others than oneself, and not too many.
/// Method: unknown users, deleted accounts, oneself, the thousand-and-first.
#[tokio::test]
async fn impossible_friendships_are_refused() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    profiles.delete_account(id(EVE)).await.expect("deleted");
    let deleted = ProfilesError::AccountDeleted(id(EVE));
    let unknown = ProfilesError::NoSuchUser(id(99));
    for (user, other, wanted) in [
        (ADA, 99, &unknown),
        (99, ADA, &unknown),
        (ADA, EVE, &deleted),
        (EVE, ADA, &deleted),
    ] {
        let refused = profiles.ask_friendship(id(user), id(other)).await;
        assert_eq!(refused.as_ref(), Err(wanted), "{user} {other}");
    }
    assert_eq!(profiles.end_friendship(id(ADA), id(99)).await, Err(unknown));
    assert_eq!(profiles.end_friendship(id(ADA), id(EVE)).await, Ok(vec![]));
    let oneself = profiles.ask_friendship(id(ADA), id(ADA)).await;
    assert!(
        matches!(oneself, Err(ProfilesError::Invalid(_))),
        "{oneself:?}"
    );

    postgres
        .psql(
            "INSERT INTO users (id, username) SELECT n, 'u' FROM generate_series(10001, 11000) n;
             INSERT INTO friendships (user_id, friend_id) SELECT 42, n FROM generate_series(10001, 11000) n",
        )
        .await;
    let one_more = profiles.ask_friendship(id(ADA), id(BOB)).await;
    assert!(
        matches!(one_more, Err(ProfilesError::Invalid(_))),
        "{one_more:?}"
    );
    let again = profiles.ask_friendship(id(ADA), id(10_500)).await;
    assert!(matches!(again, Ok((Friendship::Requested, _))), "{again:?}");
}

/// Goal: a deadlock that another writer causes is not the caller's problem.
/// Method: somebody changes Ada, then Bob, in one transaction, while the hub locks Bob, then Ada.
#[tokio::test]
async fn a_deadlock_with_another_writer_is_tried_again() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    profiles.ping().await.expect("postgres answers");
    let other = postgres.try_psql(
        "UPDATE users SET username = 'Ada' WHERE id = 42; SELECT pg_sleep(0.7); \
         UPDATE users SET username = 'Bob' WHERE id = 7",
    );
    let ask = async {
        eventually("the other writer is under way", async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                       AND datname = current_database()";
            (postgres.psql(sql).await == "1").then_some(())
        })
        .await;
        profiles.ask_friendship(id(BOB), id(ADA)).await
    };
    let (other, asked) = tokio::join!(other, ask);
    assert!(matches!(asked, Ok((Friendship::Requested, _))), "{asked:?}");
    // Postgres aborts the transaction that waited first, which was the hub's; the other writer is not disturbed.
    other.expect("the other writer is not disturbed");
    let deadlocked = async || {
        let sql = "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()";
        postgres.psql(sql).await
    };
    eventually_eq("there was a deadlock", "t".to_owned(), deadlocked).await;
}

/// Goal: requests that cross each other never fail, also while others delete what they need.
/// Method: everybody asks everybody and ends it again, at once, from many tasks; nothing may be refused.
#[tokio::test]
async fn crossing_requests_do_not_fail() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let users = [ADA, BOB, EVE];
    let mut tasks = Vec::new();
    for round in 0..10 {
        for user in users {
            for other in users.into_iter().filter(|other| *other != user) {
                let profiles = profiles.clone();
                tasks.push(tokio::spawn(async move {
                    match round % 3 {
                        2 => profiles
                            .end_friendship(id(user), id(other))
                            .await
                            .map(|_| ()),
                        _ => profiles
                            .ask_friendship(id(user), id(other))
                            .await
                            .map(|_| ()),
                    }
                }));
            }
        }
    }
    for done in join_all(tasks).await {
        assert_eq!(done.expect("no panic"), Ok(()));
    }
    // Lists and rows agree, in whatever order the requests ran.
    let pairs = "SELECT count(*) FROM friendships a JOIN friendships b ON a.user_id = b.friend_id AND a.friend_id = b.user_id";
    let friends: usize = friends(&profiles, &users)
        .await
        .values()
        .map(Vec::len)
        .sum();
    assert_eq!(postgres.psql(pairs).await, friends.to_string());
}
