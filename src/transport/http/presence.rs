//! Who is online, for back ends and operators.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Internal;
use super::body::{Parameters, User};
use super::problem::Problem;
use crate::domain::presence::RegisteredConnection;
use crate::ids::{UserId, node_of};
use crate::transport::protocol::Status;

/// Users on a page where the caller names no limit.
const PAGE_DEFAULT: usize = 100;

/// Most users on a page.
const PAGE_MAX: usize = 10_000;

/// Which page of the online users.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageRequest {
    /// The `cursor` of the page before; absent or empty for the first.
    cursor: Option<String>,
    /// Most users on the page: 1 to 10,000, 100 where absent.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// A page of the online users, ascending.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// How many users are online in all.
    online: usize,
    /// The ids on this page.
    #[schema(value_type = Vec<u64>)]
    users: Vec<UserId>,
    /// Where the next page begins; `null` at the end.
    cursor: Option<String>,
}

/// Whether one user is online, and where.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Presence {
    /// Whom it is about.
    #[schema(value_type = u64)]
    user_id: UserId,
    /// A user whose last connection has just closed is online until the grace is over.
    #[schema(value_type = String, pattern = "online|offline")]
    status: Status,
    /// The open connections, oldest first.
    connections: Vec<Connection>,
}

/// One connection of a user.
#[derive(Serialize, ToSchema)]
pub(super) struct Connection {
    /// Its number on its node.
    id: String,
    /// The node's id.
    node: String,
    /// Since when, in ms since 1970.
    since: u64,
}

impl From<RegisteredConnection> for Connection {
    fn from(registered: RegisteredConnection) -> Self {
        Self {
            id: registered.connection,
            node: node_of(&registered.incarnation).to_owned(),
            since: registered.connected_at_ms,
        }
    }
}

/// Lists the online users, as this node knows them, without asking Redis.
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
        .map_err(|_| Problem::bad_request("`cursor`: take it from the page before"))?;
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

/// Tells whether one user is online, and the user's connections on all nodes.
#[utoipa::path(
    get,
    path = "/api/v1/presence/{id}",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "online or offline", body = Presence),
    )
)]
pub(super) async fn one(
    State(internal): State<Internal>,
    User(user): User,
) -> Result<axum::Json<Presence>, Problem> {
    let (online, connections) = internal.hub.presence_of(user).await?;
    Ok(axum::Json(Presence {
        user_id: user,
        status: Status::of(online),
        connections: connections.into_iter().map(Connection::from).collect(),
    }))
}
