//! Whether the node is alive, and whether it can do its work; for balancers and orchestrators.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use crate::domain::Hub;

/// The answer of `/readyz`.
#[derive(Serialize)]
pub(super) struct Readiness {
    ready: bool,
    checks: Vec<CheckResult>,
}

#[derive(Serialize)]
struct CheckResult {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// The process is alive. It asks nobody.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The node can do its work: `503` otherwise, and the body says which check failed.
pub(super) async fn ready(State(hub): State<Hub>) -> (StatusCode, axum::Json<Readiness>) {
    let checks: Vec<CheckResult> = hub
        .readiness()
        .await
        .into_iter()
        .map(|check| CheckResult {
            name: check.name,
            ok: check.failure.is_none(),
            failure: check.failure,
        })
        .collect();
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(Readiness { ready, checks }))
}
