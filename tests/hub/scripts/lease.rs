//! `lua/lease/`: who counts as alive.

use serde_json::{Value, json};

use super::{LARGEST, Server, number};

const BEGIN: &str = "lease/begin";
const RENEW: &str = "lease/renew";
const EXPIRE: &str = "lease/expire";
const LEASES: &str = "vigie:nodes";

async fn begin(server: &Server, incarnation: &str, lease_ms: u64) -> u64 {
    let args = [incarnation.to_owned(), lease_ms.to_string()];
    number(&server.run(BEGIN, [LEASES.to_owned()], &args).await)
}

/// The end of the lease, if it is there.
async fn renew(server: &Server, incarnation: &str, lease_ms: u64) -> Option<u64> {
    let args = [incarnation.to_owned(), lease_ms.to_string()];
    let answer = server.run(RENEW, [LEASES.to_owned()], &args).await;
    (!answer.is_null()).then(|| number(&answer))
}

/// The incarnations whose leases were removed.
async fn expire(server: &Server, batch_max: u64) -> Value {
    expire_until(server, batch_max, LARGEST).await
}

async fn expire_until(server: &Server, batch_max: u64, latest_ms: u64) -> Value {
    let args = [batch_max.to_string(), latest_ms.to_string()];
    server.run(EXPIRE, [LEASES.to_owned()], &args).await
}

async fn ends(server: &Server, incarnation: &str, end: u64) {
    let end = end.to_string();
    server.command(&["ZADD", LEASES, &end, incarnation]).await;
}

fn scores<const N: usize>(leases: [(&str, u64); N]) -> [(String, u64); N] {
    leases.map(|(incarnation, end)| (incarnation.to_owned(), end))
}

/// Goal: a lease ends its length after now, on Redis's clock, to the millisecond; begun again it
/// begins now. Method: Redis's time before and after the calls encloses it; the score is the answer.
#[tokio::test]
async fn a_lease_begins_now() {
    let server = Server::start().await;
    let mut last = 0;
    for _ in 0..3 {
        let before = server.now_ms().await;
        let end = begin(&server, "a.1", 6000).await;
        let after = server.now_ms().await;
        assert!(
            (before + 6000..=after + 6000).contains(&end),
            "{before} {end} {after}"
        );
        assert!(end >= last, "{end} after {last}");
        assert_eq!(server.scores(LEASES).await, scores([("a.1", end)]));
        last = end;
    }
}

/// Goal: renewing moves one's own lease on and nobody else's, however often it is said.
/// Method: two incarnations of one node and another node, renewed in turns.
#[tokio::test]
async fn renewing_concerns_one_incarnation() {
    let server = Server::start().await;
    let old = begin(&server, "a.1", 3000).await;
    let other = begin(&server, "b.1", 4000).await;
    let mut latest = begin(&server, "a.2", 60_000).await;
    for _ in 0..20 {
        let before = server.now_ms().await;
        let next = renew(&server, "a.2", 60_000).await.expect("it is there");
        assert!(
            next >= latest && next >= before + 60_000,
            "{next} after {latest}"
        );
        latest = next;
    }
    let expected = scores([("a.1", old), ("b.1", other), ("a.2", latest)]);
    assert_eq!(server.scores(LEASES).await, expected);
}

/// Goal: a lease that is over can be renewed as long as nobody has taken it away: from now on, not
/// from its end. Method: a lease that ended long ago.
#[tokio::test]
async fn a_lease_that_is_over_can_be_renewed() {
    let server = Server::start().await;
    ends(&server, "a.1", 1000).await;
    let before = server.now_ms().await;
    let end = renew(&server, "a.1", 6000).await.expect("it is there");
    assert!(end >= before + 6000, "{end} {before}");
    assert_eq!(server.scores(LEASES).await, scores([("a.1", end)]));
}

/// Goal: a lease that is gone stays gone: its incarnation must not come back to life.
/// Method: never begun; taken away; lost with all of Redis's data.
#[tokio::test]
async fn a_lease_that_is_gone_is_not_renewed() {
    let server = Server::start().await;
    assert_eq!(renew(&server, "a.1", 6000).await, None);
    ends(&server, "a.1", 1000).await;
    assert_eq!(expire(&server, 10).await, json!(["a.1"]));
    assert_eq!(renew(&server, "a.1", 6000).await, None);
    begin(&server, "b.1", 6000).await;
    server.command(&["FLUSHALL"]).await;
    assert_eq!(renew(&server, "b.1", 6000).await, None);
    assert!(server.contents().await.is_empty());
}

/// Goal: only leases that are over are taken away, each once.
/// Method: three that are over, one that is not; twice.
#[tokio::test]
async fn only_what_is_over_is_taken_away() {
    let server = Server::start().await;
    for (incarnation, end) in [("a.1", 1000), ("b.1", 3000), ("c.1", 2000)] {
        ends(&server, incarnation, end).await;
    }
    let end = begin(&server, "d.1", 60_000).await;
    assert_eq!(expire(&server, 10).await, json!(["a.1", "c.1", "b.1"]));
    assert_eq!(server.scores(LEASES).await, scores([("d.1", end)]));
    assert_eq!(expire(&server, 10).await, json!([]));
    assert_eq!(server.scores(LEASES).await, scores([("d.1", end)]));
}

/// Goal: one call takes away no more leases than it may, those that ended first.
/// Method: five, two at a time.
#[tokio::test]
async fn a_batch_is_a_batch() {
    let server = Server::start().await;
    for (at, incarnation) in ["a.1", "b.1", "c.1", "d.1", "e.1"].into_iter().enumerate() {
        ends(&server, incarnation, at as u64).await;
    }
    for batch in [
        json!(["a.1", "b.1"]),
        json!(["c.1", "d.1"]),
        json!(["e.1"]),
        json!([]),
    ] {
        assert_eq!(expire(&server, 2).await, batch);
    }
}

/// Goal: a call that comes later than its caller can have meant takes nothing away: whoever could not renew while
/// Redis stood still gets the time. Method: a lease that is over; a call meant for a second ago, and one for now.
#[tokio::test]
async fn a_late_call_takes_nothing_away() {
    let server = Server::start().await;
    ends(&server, "a.1", 1000).await;
    let now = server.now_ms().await;
    assert_eq!(expire_until(&server, 10, now - 1000).await, json!([]));
    assert_eq!(server.scores(LEASES).await, scores([("a.1", 1000)]));
    assert_eq!(
        expire_until(&server, 10, now + 10_000).await,
        json!(["a.1"])
    );
}
