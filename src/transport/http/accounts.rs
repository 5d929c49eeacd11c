//! Accounts for back ends: create, change, delete, disconnect.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Json, OptionalJson, PathUser};
use super::events::Reached;
use super::problem::Problem;
use super::{Internal, users, validation};
use crate::transport::protocol::KnownUser;

/// `{ username, avatar? }`
#[derive(Deserialize, ToSchema)]
#[schema(as = Account)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountBody {
    /// The name: 1 to 64 characters.
    username: String,
    /// URL of the picture; without it the account keeps its present one.
    avatar: Option<String>,
}

/// Creates or changes an account, publishes the change, and answers with the full account. Needs Postgres.
#[utoipa::path(
    put,
    path = "/api/v1/users/{id}",
    params(("id" = u64, Path, description = "the user")),
    request_body = AccountBody,
    responses(
        (status = 200, description = "stored", body = KnownUser),
        (status = 404, description = "the hub has no Postgres", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the name or the URL of the picture cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Postgres cannot be reached, or refuses; the detail says which", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
    Json(body): Json<AccountBody>,
) -> Result<Response, Problem> {
    let username = validation::username(&body.username)?;
    let avatar = body
        .avatar
        .as_deref()
        .map(validation::avatar_url)
        .transpose()?;
    internal.hub.put_account(user, username, avatar).await?;
    Ok(users::shown(&internal.hub, user, Some(user)).await?)
}

/// Marks the account as deleted: notifies and closes its connections, notifies its watchers, and refuses its tokens from
/// now on. Late updates about it get `410`.
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
    PathUser(user): PathUser,
) -> Result<axum::Json<Reached>, Problem> {
    let nodes = internal.hub.notify_account_deleted(user).await?;
    Ok(axum::Json(Reached { nodes }))
}

/// `{ revoke? }`
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Disconnection {
    /// Whether to refuse the user's tokens that were issued before now.
    revoke: bool,
}

/// The outcome of a disconnect.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disconnected {
    /// Nodes that were subscribed to the user.
    nodes: u64,
    /// If tokens were revoked: tokens issued before this time are refused, in ms since 1970.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_before: Option<u64>,
}

/// Closes every connection of the user, on every node. With `revoke: true`, tokens of the user that were issued before now are
/// refused, so the user has to sign in again. A token counts as issued at its `iat`, which usually has whole seconds, so
/// a token of the same second counts as older. A token without `iat` is refused. The body may be left out.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/disconnect",
    params(("id" = u64, Path, description = "the user")),
    // By reference, because utoipa describes an `Option` as nullable rather than optional.
    request_body(content = ref("#/components/schemas/Disconnection"), description = "may be left out"),
    responses(
        (status = 200, description = "published, and revoked where asked for", body = Disconnected),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn disconnect(
    State(internal): State<Internal>,
    PathUser(user): PathUser,
    OptionalJson(body): OptionalJson<Disconnection>,
) -> Result<axum::Json<Disconnected>, Problem> {
    let (nodes, revoked_before) = if body.revoke {
        let revoked = internal.hub.revoke_tokens(user).await?;
        (revoked.nodes, Some(revoked.before_ms))
    } else {
        (internal.hub.disconnect_user(user).await?, None)
    };
    Ok(axum::Json(Disconnected {
        nodes,
        revoked_before,
    }))
}
