//! `lua/presence/pulse.lua`: where the transitions stand, said to every node that listens.

use serde_json::{Value, json};

use super::{LARGEST, PATIENCE_MS, PULSE, expire, position, register, release};
use crate::harness::{ADA, eventually};
use crate::scripts::{Server, key};

async fn pulse(server: &Server) -> Value {
    let keys = ["rev", "epoch", "server"].map(key);
    let args = [key("pulse"), PATIENCE_MS.to_string()];
    server.run(PULSE, keys, &args).await
}

/// What the data says about the server that it was last seen on.
async fn known(server: &Server) -> String {
    let known = server.command(&["GET", &key("server")]).await;
    known.as_str().expect("a pulse notes it").to_owned()
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

/// Goal: a pulse notes the server; data that is seen for the first time is not doubted, nor on the same server again.
/// Method: the server's own name; two pulses, and an expiry that takes somebody offline at once.
#[tokio::test]
async fn fresh_data_is_not_doubted() {
    let server = Server::start().await;
    let information = server.redis.cli(&["INFO", "server"]).await;
    let names = information
        .lines()
        .find_map(|line| line.strip_prefix("run_id:"));
    let name = names.expect("Redis has a name").trim();
    for _ in 0..2 {
        pulse(&server).await;
        assert_eq!(known(&server).await, format!("{name} 0"));
    }
    register(&server, ADA, "a.1", 1).await;
    release(&server, ADA, "a.1", 1, 0).await;
    assert_eq!(expire(&server, 10, 0).await, (1, false));
    assert_eq!(known(&server).await, format!("{name} 0"));
}

/// Goal: a pulse notices another server, or one that was restarted; from then on nobody is taken offline for a while,
/// which neither further pulses nor expiries begin anew.
/// Method: the server that the data was seen on gets another name while somebody is due; pulses and expiries until the
/// grace that is over counts.
#[tokio::test]
async fn a_pulse_notices_another_server() {
    let server = Server::start().await;
    register(&server, ADA, "a.1", 1).await;
    release(&server, ADA, "a.1", 1, 0).await;
    server.command(&["SET", &key("server"), "0123abc 0"]).await;
    let before = server.now_ms().await;
    pulse(&server).await;
    let after = server.now_ms().await;
    let noticed = known(&server).await;
    let (_, from) = noticed.split_once(' ').expect("a name and a time");
    let from: u64 = from.parse().expect("a time");
    assert!(
        (before + PATIENCE_MS..=after + PATIENCE_MS).contains(&from),
        "{before} {from} {after}"
    );
    eventually("the patience is over", async || {
        pulse(&server).await;
        let before = server.now_ms().await;
        let (count, more) = expire(&server, 10, 0).await;
        assert!(!more);
        if count == 0 {
            assert!(before < from, "late by {} ms", before - from);
            return None;
        }
        assert!(server.now_ms().await >= from, "early");
        Some(())
    })
    .await;
    assert_eq!(known(&server).await, noticed);
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
