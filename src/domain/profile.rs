//! Updates about users: prepares both views once, stores and publishes.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::visibility::Visibility;
use crate::engine::{Engine, EngineError, Kind, Published, Update};
use crate::ids::{Revision, UserId};

/// An update as a back end gives it.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Whom it is about.
    pub user: UserId,
    /// What it is about.
    pub kind: Kind,
    /// The whole of it: a profile, statistics, a list of friends or of matches.
    pub content: Arc<RawValue>,
    /// The caller's own revision. Without one the hub assigns microseconds; use one or the other for a kind.
    pub revision: Option<Revision>,
}

/// Stores and publishes notifications in order, in one round trip; one result for each.
pub(crate) async fn notify(
    engine: &Engine,
    visibility: &Visibility,
    notifications: Vec<Notification>,
) -> Vec<Result<Published, EngineError>> {
    let updates = notifications
        .into_iter()
        .map(|notification| prepare(visibility, notification));
    engine.publish(updates.collect()).await
}

/// A profile is shown by its public fields. Of everything else the field that carries it decides.
fn prepare(visibility: &Visibility, notification: Notification) -> Update {
    let full = notification.content;
    let public = match notification.kind {
        Kind::Profile => Some(visibility.public_view(&full)),
        Kind::Stats | Kind::Friends | Kind::Matches => visibility
            .is_public(notification.kind.as_str())
            .then(|| full.clone()),
    };
    Update {
        user: notification.user,
        kind: notification.kind,
        revision: notification.revision,
        public,
        full,
    }
}
