//! Back ends create and change accounts, say that one is gone, or close its connections.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Json, OptionalJson, User};
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
        (status = 503, description = "Postgres cannot be reached, or refuses; the detail says which", body = Problem, content_type = "application/problem+json"),
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

/// `{ revoke? }`
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Disconnection {
    /// Whether the user's tokens are refused that were issued before now.
    revoke: bool,
}

/// How far it went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disconnected {
    /// How many nodes were listening.
    nodes: u64,
    /// Where tokens were revoked: those issued before this time are refused, in milliseconds since 1970.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_before: Option<u64>,
}

/// Closes every connection of the user, on every node. With `revoke` the user's tokens that were issued before now
/// are refused from then on: sign in again. A token counts as issued at its `iat`, which usually has whole seconds, so
/// one that was issued in the same second counts as older; one without `iat` is refused.
#[utoipa::path(
    post,
    path = "/api/v1/users/{id}/disconnect",
    params(("id" = u64, Path, description = "the user")),
    // Named, because an `Option` would be described as `null`, which is no way to leave it out.
    request_body(content = ref("#/components/schemas/Disconnection"), description = "may be left out"),
    responses(
        (status = 200, description = "published, and revoked where asked for", body = Disconnected),
        (status = 410, description = "the account was deleted", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn disconnect(
    State(internal): State<Internal>,
    User(user): User,
    OptionalJson(body): OptionalJson<Disconnection>,
) -> Result<axum::Json<Disconnected>, Problem> {
    let (nodes, revoked_before) = match body.revoke {
        true => {
            let revoked = internal.hub.revoke_tokens(user).await?;
            (revoked.nodes, Some(revoked.before_ms))
        }
        false => (internal.hub.disconnect_user(user).await?, None),
    };
    Ok(axum::Json(Disconnected {
        nodes,
        revoked_before,
    }))
}
