//! All that the hub knows about one user's presence and updates, for people who look for what is wrong.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Internal;
use super::super::body::User;
use super::super::presence::Connection;
use super::super::problem::Problem;
use crate::domain::update::{Kind, Stored};
use crate::domain::watcher_count::WatcherCount;
use crate::ids::UserId;
use crate::transport::protocol::Status;

/// One user, on all nodes. Nothing of what the updates say.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::transport::http) struct UserDetails {
    /// Whom it is about.
    #[schema(value_type = u64)]
    user_id: UserId,
    /// A user whose last connection has just closed is online until the grace is over.
    #[schema(value_type = String, pattern = "online|offline")]
    status: Status,
    /// Since when the oldest open connection counts, in ms since 1970; `null` where there is none.
    since: Option<u64>,
    /// The open connections, oldest first.
    connections: Vec<Connection>,
    /// The account was deleted.
    deleted: bool,
    /// The last update of each kind that is kept.
    updates: Vec<LastUpdate>,
    /// How many watch.
    watchers: Watchers,
}

/// The last update of one kind.
#[derive(Serialize, ToSchema)]
struct LastUpdate {
    /// `profile`, `stats`, `friends` or `matches`.
    kind: &'static str,
    /// Its revision.
    revision: u64,
    /// When it was stored, in ms since 1970.
    at: u64,
}

/// How many connections watch the user.
#[derive(Serialize, ToSchema)]
struct Watchers {
    /// On the nodes that answered.
    count: u64,
    /// Nodes that listen to the user's topic.
    nodes: u64,
    /// Whether all of them answered within a second.
    complete: bool,
}

impl From<WatcherCount> for Watchers {
    fn from(counted: WatcherCount) -> Self {
        Self {
            count: counted.watchers,
            nodes: counted.nodes,
            complete: counted.is_complete,
        }
    }
}

/// Tells where a user is connected and since when, what the last updates were, and how many watch. Without a key for
/// programs and browsers on this machine, as `/metrics` is.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users/{id}",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "what is known", body = UserDetails),
    )
)]
pub(in crate::transport::http) async fn show(
    State(internal): State<Internal>,
    User(user): User,
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
        connections: connections.into_iter().map(Connection::from).collect(),
        deleted: stored.deleted,
        updates: updates(stored),
        watchers: watchers.into(),
    }))
}

/// Friendships are nobody's update: they decide who sees what.
fn updates(stored: Stored) -> Vec<LastUpdate> {
    let updates = stored.updates.into_iter();
    let told = updates.filter(|(kind, ..)| *kind != Kind::Friendships);
    let last = told.map(|(kind, views, at)| LastUpdate {
        kind: kind.as_str(),
        revision: views.revision.0,
        at,
    });
    last.collect()
}
