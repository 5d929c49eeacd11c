//! How good somebody is.

use serde::Deserialize;

/// The rating of who has not played, and of everybody where nobody knows better.
pub(super) const RATING_DEFAULT: i64 = 1000;

/// How often somebody won and lost, as `game-stats-update` tells it.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct GameRecord {
    #[serde(default)]
    wins: u64,
    #[serde(default)]
    losses: u64,
}

/// The algorithm of 400: the average opponent's rating, plus 400 times wins minus losses over games. Ten drawn games
/// on top keep newcomers in the middle until they have played some.
pub(super) fn rating(record: GameRecord) -> i64 {
    let (wins, losses) = (record.wins as f64, record.losses as f64);
    RATING_DEFAULT + (400.0 * (wins - losses) / (wins + losses + 10.0)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wins_more_is_rated_higher() {
        let of = |wins, losses| rating(GameRecord { wins, losses });
        assert_eq!(of(0, 0), RATING_DEFAULT);
        assert_eq!(of(7, 7), RATING_DEFAULT);
        assert_eq!(of(1, 0), 1036);
        assert_eq!(of(0, 1), 964);
        assert_eq!(of(90, 0), 1360);
        assert!(of(u64::MAX, 0) <= RATING_DEFAULT + 400);
        assert!(of(0, u64::MAX) >= RATING_DEFAULT - 400);
    }
}
