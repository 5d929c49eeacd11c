//! The live nodes, for operators.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Internal;
use super::problem::Problem;
use crate::domain::node::LiveNode;

/// The live nodes.
#[derive(Serialize, ToSchema)]
pub(super) struct Nodes {
    /// Ordered by id.
    nodes: Vec<Node>,
}

/// One node, as of its last heartbeat.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// Name of the node (`node.id`).
    id: String,
    /// Identifies one lifetime of the node; changes with each lease.
    incarnation: String,
    /// Version of the hub.
    version: String,
    /// Start of the process, in ms since 1970.
    started_at: u64,
    /// End of the lease unless it is renewed, in ms since 1970.
    lease_ends_at: u64,
    /// Open connections.
    connections: u64,
    /// Open connections without an account.
    guests: u64,
    /// Users with an open connection.
    users: u64,
    /// Topics the node is subscribed to.
    topics: u64,
}

impl From<LiveNode> for Node {
    fn from(
        LiveNode {
            info,
            lease_ends_at_ms,
        }: LiveNode,
    ) -> Self {
        Self {
            id: info.id,
            incarnation: info.incarnation,
            version: info.version,
            started_at: info.started_at,
            lease_ends_at: lease_ends_at_ms,
            connections: info.connections,
            guests: info.guests,
            users: info.users,
            topics: info.topics,
        }
    }
}

/// Lists the live nodes.
#[utoipa::path(
    get,
    path = "/api/v1/nodes",
    responses(
        (status = 200, description = "the nodes, by id", body = Nodes),
    )
)]
pub(super) async fn list(State(internal): State<Internal>) -> Result<axum::Json<Nodes>, Problem> {
    let nodes = internal.hub.nodes().await?;
    Ok(axum::Json(Nodes {
        nodes: nodes.into_iter().map(Node::from).collect(),
    }))
}
