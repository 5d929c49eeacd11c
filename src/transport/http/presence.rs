//! Online users, for back ends and operators.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Internal;
use super::body::{Parameters, PathUser};
use super::problem::Problem;
use crate::domain::presence::RegisteredConnection;
use crate::ids::{UserId, node_of};
use crate::transport::protocol::Status;

/// Users on a page if the caller sets no limit.
const PAGE_DEFAULT: usize = 100;

/// Largest page that a caller may ask for.
const PAGE_MAX: usize = 10_000;

/// Selects a page of the online users.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageRequest {
    /// The `cursor` of the previous page; absent or empty for the first.
    cursor: Option<String>,
    /// Size of the page: 1 to 10,000; 100 if absent.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// A page of the online users, ascending.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// Total number of online users.
    online: usize,
    /// The ids on this page.
    #[schema(value_type = Vec<u64>)]
    users: Vec<UserId>,
    /// Pass it on to get the next page; `null` on the last.
    cursor: Option<String>,
}

/// Status and connections of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = Presence)]
#[serde(rename_all = "camelCase")]
pub(super) struct PresenceBody {
    /// The user asked for.
    #[schema(value_type = u64)]
    user_id: UserId,
    /// A user whose last connection has just closed is online until the grace is over.
    #[schema(value_type = String, pattern = "online|offline")]
    status: Status,
    /// The open connections, oldest first.
    connections: Vec<ConnectionBody>,
}

/// One connection of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
pub(super) struct ConnectionBody {
    /// Number of the connection on its node.
    id: String,
    /// Id of the node that holds the connection.
    node: String,
    /// Time of the connection, in ms since 1970.
    since: u64,
}

impl From<RegisteredConnection> for ConnectionBody {
    fn from(registered: RegisteredConnection) -> Self {
        Self {
            id: registered.connection,
            node: node_of(&registered.incarnation).to_owned(),
            since: registered.connected_at_ms,
        }
    }
}

/// Lists the online users from the replica of this node, without a call to Redis.
#[utoipa::path(
    get,
    path = "/api/v1/presence",
    params(PageRequest),
    responses(
        (status = 200, description = "a page", body = Page),
    )
)]
pub(super) async fn list(
    State(internal): State<Internal>,
    Parameters(request): Parameters<PageRequest>,
) -> Result<axum::Json<Page>, Problem> {
    let limit = match request.limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => limit,
        _ => {
            return Err(Problem::bad_request(format!(
                "`limit`: an integer from 1 to {PAGE_MAX}"
            )));
        }
    };
    let after = request
        .cursor
        .filter(|cursor| !cursor.is_empty())
        .map(|cursor| cursor.parse());
    let after = after
        .transpose()
        .map_err(|_| Problem::bad_request("`cursor`: take it from the previous page"))?;
    let (users, online) = internal.hub.online_page(after, limit);
    let full = users.len() == limit;
    let last = users.last().filter(|_| full).copied();
    // A full page may be the last one.
    let more = last.filter(|last| !internal.hub.online_page(Some(*last), 1).0.is_empty());
    Ok(axum::Json(Page {
        online,
        users,
        cursor: more.map(|last| last.to_string()),
    }))
}

/// Returns the status of a user, and the user's connections on all nodes.
#[utoipa::path(
    get,
    path = "/api/v1/presence/{id}",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "online or offline", body = PresenceBody),
    )
)]
pub(super) async fn one(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
) -> Result<axum::Json<PresenceBody>, Problem> {
    let (online, connections) = internal.hub.presence_of(user).await?;
    Ok(axum::Json(PresenceBody {
        user_id: user,
        status: Status::of(online),
        connections: connections.into_iter().map(ConnectionBody::from).collect(),
    }))
}
