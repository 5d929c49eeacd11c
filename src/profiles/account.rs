//! Reads accounts, each consistent as of one moment.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use super::error::Failure;
use super::transaction::{as_id, as_revision, as_user};
use super::{Profiles, ProfilesError};
use crate::ids::UserId;

/// An account with everything that others may see.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The user's id.
    pub user: UserId,
    /// Empty if the account was deleted.
    pub username: String,
    /// URL of the picture; may be empty.
    pub avatar: String,
    /// Whether the account was deleted. Then it has no friends.
    pub deleted: bool,
    /// Revision of each part.
    pub revisions: PartRevisions,
    /// Wins and losses.
    pub stats: Stats,
    /// Friends, sorted by id.
    pub friends: Vec<Person>,
    /// The last 50 matches, newest first.
    pub matches: Vec<PlayedMatch>,
}

/// The revision of each part of an account: microseconds since 1970, strictly increasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartRevisions {
    /// Name and avatar.
    pub profile: u64,
    /// Wins and losses.
    pub stats: u64,
    /// Friend list.
    pub friends: u64,
    /// Match history.
    pub matches: u64,
}

/// Wins and losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Games won.
    pub wins: u32,
    /// Games lost.
    pub losses: u32,
    /// Share of games won, 0 to 1; 0 without games.
    pub ratio: f64,
}

impl Stats {
    /// Computes the ratio.
    pub fn new(wins: u32, losses: u32) -> Self {
        let games = f64::from(wins) + f64::from(losses);
        let ratio = if games > 0.0 {
            f64::from(wins) / games
        } else {
            0.0
        };
        Self {
            wins,
            losses,
            ratio,
        }
    }
}

/// Another user, as shown in lists. Name and avatar of a deleted account are empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The user's id.
    pub user_id: UserId,
    /// Name.
    pub username: String,
    /// URL of the picture; may be empty.
    pub avatar: String,
}

/// A match as seen by one of its players.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlayedMatch {
    /// Number of the match.
    pub match_id: u64,
    /// The other player.
    pub opponent: Person,
    /// Win or loss.
    pub result: GameResult,
    /// Own points and the opponent's.
    pub score: [i32; 2],
    /// When it was played, in ms since 1970.
    pub played_at: i64,
}

/// How a match ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GameResult {
    /// Won.
    Win,
    /// Lost.
    Loss,
}

/// Whole accounts in one statement, so that the contents are never older than the revision beside them. The lists come
/// as JSON in the shape of [`Person`] and [`PlayedMatch`]; the newest 50 matches of a player are among the newest 50 of
/// either side.
const READ: &str = "
SELECT u.id, u.deleted_at IS NOT NULL AS deleted,
       CASE WHEN u.deleted_at IS NULL THEN u.username ELSE '' END AS username,
       CASE WHEN u.deleted_at IS NULL THEN u.avatar ELSE '' END AS avatar,
       u.profile_revision, u.stats_revision, u.friends_revision, u.matches_revision,
       coalesce(s.wins, 0) AS wins, coalesce(s.losses, 0) AS losses,
       (SELECT coalesce(json_agg(json_build_object(
                   'userId', p.id, 'username', p.username, 'avatar', p.avatar) ORDER BY p.id), '[]')::text
          FROM friendships f
          JOIN friendships back ON back.user_id = f.friend_id AND back.friend_id = f.user_id
          JOIN users p ON p.id = f.friend_id
         WHERE f.user_id = u.id) AS friends,
       (SELECT coalesce(json_agg(json_build_object(
                   'matchId', m.id,
                   'opponent', json_build_object(
                       'userId', p.id,
                       'username', CASE WHEN p.deleted_at IS NULL THEN p.username ELSE '' END,
                       'avatar', CASE WHEN p.deleted_at IS NULL THEN p.avatar ELSE '' END),
                   'result', CASE WHEN m.winner = u.id THEN 'win' ELSE 'loss' END,
                   'score', json_build_array(m.own_score, m.other_score),
                   'playedAt', floor(extract(epoch FROM m.played_at) * 1000)::bigint
               ) ORDER BY m.played_at DESC, m.id DESC), '[]')::text
          FROM (SELECT * FROM (
                  (SELECT id, player_b AS opponent, winner, score_a AS own_score, score_b AS other_score, played_at
                     FROM matches WHERE player_a = u.id ORDER BY played_at DESC, id DESC LIMIT 50)
                  UNION ALL
                  (SELECT id, player_a, winner, score_b, score_a, played_at
                     FROM matches WHERE player_b = u.id ORDER BY played_at DESC, id DESC LIMIT 50)
                ) both_sides ORDER BY played_at DESC, id DESC LIMIT 50) m
          JOIN users p ON p.id = m.opponent) AS matches
  FROM users u
  LEFT JOIN game_stats s ON s.user_id = u.id
 WHERE u.id = ANY($1)";

/// Tells whether the whole account must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountSummary {
    /// The user's id.
    pub user: UserId,
    /// Revision of the friend list.
    pub friends_revision: u64,
    /// Whether the account was deleted.
    pub deleted: bool,
}

const SUMMARIES: &str = "
SELECT id, friends_revision, deleted_at IS NOT NULL AS deleted FROM users WHERE id = ANY($1)";

impl Profiles {
    /// The summaries of these users, unordered; unknown users are omitted.
    pub async fn summaries(&self, users: &[UserId]) -> Result<Vec<AccountSummary>, ProfilesError> {
        let ids: Vec<i64> = users.iter().copied().map(as_id).collect();
        let rows = self.pool.query(SUMMARIES, &[&ids]).await?;
        let summaries = rows.iter().map(summary).collect::<Result<_, _>>();
        summaries.map_err(Failure::into)
    }

    /// The accounts of these users, unordered; unknown users are omitted.
    pub async fn read(&self, users: &[UserId]) -> Result<Vec<Account>, ProfilesError> {
        let ids: Vec<i64> = users.iter().copied().map(as_id).collect();
        let rows = self.pool.query(READ, &[&ids]).await?;
        let accounts = rows.iter().map(account).collect::<Result<_, _>>();
        accounts.map_err(Failure::into)
    }
}

fn account(row: &Row) -> Result<Account, Failure> {
    let json = |column: &str| row.try_get::<_, &str>(column);
    Ok(Account {
        user: as_user(row.try_get("id")?)?,
        username: row.try_get("username")?,
        avatar: row.try_get("avatar")?,
        deleted: row.try_get("deleted")?,
        revisions: PartRevisions {
            profile: as_revision(row.try_get("profile_revision")?),
            stats: as_revision(row.try_get("stats_revision")?),
            friends: as_revision(row.try_get("friends_revision")?),
            matches: as_revision(row.try_get("matches_revision")?),
        },
        stats: Stats::new(count(row.try_get("wins")?), count(row.try_get("losses")?)),
        friends: serde_json::from_str(json("friends")?)?,
        matches: serde_json::from_str(json("matches")?)?,
    })
}

fn summary(row: &Row) -> Result<AccountSummary, Failure> {
    Ok(AccountSummary {
        user: as_user(row.try_get("id")?)?,
        friends_revision: as_revision(row.try_get("friends_revision")?),
        deleted: row.try_get("deleted")?,
    })
}

/// A constraint keeps counts from being negative.
fn count(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ratio_is_the_part_that_was_won() {
        assert_eq!(Stats::new(0, 0).ratio, 0.0);
        assert_eq!(Stats::new(3, 1).ratio, 0.75);
        assert_eq!(Stats::new(u32::MAX, u32::MAX).ratio, 0.5);
    }

    #[test]
    fn a_match_has_the_documented_json() {
        let played = json!({
            "matchId": 5,
            "opponent": { "userId": 7, "username": "bob", "avatar": "" },
            "result": "win",
            "score": [11, 7],
            "playedAt": 1_700_000_000_000_u64
        });
        let read: PlayedMatch = serde_json::from_value(played.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), played);
    }
}
