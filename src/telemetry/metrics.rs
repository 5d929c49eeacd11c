//! Every metric of the hub, by the name under which `/metrics` shows it.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Whether a connection belongs to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// No account.
    Guest,
    /// Signed in.
    User,
}

impl EncodeLabelValue for ConnectionKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Guest => "guest",
            Self::User => "user",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    kind: ConnectionKind,
}

/// Why the hub closed a TCP connection, or the session over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBecause {
    /// There were as many as allowed.
    Full,
    /// It asked for nothing in time.
    Handshake,
    /// It sent more bytes than it may.
    InboundRate,
    /// It did not read what was written.
    Stalled,
    /// It carried no connection any more.
    Idle,
}

impl ClosedBecause {
    const ALL: [Self; 5] = [
        Self::Full,
        Self::Handshake,
        Self::InboundRate,
        Self::Stalled,
        Self::Idle,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Handshake => "handshake",
            Self::InboundRate => "inbound_rate",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
        }
    }
}

impl EncodeLabelValue for ClosedBecause {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    reason: ClosedBecause,
}

/// The metrics of one node.
pub struct Metrics {
    registry: Registry,
    connections: Family<ConnectionLabels, Gauge>,
    accepted: Family<ConnectionLabels, Counter>,
    closed: Family<ClosedLabels, Counter>,
    /// Connections that were not admitted.
    pub refused: Counter,
    /// Users with a connection on this node.
    pub users: Gauge,
    /// Users online on all nodes, as this node sees it.
    pub online_users: Gauge,
    /// Topics this node listens to.
    pub topics: Gauge,
    /// Messages received on users' topics.
    pub topic_messages: Counter,
    /// Messages received on the presence channels.
    pub presence_messages: Counter,
    /// Times at which the numbers of transitions did not follow each other.
    pub presence_gaps: Counter,
    /// Times at which messages may have been missed.
    pub interruptions: Counter,
    /// Snapshots of who is online that were read.
    pub snapshots: Counter,
    /// Messages that had been missed and were delivered late.
    pub missed_messages: Counter,
    /// Times at which this node's lease was gone.
    pub lease_losses: Counter,
    /// Connections of dead nodes released by this one.
    pub reaped_connections: Counter,
    /// How long the last canary took to come back, in seconds.
    pub canary_lag_seconds: Gauge<f64, AtomicU64>,
    /// Events written to connections of this node.
    pub deliveries: Counter,
    /// Updates that were skipped for a newer one, where writing fell behind.
    pub conflated: Counter,
    /// Users put in the queue by this node.
    pub matchmaking_joins: Counter,
    /// Matches made by this node.
    pub matches_made: Counter,
    /// Users sent back to the front of the queue by this node.
    pub matchmaking_requeued: Counter,
    /// Tickets that ran out, as told by this node.
    pub match_timeouts: Counter,
    /// Users who wait on all nodes, when this node looked last.
    pub matchmaking_queue: Gauge,
    /// Connections closed because they did not keep up.
    pub overflows: Counter,
    /// Events received from clients.
    pub client_events: Counter,
    /// Events from clients that were refused.
    pub refused_events: Counter,
}

impl Metrics {
    /// Registers every metric, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("vigie");
        let connections = Family::<ConnectionLabels, Gauge>::default();
        registry.register("connections", "Open connections", connections.clone());
        let accepted = Family::<ConnectionLabels, Counter>::default();
        registry.register(
            "connections_accepted",
            "Connections admitted",
            accepted.clone(),
        );
        let closed = Family::<ClosedLabels, Counter>::default();
        registry.register(
            "transports_closed",
            "TCP connections and sessions that the hub closed",
            closed.clone(),
        );
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let refused = counter("connections_refused", "Connections not admitted");
        let topic_messages = counter("topic_messages", "Messages received on users' topics");
        let presence_messages = counter(
            "presence_messages",
            "Messages received on the presence channels",
        );
        let presence_gaps = counter("presence_gaps", "Gaps found in the numbers of transitions");
        let interruptions = counter(
            "interruptions",
            "Times at which messages may have been missed",
        );
        let snapshots = counter(
            "presence_snapshots",
            "Snapshots of who is online that were read",
        );
        let missed_messages = counter(
            "missed_messages",
            "Messages that were missed and delivered late",
        );
        let lease_losses = counter("lease_losses", "Times at which this node's lease was gone");
        let reaped_connections = counter(
            "reaped_connections",
            "Connections of dead nodes released by this one",
        );
        let deliveries = counter("deliveries", "Events written to connections of this node");
        let conflated = counter(
            "conflated",
            "Updates that were out of date before they were told here",
        );
        let matchmaking_joins = counter(
            "matchmaking_joins",
            "Users put in the queue of matchmaking by this node",
        );
        let matches_made = counter("matchmaking_matches", "Matches made by this node");
        let matchmaking_requeued = counter(
            "matchmaking_requeued",
            "Users sent back to the front of the queue, because their opponent was gone",
        );
        let match_timeouts = counter(
            "matchmaking_timeouts",
            "Users told by this node that no opponent was found in time",
        );
        let overflows = counter(
            "connections_overflowed",
            "Connections closed because they did not keep up",
        );
        let client_events = counter("client_events", "Events received from clients");
        let refused_events = counter(
            "client_events_refused",
            "Events from clients that were refused",
        );
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let users = gauge("users", "Users with a connection on this node");
        let online_users = gauge(
            "online_users",
            "Users online on all nodes, as this node sees it",
        );
        let matchmaking_queue = gauge(
            "matchmaking_queue",
            "Users who wait for an opponent on all nodes, when this node looked last",
        );
        let topics = gauge("topics", "Topics this node listens to");
        let canary_lag_seconds = Gauge::default();
        registry.register(
            "canary_lag_seconds",
            "How long the last canary took to come back",
            canary_lag_seconds.clone(),
        );
        for kind in [ConnectionKind::Guest, ConnectionKind::User] {
            // Looking one up is what makes it show.
            drop(connections.get_or_create(&ConnectionLabels { kind }));
            drop(accepted.get_or_create(&ConnectionLabels { kind }));
        }
        for reason in ClosedBecause::ALL {
            drop(closed.get_or_create(&ClosedLabels { reason }));
        }
        Self {
            registry,
            connections,
            accepted,
            closed,
            refused,
            users,
            online_users,
            topics,
            topic_messages,
            presence_messages,
            presence_gaps,
            interruptions,
            snapshots,
            missed_messages,
            lease_losses,
            reaped_connections,
            canary_lag_seconds,
            deliveries,
            conflated,
            matchmaking_joins,
            matches_made,
            matchmaking_requeued,
            match_timeouts,
            matchmaking_queue,
            overflows,
            client_events,
            refused_events,
        }
    }

    /// Counts a connection that was opened (`1`) or closed (`-1`).
    pub fn count_connection(&self, kind: ConnectionKind, change: i64) {
        let labels = ConnectionLabels { kind };
        self.connections.get_or_create(&labels).inc_by(change);
        if change > 0 {
            self.accepted.get_or_create(&labels).inc();
        }
    }

    /// Counts a TCP connection, or a session, that the hub closed.
    pub fn count_closed(&self, reason: ClosedBecause) {
        self.closed.get_or_create(&ClosedLabels { reason }).inc();
    }

    /// Open connections of one kind.
    pub fn connections(&self, kind: ConnectionKind) -> u64 {
        let open = self
            .connections
            .get_or_create(&ConnectionLabels { kind })
            .get();
        u64::try_from(open).unwrap_or(0)
    }

    /// Every metric in Prometheus's text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text, which no metric of ours does.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
