//! Users ask for friendships, agree to them and end them.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::Public;
use super::bearer::Caller;
use super::body::User;
use super::problem::Problem;
use crate::domain::account::Friendship;
use crate::ids::UserId;

/// Where two users stand.
#[derive(Serialize)]
pub(super) struct Standing {
    status: &'static str,
}

/// Asks for a friendship, or agrees to one.
pub(super) async fn ask(
    State(public): State<Public>,
    caller: Caller,
    User(other): User,
) -> Result<axum::Json<Standing>, Problem> {
    refuse_oneself(caller, other)?;
    let asked = public.hub.ask_friendship(caller.0, other).await;
    let status = match asked.map_err(|error| caller.problem(error))? {
        Friendship::Requested => "requested",
        Friendship::Friends => "friends",
    };
    Ok(axum::Json(Standing { status }))
}

/// Ends a friendship, or takes back what either asked.
pub(super) async fn end(
    State(public): State<Public>,
    caller: Caller,
    User(other): User,
) -> Result<StatusCode, Problem> {
    refuse_oneself(caller, other)?;
    // With a deleted account there is nothing to end, which is worth knowing.
    public.hub.expect_account(other).await?;
    let ended = public.hub.end_friendship(caller.0, other).await;
    ended.map_err(|error| caller.problem(error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn refuse_oneself(caller: Caller, other: UserId) -> Result<(), Problem> {
    match other == caller.0 {
        true => Err(Problem::unprocessable("nobody is their own friend")),
        false => Ok(()),
    }
}
