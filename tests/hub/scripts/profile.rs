//! `lua/profile/`: updates, stored and published.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::account::delete;
use super::{LARGEST, Server, key, number, requests};
use crate::harness::{ADA, eventually_eq};

const READ: &str = "profile/read";
const UPDATE: &str = "profile/update";

/// An update of user 42 as a node tells it.
struct Update {
    request: &'static str,
    kind: &'static str,
    revision: u64,
    public: &'static str,
    full: &'static str,
    keep_ms: u64,
}

/// The update of most tests; with revision 0 none is chosen, and the script assigns one.
fn update(request: &'static str, revision: u64) -> Update {
    Update {
        request,
        kind: "profile",
        revision,
        public: r#"{"username":"ada"}"#,
        full: r#"{"username":"ada","email":"a@b"}"#,
        keep_ms: 60_000,
    }
}

impl Update {
    async fn send(self, server: &Server) -> Value {
        let [even, odd] = requests();
        let keys = [key("profile:42"), key("epoch"), even, odd];
        let chosen = (self.revision > 0).then(|| self.revision.to_string());
        let args = [
            self.kind.to_owned(),
            chosen.unwrap_or_default(),
            self.public.to_owned(),
            self.full.to_owned(),
            self.keep_ms.to_string(),
            key("user:42"),
            self.request.to_owned(),
        ];
        server.run(UPDATE, keys, &args).await
    }
}

/// The revision in an answer that says `ok`.
fn accepted(answer: &Value) -> u64 {
    assert_eq!(answer[0], "ok", "{answer}");
    number(&answer[1])
}

async fn stored(server: &Server, field: &str) -> String {
    server
        .hash(&key("profile:42"))
        .await
        .remove(field)
        .unwrap_or_default()
}

/// Goal: an update is stored with both views, kept for a while, and published as documented.
/// Method: the whole hash, its time to live, and the message to the letter.
#[tokio::test]
async fn an_update_is_stored_and_published() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let before = server.now_ms().await;
    assert_eq!(update("r1", 5).send(&server).await, json!(["ok", 5, 1]));
    let after = server.now_ms().await;

    let fields = server.hash(&key("profile:42")).await;
    let full = r#"{"username":"ada","email":"a@b"}"#;
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "expires",
            "profile.at",
            "profile.full",
            "profile.public",
            "profile.revision"
        ]
    );
    assert_eq!(fields["profile.full"], full);
    assert_eq!(fields["profile.public"], r#"{"username":"ada"}"#);
    assert_eq!(fields["profile.revision"], "5");
    let at = number(&json!(fields["profile.at"]));
    assert!((before..=after).contains(&at), "{before} {at} {after}");
    assert_eq!(number(&json!(fields["expires"])), at + 60_000);
    let left_ms = number(&server.command(&["PTTL", &key("profile:42")]).await);
    assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");

    let epoch = server.command(&["GET", &key("epoch")]).await;
    let epoch = epoch
        .as_str()
        .expect("the script names the life of the data");
    let message = format!(
        r#"{{"kind":"profile","epoch":"{epoch}","revision":5,"public":{{"username":"ada"}},"full":{full}}}"#
    );
    assert_eq!(topic.next_text().await, message);
    topic.hears_nothing().await;
}

/// Goal: a repeated request is answered the same and changes nothing, also when newer updates came
/// in between, also when the script chose the revision.
/// Method: first requests, others, the first ones again; contents compared, the topic silent.
#[tokio::test]
async fn a_request_counts_once() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let own = update("r1", 5).send(&server).await;
    let chosen = update("r2", 0).send(&server).await;
    let latest = update("r3", 0).send(&server).await;
    for revision in [5, accepted(&chosen), accepted(&latest)] {
        assert_eq!(topic.next().await["revision"], json!(revision));
    }
    let before = server.contents().await;
    let _late = server.listen(&key("user:42")).await;
    assert_eq!(update("r1", 5).send(&server).await, own);
    assert_eq!(update("r2", 0).send(&server).await, chosen);
    assert_eq!(update("r3", 0).send(&server).await, latest);
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;
}

/// Goal: what a request was answered is kept longer than a node repeats it, and not for ever.
/// Method: the time to live of the hash that holds it.
#[tokio::test]
async fn an_answer_is_kept_for_two_minutes() {
    let server = Server::start().await;
    update("r1", 0).send(&server).await;
    let left_ms = server.answer_left_ms("r1").await;
    assert!((110_000..=120_000).contains(&left_ms), "{left_ms}");
}

/// Goal: an update that is not newer changes nothing, is not published, and the answer names the
/// revision that is stored. Method: equal and older ones, to the contents and the time to live, which a newer one
/// renews.
#[tokio::test]
async fn an_update_that_is_not_newer_is_stale() {
    let server = Server::start().await;
    update("r1", 7).send(&server).await;
    keep_for(&server, 30_000).await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    for (request, revision) in [("r2", 7), ("r3", 6), ("r4", 1), ("r4", 1)] {
        let mut older = update(request, revision);
        (older.public, older.full) = ("1", "2");
        assert_eq!(older.send(&server).await, json!(["stale", 7]));
    }
    assert_eq!(server.contents().await, before);
    assert!(number(&server.command(&["PTTL", &key("profile:42")]).await) <= 30_000);
    topic.hears_nothing().await;

    assert_eq!(update("r5", 8).send(&server).await, json!(["ok", 8, 1]));
    assert_eq!(topic.next().await["revision"], 8);
    assert!(number(&server.command(&["PTTL", &key("profile:42")]).await) > 30_000);
}

/// Shortens how long the profile is kept: the time to live, and what the hash says about it.
async fn keep_for(server: &Server, left_ms: u64) {
    let profile = key("profile:42");
    let until_ms = (server.now_ms().await + left_ms).to_string();
    server.command(&["PEXPIREAT", &profile, &until_ms]).await;
    server
        .command(&["HSET", &profile, "expires", &until_ms])
        .await;
}

/// Goal: how long updates are kept is renewed once a tenth of it is over, not with every update.
/// Method: updates kept for ten minutes: two right after each other, then after half a minute and after a minute as the
/// times set back by hand say, then where the hash says nothing that counts.
#[tokio::test]
async fn the_time_is_renewed_once_a_tenth_of_it_is_over() {
    const KEEP_MS: u64 = 600_000;
    let server = Server::start().await;
    let profile = key("profile:42");
    // Returns between when the profile expires if its time was renewed.
    let update_once = async |request| {
        let mut next = update(request, 0);
        next.keep_ms = KEEP_MS;
        let before = server.now_ms().await;
        accepted(&next.send(&server).await);
        let after = server.now_ms().await;
        before + KEEP_MS..=after + KEEP_MS
    };
    let expires = async || {
        let ends_ms = server.command(&["PEXPIRETIME", &profile]).await;
        let told_ms = stored(&server, "expires").await;
        [number(&ends_ms), number(&json!(told_ms))]
    };

    let renewed = update_once("r1").await;
    let first = expires().await;
    assert!(
        first.iter().all(|at| renewed.contains(at)),
        "{first:?} {renewed:?}"
    );
    update_once("r2").await;
    assert_eq!(expires().await, first);

    keep_for(&server, KEEP_MS - 30_000).await;
    let set_back = expires().await;
    update_once("r3").await;
    assert_eq!(expires().await, set_back);

    keep_for(&server, KEEP_MS - 60_001).await;
    let renewed = update_once("r4").await;
    let later = expires().await;
    assert!(
        later.iter().all(|at| renewed.contains(at)),
        "{later:?} {renewed:?}"
    );

    let no_times: [&[&str]; 3] = [
        &["HSET", &profile, "expires", "0"],
        &["HSET", &profile, "expires", "x"],
        &["HDEL", &profile, "expires"],
    ];
    for (change, request) in no_times.into_iter().zip(["r5", "r6", "r7"]) {
        server.command(&["PEXPIRE", &profile, "30000"]).await;
        server.command(change).await;
        let renewed = update_once(request).await;
        let ends = expires().await;
        assert!(
            ends.iter().all(|at| renewed.contains(at)),
            "{change:?}: {ends:?} {renewed:?}"
        );
    }
}

/// Goal: revisions order updates of one kind; kinds do not touch each other.
/// Method: all four kinds with falling revisions.
#[tokio::test]
async fn each_kind_has_an_order_of_its_own() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    for (kind, revision, request) in [
        ("profile", 9, "r1"),
        ("stats", 8, "r2"),
        ("friends", 7, "r3"),
        ("matches", 6, "r4"),
    ] {
        let mut one = update(request, revision);
        one.kind = kind;
        assert_eq!(one.send(&server).await, json!(["ok", revision, 1]));
        let message = topic.next().await;
        assert_eq!(
            (&message["kind"], &message["revision"]),
            (&json!(kind), &json!(revision))
        );
        assert_eq!(
            stored(&server, &format!("{kind}.revision")).await,
            revision.to_string()
        );
    }
    // Four fields each, and how long they are kept.
    assert_eq!(server.hash(&key("profile:42")).await.len(), 17);
}

/// Goal: without a revision of the caller's the script assigns microseconds on Redis's clock, each
/// larger than the one before, with every digit in the answer, the hash and the message.
/// Method: 50 updates as fast as they go; the first and last lie between readings of the clock.
#[tokio::test]
async fn revisions_that_are_assigned_are_microseconds_and_grow() {
    const REQUESTS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let begin = server.now_us().await;
    let mut last = begin - 1;
    for round in 0..10 {
        for request in REQUESTS {
            let revision = accepted(&update(request, 0).send(&server).await);
            assert!(revision > last, "{revision} after {last} in round {round}");
            assert_eq!(
                stored(&server, "profile.revision").await,
                revision.to_string()
            );
            assert_eq!(topic.next().await["revision"], json!(revision));
            last = revision;
        }
        let [even, odd] = requests();
        server.command(&["DEL", &even, &odd]).await;
    }
    assert!(last <= server.now_us().await, "{last} is in the future");
}

/// Goal: where the stored revision is ahead of the clock the next one is larger by one.
/// Method: a revision a few years from now, then two updates without.
#[tokio::test]
async fn an_assigned_revision_follows_the_stored_one() {
    let server = Server::start().await;
    let ahead = 4_000_000_000_123_457;
    update("r1", ahead).send(&server).await;
    assert_eq!(
        update("r2", 0).send(&server).await,
        json!(["ok", ahead + 1, 0])
    );
    assert_eq!(
        update("r3", 0).send(&server).await,
        json!(["ok", ahead + 2, 0])
    );
    assert_eq!(
        stored(&server, "profile.revision").await,
        "4000000000123459"
    );
}

/// Goal: the largest revision keeps every digit wherever it goes, and one below it is older.
/// Method: the largest but one, the largest, both again as stale ones and as a repeated request.
#[tokio::test]
async fn the_largest_revision_keeps_every_digit() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(
        update("r1", LARGEST - 1).send(&server).await,
        json!(["ok", LARGEST - 1, 1])
    );
    assert_eq!(
        update("r2", LARGEST).send(&server).await,
        json!(["ok", LARGEST, 1])
    );
    assert_eq!(
        update("r3", LARGEST - 1).send(&server).await,
        json!(["stale", LARGEST])
    );
    assert_eq!(
        update("r4", LARGEST).send(&server).await,
        json!(["stale", LARGEST])
    );
    assert_eq!(
        update("r1", LARGEST - 1).send(&server).await,
        json!(["ok", LARGEST - 1, 1])
    );
    // Nothing is newer than the largest one.
    for (request, revision) in [("r5", 0), ("r6", LARGEST + 1), ("r7", 0)] {
        let answer = update(request, revision).send(&server).await;
        assert_eq!(answer, json!(["stale", LARGEST]));
    }
    assert_eq!(
        stored(&server, "profile.revision").await,
        "9007199254740991"
    );
    assert!(
        topic
            .next_text()
            .await
            .contains(r#""revision":9007199254740990,"#)
    );
    assert!(
        topic
            .next_text()
            .await
            .contains(r#""revision":9007199254740991,"#)
    );
    topic.hears_nothing().await;
}

/// Goal: views are kept and published to the letter, whatever is in them, and no public view is null.
/// Method: `%`, escapes, other scripts, spaces, large numbers and fractions.
#[tokio::test]
async fn views_stay_to_the_letter() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let mut odd = update("r1", 1);
    odd.public = "null";
    odd.full = r#"{"a": "%d %s \"é\u0000 中","n":9007199254740993,"f":1.50,"e":1E5,"":[ ]}"#;
    let full = odd.full;
    odd.send(&server).await;
    assert_eq!(stored(&server, "profile.full").await, full);
    assert_eq!(stored(&server, "profile.public").await, "null");
    let message = topic.next_text().await;
    assert!(
        message.ends_with(&format!(r#","public":null,"full":{full}}}"#)),
        "{message}"
    );
}

/// Goal: the answer says how many nodes listened. Method: none, one, two, each a new request.
#[tokio::test]
async fn the_answer_counts_those_who_listened() {
    let server = Server::start().await;
    assert_eq!(update("r1", 1).send(&server).await[2], 0);
    let _first = server.listen(&key("user:42")).await;
    assert_eq!(update("r2", 2).send(&server).await[2], 1);
    let _second = server.listen(&key("user:42")).await;
    assert_eq!(update("r3", 3).send(&server).await[2], 2);
}

/// Goal: updates of a deleted account are refused and leave nothing; a request answered before the
/// deletion keeps its answer, so that repeating it does not look like a refusal.
/// Method: one update before, repeated after, and new ones with and without a revision.
#[tokio::test]
async fn a_deleted_account_takes_no_updates() {
    let server = Server::start().await;
    let answered = update("r1", 5).send(&server).await;
    delete(&server, ADA).await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(update("r2", 6).send(&server).await, json!(["deleted"]));
    assert_eq!(update("r3", 0).send(&server).await, json!(["deleted"]));
    assert_eq!(update("r1", 5).send(&server).await, answered);
    assert_eq!(server.contents().await, before);
    assert_eq!(server.command(&["PTTL", &key("profile:42")]).await, -1);
    topic.hears_nothing().await;
}

/// Goal: last updates are forgotten after their time, and with them the order of revisions.
/// Method: one kept for a few milliseconds; once it is gone, an older revision is news.
#[tokio::test]
async fn last_updates_expire() {
    let server = Server::start().await;
    let mut short = update("r1", 9);
    short.keep_ms = 20;
    assert_eq!(short.send(&server).await, json!(["ok", 9, 0]));
    eventually_eq("the update is forgotten", json!(0), async || {
        server.command(&["EXISTS", &key("profile:42")]).await
    })
    .await;
    assert_eq!(update("r2", 3).send(&server).await, json!(["ok", 3, 0]));
}

/// Goal: messages say in which life of the data they were sent: the same one until Redis is emptied,
/// another one afterwards. Method: two updates, FLUSHALL, another with a smaller revision.
#[tokio::test]
async fn an_emptied_redis_begins_another_life() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    update("r1", 5).send(&server).await;
    update("r2", 6).send(&server).await;
    let epoch = topic.next().await["epoch"].clone();
    assert_eq!(topic.next().await["epoch"], epoch);
    server.command(&["FLUSHALL"]).await;
    assert_eq!(update("r3", 1).send(&server).await, json!(["ok", 1, 1]));
    let message = topic.next().await;
    assert_ne!(message["epoch"], epoch);
    assert_eq!(
        message["epoch"],
        server.command(&["GET", &key("epoch")]).await
    );
}

/// The answer about user 42: the epoch, and the fields.
async fn read(server: &Server) -> (String, BTreeMap<String, String>) {
    let answer = server
        .run(READ, [key("profile:42"), key("epoch")], &[])
        .await;
    let (life, words): (String, Vec<String>) =
        serde_json::from_value(answer).expect("a name, and a list of texts");
    let pairs = words.chunks_exact(2);
    let fields = pairs.map(|pair| (pair[0].clone(), pair[1].clone()));
    (life, fields.collect())
}

/// Goal: what is read is what is stored, to the letter, with the life of the data that it belongs to.
/// Method: before anything is there, after two kinds of updates, and once Redis was emptied.
#[tokio::test]
async fn what_is_stored_can_be_read() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let (life, fields) = read(&server).await;
    assert!(fields.is_empty(), "{fields:?}");
    assert_eq!(read(&server).await.0, life);

    update("r1", LARGEST).send(&server).await;
    assert_eq!(topic.next().await["epoch"], life);
    let mut stats = update("r2", 0);
    stats.kind = "stats";
    stats.send(&server).await;
    topic.next().await;
    let stored = server.hash(&key("profile:42")).await;
    assert_eq!(stored["profile.revision"], LARGEST.to_string());
    let before = server.contents().await;
    assert_eq!(read(&server).await, (life.clone(), stored));
    assert_eq!(server.contents().await, before);
    topic.hears_nothing().await;

    server.command(&["FLUSHALL"]).await;
    let (next_life, fields) = read(&server).await;
    assert!(
        next_life != life && fields.is_empty(),
        "{next_life} {fields:?}"
    );
}
