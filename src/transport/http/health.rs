//! Liveness and readiness, for balancers and orchestrators.
//!
//! Both listeners have both routes. Probes should use the internal one, which a flood of clients does not reach.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Hub;

/// The answer of `/readyz`.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Every vital check passed.
    ready: bool,
    /// Names of failed checks that are not vital.
    #[schema(value_type = Vec<String>)]
    degraded: Vec<&'static str>,
    /// All checks, passed or failed.
    checks: Vec<CheckResult>,
}

/// The outcome of one check.
#[derive(Serialize, ToSchema)]
struct CheckResult {
    /// Name of the check.
    #[schema(value_type = String)]
    name: &'static str,
    /// The check passed.
    ok: bool,
    /// Reason of the failure; absent if the check passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// Answers as long as the process is alive, without a key. Depends on nothing else. Probes belong on the internal listener.
#[utoipa::path(
    get,
    path = "/healthz",
    security(()),
    responses((status = 200, description = "the process is alive", body = String)),
)]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Reports whether the node can do its work, without a key; `503` while it cannot. `degraded` names failed checks that
/// leave it ready.
#[utoipa::path(
    get,
    path = "/readyz",
    security(()),
    responses(
        (status = 200, description = "the node can do its work", body = Readiness),
        (status = 503, description = "it cannot: Redis does not answer, or the node drains", body = Readiness),
    ),
)]
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
