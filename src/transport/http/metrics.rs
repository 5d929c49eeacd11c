//! Metrics in the OpenMetrics format.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Internal;
use super::problem::Problem;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the metrics of the node as Prometheus text. Programs on this machine need no key, except through a proxy or for
/// pages of other sites.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "all metrics", body = String, content_type = "application/openmetrics-text")),
)]
pub(super) async fn show(State(internal): State<Internal>) -> Result<Response, Problem> {
    internal.hub.refresh_metrics();
    let limit = i64::try_from(internal.limits.get().connections);
    internal
        .metrics
        .connections_limit
        .set(limit.unwrap_or(i64::MAX));
    match internal.metrics.encode() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()),
        Err(error) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}
