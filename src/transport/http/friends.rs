//! Friendships: request, accept, end.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Public;
use super::bearer::Caller;
use super::body::PathUser;
use super::problem::Problem;
use crate::domain::account::Friendship;
use crate::ids::UserId;

/// The answer to a request.
#[derive(Serialize, ToSchema)]
pub(super) struct FriendshipStatus {
    /// `requested` or `friends`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// Requests a friendship, or accepts one: it holds once both users have asked. `status` is `requested` or `friends`.
#[utoipa::path(
    put,
    path = "/api/v1/me/friends/{id}",
    params(("id" = u64, Path, description = "the other user")),
    responses((status = 200, description = "requested or accepted", body = FriendshipStatus)),
)]
pub(super) async fn ask(
    State(public): State<Public>,
    caller: Caller,
    PathUser(other): PathUser,
) -> Result<axum::Json<FriendshipStatus>, Problem> {
    refuse_oneself(caller, other)?;
    let asked = public.hub.ask_friendship(caller.0, other).await;
    let status = match asked.map_err(|error| caller.problem(error))? {
        Friendship::Requested => "requested",
        Friendship::Friends => "friends",
    };
    Ok(axum::Json(FriendshipStatus { status }))
}

/// Ends a friendship, which either user may do, or withdraws the requests of both.
#[utoipa::path(
    delete,
    path = "/api/v1/me/friends/{id}",
    params(("id" = u64, Path, description = "the other user")),
    responses((status = 204, description = "they are not friends")),
)]
pub(super) async fn end(
    State(public): State<Public>,
    caller: Caller,
    PathUser(other): PathUser,
) -> Result<StatusCode, Problem> {
    refuse_oneself(caller, other)?;
    // Answers 410 for a deleted account, whose friendships have ended already.
    public.hub.expect_account(other).await?;
    let ended = public.hub.end_friendship(caller.0, other).await;
    ended.map_err(|error| caller.problem(error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn refuse_oneself(caller: Caller, other: UserId) -> Result<(), Problem> {
    if other == caller.0 {
        return Err(Problem::unprocessable("nobody is their own friend"));
    }
    Ok(())
}
