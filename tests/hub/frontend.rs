//! The existing front end's code, unchanged, against two nodes on one Redis.

use serde_json::json;

use crate::harness::{Cluster, MARKER, NODE_KEY, project_root, run};

/// Goal: what front ends already do works: come as a guest, sign in, keep a set of who is online,
/// watch a profile.
/// Method: `tests/client/frontend.mjs` does it with the official client on node 0, while another
/// player is on node 1 and the update is POSTed there; it asserts and ends with 0.
#[tokio::test]
async fn the_front_end_works_as_it_stands() {
    let cluster = Cluster::start(2).await;
    let _early = cluster.connect(1, MARKER).await;
    let world = json!({
        "url": cluster.public_url(0),
        "otherUrl": cluster.public_url(1),
        "internalUrl": cluster.internal_url(1),
        "key": NODE_KEY,
        "user": { "id": 42, "token": cluster.token(42) },
        "friend": { "id": 7, "token": cluster.token(7) },
        "onlineBefore": [MARKER],
    });
    let mut node = std::process::Command::new("node");
    node.arg("frontend.mjs").arg(world.to_string());
    node.current_dir(project_root().join("tests/client"));
    let output = run(node).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the front end failed:\n{said}");
}
