//! Records the results of matches.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use utoipa::ToSchema;

use super::Internal;
use super::body::Json;
use super::problem::Problem;
use crate::domain::account::NewMatch;
use crate::ids::{SAFE_INTEGER_MAX, UserId};

const SCORE_MAX: i32 = 1_000_000;

/// `{ players, winner, score, playedAt? }`. `Number`, so that a number out of range is 422 rather than 400.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Played {
    /// The two players.
    #[schema(value_type = Vec<u64>, min_items = 2, max_items = 2)]
    players: [Number; 2],
    /// The player who won.
    #[schema(value_type = u64)]
    winner: Number,
    /// Points, in the order of `players`: 0 to 1,000,000.
    #[schema(value_type = Vec<u32>, min_items = 2, max_items = 2)]
    score: [Number; 2],
    /// In ms since 1970; now if absent.
    #[schema(value_type = Option<u64>)]
    played_at: Option<Number>,
}

/// The recorded match.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recorded {
    /// Id of the match.
    match_id: u64,
}

/// Records a result, and publishes the new statistics and match histories of both players. `players` are two user ids,
/// `winner` is one of them, `score` has their points in the same order. Needs Postgres.
#[utoipa::path(
    post,
    path = "/api/v1/matches",
    request_body = Played,
    responses(
        (status = 200, description = "recorded", body = Recorded),
        (status = 404, description = "there is no such player, or the hub has no Postgres", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "the account of a player was deleted", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the result makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Postgres cannot be reached, and the result may have been recorded; or it refuses", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn record(
    State(internal): State<Internal>,
    Json(body): Json<Played>,
) -> Result<axum::Json<Recorded>, Problem> {
    let match_id = internal.hub.record_match(&read(&body)?).await?;
    Ok(axum::Json(Recorded { match_id }))
}

fn read(played: &Played) -> Result<NewMatch, Problem> {
    let [a, b] = &played.players;
    let [points_a, points_b] = &played.score;
    let played_at = played.played_at.as_ref().map(time);
    Ok(NewMatch {
        players: [user("players", a)?, user("players", b)?],
        winner: user("winner", &played.winner)?,
        score: [points(points_a)?, points(points_b)?],
        played_at_ms: played_at.transpose()?,
    })
}

fn user(field: &str, number: &Number) -> Result<UserId, Problem> {
    let id = number.as_u64().and_then(|id| UserId::try_from(id).ok());
    id.ok_or_else(|| {
        Problem::unprocessable(format!(
            "`{field}`: a user id is an integer from 1 to {SAFE_INTEGER_MAX}"
        ))
    })
}

fn points(number: &Number) -> Result<i32, Problem> {
    let points = number
        .as_u64()
        .and_then(|points| i32::try_from(points).ok());
    points
        .filter(|points| *points <= SCORE_MAX)
        .ok_or_else(|| Problem::unprocessable(format!("`score`: integers from 0 to {SCORE_MAX}")))
}

fn time(number: &Number) -> Result<u64, Problem> {
    let ms = number.as_u64().filter(|ms| *ms <= SAFE_INTEGER_MAX);
    ms.ok_or_else(|| Problem::unprocessable("`playedAt`: a time in ms since 1970"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_made_of_whole_numbers_in_their_ranges() {
        let played = |players, score, played_at| {
            let body =
                json!({ "players": players, "winner": 2, "score": score, "playedAt": played_at });
            let body: Played = serde_json::from_value(body).expect("numbers");
            read(&body).map_err(Problem::into_detail)
        };
        let fine = played(json!([1, 2]), json!([0, SCORE_MAX]), json!(1)).expect("it is");
        assert_eq!((fine.score, fine.played_at_ms), ([0, SCORE_MAX], Some(1)));
        for (players, score, at, field) in [
            (json!([0, 2]), json!([1, 2]), json!(null), "`players`"),
            (json!([1, 2.5]), json!([1, 2]), json!(null), "`players`"),
            (json!([1, 2]), json!([-1, 2]), json!(null), "`score`"),
            (
                json!([1, 2]),
                json!([1, SCORE_MAX + 1]),
                json!(null),
                "`score`",
            ),
            (json!([1, 2]), json!([1.5, 2]), json!(null), "`score`"),
            (json!([1, 2]), json!([1, 2]), json!(-1), "`playedAt`"),
            (
                json!([1, 2]),
                json!([1, 2]),
                json!(SAFE_INTEGER_MAX + 1),
                "`playedAt`",
            ),
        ] {
            let detail = played(players, score, at).expect_err(field);
            assert!(detail.starts_with(field), "{detail}");
        }
    }
}
