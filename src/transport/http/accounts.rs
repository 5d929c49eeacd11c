//! Back ends create and change accounts, say that one is gone, or close its connections.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::{Json, User};
use super::events::Reached;
use super::problem::Problem;
use super::{Internal, checks, users};
use crate::transport::protocol::KnownUser;

/// `{ username, avatar? }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    /// The name: 1 to 64 characters.
    username: String,
    /// Where the picture is; without one the account keeps the one that it has.
    avatar: Option<String>,
}

/// Creates an account, or changes it, and tells everybody whom it concerns. Answers with all that is known about it.
#[utoipa::path(
    put,
    path = "/api/v1/users/{id}",
    params(("id" = u64, Path, description = "the user")),
    request_body = Account,
    responses(
        (status = 200, description = "stored", body = KnownUser),
        (status = 404, description = "the hub has no Postgres", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the name or the URL of the picture cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Postgres cannot be reached; try again", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    State(internal): State<Internal>,
    User(user): User,
    Json(body): Json<Account>,
) -> Result<Response, Problem> {
    let username = checks::username(&body.username)?;
    let avatar = body.avatar.as_deref().map(checks::avatar_url).transpose()?;
    internal.hub.put_account(user, username, avatar).await?;
    Ok(users::shown(&internal.hub, user, Some(user)).await?)
}

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
