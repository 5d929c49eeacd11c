//! Combines what Postgres and the engine store about a user, and tracks whether Postgres is available.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use strum::IntoEnumIterator;

use crate::domain::delivery::LastUpdates;
use crate::domain::health::Check;
use crate::domain::profile::{self, Notification, NotifyError};
use crate::domain::visibility::Visibility;
use crate::engine::{Engine, EngineError, Kind, Stored, Views};
use crate::ids::{Revision, UserId};
use crate::profiles::{Account, AccountChange, Migration, Part, Profiles, ProfilesError};

pub(crate) struct Accounts {
    pub(super) engine: Engine,
    visibility: Visibility,
    profiles: Option<Profiles>,
    /// Why the last request to Postgres failed, if it did.
    outage: ArcSwapOption<ProfilesError>,
}

pub(crate) struct AccountState {
    pub(crate) stored: Stored,
    /// The friendships are authoritative: Postgres, if configured, answered.
    pub(crate) certain: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error(transparent)]
    Engine(EngineError),
    #[error(transparent)]
    Profiles(#[from] ProfilesError),
    #[error("an update was refused: {0}")]
    Update(String),
}

impl Accounts {
    pub(crate) fn new(engine: Engine, visibility: Visibility, profiles: Option<Profiles>) -> Self {
        Self {
            engine,
            visibility,
            profiles,
            outage: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn profiles(&self) -> Option<&Profiles> {
        self.profiles.as_ref()
    }

    pub(crate) fn exist(&self) -> bool {
        self.profiles.is_some()
    }

    /// Whether Postgres is configured but unavailable.
    pub(crate) fn are_away(&self) -> bool {
        self.outage.load().is_some()
    }

    /// The health check of Postgres; `None` if it is not configured. An unreachable Postgres does not affect sockets
    /// and presence. Missing tables are a vital failure: they mean that the database was never set up.
    pub(crate) fn check(&self) -> Option<Check> {
        let migration = self.profiles.as_ref()?.migration();
        let outage = self.outage.load_full();
        let (failure, is_vital) = match postgres_failure(&migration, outage.as_deref()) {
            None => (None, false),
            Some((failure, is_vital)) => (Some(failure), is_vital),
        };
        Some(Check {
            name: "postgres",
            failure,
            is_vital,
        })
    }

    /// Pings Postgres. Returns whether it has just become available.
    pub(crate) async fn probe(&self) -> bool {
        let Some(profiles) = &self.profiles else {
            return false;
        };
        match profiles.ping().await {
            Ok(()) => self.outage.swap(None).is_some(),
            Err(error) => {
                self.record_outage(&error);
                false
            }
        }
    }

    fn record_outage(&self, error: &ProfilesError) {
        let before = self.outage.swap(Some(Arc::new(error.clone())));
        if before.is_none_or(|before| discriminant(&*before) != discriminant(error)) {
            tracing::warn!(%error, "Postgres is unavailable; new watchers see public fields only");
        }
    }

    /// Loads what is known about `user`, after publishing whatever the engine lacks.
    pub(crate) async fn load(&self, user: UserId) -> Result<AccountState, EngineError> {
        let stored = self.engine.stored(user).await?;
        let Some(profiles) = self.profiles.as_ref().filter(|_| !self.are_away()) else {
            let certain = !self.exist();
            return Ok(AccountState { stored, certain });
        };
        match self.complete(profiles, user, &stored).await {
            Ok(false) => Ok(AccountState {
                stored,
                certain: true,
            }),
            Ok(true) => Ok(AccountState {
                stored: self.engine.stored(user).await?,
                certain: true,
            }),
            Err(PublishError::Engine(error)) => Err(error),
            Err(PublishError::Profiles(error)) => {
                self.record_outage(&error);
                Ok(AccountState {
                    stored,
                    certain: false,
                })
            }
            Err(error @ PublishError::Update(_)) => {
                tracing::warn!(user = user.get(), %error, "could not publish an account from Postgres");
                Ok(AccountState {
                    stored,
                    certain: false,
                })
            }
        }
    }

    /// Publishes the account if the engine lacks parts of it. Returns whether it did.
    async fn complete(
        &self,
        profiles: &Profiles,
        user: UserId,
        stored: &Stored,
    ) -> Result<bool, PublishError> {
        if stored.deleted {
            return Ok(false);
        }
        let Some(summary) = profiles.summaries(&[user]).await?.pop() else {
            return Ok(false);
        };
        let revision_of = |kind: Kind| {
            let mut updates = stored.updates.iter();
            let update = updates.find(|(known, _, _)| *known == kind)?;
            Some(update.1.revision.0)
        };
        let has_profile = revision_of(Kind::Profile).is_some();
        let has_friends = revision_of(Kind::Friendships) >= Some(summary.friends_revision);
        if has_profile && has_friends && !summary.deleted {
            return Ok(false);
        }
        let everything: Vec<_> = Part::iter()
            .filter(|part| summary.deleted || *part != Part::Deleted)
            .map(|part| AccountChange {
                user,
                part,
                revision: 0,
            })
            .collect();
        self.publish(&everything).await?;
        Ok(true)
    }

    /// Publishes the current content of the parts that changed.
    pub(super) async fn publish(&self, changes: &[AccountChange]) -> Result<(), PublishError> {
        let Some(profiles) = &self.profiles else {
            return Ok(());
        };
        let users: BTreeSet<UserId> = changes.iter().map(|change| change.user).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let accounts: BTreeMap<UserId, Account> = profiles
            .read(&users)
            .await?
            .into_iter()
            .map(|account| (account.user, account))
            .collect();
        let mut notifications = Vec::new();
        for change in changes {
            match accounts.get(&change.user) {
                Some(account) if !account.deleted => {
                    notifications.extend(notifications_of(account, change.part));
                }
                // Deleted in the meantime: a later change says so.
                Some(_) | None if change.part != Part::Deleted => {}
                Some(_) | None => {
                    self.engine.delete_account(change.user).await?;
                }
            }
        }
        for outcome in profile::notify(&self.engine, &self.visibility, notifications).await {
            match outcome {
                // Updates about a deleted account are dropped.
                Ok(_) | Err(NotifyError::AccountDeleted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn updates_of(&self, account: &Account) -> LastUpdates {
        let notifications = Part::iter().flat_map(|part| notifications_of(account, part));
        let mut last = LastUpdates::new();
        for notification in notifications {
            let kind = notification.kind;
            let revision = notification.revision.unwrap_or(Revision(0));
            if let Ok(update) = profile::prepare(&self.visibility, notification) {
                let views = Views {
                    epoch: String::new(),
                    revision,
                    public: update.public,
                    full: update.full,
                };
                last.insert(kind, views);
            }
        }
        last
    }
}

/// Why Postgres cannot be used, and whether that is vital.
fn postgres_failure(
    migration: &Migration,
    outage: Option<&ProfilesError>,
) -> Option<(String, bool)> {
    let is_away = matches!(outage, Some(ProfilesError::Unavailable(_)));
    match migration {
        Migration::Failed(reason) => {
            return Some((format!("the migrations fail: {reason}"), true));
        }
        Migration::Running => return Some(("the migrations are running".to_owned(), true)),
        Migration::Pending if !is_away => {
            return Some(("the migrations have not run yet".to_owned(), true));
        }
        Migration::Pending | Migration::NotAsked | Migration::Done => {}
    }
    match outage? {
        ProfilesError::Unavailable(_) => Some(("cannot be reached".to_owned(), false)),
        error => Some((error.to_string(), matches!(error, ProfilesError::Schema(_)))),
    }
}

/// The updates to publish for one part of an account. Friendships come before the friend list, because they decide who
/// sees it.
fn notifications_of(account: &Account, part: Part) -> Vec<Notification> {
    let revisions = account.revisions;
    match part {
        Part::Profile => {
            let profile = json!({
                "userID": account.user,
                "username": account.username,
                "avatar": account.avatar,
            });
            notification(account.user, Kind::Profile, &profile, revisions.profile)
        }
        Part::Stats => notification(account.user, Kind::Stats, &account.stats, revisions.stats),
        Part::Friends => {
            let friends = &account.friends;
            let ids: Vec<UserId> = friends.iter().map(|friend| friend.user_id).collect();
            let who = notification(account.user, Kind::Friendships, &ids, revisions.friends);
            let list = notification(account.user, Kind::Friends, friends, revisions.friends);
            return who.into_iter().chain(list).collect();
        }
        Part::Matches => notification(
            account.user,
            Kind::Matches,
            &account.matches,
            revisions.matches,
        ),
        Part::Deleted => None,
    }
    .into_iter()
    .collect()
}

/// `None` if `content` cannot be written as JSON, which never happens for the types used here.
fn notification(
    user: UserId,
    kind: Kind,
    content: &impl Serialize,
    revision: u64,
) -> Option<Notification> {
    let content: Arc<RawValue> = serde_json::value::to_raw_value(content).ok()?.into();
    Some(Notification {
        user,
        kind,
        content,
        revision: Some(Revision(revision)),
    })
}
