//! The back end of the demo: posts profile and statistics updates to the internal API.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::scenario::DemoContext;
use super::users;

/// Posts at most `rate` updates a second about any of the users, without end. Failures are counted: nodes may be away.
pub(super) async fn post_updates(context: &DemoContext, rate: u16) {
    if rate == 0 {
        return std::future::pending().await;
    }
    let mut ticks = interval(Duration::from_secs(1) / u32::from(rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut games = Vec::new();
    loop {
        ticks.tick().await;
        let place = context.anybody();
        if games.len() <= place {
            games.resize(place + 1, (0, 0));
        }
        let user = context.user(place);
        let (route, body) = if rand::random_bool(0.5) {
            users::profile(user, place)
        } else {
            let (played, won) = &mut games[place];
            *played += 1;
            *won += u32::from(rand::random_bool(0.5));
            users::stats(*played, *won)
        };
        let path = format!("/api/v1/users/{user}/{route}");
        match context.remote.post(&path, &body).await {
            Ok(()) => context.counters.posted.add(),
            Err(_) => context.counters.failed.add(),
        }
    }
}
