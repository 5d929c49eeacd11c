//! Changes to the caller's own account.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::bearer::Caller;
use super::body::Json;
use super::problem::Problem;
use super::{Public, users, validation};

/// `{ username }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rename {
    username: String,
}

/// Changes the name and answers with the account.
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

/// Deletes the account and refuses its tokens.
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
