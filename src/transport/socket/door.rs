//! What comes before the library sees a request to `/socket.io/`: whether it may open a session, from where it
//! comes, and over which TCP connection a session goes on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::carrier::Carrier;
use super::{Sockets, websocket};
use crate::transport::address::FORWARDED_FOR;
use crate::transport::listener::Peer;
use crate::transport::websocket::handshake::{self, opens_websocket};

/// Seconds after which whoever was turned away may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Lets a request through. A node that is stopping, not ready, or full opens no session.
pub(super) async fn guard(
    State(sockets): State<Arc<Sockets>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let sid = session_of(request.uri().query().unwrap_or_default()).map(str::to_owned);
    match sid {
        Some(sid) => go_on(&sockets, &sid, peer, request, next).await,
        None => open(&sockets, peer, request, next).await,
    }
}

/// The session that a request says it belongs to, read as the library reads it: the first `sid`, as it is written.
pub(super) fn session_of(query: &str) -> Option<&str> {
    let mut pairs = query.split('&');
    pairs.find_map(|pair| pair.strip_prefix("sid="))
}

/// Notes which TCP connection a session moves to, before the answer says so: only a request that is answered with
/// that takes its TCP connection, so whatever else is asked leaves no note.
async fn go_on(sockets: &Sockets, sid: &str, peer: Peer, request: Request, next: Next) -> Response {
    sockets.transports.polls.followed(sid);
    if let Some(refusal) = not_a_websocket(&request) {
        return refusal;
    }
    let is_poll = polling_session(request.method(), request.uri()).is_some();
    let answer = next.run(request);
    let response = match is_poll {
        true => sockets.transports.polls.run(sid, answer).await,
        false => answer.await,
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        sockets.transports.upgrade(sid, peer);
        sockets.metrics.upgrades.inc();
    }
    response
}

async fn open(sockets: &Arc<Sockets>, peer: Peer, mut request: Request, next: Next) -> Response {
    if sockets.hub.is_draining() {
        return turned_away("the node is stopping");
    }
    let opening = request.method() == Method::GET;
    let now = Instant::now();
    if opening && sockets.is_full(now) {
        sockets.metrics.refused.inc();
        return turned_away("the node is full; try again, on another node if there is one");
    }
    if opening && !sockets.hub.is_ready().await {
        sockets.metrics.refused.inc();
        return turned_away("the node is not ready (/readyz says why); try again");
    }
    if opens_websocket(request.uri().query().unwrap_or_default()) {
        return open_websocket(sockets, peer, request, now);
    }
    let address = client_of(sockets, &peer, request.headers());
    let limits = sockets.limits.get().clone();
    let carrier = Arc::new(Carrier::new(peer, None, address, &limits, now));
    request.extensions_mut().insert(carrier);
    let response = next.run(request).await;
    if response.status() == StatusCode::OK {
        sockets.openings.opened(now);
    }
    response
}

/// Opens a session that begins as a WebSocket. The library does not learn of it.
fn open_websocket(
    sockets: &Arc<Sockets>,
    peer: Peer,
    mut request: Request,
    now: Instant,
) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let (request, _) = request.into_parts();
    match handshake::accept(&request) {
        Ok(accepted) => {
            let address = client_of(sockets, &peer, &request.headers);
            sockets.openings.opened(now);
            tokio::spawn(websocket::run(sockets.clone(), upgrade, peer, address, now));
            accepted.into_response()
        }
        Err(refusal) => refused(refusal),
    }
}

/// The session for which a request polls, if it does.
pub(super) fn polling_session<'a>(method: &Method, uri: &'a Uri) -> Option<&'a str> {
    let is_poll =
        method == Method::GET && uri.path().starts_with("/socket.io") && !asks_for_websocket(uri);
    is_poll.then(|| session_of(uri.query().unwrap_or_default()))?
}

/// Whether a request asks for a WebSocket, read as the library reads it.
fn asks_for_websocket(uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let transport = pairs.find_map(|pair| pair.strip_prefix("transport="));
    transport == Some("websocket")
}

/// Refuses a request for a WebSocket that cannot become one. The library would answer 101 without checking, and the
/// client would wait for ever.
fn not_a_websocket(request: &Request) -> Option<Response> {
    if !asks_for_websocket(request.uri()) {
        return None;
    }
    let checked = handshake::check_upgrade(request.version(), request.headers());
    checked.err().map(refused)
}

fn refused(refusal: handshake::Refusal) -> Response {
    tracing::debug!(reason = %refusal, "refused a request for a WebSocket");
    refusal.into_response()
}

/// Where a request comes from. Says once that there may be a proxy which nobody said is trusted.
fn client_of(sockets: &Sockets, peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let address = peer.address.ip();
    if headers.contains_key(FORWARDED_FOR) && !sockets.proxies.trust(address) {
        sockets.unknown_proxy.call_once(|| {
            tracing::warn!(
                peer = %address,
                "requests come with X-Forwarded-For from an address that is not in http.trusted_proxies: if it is your \
                 load balancer, add it, or the limits count everybody behind it as one"
            );
        });
    }
    sockets.proxies.client_of(address, headers)
}

fn turned_away(why: &'static str) -> Response {
    let headers = [(header::RETRY_AFTER, RETRY_AFTER)];
    (StatusCode::SERVICE_UNAVAILABLE, headers, why).into_response()
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
