//! What Postgres and the engine know of a user, brought together, and whether Postgres can be asked at all.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::domain::delivery::LastUpdates;
use crate::domain::health::Check;
use crate::domain::profile::{self, Notification, NotifyError};
use crate::domain::visibility::Visibility;
use crate::engine::{Engine, EngineError, Kind, Stored, Views};
use crate::ids::{Revision, UserId};
use crate::profiles::{Account, Aspect, Change, Migration, Profiles, ProfilesError};

/// Postgres, if the hub has it, beside the engine.
pub(crate) struct Accounts {
    pub(super) engine: Engine,
    visibility: Visibility,
    profiles: Option<Profiles>,
    /// Why Postgres was of no use when it was asked last.
    trouble: ArcSwapOption<ProfilesError>,
}

/// What is known about a user.
pub(crate) struct Known {
    /// The last updates.
    pub(crate) stored: Stored,
    /// Postgres was asked, if there is one: who is a friend is known for sure.
    pub(crate) certain: bool,
}

/// Why a change was not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
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
            trouble: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn profiles(&self) -> Option<&Profiles> {
        self.profiles.as_ref()
    }

    /// Whether the hub keeps accounts.
    pub(crate) fn exist(&self) -> bool {
        self.profiles.is_some()
    }

    /// Whether there is a Postgres that is of no use at the moment.
    pub(crate) fn are_away(&self) -> bool {
        self.trouble.load().is_some()
    }

    /// Whether Postgres can be used; `None` where there is none. A Postgres that cannot be reached leaves sockets and
    /// presence; one without the tables was never set up, so balancers pass this node over.
    pub(crate) fn check(&self) -> Option<Check> {
        let migration = self.profiles.as_ref()?.migration();
        let trouble = self.trouble.load_full();
        let (failure, is_vital) = match postgres_failure(&migration, trouble.as_deref()) {
            None => (None, false),
            Some((failure, is_vital)) => (Some(failure), is_vital),
        };
        Some(Check {
            name: "postgres",
            failure,
            is_vital,
        })
    }

    /// Asks Postgres whether it can be used. Returns whether it could not be, and now can.
    pub(crate) async fn came_back(&self) -> bool {
        let Some(profiles) = &self.profiles else {
            return false;
        };
        match profiles.ping().await {
            Ok(()) => self.trouble.swap(None).is_some(),
            Err(error) => {
                self.note(&error);
                false
            }
        }
    }

    fn note(&self, error: &ProfilesError) {
        let before = self.trouble.swap(Some(Arc::new(error.clone())));
        if before.is_none_or(|before| discriminant(&*before) != discriminant(error)) {
            tracing::warn!(%error, "Postgres is of no use; who begins to watch sees public fields only");
        }
    }

    /// What is known about `user`. What Postgres knows and the engine does not is published first.
    pub(crate) async fn known(&self, user: UserId) -> Result<Known, EngineError> {
        let stored = self.engine.stored(user).await?;
        let Some(profiles) = self.profiles.as_ref().filter(|_| !self.are_away()) else {
            let certain = !self.exist();
            return Ok(Known { stored, certain });
        };
        match self.complete(profiles, user, &stored).await {
            Ok(false) => Ok(Known {
                stored,
                certain: true,
            }),
            Ok(true) => Ok(Known {
                stored: self.engine.stored(user).await?,
                certain: true,
            }),
            Err(Untold::Engine(error)) => Err(error),
            Err(Untold::Profiles(error)) => {
                self.note(&error);
                Ok(Known {
                    stored,
                    certain: false,
                })
            }
            Err(error @ Untold::Update(_)) => {
                tracing::warn!(user = user.get(), %error, "could not tell what Postgres knows");
                Ok(Known {
                    stored,
                    certain: false,
                })
            }
        }
    }

    /// Publishes what Postgres knows about `user` and the engine does not. Returns whether there was anything.
    async fn complete(
        &self,
        profiles: &Profiles,
        user: UserId,
        stored: &Stored,
    ) -> Result<bool, Untold> {
        if stored.deleted {
            return Ok(false);
        }
        let Some(mark) = profiles.marks(&[user]).await?.pop() else {
            return Ok(false);
        };
        let revision_of = |kind: Kind| {
            let mut updates = stored.updates.iter();
            let update = updates.find(|(known, _, _)| *known == kind)?;
            Some(update.1.revision.0)
        };
        let has_profile = revision_of(Kind::Profile).is_some();
        let has_friends = revision_of(Kind::Friendships) >= Some(mark.friends_revision);
        if has_profile && has_friends && !mark.deleted {
            return Ok(false);
        }
        let everything = Aspect::ALL.map(|aspect| Change {
            user,
            aspect,
            revision: 0,
        });
        let everything: Vec<_> = everything
            .into_iter()
            .filter(|change| mark.deleted || change.aspect != Aspect::Deleted)
            .collect();
        self.publish(&everything).await?;
        Ok(true)
    }

    /// Publishes the parts of accounts that changed, as they are now.
    pub(super) async fn publish(&self, changes: &[Change]) -> Result<(), Untold> {
        let Some(profiles) = &self.profiles else {
            return Ok(());
        };
        let users: BTreeSet<UserId> = changes.iter().map(|change| change.user).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let accounts = profiles.read(&users).await?;
        let accounts: BTreeMap<UserId, Account> = accounts
            .into_iter()
            .map(|account| (account.user, account))
            .collect();
        let mut notifications = Vec::new();
        for change in changes {
            match accounts.get(&change.user) {
                Some(account) if !account.deleted => {
                    notifications.extend(notifications_of(account, change.aspect));
                }
                // Gone in the meantime: there is another change that says so.
                Some(_) | None if change.aspect != Aspect::Deleted => {}
                Some(_) | None => {
                    self.engine.delete_account(change.user).await?;
                }
            }
        }
        for outcome in profile::notify(&self.engine, &self.visibility, notifications).await {
            match outcome {
                // An account that is deleted by now is told about no more.
                Ok(_) | Err(NotifyError::AccountDeleted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What an account shows, in both views.
    pub(super) fn updates_of(&self, account: &Account) -> LastUpdates {
        let notifications = Aspect::ALL
            .into_iter()
            .flat_map(|aspect| notifications_of(account, aspect));
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

/// What is wrong with Postgres, and whether the node is not ready because of it.
fn postgres_failure(
    migration: &Migration,
    trouble: Option<&ProfilesError>,
) -> Option<(String, bool)> {
    let is_away = matches!(trouble, Some(ProfilesError::Unavailable(_)));
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
    match trouble? {
        ProfilesError::Unavailable(_) => Some(("cannot be reached".to_owned(), false)),
        error => Some((error.to_string(), matches!(error, ProfilesError::Schema(_)))),
    }
}

/// What is told when a part of an account changed. Who is a friend is said before what friends see.
fn notifications_of(account: &Account, aspect: Aspect) -> Vec<Notification> {
    let revisions = account.revisions;
    match aspect {
        Aspect::Profile => {
            let profile = json!({
                "userID": account.user,
                "username": account.username,
                "avatar": account.avatar,
            });
            notification(account.user, Kind::Profile, &profile, revisions.profile)
        }
        Aspect::Stats => notification(account.user, Kind::Stats, &account.stats, revisions.stats),
        Aspect::Friends => {
            let friends = &account.friends;
            let ids: Vec<UserId> = friends.iter().map(|friend| friend.user_id).collect();
            let who = notification(account.user, Kind::Friendships, &ids, revisions.friends);
            let list = notification(account.user, Kind::Friends, friends, revisions.friends);
            return who.into_iter().chain(list).collect();
        }
        Aspect::Matches => notification(
            account.user,
            Kind::Matches,
            &account.matches,
            revisions.matches,
        ),
        Aspect::Deleted => None,
    }
    .into_iter()
    .collect()
}

/// `None` for what cannot be written as JSON, which none of it is.
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
