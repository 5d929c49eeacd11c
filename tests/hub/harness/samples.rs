//! Values that several files of tests use.

use serde_json::{Value, json};

use super::ADA;

/// The four updates: how the route is called, the body's field, and a value for it.
pub fn kinds() -> [(&'static str, &'static str, Value); 4] {
    let opponent = json!({ "userId": 5, "username": "five", "avatar": "" });
    let played = json!({ "matchId": "m1", "opponent": opponent, "result": "win", "score": [11, 7], "playedAt": 1_700_000_000_000_u64 });
    [
        (
            "profile-update",
            "user",
            json!({ "userID": ADA, "username": "ada", "avatar": "" }),
        ),
        (
            "game-stats-update",
            "stats",
            json!({ "wins": 1, "losses": 2 }),
        ),
        ("friend-list-update", "friends", json!([opponent])),
        ("match-history-update", "matches", json!([played])),
    ]
}

/// A profile as a back end sends it: with fields that only the user may see.
pub fn profile(user: u64, name: &str) -> Value {
    json!({
        "userID": user,
        "username": name,
        "avatar": "/avatars/a.png",
        "email": "hidden@example.org",
        "settings": { "theme": "hidden-theme" },
    })
}

/// Its public view.
pub fn public(user: u64, name: &str) -> Value {
    json!({ "userID": user, "username": name, "avatar": "/avatars/a.png" })
}

/// The number that orders an update.
pub fn revision(update: &Value) -> u64 {
    update["revision"]
        .as_u64()
        .unwrap_or_else(|| panic!("no revision in {update}"))
}
