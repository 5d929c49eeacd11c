//! `lua/topic/`: messages that are not kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::account::delete;
use super::{Server, key, number, requests};
use crate::harness::ADA;

const PUBLISH: &str = "topic/publish";

async fn publish(server: &Server, request: &str, message: &str) -> Value {
    let [even, odd] = requests();
    let keys = [even, odd, key("profile:42")];
    let args = [message.to_owned(), key("user:42"), request.to_owned()];
    server.run(PUBLISH, keys, &args).await
}

/// Goal: a message reaches everybody who listens, to the letter, and nothing of it is kept but the answer.
/// Method: two listeners; spaces, other scripts, `%` and large numbers in the message.
#[tokio::test]
async fn a_message_arrives_to_the_letter() {
    let server = Server::start().await;
    let mut topics = [
        server.listen(&key("user:42")).await,
        server.listen(&key("user:42")).await,
    ];
    let message = r#"{"kind":"event", "event":"é%s\"","data":[9007199254740991,1.50,null]}"#;
    assert_eq!(publish(&server, "r1", message).await, json!(["sent", 2]));
    for topic in &mut topics {
        assert_eq!(topic.next_text().await, message);
        topic.hears_nothing().await;
    }
    let kept = server.redis.keys("*").await;
    assert!(kept.len() == 1 && requests().contains(&kept[0]), "{kept:?}");
    let fields = server.hash(&kept[0]).await;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["minute", "r1"]);
    assert_eq!(fields["r1"], "sent 2");
}

/// Goal: a request that is repeated, because its answer was lost, is answered the same and publishes
/// nothing; another request with the same message is another message.
/// Method: the same request twice with one more listener in between, then a new one.
#[tokio::test]
async fn a_request_publishes_once() {
    let server = Server::start().await;
    let mut topic = server.listen(&key("user:42")).await;
    let message = r#"{"kind":"disconnect"}"#;
    assert_eq!(publish(&server, "r1", message).await, json!(["sent", 1]));
    let mut late = server.listen(&key("user:42")).await;
    assert_eq!(publish(&server, "r1", message).await, json!(["sent", 1]));
    late.hears_nothing().await;
    assert_eq!(topic.next_text().await, message);
    assert_eq!(topic.next_text().await, "marker");

    assert_eq!(publish(&server, "r2", message).await, json!(["sent", 2]));
    assert_eq!(topic.next_text().await, message);
    assert_eq!(late.next_text().await, message);
}

/// Goal: that nobody listened is an answer like any other. Method: repeated once somebody does.
#[tokio::test]
async fn nobody_listening_is_remembered() {
    let server = Server::start().await;
    assert_eq!(
        publish(&server, "r1", r#"{"kind":"disconnect"}"#).await,
        json!(["sent", 0])
    );
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(
        publish(&server, "r1", r#"{"kind":"disconnect"}"#).await,
        json!(["sent", 0])
    );
    topic.hears_nothing().await;
}

/// Goal: what a request was answered is kept longer than a node repeats it, and not for ever.
/// Method: the time to live of the hash that holds it.
#[tokio::test]
async fn an_answer_is_kept_for_two_minutes() {
    let server = Server::start().await;
    publish(&server, "r1", "{}").await;
    let left_ms = server.answer_left_ms("r1").await;
    assert!((110_000..=120_000).contains(&left_ms), "{left_ms}");
}

/// Goal: the answers of the last minute are found in this one, and stay apart from its own.
/// Method: the hash of the other parity, as the last minute left it; an answer from there and new ones, repeated.
#[tokio::test]
async fn an_answer_of_the_last_minute_is_found() {
    let server = Server::start().await;
    let (minute, answers, kept) = within_a_minute(&server, async |minute| {
        let [this, last] = answers_of(minute);
        let before = format!("{:65}", minute - 1);
        server
            .command(&["HSET", &last, "minute", &before, "r0", "sent 7"])
            .await;
        let mut answers = Vec::new();
        for request in ["r0", "r1", "r0", "r1", "r2"] {
            answers.push(number(&publish(&server, request, "{}").await[1]));
        }
        let kept = [server.hash(&this).await, server.hash(&last).await];
        (minute, answers, kept)
    })
    .await;
    assert_eq!(answers, [7, 0, 7, 0, 0]);
    assert_eq!(
        kept[0],
        hash_of(minute, [("r1", "sent 0"), ("r2", "sent 0")])
    );
    assert_eq!(kept[1], hash_of(minute - 1, [("r0", "sent 7")]));
}

/// Goal: the first answer of a minute drops those of two minutes before, also where Redis's clock was set back or the
/// hash does not say which minute it is of. Method: the hash of this parity, as such a minute left it, about to expire.
#[tokio::test]
async fn answers_of_two_minutes_before_are_dropped() {
    let server = Server::start().await;
    for offset in [Some(-2), Some(-60), Some(2), None] {
        let (minute, answers, kept, left_ms) = within_a_minute(&server, async |minute| {
            let [this, _] = answers_of(minute);
            let other = offset.map(|offset| minute.saturating_add_signed(offset).to_string());
            let other = other.unwrap_or_else(|| "x".to_owned());
            server
                .command(&["HSET", &this, "minute", &other, "r0", "sent 7"])
                .await;
            server.command(&["PEXPIRE", &this, "5000"]).await;
            let mut answers = Vec::new();
            for request in ["r1", "r0"] {
                answers.push(number(&publish(&server, request, "{}").await[1]));
            }
            let left_ms = server.command(&["PTTL", &this]).await;
            (minute, answers, server.hash(&this).await, left_ms)
        })
        .await;
        assert_eq!(answers, [0, 0], "{offset:?}");
        assert_eq!(kept, hash_of(minute, [("r0", "sent 0"), ("r1", "sent 0")]));
        let left_ms = number(&left_ms);
        assert!((110_000..=120_000).contains(&left_ms), "{left_ms}");
    }
}

/// Takes steps on an empty Redis, with the minute of its clock; once more if that ended meanwhile.
async fn within_a_minute<T>(server: &Server, steps: impl AsyncFn(u64) -> T) -> T {
    for _ in 0..2 {
        server.command(&["FLUSHALL"]).await;
        let minute = server.minute().await;
        let seen = steps(minute).await;
        if server.minute().await == minute {
            return seen;
        }
    }
    panic!("the steps take longer than a minute");
}

/// The hashes of the answers of a minute, and of the minute before.
fn answers_of(minute: u64) -> [String; 2] {
    let [even, odd] = requests();
    if minute.is_multiple_of(2) {
        [even, odd]
    } else {
        [odd, even]
    }
}

/// The hash of the answers of a minute.
fn hash_of<const N: usize>(minute: u64, answers: [(&str, &str); N]) -> BTreeMap<String, String> {
    let answers = answers.map(|(request, answer)| (request.to_owned(), answer.to_owned()));
    // Longer than an entry of a listpack.
    let minute = ("minute".to_owned(), format!("{minute:65}"));
    [minute].into_iter().chain(answers).collect()
}

/// Goal: nothing is sent to a deleted account; a request answered before keeps its answer.
/// Method: one request before the deletion, repeated after it, and a new one.
#[tokio::test]
async fn a_deleted_account_gets_nothing() {
    let server = Server::start().await;
    assert_eq!(
        publish(&server, "r1", r#"{"kind":"disconnect"}"#).await,
        json!(["sent", 0])
    );
    delete(&server, ADA).await;
    let before = server.contents().await;
    let mut topic = server.listen(&key("user:42")).await;
    assert_eq!(
        publish(&server, "r1", r#"{"kind":"disconnect"}"#).await,
        json!(["sent", 0])
    );
    assert_eq!(
        publish(&server, "r2", r#"{"kind":"disconnect"}"#).await,
        json!(["deleted"])
    );
    topic.hears_nothing().await;
    assert_eq!(server.contents().await, before);
}
