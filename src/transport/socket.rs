//! The Socket.IO side: both namespaces, and what a connection needs to live in them.
//!
//! A connection is admitted by `gate`, its events are worked off by its own `session`, and what the domain
//! wants told goes out through `delivery`.

mod addresses;
mod carrier;
mod conflation;
mod delivery;
mod door;
mod elsewhere;
mod gate;
mod head;
mod hold;
mod inbox;
mod openings;
mod outlet;
mod outlets;
mod packet;
mod polls;
mod rates;
mod reply;
mod session;
mod sink;
mod transports;
mod websocket;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn_with_state, map_request};
use serde_json::value::RawValue;
use socketioxide::extract::TryData;
use socketioxide::handler::ConnectHandler;
use socketioxide::{ParserConfig, SocketIo};

use self::addresses::Addresses;
use self::gate::{Connecting, Welcome};
use self::openings::Openings;
use self::outlets::Outlets;
use self::transports::{SocketService, Transports};
use crate::domain::Hub;
use crate::domain::delivery::DeliveryStream;
use crate::domain::token::TokenVerifier;
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::address::TrustedProxies;
use crate::transport::limits::CurrentLimits;

/// Both behave the same. Existing front ends call `io("http://host/socket.io/")`, which the official client
/// reads as the namespace `/socket.io/`.
pub const NAMESPACES: [&str; 2] = ["/", "/socket.io/"];

/// A namespace, by its place in [`NAMESPACES`].
type Namespace = usize;

/// Packets in one answer to a poll. Some clients refuse more (python-engineio).
const POLLED_MAX: usize = 16;

/// Packets in the library's queue of one connection, each a string of its own. What does not fit waits in the
/// connection's outlet, where it is shared. An answer to a poll takes all of them, with one that did not fit into the
/// answer before, and a ping that comes meanwhile.
const LIBRARY_QUEUE_LEN: usize = POLLED_MAX - 2;

/// Bytes that are read of a WebSocket at once, kept for each connection. Most of what clients send is shorter; for what is
/// longer the library takes more for as long as it needs it.
const READ_BUFFER_LEN: usize = 512;

/// Binary parts of one event, and how long they may take. No event of ours has any: what comes is dropped, and little
/// of it is kept until it is whole.
const ATTACHMENTS_MAX: usize = 64;
const ATTACHED_WITHIN: Duration = Duration::from_secs(10);

/// What is decided when the node starts: the library cannot change it later.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Most bytes of one message.
    pub message: usize,
    /// How long a session may take to join a namespace.
    pub join_within: Duration,
    /// Who speaks for others.
    pub proxies: TrustedProxies,
}

/// What every connection shares.
struct Sockets {
    hub: Hub,
    tokens: Arc<TokenVerifier>,
    outlets: Outlets,
    transports: Arc<Transports>,
    openings: Openings,
    addresses: Addresses,
    proxies: TrustedProxies,
    /// Whether it was said that somebody may be a proxy who is not trusted.
    unknown_proxy: Once,
    /// Most bytes of one message.
    message_max: usize,
    /// How long a session may take to join a namespace.
    join_within: Duration,
    metrics: Arc<Metrics>,
    limits: CurrentLimits,
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
        options: SocketOptions,
        limits: CurrentLimits,
    ) -> Self {
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .connect_timeout(options.join_within)
            .max_payload(options.message as u64)
            .ws_max_message_size(options.message)
            .ws_max_frame_size(options.message)
            .max_buffer_size(LIBRARY_QUEUE_LEN)
            .ws_read_buffer_size(READ_BUFFER_LEN)
            .with_parser(
                ParserConfig::common()
                    .max_incoming_binary_buf_size(options.message)
                    .max_incoming_binaries(ATTACHMENTS_MAX)
                    .packet_completion_timeout(ATTACHED_WITHIN),
            )
            .build_with_inner_svc(Router::new());
        let transports = Arc::new(Transports::default());
        transports.serve_with(service.clone());
        let sockets = Arc::new(Sockets {
            hub,
            tokens,
            outlets: Outlets::new(transports.clone(), metrics.clone(), limits.clone()),
            transports,
            openings: Openings::new(options.join_within),
            addresses: Addresses::default(),
            proxies: options.proxies,
            unknown_proxy: Once::new(),
            message_max: options.message,
            join_within: options.join_within,
            metrics,
            limits,
            last_id: AtomicU64::new(0),
        });
        for (namespace, name) in NAMESPACES.into_iter().enumerate() {
            let gate = sockets.clone();
            let admit = move |socket: Connecting, auth: TryData<Box<RawValue>>| {
                gate.clone().admit_polling(socket, auth, namespace)
            };
            io.ns(name, Welcome.with(admit));
        }
        Self { sockets, service }
    }

    /// The routes under `/socket.io/`.
    pub fn routes(&self) -> Router {
        let guarded = from_fn_with_state(self.sockets.clone(), door::guard);
        let elsewhere = from_fn_with_state(self.service.clone(), elsewhere::point_elsewhere);
        Router::new()
            .route_service("/socket.io", self.service.clone())
            .route_service("/socket.io/", self.service.clone())
            .layer(map_request(head::lean))
            .layer(guarded)
            .layer(elsewhere)
    }

    /// Notes that a client has gone before its request was answered.
    pub fn broken_off(&self) -> impl Fn(&Method, &Uri) + Clone + Send + Sync + use<> {
        let transports = self.sockets.transports.clone();
        move |method, uri| {
            if let Some(sid) = door::polling_session(method, uri) {
                transports.polls.break_off(sid);
            }
        }
    }

    /// Writes what the domain wants told, until it has nothing more to tell.
    pub fn deliver(&self, deliveries: DeliveryStream) -> impl Future<Output = ()> + Send + use<> {
        delivery::deliver(self.sockets.clone(), deliveries)
    }

    /// Closes sessions that carry nothing any more, or whose client has gone without a word, for ever.
    pub fn close_idle(&self) -> impl Future<Output = ()> + Send + use<> {
        let sockets = self.sockets.clone();
        async move {
            let limit = || sockets.limits.get().handshake;
            tokio::join!(
                sockets.transports.close_idle(limit, &sockets.metrics),
                sockets.transports.close_abandoned(),
            );
        }
    }

    /// Closes every connection at the transport, spread over `spread`, so that clients come back to another node
    /// by themselves, and waits until each is forgotten.
    pub async fn close_all(&self, spread: Duration) {
        self.sockets.outlets.close_all(spread).await;
    }
}

impl Sockets {
    /// Whether as many connections are there, or about to be, as the node takes.
    fn is_full(&self, now: Instant) -> bool {
        let open = self.outlets.len() + self.openings.waiting(now) + self.transports.idle_len();
        open >= self.limits.get().connections
    }

    fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
