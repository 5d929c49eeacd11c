//! Whether the node is alive, and whether it can do its work; for balancers and orchestrators.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use crate::domain::Hub;

/// The answer of `/readyz`.
#[derive(Serialize)]
pub(super) struct Readiness {
    ready: bool,
    /// What is missing although the node is ready.
    degraded: Vec<&'static str>,
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
    let checks = hub.readiness().await;
    let failed = checks.iter().filter(|check| check.failure.is_some());
    let (vital, lesser): (Vec<_>, Vec<_>) = failed.partition(|check| check.is_vital);
    let ready = vital.is_empty();
    let degraded = lesser.iter().map(|check| check.name).collect();
    let checks = checks
        .into_iter()
        .map(|check| CheckResult {
            name: check.name,
            ok: check.failure.is_none(),
            failure: check.failure,
        })
        .collect();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        axum::Json(Readiness {
            ready,
            degraded,
            checks,
        }),
    )
}
