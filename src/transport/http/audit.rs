//! Logs each call of the internal API with the name of its caller, never with a key or a part of one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::problem::Problem;
use crate::transport::listener::Peer;

/// Caller name of local programs, which need no key. Names of keys have no parentheses.
pub(super) const LOOPBACK: &str = "(loopback)";

/// Caller name of requests without a valid key.
const NOBODY: &str = "(nobody)";

/// Route of requests that match none.
pub(super) const NO_ROUTE: &str = "(none)";

/// Refusals logged in each [`WINDOW`], so that a flood of wrong keys does not fill the log.
const REFUSALS_MAX: u32 = 10;

const WINDOW: Duration = Duration::from_secs(10);

/// Longer methods are cut off in the log; no known method is as long.
const METHOD_LEN_MAX: usize = 16;

/// Name of the key that the caller presented. An extension of the request, or of the response to a local program.
#[derive(Clone)]
pub(super) struct CallerName(pub(super) Arc<str>);

/// Marks responses of routes that change accounts, or close, delete or revoke something.
#[derive(Clone)]
struct Mutating;

#[derive(Clone, Default)]
pub(super) struct Audit(Arc<Mutex<Refusals>>);

/// Has the call logged at `info`.
pub(super) async fn mark_mutating(mut response: Response) -> Response {
    response.extensions_mut().insert(Mutating);
    response
}

/// Answers a request and logs it. A spawned task does both, so that neither stops when the caller disconnects.
pub(super) async fn log_calls(
    State(audit): State<Audit>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let caller = request.extensions().get::<CallerName>().cloned();
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

fn answered(caller: Option<CallerName>, method: &Method, route: &str, response: &Response) {
    let caller = caller.or_else(|| response.extensions().get::<CallerName>().cloned());
    let caller = caller.as_ref().map_or(NOBODY, |caller| &*caller.0);
    let (method, status) = (name_of(method), response.status().as_u16());
    if response.extensions().get::<Mutating>().is_some() {
        tracing::info!(caller, method, route, status, "the internal API was called");
    } else {
        tracing::debug!(caller, method, route, status, "the internal API was called");
    }
}

fn name_of(method: &Method) -> &str {
    let name = method.as_str();
    name.get(..METHOD_LEN_MAX).unwrap_or(name)
}

impl Audit {
    fn refused(&self, method: &Method, route: &str, peer: &Peer) {
        let mut refusals = self.0.lock();
        let Some(left_out) = refusals.count(Instant::now()) else {
            return;
        };
        let (caller, method, status) = (NOBODY, name_of(method), StatusCode::UNAUTHORIZED.as_u16());
        let address = peer.address.ip();
        tracing::warn!(
            caller, method, route, status, %address, left_out,
            "the internal API refused a call without a valid key"
        );
    }
}

/// Refusals in the present window.
#[derive(Default)]
struct Refusals {
    begun: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Refusals {
    /// Counts a refusal. If it is to be logged, returns how many have been left out since the last one that was.
    fn count(&mut self, now: Instant) -> Option<u64> {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= WINDOW;
        if self.begun.is_none_or(is_over) {
            (self.begun, self.logged) = (Some(now), 0);
        }
        if self.logged == REFUSALS_MAX {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
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
