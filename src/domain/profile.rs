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

/// What a caller can do about an update that was not published.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The update is no JSON, or a profile no JSON object.
    #[error("the update is not the JSON that is needed: {0}")]
    Json(#[from] serde_json::Error),
    /// The account was deleted.
    #[error("the account was deleted")]
    AccountDeleted,
    /// The engine cannot be reached: nothing was stored or published, or nobody knows.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A published update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The revision that is stored now.
    pub revision: u64,
    /// How many nodes were listening.
    pub nodes: u64,
    /// The update was not newer than what is stored, and changed nothing.
    pub stale: bool,
}

impl Notified {
    pub(super) fn new(published: Published) -> Result<Self, NotifyError> {
        let (revision, nodes, stale) = match published {
            Published::Stored { revision, nodes } => (revision, nodes, false),
            Published::Stale { revision } => (revision, 0, true),
            Published::AccountDeleted => return Err(NotifyError::AccountDeleted),
        };
        Ok(Self {
            revision: revision.0,
            nodes,
            stale,
        })
    }
}

/// Stores and publishes notifications in order, in one round trip; one result for each. One that cannot be
/// prepared stops no other.
pub(crate) async fn notify(
    engine: &Engine,
    visibility: &Visibility,
    notifications: Vec<Notification>,
) -> Vec<Result<Notified, NotifyError>> {
    let prepared: Vec<_> = notifications
        .into_iter()
        .map(|notification| prepare(visibility, notification))
        .collect();
    let updates = prepared
        .iter()
        .filter_map(|update| update.as_ref().ok())
        .cloned()
        .collect();
    let mut published = engine.publish(updates).await.into_iter();
    let mut outcome = |prepared: Result<Update, serde_json::Error>| {
        prepared?;
        let missing = || {
            Err(EngineError::Answer(
                "fewer outcomes than updates".to_owned(),
            ))
        };
        Notified::new(published.next().unwrap_or_else(missing)?)
    };
    prepared.into_iter().map(&mut outcome).collect()
}

/// A profile is shown by its public fields. Of everything else the field that carries it decides.
pub(super) fn prepare(
    visibility: &Visibility,
    notification: Notification,
) -> Result<Update, serde_json::Error> {
    let full = notification.content;
    let public = match notification.kind {
        Kind::Profile => Some(visibility.public_view(&full)?),
        Kind::Friendships => None,
        Kind::Stats | Kind::Friends | Kind::Matches => visibility
            .is_public(notification.kind.as_str())
            .then(|| full.clone()),
    };
    Ok(Update {
        user: notification.user,
        kind: notification.kind,
        revision: notification.revision,
        public,
        full,
    })
}
