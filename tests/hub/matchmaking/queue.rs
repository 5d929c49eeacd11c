//! Pairing, and waiting times.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    disjoint_pairs, join, leave, match_number, matches_of, queue, ticket, wait_for_queue,
    wait_until_all_are_told,
};
use crate::harness::{
    ADA, Answer, BOB, Client, Cluster, Connecting, EVE, NODE_KEY, Postgres, eventually, profile,
    run, vigie,
};

async fn delete_ticket(cluster: &Cluster, node: usize, user: u64) -> Answer {
    let path = format!("/api/v1/matchmaking/tickets/{user}");
    let request = cluster.request(node, Method::DELETE, &path);
    cluster.send(request.bearer_auth(NODE_KEY)).await
}

/// Goal: a hundred users on three nodes become fifty disjoint pairs, and every tab is told once.
/// Method: two tabs each, on different nodes; everybody joins at once, from either tab.
#[tokio::test]
async fn a_hundred_users_become_fifty_pairs() {
    let cluster = Cluster::start(3).await;
    let mut clients: BTreeMap<u64, Vec<Client>> = BTreeMap::new();
    for user in 1..=100 {
        let place = user as usize;
        let tabs = [place % 3, (place + 1) % 3]
            .map(|node| Connecting::user(user).namespace(["/", "/socket.io/"][node % 2]))
            .into_iter();
        let nodes = [place % 3, (place + 1) % 3];
        let tabs = nodes
            .into_iter()
            .zip(tabs)
            .map(|(node, connecting)| cluster.connect_with(node, connecting));
        clients.insert(user, join_all(tabs).await);
    }
    for user in 1..=100 {
        cluster.wait_for_refcount(user, 2).await;
    }
    let joined = clients
        .iter()
        .map(|(user, tabs)| join(&tabs[*user as usize % 2]));
    for status in join_all(joined).await {
        assert_eq!(status, "queued");
    }
    wait_until_all_are_told(&clients).await;
    wait_for_queue(&cluster, 0, 0).await;
    assert_eq!(disjoint_pairs(&clients).len(), 50);
    assert_eq!(queue(&cluster, 1).await["matchesPerMinute"], 50);
}

/// Goal: who cannot join is told why, and joining and leaving need no acknowledgement. Method: a guest, with and
/// without; a user who joins and leaves twice.
#[tokio::test]
async fn guests_do_not_wait() {
    let cluster = Cluster::start(1).await;
    let mut guest = cluster.connect_guest(0).await;
    for event in ["join-matchmaking", "leave-matchmaking"] {
        let answer = guest.emit_args_ack(event, vec![]).await;
        assert_eq!(
            (&answer["ok"], &answer["error"]),
            (&json!(false), &json!("not_signed_in"))
        );
        assert!(answer["message"].is_string(), "{answer}");
        guest.emit_args(event, vec![]);
        let exception = guest.next_event("exception").await;
        assert_eq!(
            (&exception["event"], &exception["error"]),
            (&json!(event), &json!("not_signed_in"))
        );
    }
    let ada = cluster.connect(0, ADA).await;
    leave(&ada).await;
    ada.emit_args("join-matchmaking", vec![]);
    wait_for_queue(&cluster, 0, 1).await;
    ada.emit_args("leave-matchmaking", vec![]);
    wait_for_queue(&cluster, 0, 0).await;
    leave(&ada).await;
}

/// Goal: a user has one ticket over all nodes and tabs, whoever asked for it.
/// Method: two tabs on two nodes and a back end on a third; any of them takes it back.
#[tokio::test]
async fn a_user_waits_once() {
    let cluster = Cluster::start(3).await;
    let tabs = [cluster.connect(0, ADA).await, cluster.connect(1, ADA).await];
    assert_eq!(join(&tabs[0]).await, "queued");
    assert_eq!(join(&tabs[1]).await, "already_queued");
    assert_eq!(join(&tabs[0]).await, "already_queued");
    let asked = ticket(&cluster, 2, json!({ "userId": ADA })).await;
    assert_eq!(asked, json!({ "userId": ADA, "status": "already_queued" }));
    wait_for_queue(&cluster, 2, 1).await;
    leave(&tabs[1]).await;
    wait_for_queue(&cluster, 2, 0).await;

    let asked = ticket(&cluster, 2, json!({ "userId": ADA })).await;
    assert_eq!(asked["status"], "queued");
    assert_eq!(
        delete_ticket(&cluster, 0, ADA).await.json,
        json!({ "removed": true })
    );
    assert_eq!(
        delete_ticket(&cluster, 0, ADA).await.json,
        json!({ "removed": false })
    );
    let bob = cluster.connect(2, BOB).await;
    assert_eq!(join(&bob).await, "queued");
    wait_for_queue(&cluster, 0, 1).await;
    assert!(
        matches_of(&bob).is_empty(),
        "nobody plays alone, or with who has left"
    );
}

/// Goal: opponents are described as everybody may see them; who has no profile is there without a name.
/// Method: Ada's profile has hidden fields, Bob has none.
#[tokio::test]
async fn opponents_are_described() {
    let cluster = Cluster::start(2).await;
    let (mut ada, mut bob) = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    cluster.notify_profile(1, ADA, profile(ADA, "ada")).await;
    assert_eq!(join(&ada).await, "queued");
    assert_eq!(join(&bob).await, "queued");
    let (to_ada, to_bob) = (
        ada.next_event("match-found").await,
        bob.next_event("match-found").await,
    );
    assert_eq!(to_ada["matchId"], to_bob["matchId"]);
    assert!(
        to_ada["matchId"].as_str().is_some_and(|id| !id.is_empty()),
        "{to_ada}"
    );
    let described = json!({ "userId": ADA, "username": "ada", "avatar": "/avatars/a.png" });
    assert_eq!(to_bob["opponent"], described);
    let unknown = json!({ "userId": BOB, "username": null, "avatar": null });
    assert_eq!(to_ada["opponent"], unknown);
    for payload in [&to_ada, &to_bob] {
        assert_eq!(
            payload.as_object().map(|fields| fields.len()),
            Some(2),
            "{payload}"
        );
    }
}

/// Goal: who was told of a match may join again at once, and gets another one with another id.
/// Method: three matches in a row between the same two.
#[tokio::test]
async fn after_a_match_comes_another() {
    let cluster = Cluster::start(2).await;
    let (ada, bob) = (cluster.connect(0, ADA).await, cluster.connect(1, BOB).await);
    for round in 1..=3 {
        for client in [&ada, &bob] {
            assert_eq!(join(client).await, "queued");
        }
        let found = match_number(&ada, round).await;
        assert_eq!(match_number(&bob, round).await.0, found.0);
    }
    let ids = matches_of(&ada).into_iter().map(|(id, _)| id);
    assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 3);
}

/// Goal: a ticket ends when its user goes offline, but not within the grace; and with the account.
/// Method: Ada comes back to another node and is matched later; Eve leaves, and Bob's account is deleted, before anybody joins.
#[tokio::test]
async fn a_ticket_lives_as_long_as_its_user_is_online() {
    let cluster = Cluster::builder().nodes(2).grace("3s").start().await;
    let ada = cluster.connect(0, ADA).await;
    assert_eq!(join(&ada).await, "queued");
    ada.close().await;
    let ada = cluster.connect(1, ADA).await;
    wait_for_queue(&cluster, 0, 1).await;
    let bob = cluster.connect(0, BOB).await;
    assert_eq!(join(&bob).await, "queued");
    assert_eq!(match_number(&ada, 1).await.1, BOB);

    let eve = cluster.connect(1, EVE).await;
    assert_eq!(join(&eve).await, "queued");
    eve.close().await;
    cluster.wait_until_all_see(&[BOB, ADA]).await;
    wait_for_queue(&cluster, 0, 0).await;

    assert_eq!(join(&bob).await, "queued");
    let answer = cluster
        .post(
            1,
            &format!("/api/v1/users/{BOB}/account-deleted"),
            &json!({}),
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert_eq!(queue(&cluster, 0).await["queueLength"], 0);
}

/// Goal: who waited for as long as allowed is told so on every tab, once, and waits no longer; joining again is
/// waiting anew, joining twice is not. Method: three seconds; two tabs on two nodes, of which the second joins when half of
/// them are over; then the same once more.
#[tokio::test]
async fn a_ticket_runs_out() {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_MATCHMAKING__MAX_WAIT", "3s")
        .start()
        .await;
    let mut tabs = [cluster.connect(0, ADA).await, cluster.connect(1, ADA).await];
    for round in 1..=2 {
        assert_eq!(join(&tabs[0]).await, "queued");
        eventually("half of the time is over", async || {
            let waited_ms = queue(&cluster, 0).await["oldestWaitMs"].as_u64();
            (waited_ms >= Some(1500)).then_some(())
        })
        .await;
        assert_eq!(join(&tabs[1]).await, "already_queued");
        for tab in &mut tabs {
            assert_eq!(tab.next_args("match-timeout").await, Vec::<Value>::new());
        }
        wait_for_queue(&cluster, 1, 0).await;
        for tab in &tabs {
            assert_eq!(tab.payloads("match-timeout").len(), round);
        }
    }
}

/// Goal: among equals the one who waits longest is first, among others the closest rating; the window widens.
/// Method: tickets of a back end with ratings of its own; in the end two who are far apart.
#[tokio::test]
async fn the_closest_rating_is_the_opponent() {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_MATCHMAKING__RATING_WINDOW", "100")
        .env("VIGIE_MATCHMAKING__WIDEN_PER_SECOND", "200")
        .start()
        .await;
    let mut clients = BTreeMap::new();
    for (user, rating) in [(1, 1000), (2, 5000), (3, 9000)] {
        clients.insert(user, vec![cluster.connect(0, user).await]);
        ticket(&cluster, 1, json!({ "userId": user, "rating": rating })).await;
    }
    for (user, rating) in [(4, 5050), (5, 1099), (6, 9900)] {
        clients.insert(user, vec![cluster.connect(1, user).await]);
        ticket(&cluster, 0, json!({ "userId": user, "rating": rating })).await;
    }
    // 3 and 6 wait for four seconds until the window is wide enough.
    wait_until_all_are_told(&clients).await;
    let pairs = disjoint_pairs(&clients);
    let expected = [[1, 5], [2, 4], [3, 6]].map(std::collections::BTreeSet::from);
    assert_eq!(pairs, expected.into());
}

/// Goal: with Postgres, ratings come from the game statistics. Method: two who win, two who lose, in the order in
/// which equals would be paired otherwise; `vigie inspect queue` shows the ratings, for people and for programs.
#[tokio::test]
async fn statistics_make_ratings() {
    let postgres = Postgres::start().await;
    postgres
        .psql(
            "INSERT INTO users (id, username, avatar) VALUES (1, 'a', ''), (2, 'b', ''), (3, 'c', ''), (4, 'd', '');
             INSERT INTO game_stats (user_id, wins, losses) VALUES (1, 90, 10), (2, 10, 90), (3, 80, 10), (4, 10, 80)",
        )
        .await;
    let cluster = Cluster::builder()
        .nodes(2)
        .on_postgres(&postgres)
        .start()
        .await;
    let mut clients = BTreeMap::new();
    for user in [1, 2] {
        let client = cluster.connect(0, user).await;
        assert_eq!(join(&client).await, "queued");
        clients.insert(user, vec![client]);
    }
    let inspect = async |arguments: &[&str]| {
        let mut words = vec!["inspect", "queue"];
        words.extend(arguments);
        let output = run(vigie(&words, &cluster.env_of("inspect"))).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown: Value = serde_json::from_str(&inspect(&["--json"]).await).expect("JSON");
    let first = shown["first"].as_array().expect("a list").iter();
    let first: Vec<_> = first
        .map(|ticket| (&ticket["userId"], &ticket["rating"]))
        .collect();
    assert_eq!(
        first,
        [(&json!(1), &json!(1290)), (&json!(2), &json!(710))],
        "{shown}"
    );
    assert_eq!(shown["queueLength"], 2);
    let table = inspect(&["--limit", "1"]).await;
    assert!(
        table.starts_with("2 waiting") && table.contains("1290") && table.ends_with("and 1 more\n"),
        "{table}"
    );

    for user in [3, 4] {
        let client = cluster.connect(1, user).await;
        assert_eq!(join(&client).await, "queued");
        clients.insert(user, vec![client]);
    }
    wait_until_all_are_told(&clients).await;
    let expected = [[1, 3], [2, 4]].map(std::collections::BTreeSet::from);
    assert_eq!(disjoint_pairs(&clients), expected.into());
}

/// Goal: bad requests are refused and change nothing. Method: a table.
#[tokio::test]
async fn bad_tickets_are_refused() {
    let cluster = Cluster::start(1).await;
    let _ada = cluster.connect(0, ADA).await;
    let path = "/api/v1/matchmaking/tickets";
    for (status, body) in [
        (409, json!({ "userId": BOB })),
        (400, json!({})),
        (400, json!({ "userId": 0 })),
        (400, json!({ "userId": "42" })),
        (400, json!({ "userId": ADA, "rating": "1000" })),
        (400, json!({ "userId": ADA, "rating": 1.5 })),
        (400, json!({ "userId": ADA, "rating": 1_000_001 })),
        (400, json!({ "userId": ADA, "else": 1 })),
        (400, json!([ADA])),
    ] {
        cluster.post(0, path, &body).await.assert_problem(status);
    }
    let request = cluster.request(0, Method::DELETE, &format!("{path}/x"));
    cluster
        .send(request.bearer_auth(NODE_KEY))
        .await
        .assert_problem(400);
    let request = cluster.request(0, Method::GET, "/api/v1/matchmaking");
    cluster.send(request).await.assert_problem(401);
    let empty =
        json!({ "queueLength": 0, "oldestWaitMs": 0, "matchesPerMinute": 0, "pendingMatches": 0 });
    assert_eq!(queue(&cluster, 0).await, empty);

    let lowest = json!({ "userId": ADA, "rating": -1_000_000 });
    assert_eq!(ticket(&cluster, 0, lowest).await["status"], "queued");
    eventually("the first one waits", async || {
        (queue(&cluster, 0).await["oldestWaitMs"] != 0).then_some(())
    })
    .await;
    eventually("the metric shows one who waits", async || {
        (cluster.metric(0, "vigie_matchmaking_queue").await == 1.0).then_some(())
    })
    .await;
}
