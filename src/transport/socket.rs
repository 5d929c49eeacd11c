//! The Socket.IO side: both namespaces, and what a connection needs to live in them.
//!
//! A connection is admitted by `gate`, its events are worked off by its own `session`, and what the domain
//! wants told goes out through `delivery`.

mod addresses;
mod delivery;
mod gate;
mod inbox;
mod outlet;
mod rate;
mod reply;
mod session;
mod transports;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use socketioxide::SocketIo;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;

use self::addresses::Addresses;
use self::gate::Welcome;
use self::outlet::Outlets;
use self::transports::{SocketService, Transports};
use crate::domain::Hub;
use crate::domain::delivery::DeliveryStream;
use crate::domain::token::TokenVerifier;
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::listener::Peer;

/// Both behave the same. Existing front ends call `io("http://host/socket.io/")`, which the official client
/// reads as the namespace `/socket.io/`.
pub const NAMESPACES: [&str; 2] = ["/", "/socket.io/"];

/// Packets in the library's queue of one connection, each a string of its own. What does not fit waits in the
/// connection's outlet, where it is shared.
const LIBRARY_QUEUE_LEN: usize = 32;

/// How long a connection may take to join a namespace.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

/// The limits that a client can meet.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events per second of one connection.
    pub events_per_second: u32,
    /// Events of one connection in a burst.
    pub events_burst: u32,
    /// Connections of one address; 0 sets no limit.
    pub connections_per_address: usize,
    /// Bytes of one message.
    pub message: usize,
    /// Packets waiting for one connection.
    pub outbound_queue: usize,
}

/// What every connection shares.
struct Sockets {
    hub: Hub,
    tokens: Arc<TokenVerifier>,
    outlets: Outlets,
    transports: Arc<Transports>,
    addresses: Addresses,
    metrics: Arc<Metrics>,
    limits: Limits,
    last_id: AtomicU64,
}

/// The Socket.IO side of a node.
pub struct SocketServer {
    sockets: Arc<Sockets>,
    service: SocketService,
}

impl SocketServer {
    /// Opens both namespaces.
    pub fn new(
        hub: Hub,
        tokens: Arc<TokenVerifier>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .connect_timeout(JOIN_WITHIN)
            .max_payload(limits.message as u64)
            .ws_max_message_size(limits.message)
            .ws_max_frame_size(limits.message)
            .max_buffer_size(LIBRARY_QUEUE_LEN)
            .build_with_inner_svc(Router::new());
        let transports = Arc::new(Transports::default());
        transports.serve_with(service.clone());
        let sockets = Arc::new(Sockets {
            hub,
            tokens,
            outlets: Outlets::new(transports.clone(), metrics.clone(), limits.outbound_queue),
            transports,
            addresses: Addresses::new(limits.connections_per_address),
            metrics,
            limits,
            last_id: AtomicU64::new(0),
        });
        for namespace in NAMESPACES {
            let gate = sockets.clone();
            let admit = move |socket: SocketRef, auth: TryData<Box<RawValue>>| {
                gate.clone().admit(socket, auth)
            };
            io.ns(namespace, Welcome.with(admit));
        }
        Self { sockets, service }
    }

    /// The routes under `/socket.io/`.
    pub fn routes(&self) -> Router {
        let noted = axum::middleware::from_fn_with_state(self.sockets.clone(), note_upgrade);
        Router::new()
            .route_service("/socket.io", self.service.clone())
            .route_service("/socket.io/", self.service.clone())
            .layer(noted)
    }

    /// Writes what the domain wants told, until it has nothing more to tell.
    pub fn deliver(&self, deliveries: DeliveryStream) -> impl Future<Output = ()> + Send + use<> {
        delivery::deliver(self.sockets.clone(), deliveries)
    }

    /// Closes every connection at the transport, spread over `spread`, so that clients come back to another node
    /// by themselves, and waits until each is forgotten.
    pub async fn close_all(&self, spread: Duration) {
        self.sockets.outlets.close_all(spread).await;
    }
}

/// Notes which TCP connection a session moves to, before the answer says so: only a request that is answered with
/// that takes its TCP connection, so whatever else is asked leaves no note. A node that is stopping opens no session.
async fn note_upgrade(
    State(sockets): State<Arc<Sockets>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = query.split('&');
    let sid = pairs
        .find_map(|pair| pair.strip_prefix("sid="))
        .map(str::to_owned);
    if sid.is_none() && sockets.hub.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping").into_response();
    }
    let response = next.run(request).await;
    if let Some(sid) = sid
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        sockets.transports.upgrade(&sid, peer);
    }
    response
}

impl Sockets {
    fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
