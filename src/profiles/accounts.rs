//! Creates, changes and deletes accounts.

use super::error::Failure;
use super::transaction::{Mutation, Transaction, as_id, as_user, storable};
use super::{AccountChange, Profiles, ProfilesError};
use crate::ids::UserId;

/// Updates an account that was created concurrently.
const PUT: &str = "
INSERT INTO users (id, username, avatar) VALUES ($1, $2, coalesce($3, ''))
ON CONFLICT (id) DO UPDATE SET username = excluded.username, avatar = coalesce($3, users.avatar)
WHERE users.deleted_at IS NULL";

const RENAME: &str = "UPDATE users SET username = $2 WHERE id = $1";

/// A trigger deletes friendships and image.
const DELETE: &str =
    "UPDATE users SET deleted_at = now(), username = '', avatar = '' WHERE id = $1";

const FRIENDS: &str = "
SELECT f.friend_id FROM friendships f
  JOIN friendships back ON back.user_id = f.friend_id AND back.friend_id = f.user_id
 WHERE f.user_id = $1";

impl Profiles {
    /// Creates or updates an account. Without `avatar` an existing one is kept.
    ///
    /// # Errors
    /// [`AccountDeleted`](ProfilesError::AccountDeleted), [`Invalid`](ProfilesError::Invalid), or if Postgres does
    /// not answer in time.
    pub async fn put_account(
        &self,
        user: UserId,
        username: &str,
        avatar: Option<&str>,
    ) -> Result<Vec<AccountChange>, ProfilesError> {
        storable("the username", username)?;
        storable("the avatar", avatar.unwrap_or_default())?;
        let put = PutAccount {
            user,
            username,
            avatar,
        };
        self.pool.transaction(put).await
    }

    /// Changes the name of an account.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser), [`AccountDeleted`](ProfilesError::AccountDeleted),
    /// [`Invalid`](ProfilesError::Invalid), or if Postgres does not answer in time.
    pub async fn rename(
        &self,
        user: UserId,
        username: &str,
    ) -> Result<Vec<AccountChange>, ProfilesError> {
        storable("the username", username)?;
        self.pool
            .transaction(RenameAccount { user, username })
            .await
    }

    /// Deletes an account's name, picture and friendships; its matches stay, for its opponents. Returns its own change
    /// first, then its friends'; nothing if it was deleted before.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser), or if Postgres does not answer in time.
    pub async fn delete_account(&self, user: UserId) -> Result<Vec<AccountChange>, ProfilesError> {
        self.pool.transaction(DeleteAccount { user }).await
    }
}

struct PutAccount<'a> {
    user: UserId,
    username: &'a str,
    avatar: Option<&'a str>,
}

impl Mutation for PutAccount<'_> {
    type Outcome = Vec<AccountChange>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<AccountChange>, Failure> {
        let (user, id) = (self.user, as_id(self.user));
        let before = transaction.lock(&[user]).await?;
        let stored = transaction
            .execute(PUT, &[&id, &self.username, &self.avatar])
            .await?;
        if stored == 0 {
            return Err(ProfilesError::AccountDeleted(user).into());
        }
        if let Some(avatar) = self.avatar {
            transaction.forget_image_unless(user, avatar).await?;
        }
        transaction.changes_since(&before, &[user]).await
    }
}

struct RenameAccount<'a> {
    user: UserId,
    username: &'a str,
}

impl Mutation for RenameAccount<'_> {
    type Outcome = Vec<AccountChange>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<AccountChange>, Failure> {
        let before = transaction.lock(&[self.user]).await?;
        before.require(self.user)?;
        transaction
            .execute(RENAME, &[&as_id(self.user), &self.username])
            .await?;
        transaction.changes_since(&before, &[self.user]).await
    }
}

struct DeleteAccount {
    user: UserId,
}

impl Mutation for DeleteAccount {
    type Outcome = Vec<AccountChange>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<AccountChange>, Failure> {
        let (user, id) = (self.user, as_id(self.user));
        // A friendship made between this and the lock is published by the listener alone.
        let mut concerned = vec![user];
        for row in transaction.query(FRIENDS, &[&id]).await? {
            concerned.push(as_user(row.try_get(0)?)?);
        }
        let before = transaction.lock(&concerned).await?;
        if before.is_deleted(user) {
            return Ok(Vec::new());
        }
        before.require(user)?;
        transaction.execute(DELETE, &[&id]).await?;
        let mut changes = transaction.changes_since(&before, &concerned).await?;
        changes.sort_by_key(|change| (change.user != user, change.user));
        Ok(changes)
    }
}
