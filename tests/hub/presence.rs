//! Presence: announced once, counted per connection, the same on every node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{ADA, BOB, Client, Cluster, Connecting, EVE, MARKER, Offline, Online};
use crate::harness::{eventually_eq, now_seconds};

/// Goal: a user stays online while a connection lives on any node.
/// Method: two connections on two nodes, an observer on a third. Silence is proved by order, not
/// by waiting: a marker sent afterwards must arrive first.
#[tokio::test]
async fn only_the_last_connection_takes_the_user_offline() {
    let cluster = Cluster::start(3).await;
    let (phone, laptop) = (cluster.connect(0, ADA).await, cluster.connect(1, ADA).await);
    let mut observer = cluster.connect_guest(2).await;

    phone.close().await;
    cluster.wait_for_refcount(ADA, 1).await;
    let _marker = cluster.connect(0, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online));

    laptop.close().await;
    assert_eq!(observer.next_status().await, (ADA, Offline));
}

/// Goal: online is said once however many tabs open on however many nodes, offline once.
/// Method: observers on all nodes, among them the user's own first tab; six tabs come and go; every
/// observer's whole list of transitions is compared.
#[tokio::test]
async fn several_tabs_on_three_nodes_are_one_coming_and_one_going() {
    let cluster = Cluster::start(3).await;
    let mut observers = Vec::new();
    for node in 0..3 {
        observers.push(cluster.connect_guest(node).await);
    }
    let mut tabs = Vec::new();
    for tab in 0..6 {
        tabs.push(cluster.connect(tab % 3, ADA).await);
    }
    cluster.wait_for_refcount(ADA, 6).await;
    for (gone, tab) in tabs.iter().enumerate() {
        tab.close().await;
        cluster.wait_for_refcount(ADA, 5 - gone as u64).await;
    }
    for observer in &mut observers {
        assert_eq!(observer.next_status().await, (ADA, Online));
        assert_eq!(observer.next_status().await, (ADA, Offline));
    }
    let _marker = cluster.connect(1, MARKER).await;
    for observer in &mut observers {
        assert_eq!(observer.next_status().await, (MARKER, Online));
    }
}

/// Goal: tabs that open at the same moment on different nodes announce their user once.
/// Method: nine sockets opened without waiting; then all closed the same way; every observer's
/// transitions are compared, with a marker at the end.
#[tokio::test]
async fn tabs_that_race_each_other_are_still_one_coming() {
    let cluster = Cluster::start(3).await;
    let mut observer = cluster.connect_guest(1).await;
    let mut tabs: Vec<Client> = (0..9)
        .map(|tab| cluster.open(tab % 3, Connecting::user(ADA)))
        .collect();
    for tab in &mut tabs {
        assert_eq!(tab.next_verdict().await, Ok(()));
    }
    cluster.wait_for_refcount(ADA, 9).await;
    tabs.iter().for_each(Client::disconnect);
    cluster.wait_for_refcount(ADA, 0).await;
    cluster.wait_for_online(&[]).await;
    let _marker = cluster.connect(2, MARKER).await;
    for expected in [(ADA, Online), (ADA, Offline), (MARKER, Online)] {
        assert_eq!(observer.next_status().await, expected);
    }
}

/// Goal: a reload within the grace says nothing, and neither does the grace when it ends.
/// Method: the only tab closes and another opens on another node; then a marker user leaves, whose
/// offline falls due after the one that must not come.
#[tokio::test]
async fn a_reload_within_the_grace_says_nothing() {
    let cluster = Cluster::builder().nodes(2).grace("3s").start().await;
    let mut observer = cluster.connect_guest(1).await;
    let tab = cluster.connect(0, ADA).await;
    assert_eq!(observer.next_status().await, (ADA, Online));

    tab.close().await;
    cluster.wait_for_refcount(ADA, 0).await;
    let leaving = cluster
        .redis()
        .lines(&["ZRANGE", "vigie:{0}:leaving", "0", "-1"])
        .await;
    assert_eq!(leaving, ["42"], "the user is on the way out");
    let reloaded = cluster.connect(1, ADA).await;
    assert_eq!(
        cluster.cli(&["ZCARD", "vigie:{0}:leaving"]).await,
        "0",
        "and back in"
    );

    let marker = cluster.connect(0, MARKER).await;
    marker.close().await;
    for expected in [(MARKER, Online), (MARKER, Offline)] {
        assert_eq!(observer.next_status().await, expected);
    }
    assert!(reloaded.online().await.contains(&ADA));
}

/// Goal: logging in as front ends do it does not make a user flap.
/// Method: a signed-in tab does `socket.auth = { token }; socket.disconnect().connect()` ten times;
/// an observer sees one coming, and then only the marker.
#[tokio::test]
async fn logging_in_again_does_not_flap() {
    let cluster = Cluster::builder().nodes(2).grace("5s").start().await;
    let mut observer = cluster.connect_guest(1).await;
    let mut tab = cluster.connect_with(0, Connecting::guest()).await;
    for _ in 0..10 {
        tab.login(&cluster.token(ADA));
        assert_eq!(tab.next_verdict().await, Ok(()));
        assert_eq!(tab.next_disconnect().await, "io client disconnect");
    }
    cluster.wait_for_refcount(ADA, 1).await;
    cluster.wait_until_seen(ADA).await;
    let _marker = cluster.connect(0, MARKER).await;
    assert_eq!(observer.next_status().await, (ADA, Online));
    assert_eq!(observer.next_status().await, (MARKER, Online));
    assert!(tab.online().await.contains(&ADA));
}

/// Goal: Redis shows what the design says, to anybody with redis-cli.
/// Method: two tabs on two nodes, a third user; each key is read as `lua/README.md` reads it.
#[tokio::test]
async fn redis_holds_what_is_documented() {
    let cluster = Cluster::builder().nodes(2).grace("60s").start().await;
    let phone = cluster.connect(0, ADA).await;
    let _laptop = cluster.connect(1, ADA).await;
    let _bob = cluster.connect(1, BOB).await;

    let redis = cluster.redis();
    assert_eq!(
        redis.lines(&["SMEMBERS", "vigie:{0}:online"]).await,
        ["42", "7"]
    );
    assert_eq!(redis.cli(&["HLEN", "vigie:{0}:conns:42"]).await, "2");
    assert_eq!(redis.cli(&["HLEN", "vigie:{0}:conns:7"]).await, "1");

    let all = redis.cli(&["HGETALL", "vigie:{0}:conns:42"]).await;
    let lines: Vec<&str> = all.lines().collect();
    let mut owners = BTreeSet::new();
    for pair in lines.chunks(2) {
        let (incarnation, connection) =
            pair[0].split_once('/').expect("<incarnation>/<connection>");
        let (node, life) = incarnation.rsplit_once('.').expect("<node id>.<random>");
        assert!(!life.is_empty() && !connection.is_empty(), "{pair:?}");
        let since_ms: i64 = pair[1].parse().expect("a time in ms");
        assert!(
            (now_seconds() - since_ms / 1000).abs() < 600,
            "connected lately: {pair:?}"
        );
        owners.insert(node.to_owned());
        let owed = redis
            .lines(&["SMEMBERS", &format!("vigie:{{0}}:node:{incarnation}")])
            .await;
        assert!(owed.contains(&format!("42/{connection}")), "{owed:?}");
        let known = redis
            .cli(&["SISMEMBER", "vigie:{0}:nodes", incarnation])
            .await;
        assert_eq!(known, "1", "{incarnation} has registered something");
        let lease = redis.cli(&["ZSCORE", "vigie:nodes", incarnation]).await;
        assert!(
            lease.parse::<f64>().is_ok_and(|ms| ms > 1.5e12),
            "{incarnation}: {lease}"
        );
        assert_eq!(
            redis
                .cli(&["EXISTS", &format!("vigie:node:{incarnation}")])
                .await,
            "1"
        );
    }
    assert_eq!(owners, BTreeSet::from(["n0".to_owned(), "n1".to_owned()]));
    assert_eq!(
        redis
            .cli(&["EXISTS", "vigie:{0}:epoch", "vigie:meta"])
            .await,
        "2"
    );
    assert_eq!(
        redis.cli(&["GET", "vigie:{0}:rev"]).await,
        "2",
        "two transitions so far"
    );

    phone.close().await;
    cluster.wait_for_refcount(ADA, 1).await;
    assert_eq!(redis.cli(&["ZCARD", "vigie:{0}:leaving"]).await, "0");
    drop(_bob);
    cluster.wait_for_refcount(BOB, 0).await;
    assert_eq!(
        redis.cli(&["ZRANGE", "vigie:{0}:leaving", "0", "-1"]).await,
        "7"
    );
    assert_eq!(
        redis.lines(&["SMEMBERS", "vigie:{0}:online"]).await,
        ["42", "7"],
        "within the grace"
    );
}

/// Goal: `get-online-users` gives ascending ids, each once, and the same on every node.
/// Method: users come in no order, some twice; guests and users ask on all nodes.
#[tokio::test]
async fn every_node_lists_the_same_users_in_order() {
    let cluster = Cluster::start(3).await;
    let largest = (1 << 53) - 1;
    let mut tabs = Vec::new();
    for (place, user) in [900, 3, 70, largest, 3, 12, 70].into_iter().enumerate() {
        tabs.push(cluster.connect(place % 3, user).await);
    }
    for node in 0..3 {
        let guest = cluster.connect_guest(node).await;
        assert_eq!(guest.online().await, [3, 12, 70, 900, largest]);
    }
    assert_eq!(tabs[0].online().await, [3, 12, 70, 900, largest]);
}

/// Goal: guests are nobody: they are neither listed nor announced.
/// Method: guests come and go before a marker.
#[tokio::test]
async fn guests_are_not_announced() {
    let cluster = Cluster::start(2).await;
    let mut observer = cluster.connect_guest(0).await;
    for node in 0..2 {
        let guest = cluster.connect_guest(node).await;
        assert_eq!(guest.online().await, Vec::<u64>::new());
        guest.close().await;
    }
    let _marker = cluster.connect(1, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online));
    assert_eq!(
        cluster.redis().keys("vigie:{0}:conns:*").await,
        ["vigie:{0}:conns:999"]
    );
}

/// Goal: a snapshot and the events after it add up, also for a client that comes in the middle of
/// heavy coming and going; no event repeats what the snapshot said.
/// Method: 24 users churn on three nodes with a tiny grace while observers connect and ask at once.
/// When all is quiet, every observer's tally, fresh snapshots and Redis must name the same users.
/// `Client::roster` fails on any event that says nothing new.
#[tokio::test]
async fn snapshot_and_events_add_up_amid_heavy_traffic() {
    const USERS: u64 = 24;
    let cluster = Cluster::builder().nodes(3).grace("20ms").start().await;
    let churn = futures_util::future::join_all((1..=USERS).map(|user| churn(&cluster, user)));
    let watching = async {
        let mut observers = Vec::new();
        for place in 0..18 {
            let observer = cluster.open(place % 3, Connecting::guest());
            // Sent in the same breath as CONNECT: the hub may be in the middle of anything.
            observer.online().await;
            observers.push(observer);
        }
        observers
    };
    let (tabs, observers) = tokio::join!(churn, watching);

    let truth: BTreeSet<u64> = (1..=USERS).filter(|user| user % 3 == 0).collect();
    assert_eq!(tabs.iter().flatten().count(), truth.len());
    let ids: Vec<u64> = truth.iter().copied().collect();
    cluster.wait_for_online(&ids).await;
    for observer in &observers {
        eventually_eq("an observer's tally", Some(truth.clone()), async || {
            observer.roster()
        })
        .await;
    }
    for node in 0..3 {
        assert_eq!(cluster.connect_guest(node).await.online().await, ids);
    }
    // Asking again must agree with the tally, too.
    for observer in &observers {
        assert_eq!(observer.online().await, ids);
        assert_eq!(observer.roster(), Some(truth.clone()));
    }
}

/// A user comes and goes on changing nodes; every third one stays in the end.
async fn churn(cluster: &Cluster, user: u64) -> Option<Client> {
    for turn in 0..12 {
        let tab = cluster
            .connect_with((user + turn) as usize % 3, Connecting::user(user))
            .await;
        if turn % 2 == 0 {
            tab.online().await;
        }
        match turn % 3 {
            0 => tab.close().await,
            1 => tab.abort(),
            _ => drop(tab),
        }
    }
    if !user.is_multiple_of(3) {
        return None;
    }
    Some(
        cluster
            .connect_with(user as usize % 3, Connecting::user(user))
            .await,
    )
}

/// Goal: a node that is stopped takes its connections along, and nobody else's.
/// Method: one user only on that node, one on two nodes; afterwards Redis owes nothing to it.
#[tokio::test]
async fn a_graceful_stop_releases_presence() {
    let cluster = Cluster::start(3).await;
    let _ada = cluster.connect(0, ADA).await;
    let (_bob, _bob_elsewhere) = (cluster.connect(0, BOB).await, cluster.connect(1, BOB).await);
    let mut observer = cluster.connect_guest(2).await;

    cluster.stop(0).await;
    assert_eq!(observer.next_status().await, (ADA, Offline));
    cluster.wait_for_refcount(BOB, 1).await;
    cluster.wait_until_all_see(&[BOB]).await;
    assert_eq!(
        cluster.redis().keys("vigie:{0}:node:n0.*").await,
        Vec::<String>::new()
    );
    let _marker = cluster.connect(1, MARKER).await;
    assert_eq!(observer.next_status().await, (MARKER, Online));
}

/// Goal: a record that no script can use keeps no other connection from being registered again, or released.
/// Method: one user's connections become a text; the leases are lost, so the node registers all users again, in one call;
/// then it is stopped.
#[tokio::test]
async fn a_record_that_scripts_cannot_use_concerns_its_user_alone() {
    let cluster = Cluster::start(1).await;
    let _tabs = (
        cluster.connect(0, ADA).await,
        cluster.connect(0, BOB).await,
        cluster.connect(0, EVE).await,
    );
    let (adas, bobs, eves) = (
        cluster.key(ADA, "conns"),
        cluster.key(BOB, "conns"),
        cluster.key(EVE, "conns"),
    );
    let former = cluster.redis().lines(&["HKEYS", &adas]).await;
    let (former, _) = former[0].split_once('/').expect("a field");
    let of_successor = async |key: &str| {
        let fields = cluster.redis().lines(&["HKEYS", key]).await;
        let others = fields.iter().filter(|field| !field.starts_with(former));
        others.count()
    };
    assert_eq!(cluster.cli(&["DEL", &bobs, "vigie:nodes"]).await, "2");
    cluster.cli(&["SET", &bobs, "broken"]).await;
    for key in [&adas, &eves] {
        eventually_eq("registered again", 1, async || of_successor(key).await).await;
    }
    cluster.terminate(0);
    for key in [&adas, &eves] {
        eventually_eq("released", 0, async || of_successor(key).await).await;
    }
}

/// Goal: the last node to leave leaves nothing behind.
/// Method: a user on both of two nodes; both are stopped, one after the other.
#[tokio::test]
async fn when_the_last_node_stops_nobody_is_left_online() {
    let cluster = Cluster::start(2).await;
    let _tabs = (cluster.connect(0, ADA).await, cluster.connect(1, ADA).await);
    cluster.stop(0).await;
    cluster.wait_for_refcount(ADA, 1).await;
    cluster.stop(1).await;
    cluster.wait_until_nobody_is_left().await;
}

/// Goal: a node that starts while users are online knows them at once.
/// Method: users on one node, then a second node; what its guests see first, and next.
#[tokio::test]
async fn a_node_that_joins_later_knows_who_is_online() {
    let mut cluster = Cluster::start(1).await;
    let ada = cluster.connect(0, ADA).await;
    let _bob = cluster.connect(0, BOB).await;
    let late = cluster.add_node().await;
    let mut guest = cluster.connect_guest(late).await;
    assert_eq!(guest.online().await, [BOB, ADA]);
    ada.close().await;
    assert_eq!(guest.next_status().await, (ADA, Offline));
    let _eve = cluster.connect(late, EVE).await;
    assert_eq!(guest.next_status().await, (EVE, Online));
}

/// Goal: a node that stood still for a moment catches up in order.
/// Method: one node is frozen while users come and go on another, for much less than a lease.
#[tokio::test]
async fn a_node_that_stood_still_catches_up() {
    let cluster = Cluster::start(2).await;
    let mut guest = cluster.connect_guest(1).await;
    cluster.pause(1);
    let ada = cluster.connect(0, ADA).await;
    ada.close().await;
    cluster.wait_for_online(&[]).await;
    cluster.resume(1);
    let _marker = cluster.connect(0, MARKER).await;
    for expected in [(ADA, Online), (ADA, Offline), (MARKER, Online)] {
        assert_eq!(guest.next_status().await, expected);
    }
}

/// Goal: a node that dies without a word does not keep the others from working.
/// Method: one of three is killed; coming, going and updates go on between the other two.
#[tokio::test]
async fn the_others_go_on_when_a_node_dies() {
    let cluster = Cluster::start(3).await;
    let _lost = cluster.connect(0, EVE).await;
    let mut observer = cluster.connect_guest(2).await;
    cluster.kill(0);
    // Whose tab was on the node that died comes back on another.
    let _again = cluster.connect(2, EVE).await;
    let ada = cluster.connect(1, ADA).await;
    assert_eq!(observer.next_status().await, (ADA, Online));
    observer.watch(ADA).await;
    cluster
        .notify_profile(1, ADA, json!({ "userID": ADA }))
        .await;
    assert_eq!(
        observer.next_event("profile-update").await["user"]["userID"],
        ADA
    );
    ada.close().await;
    assert_eq!(observer.next_status().await, (ADA, Offline));
    assert_eq!(observer.online().await, [EVE]);
}

/// Goal: presence works the same over several partitions.
/// Method: eight users in four partitions on two nodes; keys, lists, coming, going, watching.
#[tokio::test]
async fn users_are_spread_over_partitions() {
    let cluster = Cluster::builder().nodes(2).partitions(4).start().await;
    let mut observer = cluster.connect_guest(1).await;
    let mut tabs = Vec::new();
    for user in 1..=8 {
        tabs.push(cluster.connect(user as usize % 2, user).await);
        assert_eq!(observer.next_status().await, (user, Online));
    }
    assert_eq!(observer.online().await, [1, 2, 3, 4, 5, 6, 7, 8]);
    for partition in 0..4 {
        let key = format!("vigie:{}:online", cluster.tag(partition));
        let mut expected: Vec<String> = (1..=8)
            .filter(|user| user % 4 == partition)
            .map(|user: u64| user.to_string())
            .collect();
        expected.sort();
        assert_eq!(cluster.redis().lines(&["SMEMBERS", &key]).await, expected);
    }
    for user in [3, 6] {
        observer.watch(user).await;
        cluster
            .notify_profile(0, user, json!({ "userID": user, "username": "x" }))
            .await;
        let update = observer.next_event("profile-update").await;
        assert_eq!(update["user"]["userID"], user);
    }
    let items: Vec<Value> = [3, 6]
        .map(|user| json!({ "kind": "game-stats-update", "userId": user, "stats": { "wins": 1 } }))
        .into();
    let answer = cluster
        .post(0, "/api/v1/notifications", &json!(items))
        .await;
    assert_eq!(answer.json[1]["status"], 200, "{answer:?}");
    let updated = [
        observer.next_event("game-stats-update").await,
        observer.next_event("game-stats-update").await,
    ];
    let users: BTreeSet<Option<u64>> = updated
        .iter()
        .map(|update| update["userId"].as_u64())
        .collect();
    assert_eq!(users, BTreeSet::from([Some(3), Some(6)]));
    drop(tabs);
    cluster.wait_until_all_see(&[]).await;
    cluster.wait_until_nobody_is_left().await;
}

/// Goal: more users who sign in at once than may wait for one connection all come in, and stay.
/// Method: 300 at once where 100 events may wait; nobody was closed, everybody is online.
#[tokio::test]
async fn everybody_may_sign_in_at_once() {
    let cluster = Cluster::builder()
        .nodes(2)
        .env("VIGIE_LIMITS__OUTBOUND_QUEUE", "100")
        .start()
        .await;
    let users: Vec<u64> = (5000..5300).collect();
    let mut tabs = Vec::new();
    for user in &users {
        tabs.push(cluster.open((user % 2) as usize, Connecting::user(*user)));
    }
    for tab in &mut tabs {
        assert_eq!(tab.next_verdict().await, Ok(()));
    }
    cluster.wait_for_online(&users).await;
    cluster.wait_until_all_see(&users).await;
    for node in [0, 1] {
        let closed = cluster
            .metric(node, "vigie_connections_overflowed_total")
            .await;
        assert_eq!(closed, 0.0, "node {node}");
    }
    for tab in &tabs {
        assert_eq!(tab.online().await, users);
    }
}
