//! Back ends say that an account is gone, or close its connections.

use axum::extract::State;

use super::Internal;
use super::body::User;
use super::events::Reached;
use super::problem::Problem;

/// Says that the account is gone: its connections are told and closed, its watchers are told, its tokens and
/// late updates about it are refused from then on.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/account-deleted",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "recorded and published", body = Reached),
    )
)]
pub(super) async fn deleted(
    State(internal): State<Internal>,
    User(user): User,
) -> Result<axum::Json<Reached>, Problem> {
    let nodes = internal.hub.notify_account_deleted(user).await?;
    Ok(axum::Json(Reached { nodes }))
}

/// Closes every connection of the user, on every node.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/disconnect",
    params(("id" = u64, Path, description = "the user")),
    responses(
        (status = 200, description = "published", body = Reached),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn disconnect(
    State(internal): State<Internal>,
    User(user): User,
) -> Result<axum::Json<Reached>, Problem> {
    let nodes = internal.hub.disconnect_user(user).await?;
    Ok(axum::Json(Reached { nodes }))
}
