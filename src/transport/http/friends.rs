//! Friendships: request, accept, end.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Public;
use super::bearer::Caller;
use super::body::PathUser;
use super::problem::Problem;
use crate::domain::account::Friendship;
use crate::ids::UserId;

/// The answer to a request.
#[derive(Serialize)]
pub(super) struct FriendshipStatus {
    status: &'static str,
}

/// Requests a friendship, or accepts one.
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

/// Ends a friendship, or withdraws the requests of both users.
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
