//! `lua/meta/`: which layout the data has.

use serde_json::{Value, json};

use super::Server;

const CLAIM: &str = include_str!("../../../lua/meta/claim.lua");

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
