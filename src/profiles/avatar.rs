//! Avatars: a URL, or the image that the user uploaded.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::error::Failure;
use super::transaction::{Mutation, Transaction, as_id, storable};
use super::{AccountChange, Profiles, ProfilesError};
use crate::ids::UserId;

const SET: &str = "UPDATE users SET avatar = $2 WHERE id = $1";

const STORE: &str = "
INSERT INTO avatars (user_id, hash, media_type, image) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id) DO UPDATE
   SET hash = excluded.hash, media_type = excluded.media_type, image = excluded.image
 WHERE avatars.hash <> excluded.hash OR avatars.media_type <> excluded.media_type";

/// Deletes the image unless the avatar still refers to it.
const FORGET: &str = "
DELETE FROM avatars WHERE user_id = $1 AND '/api/v1/avatars/' || user_id || '/' || hash <> $2";

const READ: &str = "
SELECT a.media_type, a.image FROM avatars a
  JOIN users u ON u.id = a.user_id AND u.deleted_at IS NULL
 WHERE a.user_id = $1 AND a.hash = $2";

/// An uploaded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// For example `image/png`.
    pub media_type: String,
    /// The content of the file.
    pub bytes: Vec<u8>,
}

impl Image {
    /// SHA-256 of the content, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut digits = String::with_capacity(64);
        for byte in Sha256::digest(&self.bytes) {
            // Writing to a string cannot fail.
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    }

    /// The path at which the hub serves it as this user's avatar.
    pub fn url(&self, user: UserId) -> String {
        format!("/api/v1/avatars/{user}/{}", self.hash())
    }
}

impl Profiles {
    /// Sets the avatar to a URL, and deletes an uploaded image unless the URL refers to it.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser), [`AccountDeleted`](ProfilesError::AccountDeleted),
    /// [`Invalid`](ProfilesError::Invalid), or if Postgres does not answer in time.
    pub async fn set_avatar_url(
        &self,
        user: UserId,
        url: &str,
    ) -> Result<Vec<AccountChange>, ProfilesError> {
        storable("the avatar", url)?;
        self.pool.transaction(SetAvatarUrl { user, url }).await
    }

    /// Stores an image, replacing any other, and sets the avatar to its URL.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser), [`AccountDeleted`](ProfilesError::AccountDeleted),
    /// [`Invalid`](ProfilesError::Invalid), or if Postgres does not answer in time.
    pub async fn set_avatar_image(
        &self,
        user: UserId,
        image: &Image,
    ) -> Result<Vec<AccountChange>, ProfilesError> {
        storable("the media type", &image.media_type)?;
        let (hash, url) = (image.hash(), image.url(user));
        let store = SetAvatarImage {
            user,
            image,
            hash,
            url,
        };
        self.pool.transaction(store).await
    }

    /// The image that the user uploaded, if it has this hash.
    pub async fn avatar(&self, user: UserId, hash: &str) -> Result<Option<Image>, ProfilesError> {
        if storable("the hash", hash).is_err() {
            return Ok(None);
        }
        let rows = self.pool.query(READ, &[&as_id(user), &hash]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(Image {
            media_type: row.try_get(0)?,
            bytes: row.try_get(1)?,
        }))
    }
}

struct SetAvatarUrl<'a> {
    user: UserId,
    url: &'a str,
}

impl Mutation for SetAvatarUrl<'_> {
    type Outcome = Vec<AccountChange>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<AccountChange>, Failure> {
        let before = transaction.lock(&[self.user]).await?;
        before.require(self.user)?;
        transaction
            .execute(SET, &[&as_id(self.user), &self.url])
            .await?;
        transaction.forget_image_unless(self.user, self.url).await?;
        transaction.changes_since(&before, &[self.user]).await
    }
}

struct SetAvatarImage<'a> {
    user: UserId,
    image: &'a Image,
    hash: String,
    url: String,
}

impl Mutation for SetAvatarImage<'_> {
    type Outcome = Vec<AccountChange>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<AccountChange>, Failure> {
        let (id, image) = (as_id(self.user), self.image);
        let before = transaction.lock(&[self.user]).await?;
        before.require(self.user)?;
        transaction
            .execute(STORE, &[&id, &self.hash, &image.media_type, &image.bytes])
            .await?;
        transaction.execute(SET, &[&id, &self.url]).await?;
        transaction.changes_since(&before, &[self.user]).await
    }
}

impl Transaction<'_> {
    /// Deletes the uploaded image unless `avatar` is its URL.
    pub(super) async fn forget_image_unless(
        &self,
        user: UserId,
        avatar: &str,
    ) -> Result<(), Failure> {
        self.execute(FORGET, &[&as_id(user), &avatar]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_url_that_changes_with_it() {
        let image = Image {
            media_type: "image/png".to_owned(),
            bytes: b"abc".to_vec(),
        };
        let user = UserId::try_from(7).unwrap();
        // The SHA-256 of "abc", as FIPS 180-2 gives it.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(image.url(user), format!("/api/v1/avatars/7/{hash}"));
    }
}
