//! `lua/meta/`: which layout the data has, and whether the server carries out what the hub needs.

use serde_json::{Value, json};

use super::Server;

const CLAIM: &str = "meta/claim";
const PROBE: &str = "meta/probe";

async fn probe(server: &Server) -> Value {
    let keys =
        ["string", "hash", "set", "zset", "list"].map(|kind| format!("vigie:{{0}}:probe:{kind}"));
    server.run(PROBE, keys, &[]).await
}

/// Goal: a server that carries out everything is said to, and nothing stays behind, also of a call that was cut short.
/// Method: an empty server, the same again, one with scratch keys from before.
#[tokio::test]
async fn a_probe_refuses_nothing_and_leaves_nothing() {
    let server = Server::start().await;
    for _ in 0..2 {
        assert_eq!(probe(&server).await, json!([]));
        assert!(server.redis.keys("*").await.is_empty());
    }
    server
        .command(&["SET", "vigie:{0}:probe:string", "7"])
        .await;
    server
        .command(&["RPUSH", "vigie:{0}:probe:list", "a"])
        .await;
    assert_eq!(probe(&server).await, json!([]));
    assert!(server.redis.keys("*").await.is_empty());
    let failed = server.redis.cli(&["INFO", "errorstats"]).await;
    assert!(
        !failed.contains("WRONGTYPE") && !failed.contains("errorstat_ERR"),
        "{failed}"
    );
}

/// Goal: what is refused is named with its error, and nothing stays behind.
/// Method: a server whose memory is full; once a script has written Redis lets it go on.
#[tokio::test]
async fn a_probe_names_what_is_refused() {
    let server = Server::start().await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused: Vec<String> = serde_json::from_value(probe(&server).await).expect("texts");
    let pairs: Vec<_> = refused.chunks_exact(2).collect();
    assert_eq!(pairs.first().map(|pair| &*pair[0]), Some("SET"));
    assert!(
        pairs.iter().all(|pair| pair[1].starts_with("OOM ")),
        "{pairs:?}"
    );
    assert!(server.redis.keys("*").await.is_empty());
}

async fn claim(server: &Server, layout: u64, partitions: u64) -> Value {
    let args = [layout.to_string(), partitions.to_string()];
    server.run(CLAIM, ["vigie:meta".to_owned()], &args).await
}

/// Goal: the first caller's values are recorded, and everybody reads those.
/// Method: claims by the same, by one with other partitions, by one with another layout.
#[tokio::test]
async fn the_first_claim_stays() {
    let server = Server::start().await;
    let first = json!(["1", "4"]);
    for (layout, partitions) in [(1, 4), (1, 4), (1, 1), (2, 4), (2, 1)] {
        assert_eq!(claim(&server, layout, partitions).await, first);
    }
    let fields = server.hash("vigie:meta").await;
    let pairs: Vec<_> = fields
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(pairs, [("layout", "1"), ("partitions", "4")]);
    assert_eq!(server.command(&["PTTL", "vigie:meta"]).await, -1);
}

/// Goal: a field that is missing is filled in, and one that is there is kept.
/// Method: only the layout is there, from elsewhere.
#[tokio::test]
async fn what_is_missing_is_added() {
    let server = Server::start().await;
    server.command(&["HSET", "vigie:meta", "layout", "7"]).await;
    assert_eq!(claim(&server, 1, 16).await, json!(["7", "16"]));
    assert_eq!(claim(&server, 7, 1).await, json!(["7", "16"]));
}
