//! `/readyz` is true, and says why a node is not ready.

mod postgres;
mod redis;

use serde_json::Value;

use crate::harness::{Answer, Builder, Cluster, eventually, run, vigie};

/// A cluster that notices within a second or two that it lost its lease.
fn quick() -> Builder {
    Cluster::builder()
        .env("VIGIE_NODE__LEASE", "2s")
        .env("VIGIE_NODE__HEARTBEAT", "500ms")
}

async fn readyz(cluster: &Cluster) -> Answer {
    cluster.get_public(0, "/readyz").await
}

/// Why a check fails; `None` where it does not, or is not there.
fn failure(answer: &Answer, check: &str) -> Option<String> {
    let mut checks = answer.json["checks"].as_array().expect("checks").iter();
    let check = checks.find(|found| found["name"] == check)?;
    assert_eq!(check["ok"], check["failure"].is_null(), "{answer:?}");
    check["failure"].as_str().map(str::to_owned)
}

/// Waits until the first node is not ready because of this check, for a reason with these words; returns the reason.
async fn not_ready(cluster: &Cluster, check: &str, words: &str) -> String {
    eventually(&format!("{check} fails: {words}"), async || {
        let answer = readyz(cluster).await;
        let failure = failure(&answer, check).filter(|failure| failure.contains(words))?;
        (answer.status == 503 && answer.json["ready"] == false).then_some(failure)
    })
    .await
}

/// Waits until the first node is ready, with exactly these checks that fail nevertheless.
async fn ready(cluster: &Cluster, degraded: &[&str]) {
    eventually(
        &format!("the node is ready; degraded: {degraded:?}"),
        async || {
            let answer = readyz(cluster).await;
            let is_so =
                answer.status == 200 && answer.json["degraded"] == serde_json::json!(degraded);
            is_so.then_some(())
        },
    )
    .await;
}

/// Runs `vigie` to its end: its exit code, and all that it said.
async fn vigie_says(arguments: &[&str], env: &[(String, String)]) -> (i32, String) {
    let output = run(vigie(arguments, env)).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (
        output.status.code().expect("it ends by itself"),
        said.into_owned(),
    )
}

/// The detail of a problem.
fn detail(answer: &Answer) -> &str {
    match &answer.json["detail"] {
        Value::String(detail) => detail,
        _ => panic!("no problem: {answer:?}"),
    }
}
