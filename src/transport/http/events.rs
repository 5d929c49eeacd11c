//! Sends an event of a back end to the user's own connections.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Internal;
use super::body::{Json, PathUser};
use super::problem::Problem;

/// In bytes.
const EVENT_LEN_MAX: usize = 128;

/// Names with a meaning of their own in the official client.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// `{ event, data }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectEvent {
    /// Name of the event: 1 to 128 bytes.
    event: String,
    /// Payload of the event; `null` if absent.
    #[schema(value_type = serde_json::Value)]
    data: Option<Box<RawValue>>,
}

/// How many nodes a message reached.
#[derive(Serialize, ToSchema)]
pub(super) struct Reached {
    /// Nodes that were subscribed to the user.
    pub(super) nodes: u64,
}

/// Sends an event to the user's own connections, on every node.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/events",
    params(("id" = u64, Path, description = "the user")),
    request_body = DirectEvent,
    responses(
        (status = 200, description = "published", body = Reached),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn send(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
    Json(body): Json<DirectEvent>,
) -> Result<axum::Json<Reached>, Problem> {
    check_name(&body.event)?;
    let data = body
        .data
        .map_or_else(|| Arc::from(RawValue::NULL.to_owned()), Arc::from);
    let nodes = internal.hub.send_event(user, &body.event, data).await?;
    Ok(axum::Json(Reached { nodes }))
}

fn check_name(event: &str) -> Result<(), Problem> {
    if event.is_empty() || event.len() > EVENT_LEN_MAX {
        return Err(Problem::bad_request(format!(
            "`event`: a name of 1 to {EVENT_LEN_MAX} bytes"
        )));
    }
    if RESERVED.contains(&event) {
        let reserved = RESERVED.join(", ");
        return Err(Problem::bad_request(format!(
            "`event`: choose a name other than {reserved}"
        )));
    }
    Ok(())
}
