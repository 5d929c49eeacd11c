//! Says in the log who called the internal API: once for each request, never with a key or a part of one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::transport::listener::Peer;

/// Whoever may ask without a key. No name of a key has parentheses.
pub(super) const LOOPBACK: &str = "(loopback)";

/// Whoever presents no key, or a wrong one, and is told an error.
const NOBODY: &str = "(nobody)";

/// What there is no route for.
const NO_ROUTE: &str = "(none)";

/// Refused callers that are told of in each [`WINDOW`]. Whoever floods the listener with wrong keys does not fill the
/// log.
const REFUSALS_MAX: u32 = 10;

/// The time after which refused callers are told of again.
const WINDOW: Duration = Duration::from_secs(10);

/// Longer words are no method that anybody knows; the rest of them is not told.
const METHOD_LEN_MAX: usize = 16;

/// Whoever calls, by the name of the key: noted on the request, or on the answer to a request without a key.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Arc<str>);

/// What was asked for closes, deletes or revokes something, or changes accounts.
#[derive(Clone)]
struct Lasting;

/// Tells who called.
#[derive(Clone, Default)]
pub(super) struct Audit(Arc<Mutex<Refusals>>);

/// Notes on the answer that such a request is worth knowing of later.
pub(super) async fn lasting(mut response: Response) -> Response {
    response.extensions_mut().insert(Lasting);
    response
}

/// Has a request answered, and tells of it. Both happen although the caller leaves before: what is begun is done, and
/// known.
pub(super) async fn note(
    State(audit): State<Audit>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let caller = request.extensions().get::<Caller>().cloned();
    let done = tokio::spawn(async move {
        let response = next.run(request).await;
        let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        match response.status() {
            StatusCode::UNAUTHORIZED => audit.refused(&method, route, &peer),
            _ => answered(caller, &method, route, &response),
        }
        response
    });
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "see the log of the node");
    done.await
        .unwrap_or_else(|error| failed(error).into_response())
}

fn answered(caller: Option<Caller>, method: &Method, route: &str, response: &Response) {
    let caller = caller.or_else(|| response.extensions().get::<Caller>().cloned());
    let caller = caller.as_ref().map_or(NOBODY, |caller| &*caller.0);
    let (method, status) = (name_of(method), response.status().as_u16());
    match response.extensions().get::<Lasting>() {
        Some(_) => tracing::info!(caller, method, route, status, "the internal API was called"),
        None => tracing::debug!(caller, method, route, status, "the internal API was called"),
    }
}

fn name_of(method: &Method) -> &str {
    let name = method.as_str();
    name.get(..METHOD_LEN_MAX).unwrap_or(name)
}

impl Audit {
    fn refused(&self, method: &Method, route: &str, peer: &Peer) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = refusals.count(Instant::now()) else {
            return;
        };
        let (caller, method, status) = (NOBODY, name_of(method), StatusCode::UNAUTHORIZED.as_u16());
        let address = peer.address.ip();
        tracing::warn!(
            caller, method, route, status, %address, left_out,
            "the internal API refused somebody without a valid key"
        );
    }
}

/// How many callers were refused of late.
#[derive(Default)]
struct Refusals {
    begun: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Refusals {
    /// Counts one. Where it is to be told, returns how many were not since the last one that was.
    fn count(&mut self, now: Instant) -> Option<u64> {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= WINDOW;
        if self.begun.is_none_or(is_over) {
            (self.begun, self.told) = (Some(now), 0);
        }
        if self.told == REFUSALS_MAX {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_in_few_words() {
        let (mut refusals, begun) = (Refusals::default(), Instant::now());
        for _ in 0..REFUSALS_MAX {
            assert_eq!(refusals.count(begun), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(refusals.count(begun + WINDOW / 2), None);
        }
        assert_eq!(refusals.count(begun + WINDOW), Some(1000));
        assert_eq!(refusals.count(begun + WINDOW), Some(0));
    }

    #[test]
    fn a_method_is_told_in_few_letters() {
        let long = Method::from_bytes(&[b'X'; 1000]).expect("a method");
        assert_eq!(name_of(&long).len(), METHOD_LEN_MAX);
        assert_eq!(name_of(&Method::DELETE), "DELETE");
    }
}
