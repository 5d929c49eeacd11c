//! `lua/presence/pulse.lua`: where the transitions stand, said to every node that listens.

use serde_json::json;

use super::{LARGEST, PULSE, position, register};
use crate::harness::ADA;
use crate::scripts::{Server, key};

async fn pulse(server: &Server) -> serde_json::Value {
    let keys = [key("rev"), key("epoch")];
    server.run(PULSE, keys, &[key("pulse")]).await
}

/// Goal: a pulse says the same as the position, and changes nothing; it names a life of the data where none is named.
/// Method: before and after a transition, twice each; the answer counts who listens.
#[tokio::test]
async fn a_pulse_says_where_the_transitions_stand() {
    let server = Server::start().await;
    assert_eq!(pulse(&server).await, 0, "nobody listens yet");
    let mut listener = server.listen(&key("pulse")).await;
    for revision in [0, 1] {
        let (epoch, _) = position(&server).await;
        let before = server.contents().await;
        for _ in 0..2 {
            assert_eq!(pulse(&server).await, 1);
            let message = json!({ "epoch": epoch, "rev": revision });
            assert_eq!(listener.next().await, message);
        }
        assert_eq!(server.contents().await, before);
        register(&server, ADA, "a.1", 1).await;
    }
}

/// Goal: the largest number keeps every digit.
#[tokio::test]
async fn a_pulse_keeps_every_digit() {
    let server = Server::start().await;
    let mut listener = server.listen(&key("pulse")).await;
    server
        .command(&["SET", &key("rev"), &LARGEST.to_string()])
        .await;
    pulse(&server).await;
    assert_eq!(listener.next().await["rev"], LARGEST);
}
