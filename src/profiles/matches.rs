//! Match results, recorded together with both players' statistics.

use std::time::{Duration, SystemTime};

use super::error::Failure;
use super::transaction::{Mutation, Transaction, as_id};
use super::{AccountChange, Profiles, ProfilesError};
use crate::ids::{SAFE_INTEGER_MAX, UserId};

const RECORD: &str = "
INSERT INTO matches (player_a, player_b, winner, score_a, score_b, played_at)
VALUES ($1, $2, $3, $4, $5, coalesce($6, now())) RETURNING id";

/// In ascending order of players, the order of all locks.
const COUNT: &str = "
INSERT INTO game_stats (user_id, wins, losses)
SELECT player, (player = $2)::int, (player <> $2)::int FROM unnest($1::bigint[]) AS player ORDER BY player
ON CONFLICT (user_id) DO UPDATE
   SET wins = game_stats.wins + excluded.wins, losses = game_stats.losses + excluded.losses";

/// The result of a match to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewMatch {
    /// The players.
    pub players: [UserId; 2],
    /// The player who won.
    pub winner: UserId,
    /// Their points, in the same order.
    pub score: [i32; 2],
    /// When it was played, in ms since 1970; now if `None`.
    pub played_at_ms: Option<u64>,
}

impl Profiles {
    /// Records a match; returns its number and the changes.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser) and [`AccountDeleted`](ProfilesError::AccountDeleted) about either,
    /// [`Invalid`](ProfilesError::Invalid), or if Postgres does not answer in time. Where it is lost during the last
    /// step, the match may have been recorded.
    pub async fn record_match(
        &self,
        new: &NewMatch,
    ) -> Result<(u64, Vec<AccountChange>), ProfilesError> {
        let played_at = check(new)?;
        self.pool.transaction(RecordMatch { new, played_at }).await
    }
}

struct RecordMatch<'a> {
    new: &'a NewMatch,
    played_at: Option<SystemTime>,
}

impl Mutation for RecordMatch<'_> {
    type Outcome = (u64, Vec<AccountChange>);

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Self::Outcome, Failure> {
        let users = &self.new.players;
        let before = transaction.lock(users).await?;
        before.require(users[0])?;
        before.require(users[1])?;
        let players = users.map(as_id);
        let (winner, [score_a, score_b]) = (as_id(self.new.winner), self.new.score);
        let row = transaction
            .query_one(
                RECORD,
                &[
                    &players[0],
                    &players[1],
                    &winner,
                    &score_a,
                    &score_b,
                    &self.played_at,
                ],
            )
            .await?;
        let id: i64 = row.try_get(0)?;
        transaction
            .execute(COUNT, &[&&players[..], &winner])
            .await?;
        let changes = transaction.changes_since(&before, users).await?;
        Ok((u64::try_from(id).unwrap_or(0), changes))
    }
}

/// Checks what the table's constraints would reject too, with clearer messages; returns when the match was played.
fn check(new: &NewMatch) -> Result<Option<SystemTime>, ProfilesError> {
    let invalid = |problem: &str| Err(ProfilesError::Invalid(problem.to_owned()));
    if new.players[0] == new.players[1] {
        return invalid("a match has two different players");
    }
    if !new.players.contains(&new.winner) {
        return invalid("the winner of a match is one of its players");
    }
    match new.played_at_ms {
        // Larger values are not exact in JavaScript, and out of range in Postgres.
        Some(played_at_ms) if played_at_ms > SAFE_INTEGER_MAX / 1000 => {
            invalid("the time of a match is in ms since 1970")
        }
        played_at_ms => {
            Ok(played_at_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_between_two_and_won_by_one_of_them() {
        let user = |id: u64| UserId::try_from(id).unwrap();
        let played = |players: [u64; 2], winner: u64, played_at_ms| {
            check(&NewMatch {
                players: players.map(user),
                winner: user(winner),
                score: [1, 0],
                played_at_ms,
            })
        };
        assert_eq!(played([1, 2], 2, None), Ok(None));
        assert!(played([1, 2], 2, Some(1_700_000_000_000)).is_ok());
        for (players, winner, at) in [
            ([1, 1], 1, None),
            ([1, 2], 3, None),
            ([1, 2], 1, Some(u64::MAX)),
        ] {
            let refused = played(players, winner, at);
            assert!(
                matches!(refused, Err(ProfilesError::Invalid(_))),
                "{refused:?}"
            );
        }
    }
}
