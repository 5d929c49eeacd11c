//! What the page shows of the hub at one time.

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

/// The hub at one time, as one node sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    /// When, in ms since 1970 on the clock of this node.
    at: u64,
    /// The same on the clock on which leases end, Redis's; none where nobody can say.
    engine_at: Option<u64>,
    /// The name of this node.
    node: String,
    /// How long a node counts as alive after its last sign of life, in ms.
    lease_ms: u64,
    /// What keeps this node from doing its work, as `/readyz` names it.
    failing: Vec<&'static str>,
    /// What is missing although it can do its work.
    degraded: Vec<&'static str>,
    /// Users online on all nodes.
    online: usize,
    /// Users who went online or offline since this node started, on all nodes.
    transitions: u64,
    /// Events written to connections of this node since it started.
    deliveries: u64,
    /// The nodes that are alive, by id; none where nobody can say.
    nodes: Option<Vec<Node>>,
    /// How the queue is; none where nobody can say.
    queue: Option<Queue>,
    /// What happened of late, as this node saw it, the newest first.
    incidents: Vec<Incident>,
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
struct Incident {
    /// When this node noticed, in ms since 1970.
    at: u64,
    /// What.
    kind: IncidentKind,
    /// The node that it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// How many connections it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
}

/// What can happen.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IncidentKind {
    /// A node began a lease.
    NodeCame,
    /// A node gave its lease back.
    NodeLeft,
    /// A node did not renew its lease until that was over.
    NodeDied,
    /// This node took the lease of a dead one away.
    NodeReaped,
    /// This node released connections of a dead one.
    ConnectionsReaped,
    /// This node's own lease was gone.
    LeaseLost,
    /// The numbers of transitions did not follow each other.
    PresenceGap,
    /// Messages may have been missed.
    Interrupted,
}

impl Sample {
    /// Looks once. What cannot be said at the moment is left out.
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
