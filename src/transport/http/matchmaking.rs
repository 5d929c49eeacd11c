//! The matchmaking queue, for back ends and operators.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use utoipa::ToSchema;

use super::Internal;
use super::body::{Json, PathUser};
use super::problem::Problem;
use crate::domain::matchmaking::{JoinError, QueueStats, RATING_MAX};
use crate::ids::UserId;
use crate::transport::protocol::QueueStatus;

/// State of the queue, which all nodes share.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Queue {
    /// Number of waiting users.
    queue_length: u64,
    /// Waiting time of the first user, in ms.
    oldest_wait_ms: u64,
    /// Matches that were made in the last minute.
    matches_per_minute: u64,
    /// Matches that some node of a player has not delivered yet.
    pending_matches: u64,
}

impl From<QueueStats> for Queue {
    fn from(status: QueueStats) -> Self {
        Self {
            queue_length: status.queue_len,
            oldest_wait_ms: status.oldest_wait_ms,
            matches_per_minute: status.matches_per_minute,
            pending_matches: status.pending,
        }
    }
}

/// `{ userId, rating? }`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TicketRequest {
    /// The user to enqueue.
    #[schema(value_type = u64)]
    user_id: UserId,
    /// Rating of the user; defaults to the one in the game statistics.
    #[schema(value_type = Option<i64>, minimum = -1_000_000, maximum = 1_000_000)]
    rating: Option<Number>,
}

/// The outcome of joining.
#[derive(Serialize, ToSchema)]
#[schema(as = Queued)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueuedBody {
    /// The user who waits.
    #[schema(value_type = u64)]
    user_id: UserId,
    /// Tells whether the user waited already.
    status: QueueStatus,
}

/// The outcome of leaving.
#[derive(Serialize, ToSchema)]
pub(super) struct Removed {
    /// The user was in the queue.
    removed: bool,
}

/// Returns the state of the queue.
#[utoipa::path(
    get,
    path = "/api/v1/matchmaking",
    responses(
        (status = 200, description = "the state of the queue", body = Queue),
    )
)]
pub(super) async fn show(State(internal): State<Internal>) -> Result<axum::Json<Queue>, Problem> {
    Ok(axum::Json(internal.hub.queue_stats().await?.into()))
}

/// Adds a user to the queue. A user who is not online is refused with `409`.
#[utoipa::path(
    post,
    path = "/api/v1/matchmaking/tickets",
    request_body = TicketRequest,
    responses(
        (status = 200, description = "the user waits", body = QueuedBody),
        (status = 409, description = "the user is not online", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn join(
    State(internal): State<Internal>,
    Json(body): Json<TicketRequest>,
) -> Result<axum::Json<QueuedBody>, Problem> {
    let user_id = body.user_id;
    let rating = body.rating.as_ref().map(rating).transpose()?;
    let already = internal.hub.join_matchmaking(user_id, rating).await?;
    Ok(axum::Json(QueuedBody {
        user_id,
        status: QueueStatus::of(already),
    }))
}

/// Removes a user from the queue.
#[utoipa::path(
    delete,
    path = "/api/v1/matchmaking/tickets/{id}",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "the user does not wait", body = Removed),
    )
)]
pub(super) async fn leave(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
) -> Result<axum::Json<Removed>, Problem> {
    let removed = internal.hub.leave_matchmaking(user).await?;
    Ok(axum::Json(Removed { removed }))
}

fn rating(number: &Number) -> Result<i64, Problem> {
    let range = -RATING_MAX..=RATING_MAX;
    let rating = number.as_i64().filter(|rating| range.contains(rating));
    rating.ok_or_else(|| {
        let rule = format!("`rating`: an integer from -{RATING_MAX} to {RATING_MAX}");
        Problem::bad_request(rule)
    })
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::NotOnline | JoinError::NotSignedIn => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            JoinError::Engine(error) => error.into(),
        }
    }
}
