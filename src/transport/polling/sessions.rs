//! Closes the transport of a session, whichever it uses by now.
//!
//! The library reports which request opened a session, not which TCP connection carries it now: a session that began by
//! polling moves to the WebSocket of a later request. Those requests are recorded here. A session that polls has no TCP
//! connection of its own; it is closed as its client would close it, by a request.
//!
//! A session whose client aborts its poll, and sends no other request, is closed after a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request};
use parking_lot::Mutex;
use tower_service::Service;

use super::PollingService;
use super::polls::Polls;
use crate::transport::limits::CurrentLimits;
use crate::transport::listener::Peer;

/// Records kept before those of closed TCP connections are swept.
const RECORDS_BEFORE_SWEEP: usize = 1024;

/// How often aborted polls are checked.
const ABANDONED_CHECK: Duration = Duration::from_millis(200);

/// The packet by which an Engine.IO client closes its session.
const CLOSE_PACKET: &str = "1";

/// The sessions of the library.
pub(crate) struct PollingSessions {
    service: PollingService,
    upgrades: Mutex<Upgrades>,
    pub(crate) polls: Polls,
    pub(super) limits: CurrentLimits,
}

/// The TCP connections that carry sessions which were upgraded.
#[derive(Default)]
struct Upgrades {
    peers: HashMap<String, Vec<Peer>>,
    sweep_at: usize,
}

impl PollingSessions {
    pub(super) fn new(service: PollingService, limits: CurrentLimits) -> Self {
        Self {
            service,
            upgrades: Mutex::default(),
            polls: Polls::default(),
            limits,
        }
    }

    /// Records that the session `sid` moves to the TCP connection of `peer`. A TCP connection is upgraded once, so there
    /// are never more records than TCP connections, except for those not swept yet. A client that asks for several
    /// WebSockets has several recorded, because the library takes one and does not report which.
    pub(crate) fn upgrade(&self, sid: &str, peer: Peer) {
        let mut upgrades = self.upgrades.lock();
        let peers = upgrades.peers.entry(sid.to_owned()).or_default();
        peers.retain(Peer::is_open);
        peers.push(peer);
        if upgrades.peers.len() > upgrades.sweep_at + RECORDS_BEFORE_SWEEP {
            upgrades
                .peers
                .retain(|_, peers| peers.iter().any(Peer::is_open));
            upgrades.sweep_at = upgrades.peers.len() * 2;
        }
    }

    /// Whether a WebSocket has come for a session and is open. The session ends with it, from the moment in which the
    /// client begins to move.
    fn is_upgrading(&self, sid: &str) -> bool {
        let upgrades = self.upgrades.lock();
        let peers = upgrades.peers.get(sid);
        peers.is_some_and(|peers| peers.iter().any(Peer::is_open))
    }

    /// The session `sid` has ended.
    pub(super) fn forget(&self, sid: &str) {
        self.upgrades.lock().peers.remove(sid);
    }

    /// Closes the sessions of clients that have aborted their poll and are gone. Runs until it is dropped.
    pub(crate) async fn run(&self, forget: impl Fn(&str)) {
        loop {
            tokio::time::sleep(ABANDONED_CHECK).await;
            for sid in self.polls.take_abandoned(Instant::now()) {
                if !self.is_upgrading(&sid) {
                    forget(&sid);
                    self.close_polling(&sid);
                }
            }
        }
    }

    /// Closes the session `sid`. One that polls may be about to move to a WebSocket, or have moved since; then both
    /// transports are closed.
    pub(super) fn close(&self, sid: &str, is_polling: bool) {
        let upgraded = self.upgrades.lock().peers.remove(sid);
        upgraded.iter().flatten().for_each(Peer::close);
        if is_polling {
            self.close_polling(sid);
        }
    }

    fn close_polling(&self, sid: &str) {
        let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .body(Body::from(CLOSE_PACKET));
        if let Ok(request) = request {
            let closed = Service::call(&mut self.service.clone(), request);
            // The library only parses the packet and ends the session, so the task is short.
            tokio::spawn(async move { closed.await.map(drop) });
        }
    }
}
