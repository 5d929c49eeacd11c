//! One sample of the figures that the operators' page shows.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::matchmaking::Queue;
use super::super::nodes::Node;
use crate::clock::now_ms;
use crate::domain::Hub;
use crate::domain::cluster_events::{ClusterEvent, EventKind};
use crate::ids::node_of;
use crate::telemetry::Metrics;

/// The state of the hub at one moment, as one node sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    /// Time of the sample, in ms since 1970 on the clock of this node.
    at: u64,
    /// The same on the clock of Redis, by which leases end; `null` if it is unknown.
    engine_at: Option<u64>,
    /// Name of this node.
    node: String,
    /// How long a node counts as alive after a heartbeat, in ms.
    lease_ms: u64,
    /// Names of the failed vital checks, as in `/readyz`.
    failing: Vec<&'static str>,
    /// Names of the other failed checks.
    degraded: Vec<&'static str>,
    /// Users online on all nodes.
    online: usize,
    /// Users who went online or offline since this node started, on all nodes.
    transitions: u64,
    /// Events written to connections of this node since it started.
    deliveries: u64,
    /// The live nodes, by id; `null` if they are unknown.
    nodes: Option<Vec<Node>>,
    /// State of the queue; `null` if it is unknown.
    queue: Option<Queue>,
    /// Recent incidents that this node noticed, newest first.
    incidents: Vec<Incident>,
}

/// An incident in the cluster.
#[derive(Serialize, ToSchema)]
struct Incident {
    /// When this node noticed it, in ms since 1970.
    at: u64,
    /// Kind of the incident.
    kind: IncidentKind,
    /// The node concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// How many connections are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
}

/// Kinds of incidents.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IncidentKind {
    /// A node acquired a lease.
    NodeCame,
    /// A node released its lease.
    NodeLeft,
    /// The lease of a node expired.
    NodeDied,
    /// This node removed the lease of a dead node.
    NodeReaped,
    /// This node released connections of a dead node.
    ConnectionsReaped,
    /// This node lost its own lease.
    LeaseLost,
    /// A presence transition was missing.
    PresenceGap,
    /// Messages may have been lost.
    Interrupted,
}

impl Sample {
    /// Takes a sample. Figures that cannot be read at the moment are `None`.
    pub(super) async fn take(hub: &Hub, metrics: &Arc<Metrics>) -> Self {
        let (nodes, engine_at, queue, checks) = tokio::join!(
            hub.nodes(),
            hub.engine_now_ms(),
            hub.queue_stats(),
            hub.readiness()
        );
        let failed = checks.iter().filter(|check| check.failure.is_some());
        let (vital, lesser): (Vec<_>, Vec<_>) = failed.partition(|check| check.is_vital);
        let nodes = nodes.ok();
        Self {
            at: now_ms(),
            engine_at: engine_at.ok(),
            node: hub.node_id(),
            lease_ms: hub.lease_length().as_millis() as u64,
            failing: vital.iter().map(|check| check.name).collect(),
            degraded: lesser.iter().map(|check| check.name).collect(),
            online: hub.online_count(),
            transitions: metrics.transitions(),
            deliveries: metrics.deliveries.get(),
            nodes: nodes.map(|nodes| nodes.into_iter().map(Node::from).collect()),
            queue: queue.ok().map(Queue::from),
            incidents: hub
                .recent_events()
                .into_iter()
                .map(Incident::from)
                .collect(),
        }
    }
}

impl From<ClusterEvent> for Incident {
    fn from(ClusterEvent { at_ms, kind }: ClusterEvent) -> Self {
        let (kind, incarnation, connections) = match kind {
            EventKind::NodeJoined { incarnation } => {
                (IncidentKind::NodeCame, Some(incarnation), None)
            }
            EventKind::NodeLeft { incarnation } => {
                (IncidentKind::NodeLeft, Some(incarnation), None)
            }
            EventKind::NodeDied { incarnation } => {
                (IncidentKind::NodeDied, Some(incarnation), None)
            }
            EventKind::NodeReaped { incarnation } => {
                (IncidentKind::NodeReaped, Some(incarnation), None)
            }
            EventKind::ConnectionsReaped {
                incarnation,
                connections,
            } => (
                IncidentKind::ConnectionsReaped,
                Some(incarnation),
                Some(connections),
            ),
            EventKind::LeaseLost => (IncidentKind::LeaseLost, None, None),
            EventKind::PresenceGap { .. } => (IncidentKind::PresenceGap, None, None),
            EventKind::Interrupted => (IncidentKind::Interrupted, None, None),
        };
        Self {
            at: at_ms,
            kind,
            node: incarnation.map(|incarnation| node_of(&incarnation).to_owned()),
            connections,
        }
    }
}
