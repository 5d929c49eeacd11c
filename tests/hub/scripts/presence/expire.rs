//! `lua/presence/expire.lua`: the grace is over.

use super::{LONG_MS, PATIENCE_MS, expire, next_transition, presence, register, release};
use crate::harness::{ADA, BOB, EVE, eventually};
use crate::scripts::{Server, key};

/// Goal: offline is said once the grace is over, not before, and once only.
/// Method: asked again and again until it happens; then once more.
#[tokio::test]
async fn offline_is_said_once_when_the_grace_is_over() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    let mut presence = presence(&server).await;
    let due = release(&server, ADA, "a.1", 1, 150).await.1;
    let due = due.expect("the grace runs");
    eventually("the grace is over", async || {
        let before = server.now_ms().await;
        let (count, more) = expire(&server, 10, 0).await;
        let after = server.now_ms().await;
        assert!(!more, "one user is no batch");
        if count == 0 {
            assert!(before < due, "not said {} ms late", before - due);
            return None;
        }
        assert_eq!(count, 1);
        assert!(after >= due, "said {} ms early", due - after);
        Some(())
    })
    .await;
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![], vec![ADA])
    );
    assert!(server.set(&key("online")).await.is_empty());

    let before = server.contents().await;
    assert_eq!(expire(&server, 10, LONG_MS).await, (0, false));
    assert_eq!(server.contents().await, before);
    presence.hears_nothing().await;
}

/// Goal: one call takes no more users offline than it may, those who left first, and says them in one
/// transition; the next call goes on, for as long as a call says that more may be due.
/// Method: five users, two at a time, one who stays for now; then exactly two.
#[tokio::test]
async fn a_batch_is_a_batch() {
    let server = Server::start().await;
    for user in 1..=5 {
        register(&server, user, "a.1", user).await;
        release(&server, user, "a.1", user, 0).await;
        let user = user.to_string();
        server
            .command(&["ZADD", &key("leaving"), "XX", &user, &user])
            .await;
    }
    register(&server, ADA, "a.1", ADA).await;
    release(&server, ADA, "a.1", ADA, LONG_MS).await;
    let mut presence = presence(&server).await;
    assert_eq!(expire(&server, 2, 0).await, (2, true));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (7, vec![], vec![1, 2])
    );
    assert_eq!(server.set(&key("online")).await, ["3", "4", "42", "5"]);
    assert_eq!(expire(&server, 2, 0).await, (2, true));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (8, vec![], vec![3, 4])
    );
    assert_eq!(expire(&server, 2, 0).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (9, vec![], vec![5])
    );
    presence.hears_nothing().await;

    for user in [BOB, EVE] {
        register(&server, user, "a.1", user).await;
        release(&server, user, "a.1", user, 0).await;
    }
    assert_eq!(expire(&server, 2, 0).await, (2, true));
    assert_eq!(expire(&server, 2, 0).await, (0, false));
}

/// Goal: the last node to leave may say the offline that is due within the grace, and no other.
/// Method: one user due in ten minutes, one in twenty; ten minutes ahead, then all.
#[tokio::test]
async fn looking_ahead_takes_those_who_would_be_due() {
    let server = Server::start().await;
    for user in [ADA, BOB, EVE] {
        register(&server, user, "a.1", user).await;
    }
    release(&server, ADA, "a.1", ADA, LONG_MS).await;
    release(&server, BOB, "a.1", BOB, 2 * LONG_MS).await;
    let mut presence = presence(&server).await;
    assert_eq!(expire(&server, 10, 0).await.0, 0);
    assert_eq!(expire(&server, 10, LONG_MS).await.0, 1);
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (4, vec![], vec![ADA])
    );
    assert_eq!(expire(&server, 10, 2 * LONG_MS).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (5, vec![], vec![BOB])
    );
    assert_eq!(server.set(&key("online")).await, [EVE.to_string()]);
}

/// Goal: who is no longer online is not said to go offline, and takes no number.
/// Method: somebody in the sorted set who is not online, alone and beside one who is.
#[tokio::test]
async fn who_is_offline_already_is_not_announced() {
    let server = Server::start().await;
    server.command(&["ZADD", &key("leaving"), "1", "7"]).await;
    let mut presence = presence(&server).await;
    assert_eq!(expire(&server, 10, 0).await, (0, false));
    assert_eq!(server.redis.keys("*").await, [key("server")]);
    presence.hears_nothing().await;

    register(&server, ADA, "a.1", 1).await;
    next_transition(&server, &mut presence).await;
    release(&server, ADA, "a.1", 1, 0).await;
    server.command(&["ZADD", &key("leaving"), "1", "7"]).await;
    assert_eq!(expire(&server, 10, 0).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![], vec![ADA])
    );
}

/// Goal: an expiry changes nothing where nobody is due, and asks the server who it is only where somebody is.
/// Method: an empty Redis; data of another server with a grace that runs, then looking ahead; Redis's count of INFO.
#[tokio::test]
async fn nobody_due_is_nothing() {
    let server = Server::start().await;
    assert_eq!(expire(&server, 10, 0).await, (0, false));
    assert!(server.contents().await.is_empty());

    register(&server, ADA, "a.1", 1).await;
    release(&server, ADA, "a.1", 1, LONG_MS).await;
    let another = ["SET", &key("server"), "0123abc 0"];
    server.command(&another).await;
    let before = server.contents().await;
    for (ahead_ms, count) in [(0, 0), (LONG_MS, 1)] {
        server.command(&["CONFIG", "RESETSTAT"]).await;
        assert_eq!(expire(&server, 10, ahead_ms).await, (count, false));
        let statistics = server.redis.cli(&["INFO", "commandstats"]).await;
        assert!(statistics.contains("cmdstat_zrangebyscore:"));
        assert_eq!(statistics.contains("cmdstat_info:"), count > 0);
        let is_same = server.contents().await == before;
        assert_eq!(is_same, count == 0);
    }
}

/// Goal: an offline that is the first thing to happen in a life of the data names that life, too.
/// Method: users leave, and the name is lost.
#[tokio::test]
async fn an_expiry_names_the_life_of_the_data() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    release(&server, ADA, "a.1", 1, 0).await;
    server.command(&["DEL", &key("epoch")]).await;
    let mut presence = presence(&server).await;
    assert_eq!(expire(&server, 10, 0).await, (1, false));
    assert_eq!(
        next_transition(&server, &mut presence).await,
        (2, vec![], vec![ADA])
    );
}

/// Goal: on data that another server wrote nobody is taken offline for a while, but by the last node that leaves.
/// Method: the server that the data was seen on gets another name; asked until the grace that is over counts.
#[tokio::test]
async fn data_of_another_server_is_doubted_for_a_while() {
    let server = Server::start().await;
    for (connection, user) in [(1, ADA), (2, BOB)] {
        register(&server, user, "a.1", connection).await;
    }
    release(&server, ADA, "a.1", 1, 0).await;
    assert_eq!(
        expire(&server, 10, 0).await,
        (1, false),
        "fresh data is not doubted"
    );
    release(&server, BOB, "a.1", 2, 0).await;
    let another = ["SET", &key("server"), "0123abc 0"];
    server.command(&another).await;
    let begun = server.now_ms().await;
    eventually("the patience is over", async || {
        let (count, more) = expire(&server, 10, 0).await;
        assert!(!more);
        (count == 1).then_some(())
    })
    .await;
    assert!(server.now_ms().await >= begun + PATIENCE_MS);
    register(&server, EVE, "a.1", 3).await;
    release(&server, EVE, "a.1", 3, LONG_MS).await;
    server.command(&another).await;
    assert_eq!(expire(&server, 10, LONG_MS).await, (1, false));
}
