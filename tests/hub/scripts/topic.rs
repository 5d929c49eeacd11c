//! `lua/topic/`: messages that are not kept.

use serde_json::{Value, json};

use super::account::delete;
use super::{Server, key, number};
use crate::harness::ADA;

const PUBLISH: &str = "topic/publish";

async fn publish(server: &Server, request: &str, message: &str) -> Value {
    let keys = [key(format_args!("request:{request}")), key("profile:42")];
    let args = [message.to_owned(), key("user:42")];
    server.run(PUBLISH, keys, &args).await
}

/// Goal: a message reaches everybody who listens, to the letter, and nothing of it is kept.
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
    assert_eq!(server.redis.keys("*").await, [key("request:r1")]);
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
/// Method: the key's time to live.
#[tokio::test]
async fn an_answer_lives_for_a_minute() {
    let server = Server::start().await;
    publish(&server, "r1", "{}").await;
    let left_ms = number(&server.command(&["PTTL", &key("request:r1")]).await);
    assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");
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
