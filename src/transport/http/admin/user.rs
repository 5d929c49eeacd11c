//! Presence, stored updates and watchers of one user, for troubleshooting.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Internal;
use super::super::body::PathUser;
use super::super::presence::ConnectionBody;
use super::super::problem::Problem;
use crate::domain::update::{Kind, Stored};
use crate::domain::watcher_count::WatcherCount;
use crate::ids::UserId;
use crate::transport::protocol::Status;

/// One user on all nodes, without the content of updates.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::transport::http) struct UserDetails {
    /// The user asked for.
    #[schema(value_type = u64)]
    user_id: UserId,
    /// After the last connection closed, a user stays online until the grace has passed.
    #[schema(value_type = String, pattern = "online|offline")]
    status: Status,
    /// When the oldest open connection was registered, in ms since 1970; `null` without connections.
    since: Option<u64>,
    /// The open connections, oldest first.
    connections: Vec<ConnectionBody>,
    /// The account was deleted.
    deleted: bool,
    /// The stored update of each kind.
    updates: Vec<LastUpdate>,
    /// Counted on all nodes.
    watchers: WatchersBody,
}

/// The last update of one kind.
#[derive(Serialize, ToSchema)]
struct LastUpdate {
    /// `profile`, `stats`, `friends` or `matches`.
    kind: &'static str,
    /// Revision of the update.
    revision: u64,
    /// When it was stored, in ms since 1970.
    at: u64,
}

/// How many connections watch the user.
#[derive(Serialize, ToSchema)]
#[schema(as = Watchers)]
struct WatchersBody {
    /// Watching connections on the nodes that answered.
    count: u64,
    /// Nodes that are subscribed to the user.
    nodes: u64,
    /// All of them answered within a second.
    complete: bool,
}

impl From<WatcherCount> for WatchersBody {
    fn from(counted: WatcherCount) -> Self {
        Self {
            count: counted.watchers,
            nodes: counted.nodes,
            complete: counted.is_complete,
        }
    }
}

/// Returns the connections, the stored updates and the watchers of a user. Programs and browsers on this machine need no
/// key, as for `/metrics`.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users/{id}",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "the user", body = UserDetails),
    )
)]
pub(in crate::transport::http) async fn show(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
) -> Result<axum::Json<UserDetails>, Problem> {
    let hub = &internal.hub;
    let ((online, connections), stored, watchers) = tokio::try_join!(
        hub.presence_of(user),
        hub.stored(user),
        hub.count_watchers(user)
    )?;
    let since = connections
        .iter()
        .map(|connection| connection.connected_at_ms);
    Ok(axum::Json(UserDetails {
        user_id: user,
        status: Status::of(online),
        since: since.min(),
        connections: connections.into_iter().map(ConnectionBody::from).collect(),
        deleted: stored.deleted,
        updates: updates(stored),
        watchers: watchers.into(),
    }))
}

/// Leaves out friendships, which clients never get: they decide who sees what.
fn updates(stored: Stored) -> Vec<LastUpdate> {
    stored
        .updates
        .into_iter()
        .filter(|(kind, ..)| *kind != Kind::Friendships)
        .map(|(kind, views, at)| LastUpdate {
            kind: kind.into_str(),
            revision: views.revision.0,
            at,
        })
        .collect()
}
