//! The middleware in front of both transports: decides whether a request may open a session, which transport gets it,
//! and where the client is.

use std::net::IpAddr;
use std::sync::{Arc, Once};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::telemetry::Transport;
use crate::transport::address::{FORWARDED_FOR, TrustedProxies};
use crate::transport::listener::Peer;
use crate::transport::polling::PollingSessions;
use crate::transport::session::SessionContext;
use crate::transport::session::engine_session::EngineSession;
use crate::transport::websocket::handshake::{self, opens_websocket};
use crate::transport::websocket::namespaces;

/// Seconds after which a client that was refused may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// The state of the middleware.
pub(super) struct Handshake {
    context: Arc<SessionContext>,
    polling: Arc<PollingSessions>,
    proxies: TrustedProxies,
    /// The warning about a proxy that is not trusted is logged once.
    unknown_proxy: Once,
}

/// Passes a request on. A node that is stopping, not ready, or full opens no session.
pub(super) async fn handshake_layer(
    State(state): State<Arc<Handshake>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let sid = session_of(request.uri().query().unwrap_or_default()).map(str::to_owned);
    match sid {
        Some(sid) => state.continue_session(&sid, peer, request, next).await,
        None => state.open_session(peer, request, next).await,
    }
}

impl Handshake {
    pub(super) fn new(
        context: Arc<SessionContext>,
        polling: Arc<PollingSessions>,
        proxies: TrustedProxies,
    ) -> Self {
        Self {
            context,
            polling,
            proxies,
            unknown_proxy: Once::new(),
        }
    }

    /// Records which TCP connection a session moves to: the one whose request is answered with 101.
    async fn continue_session(
        &self,
        sid: &str,
        peer: Peer,
        request: Request,
        next: Next,
    ) -> Response {
        self.polling.polls.follow_up(sid);
        if asks_for_websocket(request.uri())
            && let Err(refusal) = handshake::check_upgrade(request.version(), request.headers())
        {
            // The library would answer 101 without checking, and the client would wait for nothing.
            return refused(refusal);
        }
        let is_poll = polling_session(request.method(), request.uri()).is_some();
        let answer = next.run(request);
        let response = if is_poll {
            self.polling.polls.run(sid, answer).await
        } else {
            answer.await
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.polling.upgrade(sid, peer);
            self.context.metrics.upgrades.inc();
        }
        response
    }

    async fn open_session(&self, peer: Peer, mut request: Request, next: Next) -> Response {
        let now = Instant::now();
        if let Some(reason) = self.obstacle(request.method(), now).await {
            return unavailable(reason);
        }
        if opens_websocket(request.uri().query().unwrap_or_default()) {
            return self.open_websocket(peer, request, now);
        }
        let address = self.client_address(&peer, request.headers());
        let session = EngineSession::new(Transport::Polling, address, now);
        request.extensions_mut().insert(Arc::new(session));
        let response = next.run(request).await;
        if response.status() == StatusCode::OK {
            self.context.pending.opened(now);
        }
        response
    }

    /// Why the node opens no session, if it does not.
    async fn obstacle(&self, method: &Method, now: Instant) -> Option<&'static str> {
        let hub = &self.context.hub;
        if hub.is_draining() {
            return Some("the node is stopping");
        }
        // Only GET opens a session; the library refuses the rest.
        if method != Method::GET {
            return None;
        }
        let reason = if self.context.is_full(now) {
            "the node is full; try again, on another node if there is one"
        } else if !hub.is_ready().await {
            "the node is not ready (/readyz says why); try again"
        } else {
            return None;
        };
        self.context.metrics.refused.inc();
        Some(reason)
    }

    /// Opens a session that begins as a WebSocket. The library does not learn of it.
    fn open_websocket(&self, peer: Peer, mut request: Request, now: Instant) -> Response {
        let upgrade = hyper::upgrade::on(&mut request);
        let (request, _) = request.into_parts();
        match handshake::accept(&request) {
            Ok(accepted) => {
                let address = self.client_address(&peer, &request.headers);
                let context = self.context.clone();
                context.pending.opened(now);
                tokio::spawn(namespaces::open(context, upgrade, peer, address, now));
                accepted.into_response()
            }
            Err(refusal) => refused(refusal),
        }
    }

    /// The client's address. Warns once that there may be a proxy which is not trusted.
    fn client_address(&self, peer: &Peer, headers: &HeaderMap) -> IpAddr {
        let address = peer.address.ip();
        if headers.contains_key(FORWARDED_FOR) && !self.proxies.trust(address) {
            self.unknown_proxy.call_once(|| {
                tracing::warn!(
                    peer = %address,
                    "requests come with X-Forwarded-For from an address that is not in http.trusted_proxies: if it is \
                     your load balancer, add it, or the limits count all of its clients as one"
                );
            });
        }
        self.proxies.client_of(address, headers)
    }
}

/// The session that a request names. The first `sid` counts, as for the library.
pub(crate) fn session_of(query: &str) -> Option<&str> {
    let mut pairs = query.split('&');
    pairs.find_map(|pair| pair.strip_prefix("sid="))
}

/// The session for which a request polls, if it does.
pub(super) fn polling_session<'a>(method: &Method, uri: &'a Uri) -> Option<&'a str> {
    let is_poll =
        method == Method::GET && uri.path().starts_with("/socket.io") && !asks_for_websocket(uri);
    is_poll.then(|| session_of(uri.query().unwrap_or_default()))?
}

/// Whether a request asks for a WebSocket. The first `transport` counts, as for the library.
fn asks_for_websocket(uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let transport = pairs.find_map(|pair| pair.strip_prefix("transport="));
    transport == Some("websocket")
}

fn refused(refusal: handshake::UpgradeRefusal) -> Response {
    tracing::debug!(reason = %refusal, "refused a request for a WebSocket");
    refusal.into_response()
}

fn unavailable(reason: &'static str) -> Response {
    let headers = [(header::RETRY_AFTER, RETRY_AFTER)];
    (StatusCode::SERVICE_UNAVAILABLE, headers, reason).into_response()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn the_session_of_a_request_is_its_first_sid(
            pairs in proptest::collection::vec(
                (select(vec!["sid", "SID", "EIO", "ssid", "", "%73id", "sid "]), "[^&]{0,12}"),
                0..6,
            ),
            text: String,
        ) {
            let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let query = query.join("&");
            let first = pairs.iter().find(|(name, _)| *name == "sid").map(|(_, value)| value.as_str());
            prop_assert_eq!(session_of(&query), first);
            let named = text.starts_with("sid=") || text.contains("&sid=");
            prop_assert_eq!(session_of(&text).is_some(), named);
        }
    }
}
