//! Creating, changing and deleting accounts.

use super::error::Failure;
use super::transaction::{Mutation, Transaction, as_id, as_user, storable};
use super::{Change, Profiles, ProfilesError};
use crate::ids::UserId;

/// An account that others create in the same moment is changed instead.
const PUT: &str = "
INSERT INTO users (id, username, avatar) VALUES ($1, $2, coalesce($3, ''))
ON CONFLICT (id) DO UPDATE SET username = excluded.username, avatar = coalesce($3, users.avatar)
WHERE users.deleted_at IS NULL";

const RENAME: &str = "UPDATE users SET username = $2 WHERE id = $1";

/// The trigger forgets friendships and image.
const DELETE: &str =
    "UPDATE users SET deleted_at = now(), username = '', avatar = '' WHERE id = $1";

const FRIENDS: &str = "
SELECT f.friend_id FROM friendships f
  JOIN friendships back ON back.user_id = f.friend_id AND back.friend_id = f.user_id
 WHERE f.user_id = $1";

impl Profiles {
    /// Creates an account, or gives it this name, and this avatar where there is one.
    ///
    /// # Errors
    /// [`AccountDeleted`](ProfilesError::AccountDeleted), [`Invalid`](ProfilesError::Invalid), or when Postgres does
    /// not answer in time.
    pub async fn put_account(
        &self,
        user: UserId,
        username: &str,
        avatar: Option<&str>,
    ) -> Result<Vec<Change>, ProfilesError> {
        storable("the username", username)?;
        storable("the avatar", avatar.unwrap_or_default())?;
        let put = Put {
            user,
            username,
            avatar,
        };
        self.pool.transaction(put).await
    }

    /// Gives an account another name.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser), [`AccountDeleted`](ProfilesError::AccountDeleted),
    /// [`Invalid`](ProfilesError::Invalid), or when Postgres does not answer in time.
    pub async fn rename(&self, user: UserId, username: &str) -> Result<Vec<Change>, ProfilesError> {
        storable("the username", username)?;
        self.pool.transaction(Rename { user, username }).await
    }

    /// Deletes an account: its name, its picture and its friendships are gone; its matches stay, as its opponents'.
    /// The first change is its own, the others are its friends'. Nothing changes where it is deleted already.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser), or when Postgres does not answer in time.
    pub async fn delete_account(&self, user: UserId) -> Result<Vec<Change>, ProfilesError> {
        self.pool.transaction(Delete { user }).await
    }
}

struct Put<'a> {
    user: UserId,
    username: &'a str,
    avatar: Option<&'a str>,
}

impl Mutation for Put<'_> {
    type Outcome = Vec<Change>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<Change>, Failure> {
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

struct Rename<'a> {
    user: UserId,
    username: &'a str,
}

impl Mutation for Rename<'_> {
    type Outcome = Vec<Change>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<Change>, Failure> {
        let before = transaction.lock(&[self.user]).await?;
        before.require(self.user)?;
        transaction
            .execute(RENAME, &[&as_id(self.user), &self.username])
            .await?;
        transaction.changes_since(&before, &[self.user]).await
    }
}

struct Delete {
    user: UserId,
}

impl Mutation for Delete {
    type Outcome = Vec<Change>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<Change>, Failure> {
        let (user, id) = (self.user, as_id(self.user));
        // Whoever becomes a friend between this and the lock is told by the listener alone.
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
