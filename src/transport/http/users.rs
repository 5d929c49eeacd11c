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

/// Shows the view of an account that a guest, a stranger, a friend or the user may have.
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
