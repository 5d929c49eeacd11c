//! Friendships: each side asks; a friendship holds while both have asked.

use super::error::Failure;
use super::transaction::{Mutation, Transaction, as_id};
use super::{Change, Profiles, ProfilesError};
use crate::ids::UserId;

/// Whom one user may have asked, friends included: as many as a list of friends can have without being a burden for
/// every connection that gets it.
const ASKED_MAX: i64 = 1000;

const HAS_ASKED: &str =
    "SELECT EXISTS (SELECT FROM friendships WHERE user_id = $1 AND friend_id = $2)";

const COUNT_ASKED: &str = "SELECT count(*) FROM friendships WHERE user_id = $1";

const ASK: &str =
    "INSERT INTO friendships (user_id, friend_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";

const END: &str = "
DELETE FROM friendships
 WHERE (user_id = $1 AND friend_id = $2) OR (user_id = $2 AND friend_id = $1)";

/// Where two users stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Friendship {
    /// One has asked, and the other has not.
    Requested,
    /// Both have asked.
    Friends,
}

impl Profiles {
    /// `user` asks for the friendship of `other`, or agrees to it. Asking again changes nothing.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser) and [`AccountDeleted`](ProfilesError::AccountDeleted) about either,
    /// [`Invalid`](ProfilesError::Invalid), or when Postgres does not answer in time.
    pub async fn ask_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<(Friendship, Vec<Change>), ProfilesError> {
        if user == other {
            return Err(ProfilesError::Invalid(
                "nobody is their own friend".to_owned(),
            ));
        }
        self.pool.transaction(Ask { user, other }).await
    }

    /// Ends the friendship, or takes back what was asked, in both directions.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser) about either, [`AccountDeleted`](ProfilesError::AccountDeleted) about
    /// `user`, or when Postgres does not answer in time.
    pub async fn end_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<Vec<Change>, ProfilesError> {
        self.pool.transaction(End { user, other }).await
    }
}

struct Ask {
    user: UserId,
    other: UserId,
}

impl Mutation for Ask {
    type Outcome = (Friendship, Vec<Change>);

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Self::Outcome, Failure> {
        let (user, other) = (self.user, self.other);
        let before = transaction.lock(&[user, other]).await?;
        before.require(user)?;
        before.require(other)?;
        if !has_asked(transaction, user, other).await? {
            let id = as_id(user);
            let row = transaction.query_one(COUNT_ASKED, &[&id]).await?;
            if row.try_get::<_, i64>(0)? >= ASKED_MAX {
                return Err(too_many(user).into());
            }
            transaction.execute(ASK, &[&id, &as_id(other)]).await?;
        }
        let friendship = match has_asked(transaction, other, user).await? {
            true => Friendship::Friends,
            false => Friendship::Requested,
        };
        let changes = transaction.changes_since(&before, &[user, other]).await?;
        Ok((friendship, changes))
    }
}

struct End {
    user: UserId,
    other: UserId,
}

impl Mutation for End {
    type Outcome = Vec<Change>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<Change>, Failure> {
        let (user, other) = (self.user, self.other);
        let before = transaction.lock(&[user, other]).await?;
        before.require(user)?;
        if !before.knows(other) {
            return Err(ProfilesError::NoSuchUser(other).into());
        }
        transaction
            .execute(END, &[&as_id(user), &as_id(other)])
            .await?;
        transaction.changes_since(&before, &[user, other]).await
    }
}

async fn has_asked(
    transaction: &Transaction<'_>,
    user: UserId,
    other: UserId,
) -> Result<bool, Failure> {
    let row = transaction
        .query_one(HAS_ASKED, &[&as_id(user), &as_id(other)])
        .await?;
    Ok(row.try_get(0)?)
}

fn too_many(user: UserId) -> ProfilesError {
    ProfilesError::Invalid(format!(
        "user {user} has {ASKED_MAX} friends and requests, which is as many as there may be"
    ))
}
