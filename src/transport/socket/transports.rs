//! Closes a session's transport, whichever it uses by now.
//!
//! The library tells which request opened a session, not which TCP connection carries it now: one that began
//! with long polling moves to the WebSocket of a later request. Those requests are noted here. A session that
//! polls has no TCP connection of its own; it is closed as its client would close it, by a request.
//!
//! A session whose last connection has ended, and whose client does not close it, is closed after a while; one whose
//! client breaks off its poll, and sends nothing more, after a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use socketioxide::TransportType;
use socketioxide::adapter::LocalAdapter;
use socketioxide::service::SocketIoService;
use socketioxide::socket::Socket;
use tower_service::Service;

use super::carrier::Carrier;
use super::polls::Polls;
use super::sink::Sink;
use crate::telemetry::{ClosedBecause, Metrics};
use crate::transport::listener::Peer;

/// The service that answers requests to `/socket.io/`.
pub(super) type SocketService = SocketIoService<Router, LocalAdapter>;

/// Notes kept before those of closed TCP connections are looked for.
const NOTES_BEFORE_SWEEP: usize = 1024;

/// How often idle sessions are looked at.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// How often polls that were broken off are looked at.
const ABANDONED_CHECK: Duration = Duration::from_millis(200);

/// The packet by which an Engine.IO client closes its session.
const CLOSE_PACKET: &str = "1";

/// Which TCP connection carries each session that was upgraded, and which sessions carry nothing any more.
#[derive(Default)]
pub(super) struct Transports {
    service: OnceLock<SocketService>,
    upgrades: Mutex<Upgrades>,
    idle: Mutex<HashMap<String, Idle>>,
    pub(super) polls: Polls,
}

#[derive(Default)]
struct Upgrades {
    peers: HashMap<String, Vec<Peer>>,
    sweep_at: usize,
}

/// A session over which the last connection has ended.
struct Idle {
    since: Instant,
    carrier: Arc<Carrier>,
    is_polling: bool,
}

impl Transports {
    /// The service is made after its handlers, which need this.
    pub(super) fn serve_with(&self, service: SocketService) {
        // It is set once, when the node starts.
        let _ = self.service.set(service);
    }

    fn upgrades(&self) -> MutexGuard<'_, Upgrades> {
        self.upgrades.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<String, Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the session `sid` moves to the TCP connection of `peer`. A TCP connection is upgraded once,
    /// so there are never more notes than TCP connections, but for those not swept yet. Whoever asks for several has
    /// several noted: the library takes one, and nobody is told which.
    pub(super) fn upgrade(&self, sid: &str, peer: Peer) {
        let mut upgrades = self.upgrades();
        let peers = upgrades.peers.entry(sid.to_owned()).or_default();
        peers.retain(Peer::is_open);
        peers.push(peer);
        if upgrades.peers.len() > upgrades.sweep_at + NOTES_BEFORE_SWEEP {
            upgrades
                .peers
                .retain(|_, peers| peers.iter().any(Peer::is_open));
            upgrades.sweep_at = upgrades.peers.len() * 2;
        }
    }

    /// How many sessions carry nothing any more, and are open still.
    pub(super) fn idle_len(&self) -> usize {
        self.idle().len()
    }

    /// A connection begins over the session of `carrier`.
    pub(super) fn join(&self, sid: &str, carrier: &Carrier) -> bool {
        let is_first = carrier.join();
        self.idle().remove(sid);
        is_first
    }

    /// A connection over a session has ended; the session `sid` stays.
    pub(super) fn leave(&self, sid: String, carrier: &Arc<Carrier>, is_polling: bool) {
        carrier.leave();
        if carrier.is_idle() {
            let idle = Idle {
                since: Instant::now(),
                carrier: carrier.clone(),
                is_polling,
            };
            self.idle().insert(sid, idle);
        }
    }

    /// The session `sid` has ended.
    pub(super) fn forget(&self, sid: &str) {
        self.idle().remove(sid);
        self.upgrades().peers.remove(sid);
    }

    /// Closes sessions that have been idle for `limit`, for ever.
    pub(super) async fn close_idle(&self, limit: impl Fn() -> Duration, metrics: &Metrics) {
        loop {
            tokio::time::sleep(IDLE_CHECK).await;
            for (sid, idle) in self.take_idle(Instant::now(), limit()) {
                if idle.is_polling || idle.carrier.opened_by.is_open() {
                    metrics.count_closed(ClosedBecause::Idle);
                }
                self.close_session(&sid, &idle.carrier, idle.is_polling);
                self.upgrades().peers.remove(&sid);
            }
        }
    }

    fn take_idle(&self, now: Instant, limit: Duration) -> Vec<(String, Idle)> {
        let mut sessions = self.idle();
        // One that was joined in the moment in which it became idle.
        sessions.retain(|_, idle| idle.carrier.is_idle());
        sessions
            .extract_if(|_, idle| now.saturating_duration_since(idle.since) >= limit)
            .collect()
    }

    /// Closes sessions whose client has broken off its poll and is gone, for ever.
    pub(super) async fn close_abandoned(&self) {
        loop {
            tokio::time::sleep(ABANDONED_CHECK).await;
            for sid in self.polls.take_abandoned(Instant::now()) {
                if !self.is_upgrading(&sid) {
                    self.idle().remove(&sid);
                    self.close_polling(&sid);
                }
            }
        }
    }

    /// Whether a WebSocket has come for a session and is open. The session ends with it, from the moment in which the
    /// client begins to move.
    fn is_upgrading(&self, sid: &str) -> bool {
        let upgrades = self.upgrades();
        let peers = upgrades.peers.get(sid);
        peers.is_some_and(|peers| peers.iter().any(Peer::is_open))
    }

    /// Closes the transport of a connection.
    pub(super) fn close(&self, sink: &Sink, carrier: &Carrier) {
        match sink {
            Sink::WebSocket(session, _) => session.writer().abort(),
            Sink::Polling(socket) => {
                self.close_session(socket.id.as_str(), carrier, is_polling(socket));
            }
        }
    }

    /// One that polls may be about to move to a WebSocket, or have moved since; then both are closed.
    fn close_session(&self, sid: &str, carrier: &Carrier, is_polling: bool) {
        if carrier.is_websocket() {
            return carrier.close_websocket();
        }
        let upgraded = self.upgrades().peers.get(sid).cloned();
        upgraded.iter().flatten().for_each(Peer::close);
        if is_polling {
            self.close_polling(sid);
        }
    }

    fn close_polling(&self, sid: &str) {
        let Some(service) = self.service.get() else {
            return;
        };
        let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .body(Body::from(CLOSE_PACKET));
        if let Ok(request) = request {
            let closed = Service::call(&mut service.clone(), request);
            // It only parses the packet and ends the session.
            tokio::spawn(async move { closed.await.map(drop) });
        }
    }
}

/// Whether a session that began by polling still does.
pub(super) fn is_polling(socket: &Socket<LocalAdapter>) -> bool {
    socket.transport_type() == TransportType::Polling
}
