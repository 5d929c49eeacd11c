//! One transaction: which accounts it has locked, and what it has changed about them.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::Failure;
use super::{Aspect, Change, ProfilesError};
use crate::ids::UserId;

/// In ascending order, so that two transactions never wait for each other. Not `FOR UPDATE`, which would also be in
/// the way of writers that only refer to the account.
const LOCK: &str = "
SELECT id, deleted_at IS NOT NULL, revision, profile_revision, stats_revision, friends_revision, matches_revision
  FROM users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

const LOOK: &str = "
SELECT id, deleted_at IS NOT NULL, revision, profile_revision, stats_revision, friends_revision, matches_revision
  FROM users WHERE id = ANY($1)";

/// The aspects whose revisions follow the one of the account in the statements above.
const ASPECTS: [Aspect; 4] = [
    Aspect::Profile,
    Aspect::Stats,
    Aspect::Friends,
    Aspect::Matches,
];

/// What one transaction does, from its beginning to just before its end.
pub(super) trait Mutation: Sync {
    /// What comes of it.
    type Outcome: Send;

    /// Does it; done once more from the beginning where others were in the way.
    fn run(
        &self,
        transaction: &Transaction<'_>,
    ) -> impl Future<Output = Result<Self::Outcome, Failure>> + Send;
}

/// A transaction that has begun; rolled back when dropped.
pub(super) struct Transaction<'a>(deadpool_postgres::Transaction<'a>);

/// Accounts as they were at one moment of a transaction; those that do not exist are missing.
pub(super) struct Standing(BTreeMap<UserId, Marks>);

/// An account, as far as changes show in it.
struct Marks {
    deleted: bool,
    revision: u64,
    of_aspects: [u64; 4],
}

impl<'a> Transaction<'a> {
    pub(super) fn new(transaction: deadpool_postgres::Transaction<'a>) -> Self {
        Self(transaction)
    }

    /// Locks these accounts until the end of the transaction.
    pub(super) async fn lock(&self, users: &[UserId]) -> Result<Standing, Failure> {
        self.standing(LOCK, users).await
    }

    /// What has changed since then.
    pub(super) async fn changes_since(
        &self,
        before: &Standing,
        users: &[UserId],
    ) -> Result<Vec<Change>, Failure> {
        Ok(before.until(&self.standing(LOOK, users).await?))
    }

    /// Runs a statement; returns how many rows it concerned.
    pub(super) async fn execute(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failure> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.execute(&prepared, parameters).await?)
    }

    /// Runs a statement; returns its rows.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.query(&prepared, parameters).await?)
    }

    /// Runs a statement that returns exactly one row.
    pub(super) async fn query_one(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Failure> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.query_one(&prepared, parameters).await?)
    }

    pub(super) async fn commit(self) -> Result<(), Failure> {
        Ok(self.0.commit().await?)
    }

    async fn standing(&self, statement: &str, users: &[UserId]) -> Result<Standing, Failure> {
        let ids: Vec<i64> = users.iter().copied().map(as_id).collect();
        let rows = self.query(statement, &[&ids]).await?;
        let marks = rows.iter().map(marks).collect::<Result<_, _>>()?;
        Ok(Standing(marks))
    }
}

impl Standing {
    /// Whether the account exists, deleted or not.
    pub(super) fn knows(&self, user: UserId) -> bool {
        self.0.contains_key(&user)
    }

    /// Whether the account was deleted.
    pub(super) fn is_deleted(&self, user: UserId) -> bool {
        self.0.get(&user).is_some_and(|marks| marks.deleted)
    }

    /// That the account exists and was not deleted.
    pub(super) fn require(&self, user: UserId) -> Result<(), ProfilesError> {
        match self.0.get(&user) {
            None => Err(ProfilesError::NoSuchUser(user)),
            Some(marks) if marks.deleted => Err(ProfilesError::AccountDeleted(user)),
            Some(_) => Ok(()),
        }
    }

    /// What is different later, by user. A new account is a change of its profile alone, and of a deleted one
    /// nothing but that it was deleted.
    fn until(&self, later: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&user, now) in &later.0 {
            let before = self.0.get(&user);
            let was_deleted = before.is_some_and(|before| before.deleted);
            if now.deleted {
                let change = (Aspect::Deleted, now.revision);
                changes.extend((!was_deleted).then_some((user, change)));
                continue;
            }
            let aspects = ASPECTS.into_iter().zip(now.of_aspects);
            for (place, change) in aspects.enumerate() {
                let changed = match before {
                    Some(before) => before.of_aspects[place] != change.1,
                    None => change.0 == Aspect::Profile,
                };
                changes.extend(changed.then_some((user, change)));
            }
        }
        let change = |(user, (aspect, revision))| Change {
            user,
            aspect,
            revision,
        };
        changes.into_iter().map(change).collect()
    }
}

fn marks(row: &Row) -> Result<(UserId, Marks), Failure> {
    let revision = |column: usize| row.try_get(column).map(as_revision);
    let marks = Marks {
        deleted: row.try_get(1)?,
        revision: revision(2)?,
        of_aspects: [revision(3)?, revision(4)?, revision(5)?, revision(6)?],
    };
    Ok((as_user(row.try_get(0)?)?, marks))
}

/// An id as Postgres holds it. Ids are below 2^53.
pub(super) fn as_id(user: UserId) -> i64 {
    i64::try_from(user.get()).unwrap_or(i64::MAX)
}

/// An id that Postgres holds; a constraint keeps it in range.
pub(super) fn as_user(id: i64) -> Result<UserId, Failure> {
    let user = u64::try_from(id)
        .ok()
        .and_then(|id| UserId::try_from(id).ok());
    user.ok_or_else(|| ProfilesError::Refused(format!("{id} is no id of a user")).into())
}

/// A revision that Postgres holds.
pub(super) fn as_revision(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// That a text can be stored: Postgres holds every character but one.
pub(super) fn storable(what: &str, text: &str) -> Result<(), ProfilesError> {
    match text.contains('\0') {
        true => Err(ProfilesError::Invalid(format!(
            "{what} contains the character U+0000, which cannot be stored"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(user: u64, deleted: bool, revision: u64, of_aspects: [u64; 4]) -> Standing {
        let marks = Marks {
            deleted,
            revision,
            of_aspects,
        };
        Standing(BTreeMap::from([(UserId::try_from(user).unwrap(), marks)]))
    }

    fn told(before: &Standing, later: &Standing) -> Vec<(Aspect, u64)> {
        let changes = before.until(later);
        changes
            .iter()
            .map(|change| (change.aspect, change.revision))
            .collect()
    }

    #[test]
    fn what_changed_is_what_has_another_revision() {
        let before = standing(7, false, 4, [1, 2, 3, 4]);
        assert_eq!(told(&before, &before), []);
        let later = standing(7, false, 6, [5, 2, 3, 6]);
        assert_eq!(
            told(&before, &later),
            [(Aspect::Profile, 5), (Aspect::Matches, 6)]
        );
        let nobody = Standing(BTreeMap::new());
        assert_eq!(told(&nobody, &before), [(Aspect::Profile, 1)]);
        let deleted = standing(7, true, 9, [1, 2, 3, 4]);
        assert_eq!(told(&before, &deleted), [(Aspect::Deleted, 9)]);
        assert_eq!(told(&deleted, &deleted), []);
    }
}
