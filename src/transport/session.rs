//! Sessions and connections, whichever transport carries them: one session of Engine.IO carries at most one connection
//! of Socket.IO for each namespace.
//!
//! A connection is admitted by [`admission`]. Its events go through the queue of [`inbound`] to its own
//! [`connection_task`], which answers them. Everything for its client goes through [`outbound`] to its [`sink`], most of
//! it from [`fan_out`].

mod ack;
pub(crate) mod address_limit;
pub(crate) mod admission;
mod conflation;
mod connection_task;
pub(crate) mod encoded_events;
pub(crate) mod engine_session;
mod fan_out;
pub(crate) mod held_connect;
pub(crate) mod idle_sessions;
pub(crate) mod inbound;
pub(crate) mod outbound;
mod outbound_table;
mod pending_sessions;
mod rates;
pub(crate) mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::address_limit::AddressLimit;
pub(crate) use self::fan_out::fan_out;
use self::idle_sessions::IdleSessions;
use self::outbound_table::OutboundTable;
use self::pending_sessions::PendingSessions;
use crate::domain::Hub;
use crate::domain::token::TokenVerifier;
use crate::ids::ConnectionId;
use crate::telemetry::Metrics;
use crate::transport::limits::CurrentLimits;

/// The state that all sessions of a node share.
pub(crate) struct SessionContext {
    pub(crate) hub: Hub,
    tokens: Arc<TokenVerifier>,
    pub(crate) outbound: OutboundTable,
    pub(crate) pending: PendingSessions,
    pub(crate) idle: IdleSessions,
    addresses: AddressLimit,
    /// Most bytes of one message.
    pub(crate) message_len_max: usize,
    /// How long a session may take to join a namespace.
    pub(crate) join_timeout: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: CurrentLimits,
    last_id: AtomicU64,
}

impl SessionContext {
    pub(crate) fn new(
        hub: Hub,
        tokens: Arc<TokenVerifier>,
        metrics: Arc<Metrics>,
        limits: CurrentLimits,
        message_len_max: usize,
        join_timeout: Duration,
    ) -> Self {
        Self {
            hub,
            tokens,
            outbound: OutboundTable::new(metrics.clone(), limits.clone()),
            pending: PendingSessions::new(join_timeout),
            idle: IdleSessions::default(),
            addresses: AddressLimit::default(),
            message_len_max,
            join_timeout,
            metrics,
            limits,
            last_id: AtomicU64::new(0),
        }
    }

    /// Whether the node has as many connections as it takes, with those that may still come over open sessions.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let count = self.outbound.len() + self.pending.count(now) + self.idle.len();
        count >= self.limits.get().connections
    }

    fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
