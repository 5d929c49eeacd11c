//! Views of a user whose account is in Postgres, and that they change as soon as they have to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Builder, Client, Cluster, Connecting, EVE, Postgres};
use crate::harness::{eventually, eventually_eq, kinds, profile, public, revision};

/// A field that only Ada and her friends may see.
const SECRET: &str = "hidden@example.org";

/// Ada and Bob are friends, Eve is nobody's.
async fn populate(postgres: &Postgres) {
    let sql = format!(
        "INSERT INTO users (id, username, avatar) VALUES
           ({ADA}, 'ada', '/a.png'), ({BOB}, 'bob', ''), ({EVE}, 'eve', '');
         INSERT INTO friendships (user_id, friend_id) VALUES ({ADA}, {BOB}), ({BOB}, {ADA});
         INSERT INTO game_stats (user_id, wins, losses) VALUES ({ADA}, 3, 1);
         INSERT INTO matches (player_a, player_b, winner, score_a, score_b) VALUES ({ADA}, {BOB}, {ADA}, 11, 7)"
    );
    postgres.psql(&sql).await;
}

fn with(postgres: &Postgres) -> Builder {
    Cluster::builder().on_postgres(postgres)
}

/// Two nodes on a database with Ada, Bob and Eve.
async fn start() -> (Postgres, Cluster) {
    let postgres = Postgres::start().await;
    populate(&postgres).await;
    let cluster = with(&postgres).nodes(2).start().await;
    (postgres, cluster)
}

fn end_friendship() -> String {
    format!("DELETE FROM friendships WHERE {ADA} IN (user_id, friend_id)")
}

/// Waits until `client`, one of Ada's own, was told that she has so many friends.
async fn told_of_friends(ada: &mut Client, friends: usize) {
    loop {
        let update = ada.next_event("friend-list-update").await;
        if update["friends"].as_array().map(Vec::len) == Some(friends) {
            return;
        }
    }
}

/// Goal: everybody sees of every event, and of the answer to `watch-profile`, what they may see.
/// Method: guest, stranger, friend and self watch on another node than the one that is told; what each got is
/// compared with a table, after an event of which everybody gets something.
#[tokio::test]
async fn everybody_sees_what_they_may_see() {
    let (_postgres, cluster) = start().await;
    let mut viewers = BTreeMap::from([
        ("guest", cluster.connect_guest(1).await),
        ("stranger", cluster.connect(1, EVE).await),
        ("friend", cluster.connect(1, BOB).await),
        ("self", cluster.connect(1, ADA).await),
    ]);
    let may_see_all = |viewer: &str| matches!(viewer, "friend" | "self");
    for (viewer, client) in &viewers {
        let answer = client.watch(ADA).await;
        let shown = json!({ "userID": ADA, "username": "ada", "avatar": "/a.png" });
        assert_eq!(answer["profile"], shown, "{viewer}");
        let stats = json!({ "wins": 3, "losses": 1, "ratio": 0.75 });
        assert_eq!(answer["stats"], stats, "{viewer}");
        for field in ["friends", "matches"] {
            let shown = answer.get(field).is_some();
            assert_eq!(shown, may_see_all(viewer), "{viewer} {field}: {answer}");
        }
        if may_see_all(viewer) {
            let bob = json!({ "userId": BOB, "username": "bob", "avatar": "" });
            assert_eq!(answer["friends"], json!([bob]));
            assert_eq!(answer["matches"][0]["opponent"], bob);
            assert_eq!(answer["matches"][0]["score"], json!([11, 7]));
            assert_eq!(answer["matches"][0]["result"], "win");
        }
    }

    let before: BTreeMap<_, _> = viewers
        .iter()
        .map(|(viewer, client)| (*viewer, counts(client)))
        .collect();
    for (event, field, content) in kinds() {
        cluster
            .notify(0, ADA, event, json!({ field: content }))
            .await;
    }
    let last = cluster.notify_profile(0, ADA, profile(ADA, "last")).await;
    for (viewer, client) in &mut viewers {
        let shown = loop {
            let update = client.next_event("profile-update").await;
            if revision(&update) == last {
                break update["user"].clone();
            }
        };
        let expected = match may_see_all(viewer) {
            true => profile(ADA, "last"),
            false => public(ADA, "last"),
        };
        assert_eq!(shown, expected, "{viewer}");
        let hidden = usize::from(may_see_all(viewer));
        let got: Vec<usize> = counts(client)
            .iter()
            .zip(&before[viewer])
            .map(|(now, before)| now - before)
            .collect();
        assert_eq!(
            got,
            [2, 1, hidden, hidden],
            "{viewer}: profile, stats, friends, matches"
        );
    }
}

/// How many updates of each kind a client got.
fn counts(client: &Client) -> Vec<usize> {
    let count = |(event, _, _): &(&str, _, _)| client.payloads(event).len();
    kinds().iter().map(count).collect()
}

/// Goal: no byte that a stranger receives holds what only friends may see.
/// Method: a bare WebSocket; everything up to a marker is searched, and the same of a friend has it.
#[tokio::test]
async fn a_stranger_receives_no_hidden_byte() {
    let (_postgres, cluster) = start().await;
    for (viewer, sees) in [(None, false), (Some(EVE), false), (Some(BOB), true)] {
        let mut raw = cluster.open_raw(1, viewer, ADA).await;
        cluster.notify_profile(0, ADA, profile(ADA, "ada")).await;
        let friends = json!({ "friends": [{ "userId": BOB, "username": SECRET, "avatar": "" }] });
        cluster.notify(0, ADA, "friend-list-update", friends).await;
        let stats = json!({ "stats": { "marker": true } });
        cluster.notify(0, ADA, "game-stats-update", stats).await;
        let received = raw.read_all_until("game-stats-update").await;
        assert_eq!(received.contains(SECRET), sees, "{viewer:?}: {received}");
        assert!(received.contains("profile-update"), "{received}");
    }
}

/// Goal: a friendship that ends or begins changes what those see who watch already, on every node, before the next
/// update; the watch stays.
/// Method: a friend and a stranger watch; friendships change in Postgres; Ada's own tab hears when it was told.
#[tokio::test]
async fn a_friendship_changes_the_view_between_two_updates() {
    let (postgres, cluster) = start().await;
    let mut ada = cluster.connect(0, ADA).await;
    let (mut bob, mut eve) = (cluster.connect(0, BOB).await, cluster.connect(1, EVE).await);
    bob.watch(ADA).await;
    eve.watch(ADA).await;
    cluster.notify_profile(1, ADA, profile(ADA, "one")).await;
    assert_eq!(
        bob.next_event("profile-update").await["user"],
        profile(ADA, "one")
    );
    assert_eq!(
        eve.next_event("profile-update").await["user"],
        public(ADA, "one")
    );

    postgres.psql(&end_friendship()).await;
    told_of_friends(&mut ada, 0).await;
    cluster.notify_profile(1, ADA, profile(ADA, "two")).await;
    assert_eq!(
        bob.next_event("profile-update").await["user"],
        public(ADA, "two")
    );
    let lists = bob.payloads("friend-list-update");
    assert!(lists.iter().all(|list| list["userId"] == BOB), "{lists:?}");

    let befriend = format!(
        "INSERT INTO friendships (user_id, friend_id) VALUES ({ADA}, {EVE}), ({EVE}, {ADA})"
    );
    postgres.psql(&befriend).await;
    told_of_friends(&mut ada, 1).await;
    let list = eve.next_event("friend-list-update").await;
    let about_ada = match list["userId"] == ADA {
        true => list,
        // Her own list changed as well.
        false => eve.next_event("friend-list-update").await,
    };
    assert_eq!(about_ada["friends"][0]["userId"], EVE);
    let matches = eve.next_event("match-history-update").await;
    assert_eq!(
        matches["userId"], ADA,
        "she had not been shown the matches before"
    );
    cluster.notify_profile(1, ADA, profile(ADA, "three")).await;
    loop {
        let user = eve.next_event("profile-update").await["user"].clone();
        if user["username"] == "three" {
            assert_eq!(user, profile(ADA, "three"));
            break;
        }
    }
    let user = bob.next_event("profile-update").await["user"].clone();
    assert_eq!(user, public(ADA, "three"));
}

/// Goal: rows that others change are told, once each, to watchers on every node.
/// Method: `UPDATE users` in psql; a second one as the marker.
#[tokio::test]
async fn what_others_write_is_seen_once() {
    let (postgres, cluster) = start().await;
    let mut watchers = [
        cluster.connect_guest(0).await,
        cluster.connect_guest(1).await,
    ];
    for watcher in &watchers {
        watcher.watch(ADA).await;
    }
    for name in ["Countess", "Lovelace"] {
        postgres
            .psql(&format!(
                "UPDATE users SET username = '{name}' WHERE id = {ADA}"
            ))
            .await;
        for watcher in &mut watchers {
            let update = watcher.next_event("profile-update").await;
            assert_eq!(update["user"]["username"], name);
        }
    }
    postgres
        .psql(&format!(
            "UPDATE game_stats SET wins = 9 WHERE user_id = {ADA}"
        ))
        .await;
    for watcher in &mut watchers {
        let update = watcher.next_event("game-stats-update").await;
        assert_eq!(
            update["stats"],
            json!({ "wins": 9, "losses": 1, "ratio": 0.9 })
        );
        assert_eq!(watcher.payloads("profile-update").len(), 2);
    }
}

/// Goal: nothing is missed when the node that listens is killed.
/// Method: nodes are killed one after the other while a third, the watcher's, lives; every change must arrive.
#[tokio::test]
async fn another_node_listens_when_one_is_killed() {
    let postgres = Postgres::start().await;
    populate(&postgres).await;
    let mut cluster = with(&postgres).nodes(3).start().await;
    let mut watcher = cluster.connect_guest(2).await;
    watcher.watch(ADA).await;
    for (place, name) in [(0, "first"), (1, "second")] {
        cluster.kill(place);
        postgres
            .psql(&format!(
                "UPDATE users SET username = '{name}' WHERE id = {ADA}"
            ))
            .await;
        let update = watcher.next_event("profile-update").await;
        assert_eq!(update["user"]["username"], name);
    }
    // The first node that comes back publishes a change from a time without listeners.
    cluster.kill(2);
    postgres
        .psql(&format!(
            "UPDATE users SET username = 'third' WHERE id = {ADA}"
        ))
        .await;
    cluster.start_again(0).await;
    let answered = async || {
        let guest = cluster.connect_guest(0).await;
        guest.watch(ADA).await["profile"]["username"].clone()
    };
    eventually_eq("what changed meanwhile is known", json!("third"), answered).await;
}

/// Goal: without Postgres sockets, presence and pushed updates go on; who begins to watch sees public fields only; and
/// all is as before when it is back.
/// Method: Postgres is killed and started again; a friend watches meanwhile.
#[tokio::test]
async fn while_postgres_is_away_friends_are_strangers() {
    let postgres = Postgres::start_alone().await;
    populate(&postgres).await;
    let cluster = with(&postgres).nodes(2).start().await;
    let mut ada = cluster.connect(0, ADA).await;
    let mut bob = cluster.connect(1, BOB).await;
    assert!(bob.watch(ADA).await.get("friends").is_some());
    bob.unwatch(ADA).await;
    postgres.kill().await;
    for node in 0..2 {
        eventually("readiness says that Postgres is away", async || {
            let answer = cluster.get_public(node, "/readyz").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            (answer.json["degraded"] == json!(["postgres"])).then_some(())
        })
        .await;
    }

    let answer = bob.watch(ADA).await;
    assert_eq!(answer["profile"]["username"], "ada");
    assert!(answer.get("friends").is_none(), "{answer}");
    cluster.notify_profile(0, ADA, profile(ADA, "pushed")).await;
    let user = bob.next_event("profile-update").await["user"].clone();
    assert_eq!(user, public(ADA, "pushed"));
    let user = ada.next_event("profile-update").await["user"].clone();
    assert_eq!(user, profile(ADA, "pushed"), "her own tabs see all");
    let eve = cluster.connect(1, EVE).await;
    assert!(eve.online().await.contains(&ADA));

    postgres.start_again().await;
    let list = bob.next_event("friend-list-update").await;
    assert_eq!(list["userId"], ADA, "the watch has its view again");
    cluster.notify_profile(0, ADA, profile(ADA, "again")).await;
    let user = bob.next_event("profile-update").await["user"].clone();
    assert_eq!(user, profile(ADA, "again"));
    for node in 0..2 {
        eventually("readiness is whole again", async || {
            let answer = cluster.get_public(node, "/readyz").await;
            (answer.json["degraded"] == json!([])).then_some(())
        })
        .await;
    }
}

/// Goal: nodes start and serve while Postgres is away.
/// Method: a URL where nobody listens.
#[tokio::test]
async fn a_node_starts_while_postgres_is_away() {
    let nobody = "postgres://nobody@127.0.0.1:1/nothing";
    let cluster = Cluster::builder()
        .env("VIGIE_POSTGRES__URL", nobody)
        .env("VIGIE_POSTGRES__MIGRATE", "true")
        .start()
        .await;
    let ada = cluster.connect(0, ADA).await;
    assert!(ada.watch(ADA).await.get("friends").is_some());
    let ready = cluster.get_public(0, "/readyz").await;
    assert_eq!(ready.json["degraded"], json!(["postgres"]));
}

/// Goal: an account that is deleted in Postgres is gone for everybody: connections, watchers, tokens, late updates;
/// also for Redis when it has lost its data.
/// Method: `deleted_at` set in psql; then `FLUSHALL`.
#[tokio::test]
async fn an_account_deleted_in_postgres_is_gone_everywhere() {
    let (postgres, cluster) = start().await;
    let mut ada = cluster.connect(0, ADA).await;
    let mut bob = cluster.connect(1, BOB).await;
    bob.watch(ADA).await;
    postgres
        .psql(&format!(
            "UPDATE users SET deleted_at = now() WHERE id = {ADA}"
        ))
        .await;
    assert_eq!(ada.next_args("account-deleted").await, Vec::<Value>::new());
    ada.next_disconnect().await;
    assert_eq!(
        bob.next_event("profile-deleted").await,
        json!({ "userId": ADA })
    );
    told_of_friends(&mut bob, 0).await;
    let refused = async |node: usize| {
        let refusal = cluster.refusal(node, Connecting::user(ADA)).await;
        assert_eq!(refusal, "account_deleted");
        let body = json!({ "user": profile(ADA, "late") });
        let late = cluster.tell(ADA, "profile-update", &body).await;
        late.assert_problem(410);
    };
    for node in 0..2 {
        refused(node).await;
    }
    cluster.cli(&["FLUSHALL"]).await;
    for node in 0..2 {
        eventually("presence is whole again", async || {
            let answer = cluster.get_public(node, "/readyz").await;
            (answer.status == 200).then_some(())
        })
        .await;
        refused(node).await;
    }
}

/// Goal: a guest who signs in as a friend sees what a friend sees.
/// Method: the same client watches, signs in, and watches again.
#[tokio::test]
async fn a_guest_who_signs_in_sees_more() {
    let (_postgres, cluster) = start().await;
    let mut client = cluster.connect_guest(1).await;
    assert!(client.watch(ADA).await.get("matches").is_none());
    client.login(&cluster.token(BOB));
    assert_eq!(client.next_verdict().await, Ok(()));
    assert!(client.watch(ADA).await.get("matches").is_some());
    cluster.notify_profile(0, ADA, profile(ADA, "seen")).await;
    let update = client.next_event("profile-update").await;
    assert_eq!(update["user"], profile(ADA, "seen"));
}

/// Goal: the embedded engine does the same.
/// Method: one node without Redis, a friend and a guest.
#[tokio::test]
async fn the_embedded_engine_knows_friends_too() {
    let postgres = Postgres::start().await;
    populate(&postgres).await;
    let cluster = with(&postgres).memory().start().await;
    let (mut bob, mut guest) = (
        cluster.connect_with(0, Connecting::user(BOB)).await,
        cluster.connect_guest(0).await,
    );
    assert!(bob.watch(ADA).await.get("friends").is_some());
    assert!(guest.watch(ADA).await.get("friends").is_none());
    postgres
        .psql(&format!(
            "UPDATE users SET username = 'Countess' WHERE id = {ADA}"
        ))
        .await;
    for client in [&mut bob, &mut guest] {
        let update = client.next_event("profile-update").await;
        assert_eq!(update["user"]["username"], "Countess");
    }
    postgres.psql(&end_friendship()).await;
    eventually("the friend is a stranger", async || {
        cluster.notify_profile(0, ADA, profile(ADA, "x")).await;
        let user = bob.next_event("profile-update").await["user"].clone();
        (user == public(ADA, "x")).then_some(())
    })
    .await;
}
