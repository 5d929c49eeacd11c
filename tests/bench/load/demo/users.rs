//! The synthetic users: names that mark them as such, and their updates.

use serde_json::{Value, json};

const NAMES: [&str; 12] = [
    "ada", "bob", "cleo", "dora", "emil", "fay", "gus", "hana", "ivo", "june", "kai", "lou",
];

const MOODS: [&str; 6] = ["bored", "happy", "lucky", "sleepy", "warming up", "winning"];

/// `demo-ada-0`
fn name(place: usize) -> String {
    format!("demo-{}-{place}", NAMES[place % NAMES.len()])
}

/// A profile update: route and body.
pub(super) fn profile(user: u64, place: usize) -> (&'static str, Value) {
    let mood = MOODS[rand::random_range(0..MOODS.len())];
    let picture = rand::random_range(1..=9);
    let profile = json!({
        "userID": user,
        "username": name(place),
        "avatar": format!("/avatars/demo-{picture}.png"),
        "mood": mood,
    });
    ("profile-update", json!({ "user": profile }))
}

/// A statistics update: route and body.
pub(super) fn stats(games: u32, wins: u32) -> (&'static str, Value) {
    let stats = json!({ "games": games, "wins": wins, "losses": games - wins });
    ("game-stats-update", json!({ "stats": stats }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_another_name() {
        let names: std::collections::BTreeSet<String> = (0..2000).map(name).collect();
        assert_eq!(names.len(), 2000);
        assert!(names.iter().all(|name| name.starts_with("demo-")));
    }
}
