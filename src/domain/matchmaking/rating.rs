//! Ratings of players.

use serde::Deserialize;

/// The rating of a newcomer, and of everyone if there are no statistics.
pub(super) const RATING_DEFAULT: i64 = 1000;

/// Wins and losses, as `game-stats-update` carries them.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct GameRecord {
    #[serde(default)]
    wins: u64,
    #[serde(default)]
    losses: u64,
}

/// The algorithm of 400: the average opponent's rating, plus 400 × (wins − losses) / games. Ten extra draws keep
/// newcomers near the middle.
pub(super) fn rating(record: GameRecord) -> i64 {
    let (wins, losses) = (record.wins as f64, record.losses as f64);
    RATING_DEFAULT + (400.0 * (wins - losses) / (wins + losses + 10.0)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_wins_mean_a_higher_rating() {
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
