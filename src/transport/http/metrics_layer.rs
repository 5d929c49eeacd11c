//! How long requests take and how they end, by route.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::telemetry::Metrics;

/// What there is no route for.
const NO_ROUTE: &str = "(none)";

/// Counts a request when its answer begins: a stream that goes on after that is not waited for.
pub(super) async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // The template, which is one of a few; the path is whatever somebody asked for.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let status = response.status().as_u16();
    metrics.count_request(method.as_str(), route, status, begun.elapsed());
    response
}
