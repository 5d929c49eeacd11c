//! Updates about users: prepares both views once, then stores and publishes them.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::visibility::Visibility;
use crate::engine::{Engine, EngineError, Kind, PublishOutcome, Update};
use crate::ids::{Revision, UserId};

/// An update submitted by a back end.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The user concerned.
    pub user: UserId,
    /// The kind of content.
    pub kind: Kind,
    /// The full content: a profile, statistics, or a list of friends or matches.
    pub content: Arc<RawValue>,
    /// The caller's own revision. Without one the hub assigns microseconds since 1970; don't mix both for one kind.
    pub revision: Option<Revision>,
}

/// Why an update was not published.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The update is not JSON, or a profile is not a JSON object.
    #[error("the update is not the JSON that is needed: {0}")]
    Json(#[from] serde_json::Error),
    /// The account was deleted, permanently.
    #[error("the account was deleted")]
    AccountDeleted,
    /// The engine failed: whether the update was stored and published is unknown.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A published update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The revision now stored.
    pub revision: u64,
    /// Nodes that received the update.
    pub nodes: u64,
    /// The update was not newer than the stored one and changed nothing.
    pub stale: bool,
}

impl Notified {
    pub(super) fn new(published: PublishOutcome) -> Result<Self, NotifyError> {
        let (revision, nodes, stale) = match published {
            PublishOutcome::Stored { revision, nodes } => (revision, nodes, false),
            PublishOutcome::Stale { revision } => (revision, 0, true),
            PublishOutcome::AccountDeleted => return Err(NotifyError::AccountDeleted),
        };
        Ok(Self {
            revision: revision.0,
            nodes,
            stale,
        })
    }
}

/// Stores and publishes notifications in order, in one round trip. Returns one result each; an invalid one does not
/// stop the others.
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

/// Profiles are filtered field by field. Every other kind is public if the field that carries it (`stats`, `friends`,
/// `matches`) is.
pub(super) fn prepare(
    visibility: &Visibility,
    notification: Notification,
) -> Result<Update, serde_json::Error> {
    let full = notification.content;
    let public = match notification.kind {
        Kind::Profile => Some(visibility.public_view(&full)?),
        Kind::Friendships => None,
        Kind::Stats | Kind::Friends | Kind::Matches => visibility
            .is_public(notification.kind.into_str())
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
