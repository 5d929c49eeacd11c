//! The metrics of the hub, with the names that `/metrics` shows.
//!
//! Metrics on hot paths have a handle for each combination of labels, so that counting looks up no labels.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use strum::IntoEnumIterator;

use super::labels::{
    AnswerLabels, ClosedBecause, ClosedLabels, CodeLabels, ConnectionKind, ConnectionLabels,
    EndedBecause, EndedLabels, RouteLabels, ScriptLabels, StatusLabels, TransitionStatus,
    Transport,
};

/// Histogram buckets for calls of Redis and HTTP requests, in seconds: from 0.1 ms to the timeout of most callers.
const IO_BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Histogram buckets for work without I/O, in seconds: one recipient takes microseconds, ten thousand take tens of
/// milliseconds.
const CPU_BUCKETS: [f64; 14] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25,
];

/// Label of an unknown method.
const OTHER_METHOD: &str = "other";

/// Methods with a label of their own.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

type TimesFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of one node.
pub struct Metrics {
    registry: Registry,
    open: Vec<Vec<Gauge>>,
    accepted: Vec<Vec<Counter>>,
    ended: Vec<Counter>,
    closed: Vec<Counter>,
    kicked: Family<CodeLabels, Counter>,
    came_online: Counter,
    went_offline: Counter,
    redis_times: TimesFamily<ScriptLabels>,
    http_times: TimesFamily<RouteLabels>,
    http_answers: Family<AnswerLabels, Counter>,
    /// Connections that were not admitted.
    pub refused: Counter,
    /// Sessions that began with polling and moved to a WebSocket.
    pub upgrades: Counter,
    /// Limit on connections: as configured, or lower if the open files do not suffice.
    pub connections_limit: Gauge,
    /// Users with a connection on this node.
    pub users: Gauge,
    /// Users online on all nodes, as this node sees it.
    pub online_users: Gauge,
    /// Nodes that are alive, as this node sees it.
    pub nodes: Gauge,
    /// Topics this node is subscribed to.
    pub topics: Gauge,
    /// Watches of connections of this node: a connection counts once for each profile.
    pub watchers: Gauge,
    /// Messages received on users' topics.
    pub topic_messages: Counter,
    /// Messages received on the presence channels.
    pub presence_messages: Counter,
    /// Missing presence transitions that were noticed.
    pub presence_gaps: Counter,
    /// Interruptions in which messages may have been lost.
    pub interruptions: Counter,
    /// Times a partition fell silent.
    pub silences: Counter,
    /// Presence snapshots that were read.
    pub snapshots: Counter,
    /// Lost messages that were recovered and delivered late.
    pub missed_messages: Counter,
    /// Times this node lost its lease.
    pub lease_losses: Counter,
    /// Expired leases of other nodes that this node found.
    pub reaped_nodes: Counter,
    /// Connections of dead nodes that this node released.
    pub reaped_connections: Counter,
    /// Round-trip time of the last canary, in seconds.
    pub canary_lag_seconds: Gauge<f64, AtomicU64>,
    /// Script calls that failed, or whose answer was lost.
    pub redis_errors: Counter,
    /// Events written to connections of this node.
    pub deliveries: Counter,
    /// Updates that were skipped in favour of a newer one while deliveries lagged.
    pub conflated: Counter,
    /// Frames that were discarded with slow consumers.
    pub dropped: Counter,
    /// Time to write a delivery to all its recipients on this node, in seconds.
    pub fan_out: Histogram,
    /// Users that this node added to the queue.
    pub matchmaking_joins: Counter,
    /// Matches that this node made.
    pub matches_made: Counter,
    /// Users that this node returned to the front of the queue.
    pub matchmaking_requeued: Counter,
    /// Expired tickets that this node reported.
    pub match_timeouts: Counter,
    /// Length of the queue when this node last read it.
    pub matchmaking_queue: Gauge,
    /// Slow consumers that were closed.
    pub overflows: Counter,
    /// Events received from clients.
    pub client_events: Counter,
    /// Events from clients that were refused.
    pub refused_events: Counter,
}

impl Metrics {
    /// Registers every metric with the value zero.
    pub fn new() -> Self {
        let mut new = Registering(Registry::with_prefix("vigie"));
        let connections: Family<ConnectionLabels, Gauge> =
            new.metric("connections", "Open connections, by `kind` (`guest`, `user`) and by the `transport` with which their session began (`websocket`, `polling`)");
        let accepted: Family<ConnectionLabels, Counter> = new.metric(
            "connections_accepted",
            "Connections admitted, by `kind` and `transport`",
        );
        let ended: Family<EndedLabels, Counter> =
            new.metric("connections_closed", "Connections that ended, by `reason`: `client` (it said goodbye), `hub` (the hub did), `transport` (closed by either side), `ping_timeout`, `error`");
        let closed: Family<ClosedLabels, Counter> = new.metric(
            "transports_closed",
            "TCP connections and sessions that the hub closed, by `reason`: `full` (a newcomer, when every other was busy), `made_room` (without a request for longest when a newcomer came), `per_address` (its address had too many without a request), `handshake`, `inbound_rate`, `stalled`, `idle`",
        );
        let transitions: Family<StatusLabels, Counter> = new.metric(
            "transitions",
            "Users who went online or offline (`status`) on all nodes, as this node sees it",
        );
        let transitions_to = |status| transitions.get_or_create_owned(&StatusLabels { status });
        Self {
            open: of_each_connection(&connections),
            accepted: of_each_connection(&accepted),
            ended: EndedBecause::iter()
                .map(|reason| ended.get_or_create_owned(&EndedLabels { reason }))
                .collect(),
            closed: ClosedBecause::iter()
                .map(|reason| closed.get_or_create_owned(&ClosedLabels { reason }))
                .collect(),
            kicked: new.metric(
                "connections_kicked",
                "Connections that got `kicked` before they were closed, by `code`",
            ),
            came_online: transitions_to(TransitionStatus::Online),
            went_offline: transitions_to(TransitionStatus::Offline),
            redis_times: new.times(
                "redis_script_duration_seconds",
                "Time from the call of a script to the answer of Redis, by `script`",
                || Histogram::new(IO_BUCKETS),
            ),
            http_times: new.times(
                "http_request_duration_seconds",
                "Time from the head of a request to the head of the answer, by `method` and `route`, without sockets",
                || Histogram::new(IO_BUCKETS),
            ),
            http_answers: new.metric("http_requests", "Requests that were answered, by `method`, `route` and `status`"),
            refused: new.metric("connections_refused", "Connections not admitted"),
            upgrades: new.metric(
                "transport_upgrades",
                "Sessions that began with polling and moved to a WebSocket",
            ),
            connections_limit: new.metric(
                "connections_limit",
                "Most connections that the node takes: `limits.connections`, or fewer where its open files allow no more",
            ),
            users: new.metric("users", "Users with a connection on this node"),
            online_users: new.metric(
                "online_users",
                "Users online on all nodes, as this node sees it",
            ),
            nodes: new.metric("nodes", "Nodes that have a lease, as this node sees it"),
            topics: new.metric("topics", "Topics to which this node is subscribed"),
            watchers: new.metric(
                "watchers",
                "Connections of this node that watch a profile, once for each profile",
            ),
            topic_messages: new.metric("topic_messages", "Messages received on users' topics"),
            presence_messages: new.metric(
                "presence_messages",
                "Messages received on the presence channels",
            ),
            presence_gaps: new.metric("presence_gaps", "Gaps found in the numbers of transitions"),
            interruptions: new.metric(
                "interruptions",
                "Interruptions in which messages may have been missed",
            ),
            silences: new.metric(
                "partition_silences",
                "Times at which nothing arrived from a partition for three heartbeats",
            ),
            snapshots: new.metric(
                "presence_snapshots",
                "Snapshots of the online users that were read",
            ),
            missed_messages: new.metric(
                "missed_messages",
                "Messages that were missed and delivered late",
            ),
            lease_losses: new.metric("lease_losses", "Times at which this node lost its lease"),
            reaped_nodes: new.metric(
                "reaped_nodes",
                "Expired leases of other nodes that this node found",
            ),
            reaped_connections: new.metric(
                "reaped_connections",
                "Connections of dead nodes that this node released",
            ),
            canary_lag_seconds: new.metric(
                "canary_lag_seconds",
                "Round-trip time of the last canary, or the time waited for it in vain",
            ),
            redis_errors: new.metric(
                "redis_script_errors",
                "Calls of scripts that Redis did not carry out, or whose answer was lost",
            ),
            deliveries: new.metric("deliveries", "Events written to connections of this node"),
            conflated: new.metric(
                "conflated",
                "Updates that this node skipped in favour of a newer one, because it had fallen behind",
            ),
            dropped: new.metric(
                "deliveries_dropped",
                "Frames that were discarded with slow consumers",
            ),
            fan_out: new.register(
                "fan_out_duration_seconds",
                "Time to write a batch of at most 64 deliveries to all their recipients on this node",
                Histogram::new(CPU_BUCKETS),
            ),
            matchmaking_joins: new.metric(
                "matchmaking_joins",
                "Users that this node added to the queue",
            ),
            matches_made: new.metric("matchmaking_matches", "Matches that this node made"),
            matchmaking_requeued: new.metric(
                "matchmaking_requeued",
                "Users that this node returned to the front of the queue, because their opponent was gone",
            ),
            match_timeouts: new.metric(
                "matchmaking_timeouts",
                "Users whom this node notified that no opponent was found in time",
            ),
            matchmaking_queue: new.metric(
                "matchmaking_queue",
                "Users who wait on all nodes, when this node last looked",
            ),
            overflows: new.metric(
                "connections_overflowed",
                "Slow consumers that were closed",
            ),
            client_events: new.metric("client_events", "Events received from clients"),
            refused_events: new.metric(
                "client_events_refused",
                "Events from clients that were refused",
            ),
            registry: new.0,
        }
    }

    /// Counts a connection that was opened (`1`) or closed (`-1`).
    pub fn count_connection(&self, kind: ConnectionKind, transport: Transport, change: i64) {
        let (kind, transport) = (kind as usize, transport as usize);
        self.open[kind][transport].inc_by(change);
        if change > 0 {
            self.accepted[kind][transport].inc();
        }
    }

    /// Counts a connection that ended.
    pub fn count_ended(&self, reason: EndedBecause) {
        self.ended[reason as usize].inc();
    }

    /// Counts a TCP connection, or a session, that the hub closed.
    pub fn count_closed(&self, reason: ClosedBecause) {
        self.closed[reason as usize].inc();
    }

    /// Counts a connection that got `kicked`; `code` is one of the contract's.
    pub fn count_kicked(&self, code: &'static str) {
        self.kicked.get_or_create(&CodeLabels { code }).inc();
    }

    /// Counts users who went online or offline.
    pub fn count_transitions(&self, online: usize, offline: usize) {
        self.came_online.inc_by(online as u64);
        self.went_offline.inc_by(offline as u64);
    }

    /// Transitions in both directions since the start.
    pub fn transitions(&self) -> u64 {
        self.came_online.get() + self.went_offline.get()
    }

    /// The histogram of a script.
    pub fn script_times(&self, script: &'static str) -> Histogram {
        self.redis_times
            .get_or_create_owned(&ScriptLabels { script })
    }

    /// Counts an answered request. `route` is a template, never a raw path.
    pub fn count_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method);
        let method = method.unwrap_or(OTHER_METHOD);
        let route = route.to_owned();
        let labels = RouteLabels { method, route };
        self.http_times
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        let answer = AnswerLabels {
            method,
            route: labels.route,
            status,
        };
        self.http_answers.get_or_create(&answer).inc();
    }

    /// Open connections of one kind.
    pub fn connections(&self, kind: ConnectionKind) -> u64 {
        let open: i64 = self.open[kind as usize].iter().map(Gauge::get).sum();
        u64::try_from(open).unwrap_or(0)
    }

    /// Encodes every metric in the OpenMetrics text format.
    ///
    /// # Errors
    /// When the encoder fails, which it does for none of these metrics.
    pub fn encode(&self) -> Result<String, fmt::Error> {
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

/// A registry whose methods return the metric that they register.
struct Registering(Registry);

impl Registering {
    fn metric<M: Metric + Default + Clone>(&mut self, name: &str, help: &str) -> M {
        self.register(name, help, M::default())
    }

    fn times<L>(&mut self, name: &str, help: &str, one: fn() -> Histogram) -> TimesFamily<L>
    where
        L: Clone + std::hash::Hash + Eq + EncodeLabelSet + Send + Sync + fmt::Debug + 'static,
    {
        self.register(name, help, Family::new_with_constructor(one))
    }

    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

/// Handles indexed by [`ConnectionKind`] and [`Transport`].
fn of_each_connection<M: Clone + Default>(family: &Family<ConnectionLabels, M>) -> Vec<Vec<M>> {
    let of_kind = |kind| {
        Transport::iter()
            .map(|transport| family.get_or_create_owned(&ConnectionLabels { kind, transport }))
            .collect()
    };
    ConnectionKind::iter().map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_has_a_handle_of_its_own() {
        let metrics = Metrics::new();
        for (count, kind) in (1..).zip(ConnectionKind::iter()) {
            for transport in Transport::iter() {
                metrics.count_connection(kind, transport, count);
            }
        }
        for ended in EndedBecause::iter() {
            metrics.count_ended(ended);
        }
        for closed in ClosedBecause::iter() {
            metrics.count_closed(closed);
        }
        metrics.count_closed(ClosedBecause::Idle);
        let page = metrics.encode().expect("metrics are text");
        for line in [
            r#"vigie_connections{kind="guest",transport="websocket"} 1"#,
            r#"vigie_connections{kind="user",transport="polling"} 2"#,
            r#"vigie_connections_closed_total{reason="error"} 1"#,
            r#"vigie_transports_closed_total{reason="full"} 1"#,
            r#"vigie_transports_closed_total{reason="idle"} 2"#,
        ] {
            assert!(page.lines().any(|told| told == line), "no {line} in {page}");
        }
        assert_eq!(metrics.connections(ConnectionKind::User), 4);
    }

    #[test]
    fn methods_that_nobody_knows_are_one() {
        let metrics = Metrics::new();
        for method in ["GET", "X", "Y", "get"] {
            metrics.count_request(method, "/metrics", 200, Duration::from_millis(1));
        }
        let page = metrics.encode().expect("metrics are text");
        let series = page
            .lines()
            .filter(|line| line.starts_with("vigie_http_requests_total"));
        assert_eq!(series.count(), 2, "{page}");
        assert!(
            page.contains(r#"method="other",route="/metrics",status="200"} 3"#),
            "{page}"
        );
    }
}
