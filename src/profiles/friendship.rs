//! Friendships: each side requests it; it holds while both have.

use super::error::Failure;
use super::transaction::{Mutation, Transaction, as_id};
use super::{AccountChange, Profiles, ProfilesError};
use crate::ids::UserId;

/// Requests of one user at most, friends included: a longer friend list would burden every connection that receives it.
const REQUESTED_MAX: i64 = 1000;

const HAS_REQUESTED: &str =
    "SELECT EXISTS (SELECT FROM friendships WHERE user_id = $1 AND friend_id = $2)";

const COUNT_REQUESTED: &str = "SELECT count(*) FROM friendships WHERE user_id = $1";

const ASK: &str =
    "INSERT INTO friendships (user_id, friend_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";

const END: &str = "
DELETE FROM friendships
 WHERE (user_id = $1 AND friend_id = $2) OR (user_id = $2 AND friend_id = $1)";

/// The state between two users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Friendship {
    /// One user has requested the friendship.
    Requested,
    /// Both users have.
    Friends,
}

impl Profiles {
    /// `user` requests or accepts the friendship of `other`; idempotent.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser) and [`AccountDeleted`](ProfilesError::AccountDeleted) about either,
    /// [`Invalid`](ProfilesError::Invalid), or if Postgres does not answer in time.
    pub async fn ask_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<(Friendship, Vec<AccountChange>), ProfilesError> {
        if user == other {
            return Err(ProfilesError::Invalid(
                "users cannot befriend themselves".to_owned(),
            ));
        }
        self.pool
            .transaction(RequestFriendship { user, other })
            .await
    }

    /// Ends the friendship or withdraws the request, in both directions.
    ///
    /// # Errors
    /// [`NoSuchUser`](ProfilesError::NoSuchUser) about either, [`AccountDeleted`](ProfilesError::AccountDeleted) about
    /// `user`, or if Postgres does not answer in time.
    pub async fn end_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<Vec<AccountChange>, ProfilesError> {
        self.pool.transaction(EndFriendship { user, other }).await
    }
}

struct RequestFriendship {
    user: UserId,
    other: UserId,
}

impl Mutation for RequestFriendship {
    type Outcome = (Friendship, Vec<AccountChange>);

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Self::Outcome, Failure> {
        let (user, other) = (self.user, self.other);
        let before = transaction.lock(&[user, other]).await?;
        before.require(user)?;
        before.require(other)?;
        if !has_requested(transaction, user, other).await? {
            let id = as_id(user);
            let row = transaction.query_one(COUNT_REQUESTED, &[&id]).await?;
            if row.try_get::<_, i64>(0)? >= REQUESTED_MAX {
                return Err(too_many(user).into());
            }
            transaction.execute(ASK, &[&id, &as_id(other)]).await?;
        }
        let friendship = if has_requested(transaction, other, user).await? {
            Friendship::Friends
        } else {
            Friendship::Requested
        };
        let changes = transaction.changes_since(&before, &[user, other]).await?;
        Ok((friendship, changes))
    }
}

struct EndFriendship {
    user: UserId,
    other: UserId,
}

impl Mutation for EndFriendship {
    type Outcome = Vec<AccountChange>;

    async fn run(&self, transaction: &Transaction<'_>) -> Result<Vec<AccountChange>, Failure> {
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

async fn has_requested(
    transaction: &Transaction<'_>,
    user: UserId,
    other: UserId,
) -> Result<bool, Failure> {
    let row = transaction
        .query_one(HAS_REQUESTED, &[&as_id(user), &as_id(other)])
        .await?;
    Ok(row.try_get(0)?)
}

fn too_many(user: UserId) -> ProfilesError {
    ProfilesError::Invalid(format!(
        "user {user} has {REQUESTED_MAX} friends and requests, which is the maximum"
    ))
}
