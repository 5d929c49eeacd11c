//! Counts and times requests by route.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::audit::NO_ROUTE;
use crate::telemetry::Metrics;

/// Counts a request when its response begins, without waiting for the end of a stream.
pub(super) async fn count_requests(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // The template, not the path: label values must be few.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let status = response.status().as_u16();
    metrics.count_request(method.as_str(), route, status, begun.elapsed());
    response
}
