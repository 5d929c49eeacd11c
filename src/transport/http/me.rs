//! Changes to the caller's own account.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::bearer::Caller;
use super::body::Json;
use super::problem::Problem;
use super::{Public, users, validation};
use crate::transport::protocol::KnownUser;

/// `{ username }`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rename {
    username: String,
}

/// Changes the caller's name, to 1 to 64 characters.
#[utoipa::path(
    patch,
    path = "/api/v1/me",
    request_body = Rename,
    responses((status = 200, description = "the full account", body = KnownUser)),
)]
pub(super) async fn rename(
    State(public): State<Public>,
    caller: Caller,
    Json(body): Json<Rename>,
) -> Result<Response, Problem> {
    let username = validation::username(&body.username)?;
    let renamed = public.hub.rename(caller.0, username).await;
    renamed.map_err(|error| caller.problem(error))?;
    own_view(&public, caller).await
}

/// Deletes the caller's account and refuses its tokens from now on.
#[utoipa::path(delete, path = "/api/v1/me", responses((status = 204, description = "deleted")))]
pub(super) async fn delete(
    State(public): State<Public>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let deleted = public.hub.delete_account(caller.0).await;
    deleted.map_err(|error| caller.problem(error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The response with the full view of the caller's own account.
pub(super) async fn own_view(public: &Public, caller: Caller) -> Result<Response, Problem> {
    let shown = users::shown(&public.hub, caller.0, Some(caller.0)).await;
    shown.map_err(|error| caller.problem(error))
}
