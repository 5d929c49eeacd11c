//! Accounts in Postgres, for hubs that have it: what may be done with one, and telling everybody what changed.
//!
//! Whatever changes an account is one transaction there and one line here. Others write to Postgres, too: what they
//! change arrives as a stream of changes and is told by the same line. A change that is seen twice is told once,
//! because revisions are compared where updates are stored.

mod source;

use std::sync::Arc;

use super::delivery::LastUpdates;
use super::profile::NotifyError;
use super::visibility::{View, view_of};
use crate::engine::EngineError;
use crate::ids::UserId;
use crate::profiles::{Change, ChangeStream, Profiles};

pub(crate) use self::source::Accounts;
pub use crate::profiles::{Friendship, Image, NewMatch, ProfilesError};

/// Why nothing was changed, or shown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountError {
    /// The hub has no Postgres.
    #[error("this hub has no Postgres; set postgres.url (VIGIE_POSTGRES__URL)")]
    NotConfigured,
    /// Postgres knows better what is wrong.
    #[error(transparent)]
    Profiles(#[from] ProfilesError),
}

/// Somebody's account, as far as whoever asked may see it.
#[derive(Debug)]
pub struct Shown {
    /// How much that is.
    pub view: View,
    /// The account in both views.
    pub last: LastUpdates,
}

impl Accounts {
    fn postgres(&self) -> Result<&Profiles, AccountError> {
        self.profiles().ok_or(AccountError::NotConfigured)
    }

    /// The account of `user` in the view that `viewer`, or a guest, may have.
    pub(crate) async fn show_account(
        &self,
        user: UserId,
        viewer: Option<UserId>,
    ) -> Result<Shown, AccountError> {
        let account = self.postgres()?.read(&[user]).await?.pop();
        let account = account.ok_or(ProfilesError::NoSuchUser(user))?;
        if account.deleted || self.is_deleted_for_the_engine(user).await {
            return Err(ProfilesError::AccountDeleted(user).into());
        }
        let friends = account
            .friends
            .iter()
            .map(|friend| friend.user_id)
            .collect();
        Ok(Shown {
            view: view_of(user, viewer, Some(&friends)),
            last: self.updates_of(&account),
        })
    }

    /// Whether the account exists and was deleted nowhere: neither in Postgres nor by a back end that told the engine.
    pub(crate) async fn expect_account(&self, user: UserId) -> Result<(), AccountError> {
        match self.expect_stored_account(user).await {
            Ok(()) | Err(AccountError::Profiles(ProfilesError::NoSuchUser(_)))
                if self.is_deleted_for_the_engine(user).await =>
            {
                Err(ProfilesError::AccountDeleted(user).into())
            }
            expected => expected,
        }
    }

    /// Whether the account exists in Postgres and was not deleted there; for whoever has asked the engine already.
    pub(crate) async fn expect_stored_account(&self, user: UserId) -> Result<(), AccountError> {
        match self.postgres()?.marks(&[user]).await?.pop() {
            Some(mark) if mark.deleted => Err(ProfilesError::AccountDeleted(user).into()),
            Some(_) => Ok(()),
            None => Err(ProfilesError::NoSuchUser(user).into()),
        }
    }

    /// Whether a back end said that the account is gone, also where Postgres was away then. An engine that cannot
    /// be reached says nothing: Postgres is the truth about accounts.
    async fn is_deleted_for_the_engine(&self, user: UserId) -> bool {
        let status = self.engine.account_status(user).await;
        status.is_ok_and(|status| status.deleted)
    }

    /// Creates an account, or changes it; without an avatar it keeps the one that it has.
    pub(crate) async fn put_account(
        &self,
        user: UserId,
        username: &str,
        avatar: Option<&str>,
    ) -> Result<(), AccountError> {
        let changes = self.postgres()?.put_account(user, username, avatar).await?;
        self.tell(changes).await;
        Ok(())
    }

    /// Gives the user another name.
    pub(crate) async fn rename(&self, user: UserId, username: &str) -> Result<(), AccountError> {
        let changes = self.postgres()?.rename(user, username).await?;
        self.tell(changes).await;
        Ok(())
    }

    /// Gives the user the picture at a URL.
    pub(crate) async fn set_avatar_url(&self, user: UserId, url: &str) -> Result<(), AccountError> {
        let changes = self.postgres()?.set_avatar_url(user, url).await?;
        self.tell(changes).await;
        Ok(())
    }

    /// Keeps a picture for the user and serves it.
    pub(crate) async fn set_avatar_image(
        &self,
        user: UserId,
        image: &Image,
    ) -> Result<(), AccountError> {
        let changes = self.postgres()?.set_avatar_image(user, image).await?;
        self.tell(changes).await;
        Ok(())
    }

    /// The picture that is kept for the user under this hash, if it is still the present one.
    pub(crate) async fn avatar(
        &self,
        user: UserId,
        hash: &str,
    ) -> Result<Option<Image>, AccountError> {
        Ok(self.postgres()?.avatar(user, hash).await?)
    }

    /// Deletes the account: forgets what it shows and whom it is friends with, closes its connections, refuses its
    /// tokens.
    pub(crate) async fn delete_account(&self, user: UserId) -> Result<(), AccountError> {
        let changes = self.postgres()?.delete_account(user).await?;
        self.tell(changes).await;
        Ok(())
    }

    /// Asks for a friendship, or agrees to one. It holds once both have asked.
    pub(crate) async fn ask_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<Friendship, AccountError> {
        let (friendship, changes) = self.postgres()?.ask_friendship(user, other).await?;
        self.tell(changes).await;
        Ok(friendship)
    }

    /// Ends a friendship, or takes back what was asked, in both directions.
    pub(crate) async fn end_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<(), AccountError> {
        let changes = self.postgres()?.end_friendship(user, other).await?;
        self.tell(changes).await;
        Ok(())
    }

    /// Records the result of a match. Returns its number.
    pub(crate) async fn record_match(&self, played: &NewMatch) -> Result<u64, AccountError> {
        let (number, changes) = self.postgres()?.record_match(played).await?;
        self.tell(changes).await;
        Ok(number)
    }

    /// Tells everybody whom it concerns what changed in Postgres.
    async fn tell(&self, changes: Vec<Change>) {
        if let Err(error) = self.publish(&changes).await {
            // Postgres keeps every change in mind until it is told: the listener tells it later.
            tracing::warn!(%error, "could not tell what changed; it is told as soon as possible");
        }
    }

    /// Marks the account as deleted in Postgres, too, when a back end says that it is.
    pub(super) async fn forget_account(&self, user: UserId) {
        let Some(profiles) = self.profiles() else {
            return;
        };
        match profiles.delete_account(user).await {
            Ok(changes) => self.tell(changes).await,
            Err(ProfilesError::NoSuchUser(_)) => {}
            Err(error) => {
                tracing::warn!(user = user.get(), %error, "could not mark a deleted account in Postgres");
            }
        }
    }

    /// Publishes what others change in Postgres.
    pub(crate) async fn run_change_feed(self: Arc<Self>, mut changes: ChangeStream) {
        while let Some(batch) = changes.next().await {
            match self.publish(batch.changes()).await {
                Ok(()) => batch.published(),
                Err(error) => {
                    tracing::warn!(%error, "could not tell what changed in Postgres; trying again");
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
