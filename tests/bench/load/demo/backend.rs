//! The back end of the demo: says over the internal API that profiles and statistics have changed.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::scenario::Scene;
use super::users;

/// Posts at most `rate` updates a second about any of the users, for ever. What fails is counted: nodes may be away.
pub(super) async fn post_updates(scene: &Scene, rate: u16) {
    if rate == 0 {
        return std::future::pending().await;
    }
    let mut ticks = interval(Duration::from_secs(1) / u32::from(rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut games = Vec::new();
    loop {
        ticks.tick().await;
        let place = scene.anybody();
        if games.len() <= place {
            games.resize(place + 1, (0, 0));
        }
        let user = scene.user(place);
        let (route, body) = match rand::random_bool(0.5) {
            true => users::profile(user, place),
            false => {
                let (played, won) = &mut games[place];
                *played += 1;
                *won += u32::from(rand::random_bool(0.5));
                users::stats(*played, *won)
            }
        };
        let path = format!("/api/v1/users/{user}/{route}");
        match scene.remote.post(&path, &body).await {
            Ok(()) => scene.tally.posted.add(),
            Err(_) => scene.tally.failed.add(),
        }
    }
}
