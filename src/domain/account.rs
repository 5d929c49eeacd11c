//! Accounts in Postgres: changing them, and publishing each change.
//!
//! Every change is one transaction in Postgres and one line here. Changes made by other programs arrive as a stream and
//! are published by the same code. A change seen twice is published once, because the engine compares revisions.

mod source;

use std::sync::Arc;

use super::delivery::LastUpdates;
use super::profile::NotifyError;
use super::visibility::{View, view_of};
use crate::engine::EngineError;
use crate::ids::UserId;
use crate::profiles::{AccountChange, ChangeStream, Profiles};

pub(crate) use self::source::Accounts;
pub(crate) use crate::profiles::{Friendship, Image, NewMatch, ProfilesError};

/// Why a call about an account failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountError {
    /// `postgres.url` is not set.
    #[error("this hub has no Postgres; set postgres.url (VIGIE_POSTGRES__URL)")]
    NotConfigured,
    /// Postgres is unavailable or rejected the request.
    #[error(transparent)]
    Profiles(#[from] ProfilesError),
}

/// An account as the viewer may see it.
#[derive(Debug)]
pub struct AccountView {
    /// The view that the viewer may have.
    pub view: View,
    /// The account in both views, by kind.
    pub last: LastUpdates,
}

impl Accounts {
    fn postgres(&self) -> Result<&Profiles, AccountError> {
        self.profiles().ok_or(AccountError::NotConfigured)
    }

    pub(crate) async fn show_account(
        &self,
        user: UserId,
        viewer: Option<UserId>,
    ) -> Result<AccountView, AccountError> {
        let mut accounts = self.postgres()?.read(&[user]).await?;
        let account = accounts.pop().ok_or(ProfilesError::NoSuchUser(user))?;
        if account.deleted || self.is_deleted_in_engine(user).await {
            return Err(ProfilesError::AccountDeleted(user).into());
        }
        let friends = account
            .friends
            .iter()
            .map(|friend| friend.user_id)
            .collect();
        Ok(AccountView {
            view: view_of(user, viewer, Some(&friends)),
            last: self.updates_of(&account),
        })
    }

    pub(crate) async fn expect_account(&self, user: UserId) -> Result<(), AccountError> {
        match self.expect_stored_account(user).await {
            Ok(()) | Err(AccountError::Profiles(ProfilesError::NoSuchUser(_)))
                if self.is_deleted_in_engine(user).await =>
            {
                Err(ProfilesError::AccountDeleted(user).into())
            }
            expected => expected,
        }
    }

    pub(crate) async fn expect_stored_account(&self, user: UserId) -> Result<(), AccountError> {
        match self.postgres()?.summaries(&[user]).await?.pop() {
            Some(summary) if summary.deleted => Err(ProfilesError::AccountDeleted(user).into()),
            Some(_) => Ok(()),
            None => Err(ProfilesError::NoSuchUser(user).into()),
        }
    }

    /// Whether a back end deleted the account, perhaps while Postgres was away. If the engine is unavailable the answer
    /// is `false`: Postgres is authoritative.
    async fn is_deleted_in_engine(&self, user: UserId) -> bool {
        let status = self.engine.account_status(user).await;
        status.is_ok_and(|status| status.deleted)
    }

    pub(crate) async fn put_account(
        &self,
        user: UserId,
        username: &str,
        avatar: Option<&str>,
    ) -> Result<(), AccountError> {
        let changes = self.postgres()?.put_account(user, username, avatar).await?;
        self.publish_or_log(changes).await;
        Ok(())
    }

    pub(crate) async fn rename(&self, user: UserId, username: &str) -> Result<(), AccountError> {
        let changes = self.postgres()?.rename(user, username).await?;
        self.publish_or_log(changes).await;
        Ok(())
    }

    pub(crate) async fn set_avatar_url(&self, user: UserId, url: &str) -> Result<(), AccountError> {
        let changes = self.postgres()?.set_avatar_url(user, url).await?;
        self.publish_or_log(changes).await;
        Ok(())
    }

    pub(crate) async fn set_avatar_image(
        &self,
        user: UserId,
        image: &Image,
    ) -> Result<(), AccountError> {
        let changes = self.postgres()?.set_avatar_image(user, image).await?;
        self.publish_or_log(changes).await;
        Ok(())
    }

    pub(crate) async fn avatar(
        &self,
        user: UserId,
        hash: &str,
    ) -> Result<Option<Image>, AccountError> {
        Ok(self.postgres()?.avatar(user, hash).await?)
    }

    pub(crate) async fn delete_account(&self, user: UserId) -> Result<(), AccountError> {
        let changes = self.postgres()?.delete_account(user).await?;
        self.publish_or_log(changes).await;
        Ok(())
    }

    pub(crate) async fn ask_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<Friendship, AccountError> {
        let (friendship, changes) = self.postgres()?.ask_friendship(user, other).await?;
        self.publish_or_log(changes).await;
        Ok(friendship)
    }

    pub(crate) async fn end_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<(), AccountError> {
        let changes = self.postgres()?.end_friendship(user, other).await?;
        self.publish_or_log(changes).await;
        Ok(())
    }

    pub(crate) async fn record_match(&self, played: &NewMatch) -> Result<u64, AccountError> {
        let (number, changes) = self.postgres()?.record_match(played).await?;
        self.publish_or_log(changes).await;
        Ok(number)
    }

    /// Publishes changes just made in Postgres.
    async fn publish_or_log(&self, changes: Vec<AccountChange>) {
        if let Err(error) = self.publish(&changes).await {
            // Postgres records every change until it is published, so the change feed publishes it later.
            tracing::warn!(%error, "could not publish a change; the change feed publishes it later");
        }
    }

    /// Marks the account as deleted in Postgres after a back end deleted it.
    pub(super) async fn forget_account(&self, user: UserId) {
        let Some(profiles) = self.profiles() else {
            return;
        };
        match profiles.delete_account(user).await {
            Ok(changes) => self.publish_or_log(changes).await,
            Err(ProfilesError::NoSuchUser(_)) => {}
            Err(error) => {
                tracing::warn!(user = user.get(), %error, "could not mark a deleted account in Postgres");
            }
        }
    }

    /// Publishes changes that other programs make in Postgres.
    pub(crate) async fn run_change_feed(self: Arc<Self>, mut changes: ChangeStream) {
        while let Some(batch) = changes.next().await {
            match self.publish(batch.changes()).await {
                Ok(()) => batch.published(),
                Err(error) => {
                    tracing::warn!(%error, "could not publish changes from Postgres; trying again");
                }
            }
        }
    }
}

impl From<EngineError> for source::PublishError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<NotifyError> for source::PublishError {
    fn from(error: NotifyError) -> Self {
        match error {
            NotifyError::Engine(error) => Self::Engine(error),
            error => Self::Update(error.to_string()),
        }
    }
}
