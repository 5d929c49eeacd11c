//! Results as the hub records and reads them.

use vigie::internals::{GameResult, NewMatch, Part, ProfilesError};

use super::{account, assert_noted, id, populated, told};
use crate::harness::{ADA, BOB, EVE};

fn played(a: u64, b: u64, winner: u64) -> NewMatch {
    NewMatch {
        players: [id(a), id(b)],
        winner: id(winner),
        score: [11, 7],
        played_at_ms: None,
    }
}

/// Goal: a recorded match is in both histories, as each player sees it, and in both statistics.
/// Method: a match won by its second player; what is returned, noted and read.
#[tokio::test]
async fn a_match_counts_for_both() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let played_at_ms = Some(1_700_000_000_123);
    let new = NewMatch {
        played_at_ms,
        ..played(ADA, BOB, BOB)
    };
    let (number, changes) = profiles.record_match(&new).await.expect("recorded");
    assert_eq!(
        told(&changes),
        [
            (BOB, Part::Stats),
            (BOB, Part::Matches),
            (ADA, Part::Stats),
            (ADA, Part::Matches)
        ]
    );
    assert_noted(&postgres, &changes).await;
    let (ada, bob) = (account(&profiles, ADA).await, account(&profiles, BOB).await);
    assert_eq!(
        (ada.stats.wins, ada.stats.losses, ada.stats.ratio),
        (0, 1, 0.0)
    );
    assert_eq!(
        (bob.stats.wins, bob.stats.losses, bob.stats.ratio),
        (1, 0, 1.0)
    );
    let seen = |account: &vigie::internals::Account| {
        let played = &account.matches[0];
        assert_eq!(
            (played.match_id, played.played_at),
            (number, 1_700_000_000_123)
        );
        (played.opponent.user_id, played.result, played.score)
    };
    assert_eq!(seen(&ada), (id(BOB), GameResult::Loss, [11, 7]));
    assert_eq!(seen(&bob), (id(ADA), GameResult::Win, [7, 11]));
    assert_eq!(bob.matches[0].opponent.username, "ada");

    profiles.delete_account(id(ADA)).await.expect("deleted");
    let bob = account(&profiles, BOB).await;
    assert_eq!(
        (bob.matches.len(), bob.matches[0].opponent.username.as_str()),
        (1, "")
    );
}

/// Goal: a history is the newest fifty, newest first, whichever side the player was on.
/// Method: sixty matches on alternating sides, the newest of them with an old date.
#[tokio::test]
async fn a_history_has_the_newest_fifty() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let mut numbers = Vec::new();
    for n in 0..60 {
        let (a, b) = if n % 2 == 0 { (ADA, BOB) } else { (EVE, ADA) };
        let new = NewMatch {
            played_at_ms: Some(1_700_000_000_000 + n),
            ..played(a, b, ADA)
        };
        numbers.push(profiles.record_match(&new).await.expect("recorded").0);
    }
    let old = NewMatch {
        played_at_ms: Some(1),
        ..played(ADA, BOB, BOB)
    };
    profiles.record_match(&old).await.expect("recorded");
    let ada = account(&profiles, ADA).await;
    let read: Vec<u64> = ada.matches.iter().map(|played| played.match_id).collect();
    let newest: Vec<u64> = numbers.into_iter().rev().take(50).collect();
    assert_eq!(read, newest);
    assert_eq!((ada.stats.wins, ada.stats.losses), (60, 1));
}

/// Goal: a match that cannot have been is refused, and nothing of it is stored.
/// Method: unknown users, deleted accounts, a player against themselves, a winner who did not play, too many wins.
#[tokio::test]
async fn impossible_matches_are_refused() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    profiles.delete_account(id(EVE)).await.expect("deleted");
    let unknown = profiles.record_match(&played(ADA, 99, ADA)).await;
    assert_eq!(unknown, Err(ProfilesError::NoSuchUser(id(99))));
    let deleted = profiles.record_match(&played(ADA, EVE, ADA)).await;
    assert_eq!(deleted, Err(ProfilesError::AccountDeleted(id(EVE))));
    postgres
        .psql("INSERT INTO game_stats (user_id, wins) VALUES (7, 2147483647)")
        .await;
    for new in [
        played(ADA, ADA, ADA),
        played(ADA, BOB, EVE),
        played(ADA, BOB, BOB),
    ] {
        let refused = profiles.record_match(&new).await;
        assert!(
            matches!(refused, Err(ProfilesError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert_eq!(postgres.psql("SELECT count(*) FROM matches").await, "0");
}
