//! Answers 404 for sessions of another node, so that a balancer tries the next one.
//!
//! A balancer that chooses a node by the client's address, as nginx does, chooses another one after a node has come or
//! gone, and a session that polls exists on one node only. The library answers 400 for a session that it does not know,
//! which no balancer takes for a reason to try another node, and 101 where the request opens a WebSocket. A balancer
//! that sends [`NEXT_ON_404`] gets 404 instead.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_service::Service;

use super::PollingService;
use crate::transport::socket::handshake::session_of;

/// The header of a balancer that tries the next node after a 404. `config/nginx.conf` sends it.
const NEXT_ON_404: HeaderName = HeaderName::from_static("x-vigie-next-on-404");

/// Answers 404 for a session that this node does not have, if the balancer asks for that.
pub(crate) async fn refuse_unknown_session(
    State(service): State<PollingService>,
    request: Request,
    next: Next,
) -> Response {
    let sid = session_of(request.uri().query().unwrap_or_default());
    if let Some(sid) = sid.filter(|_| request.headers().contains_key(NEXT_ON_404))
        && !has_session(service, sid).await
    {
        return (StatusCode::NOT_FOUND, "this node does not know the session").into_response();
    }
    next.run(request).await
}

/// Whether a session with this `sid` polls at this node: then the library accepts a message without packets for it.
async fn has_session(mut service: PollingService, sid: &str) -> bool {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/socket.io/?EIO=4&transport=polling&sid={sid}"))
        .body(Body::empty());
    let Ok(request) = request else {
        return false;
    };
    let answer = Service::call(&mut service, request).await;
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}
