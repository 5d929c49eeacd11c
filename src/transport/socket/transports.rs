//! Closes a connection's transport, whichever it uses by now.
//!
//! The library tells which request opened a connection, not which TCP connection carries it now: one that began
//! with long polling moves to the WebSocket of a later request. Those requests are noted here. A connection that
//! polls has no TCP connection of its own; it is closed as its client would close it, by a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use socketioxide::TransportType;
use socketioxide::adapter::LocalAdapter;
use socketioxide::service::SocketIoService;
use socketioxide::socket::Socket;
use tower_service::Service;

use crate::transport::listener::Peer;

/// The service that answers requests to `/socket.io/`.
pub(super) type SocketService = SocketIoService<Router, LocalAdapter>;

/// Notes kept before those of closed TCP connections are looked for.
const NOTES_BEFORE_SWEEP: usize = 1024;

/// The packet by which an Engine.IO client closes its session.
const CLOSE_PACKET: &str = "1";

/// Which TCP connection carries each session that was upgraded.
#[derive(Default)]
pub(super) struct Transports {
    service: OnceLock<SocketService>,
    upgrades: Mutex<Upgrades>,
}

#[derive(Default)]
struct Upgrades {
    peers: HashMap<String, Peer>,
    sweep_at: usize,
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

    /// Notes that the session `sid` moves to the TCP connection of `peer`. A TCP connection is upgraded once,
    /// so there are never more notes than TCP connections, but for those not swept yet.
    pub(super) fn upgrade(&self, sid: &str, peer: Peer) {
        let mut upgrades = self.upgrades();
        upgrades.peers.insert(sid.to_owned(), peer);
        if upgrades.peers.len() > upgrades.sweep_at + NOTES_BEFORE_SWEEP {
            upgrades.peers.retain(|_, peer| peer.is_open());
            upgrades.sweep_at = upgrades.peers.len() * 2;
        }
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&self, sid: &str) {
        self.upgrades().peers.remove(sid);
    }

    /// Closes the transport of `socket`; `opened_by` is who sent the request that opened it.
    pub(super) fn close(&self, socket: &Arc<Socket<LocalAdapter>>, opened_by: Option<&Peer>) {
        let sid = socket.id.to_string();
        if socket.transport_type() == TransportType::Polling {
            return self.close_polling(&sid);
        }
        let upgraded = self.upgrades().peers.get(&sid).cloned();
        if let Some(peer) = upgraded.as_ref().or(opened_by) {
            peer.close();
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
