//! A user's account, as far as whoever asks may see it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Public;
use super::bearer::Viewer;
use super::body::User;
use super::problem::Problem;
use crate::domain::Hub;
use crate::domain::account::AccountError;
use crate::ids::UserId;
use crate::transport::protocol::KnownUser;

/// Shows a user to a guest, a stranger, a friend, or to the user.
pub(super) async fn show(
    State(public): State<Public>,
    Viewer(viewer): Viewer,
    User(user): User,
) -> Result<Response, Problem> {
    Ok(shown(&public.hub, user, viewer).await?)
}

/// Answers with what `viewer`, or a guest, may see of `user`.
pub(super) async fn shown(
    hub: &Hub,
    user: UserId,
    viewer: Option<UserId>,
) -> Result<Response, AccountError> {
    let shown = hub.show_account(user, viewer).await?;
    Ok(axum::Json(KnownUser::new(shown.view, &shown.last)).into_response())
}
