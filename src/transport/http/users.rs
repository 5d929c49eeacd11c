//! Shows accounts to everybody.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Public;
use super::bearer::Viewer;
use super::body::PathUser;
use super::problem::Problem;
use crate::domain::Hub;
use crate::domain::account::AccountError;
use crate::ids::UserId;
use crate::transport::protocol::KnownUser;

/// Returns the last updates about a user, as `watch-profile` does. Only friends and the user get `friends` and `matches`.
#[utoipa::path(
    get,
    path = "/api/v1/users/{id}",
    params(("id" = u64, Path, description = "the user")),
    responses((status = 200, description = "the account", body = KnownUser)),
)]
pub(super) async fn show(
    State(public): State<Public>,
    Viewer(viewer): Viewer,
    PathUser(user): PathUser,
) -> Result<Response, Problem> {
    Ok(shown(&public.hub, user, viewer).await?)
}

/// The response for `viewer`, or for a guest.
pub(super) async fn shown(
    hub: &Hub,
    user: UserId,
    viewer: Option<UserId>,
) -> Result<Response, AccountError> {
    let shown = hub.show_account(user, viewer).await?;
    Ok(axum::Json(KnownUser::new(shown.view, &shown.last)).into_response())
}
