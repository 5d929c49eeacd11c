//! A transaction: the accounts it has locked, and its changes to them.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::Failure;
use super::{AccountChange, Part, ProfilesError};
use crate::ids::UserId;

/// In ascending order, so that transactions cannot deadlock. Not `FOR UPDATE`, which would also block writers that only
/// reference the account.
const LOCK: &str = "
SELECT id, deleted_at IS NOT NULL, revision, profile_revision, stats_revision, friends_revision, matches_revision
  FROM users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

const READ: &str = "
SELECT id, deleted_at IS NOT NULL, revision, profile_revision, stats_revision, friends_revision, matches_revision
  FROM users WHERE id = ANY($1)";

/// The parts in the order of the revision columns above.
const PARTS: [Part; 4] = [Part::Profile, Part::Stats, Part::Friends, Part::Matches];

/// The work of a transaction, up to its commit.
pub(super) trait Mutation: Sync {
    type Outcome: Send;

    /// Runs the work; called again after a conflict with another transaction.
    fn run(
        &self,
        transaction: &Transaction<'_>,
    ) -> impl Future<Output = Result<Self::Outcome, Failure>> + Send;
}

/// An open transaction; rolled back when dropped.
pub(super) struct Transaction<'a>(deadpool_postgres::Transaction<'a>);

/// Accounts at one moment of a transaction; only those that exist.
pub(super) struct AccountsSnapshot(BTreeMap<UserId, AccountRow>);

/// The columns of an account that show changes.
struct AccountRow {
    deleted: bool,
    revision: u64,
    of_parts: [u64; 4],
}

impl<'a> Transaction<'a> {
    pub(super) fn new(transaction: deadpool_postgres::Transaction<'a>) -> Self {
        Self(transaction)
    }

    /// Locks these accounts until the end of the transaction.
    pub(super) async fn lock(&self, users: &[UserId]) -> Result<AccountsSnapshot, Failure> {
        self.snapshot(LOCK, users).await
    }

    /// The changes since `before`.
    pub(super) async fn changes_since(
        &self,
        before: &AccountsSnapshot,
        users: &[UserId],
    ) -> Result<Vec<AccountChange>, Failure> {
        Ok(before.changes_until(&self.snapshot(READ, users).await?))
    }

    /// Runs a statement; returns the number of affected rows.
    pub(super) async fn execute(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failure> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.execute(&prepared, parameters).await?)
    }

    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let prepared = self.0.prepare_cached(statement).await?;
        Ok(self.0.query(&prepared, parameters).await?)
    }

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

    async fn snapshot(
        &self,
        statement: &str,
        users: &[UserId],
    ) -> Result<AccountsSnapshot, Failure> {
        let ids: Vec<i64> = users.iter().copied().map(as_id).collect();
        let rows = self.query(statement, &[&ids]).await?;
        let row_of = rows.iter().map(row_of).collect::<Result<_, _>>()?;
        Ok(AccountsSnapshot(row_of))
    }
}

impl AccountsSnapshot {
    /// Whether the account exists, deleted or not.
    pub(super) fn knows(&self, user: UserId) -> bool {
        self.0.contains_key(&user)
    }

    pub(super) fn is_deleted(&self, user: UserId) -> bool {
        self.0.get(&user).is_some_and(|row_of| row_of.deleted)
    }

    /// Fails unless the account exists and was not deleted.
    pub(super) fn require(&self, user: UserId) -> Result<(), ProfilesError> {
        match self.0.get(&user) {
            None => Err(ProfilesError::NoSuchUser(user)),
            Some(row_of) if row_of.deleted => Err(ProfilesError::AccountDeleted(user)),
            Some(_) => Ok(()),
        }
    }

    /// The differences to a later snapshot, by user. A new account is a change of its profile only, a deleted one only
    /// of its deletion.
    fn changes_until(&self, later: &Self) -> Vec<AccountChange> {
        let mut changes = Vec::new();
        for (&user, now) in &later.0 {
            let before = self.0.get(&user);
            let was_deleted = before.is_some_and(|before| before.deleted);
            if now.deleted {
                let change = (Part::Deleted, now.revision);
                changes.extend((!was_deleted).then_some((user, change)));
                continue;
            }
            let parts = PARTS.into_iter().zip(now.of_parts);
            for (place, change) in parts.enumerate() {
                let changed = match before {
                    Some(before) => before.of_parts[place] != change.1,
                    None => change.0 == Part::Profile,
                };
                changes.extend(changed.then_some((user, change)));
            }
        }
        let change = |(user, (part, revision))| AccountChange {
            user,
            part,
            revision,
        };
        changes.into_iter().map(change).collect()
    }
}

fn row_of(row: &Row) -> Result<(UserId, AccountRow), Failure> {
    let revision = |column: usize| row.try_get(column).map(as_revision);
    let row_of = AccountRow {
        deleted: row.try_get(1)?,
        revision: revision(2)?,
        of_parts: [revision(3)?, revision(4)?, revision(5)?, revision(6)?],
    };
    Ok((as_user(row.try_get(0)?)?, row_of))
}

/// An id as stored in Postgres. Ids are below 2^53.
pub(super) fn as_id(user: UserId) -> i64 {
    i64::try_from(user.get()).unwrap_or(i64::MAX)
}

/// An id read from Postgres; a constraint keeps it in range.
pub(super) fn as_user(id: i64) -> Result<UserId, Failure> {
    let user = u64::try_from(id)
        .ok()
        .and_then(|id| UserId::try_from(id).ok());
    user.ok_or_else(|| ProfilesError::Refused(format!("{id} is no id of a user")).into())
}

pub(super) fn as_revision(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// Fails if a text contains the only character that Postgres cannot store.
pub(super) fn storable(what: &str, text: &str) -> Result<(), ProfilesError> {
    if text.contains('\0') {
        return Err(ProfilesError::Invalid(format!(
            "{what} contains the character U+0000, which cannot be stored"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(user: u64, deleted: bool, revision: u64, of_parts: [u64; 4]) -> AccountsSnapshot {
        let row_of = AccountRow {
            deleted,
            revision,
            of_parts,
        };
        AccountsSnapshot(BTreeMap::from([(UserId::try_from(user).unwrap(), row_of)]))
    }

    fn changed(before: &AccountsSnapshot, later: &AccountsSnapshot) -> Vec<(Part, u64)> {
        let changes = before.changes_until(later);
        changes
            .iter()
            .map(|change| (change.part, change.revision))
            .collect()
    }

    #[test]
    fn a_changed_revision_is_a_change() {
        let before = snapshot(7, false, 4, [1, 2, 3, 4]);
        assert_eq!(changed(&before, &before), []);
        let later = snapshot(7, false, 6, [5, 2, 3, 6]);
        assert_eq!(
            changed(&before, &later),
            [(Part::Profile, 5), (Part::Matches, 6)]
        );
        let nobody = AccountsSnapshot(BTreeMap::new());
        assert_eq!(changed(&nobody, &before), [(Part::Profile, 1)]);
        let deleted = snapshot(7, true, 9, [1, 2, 3, 4]);
        assert_eq!(changed(&before, &deleted), [(Part::Deleted, 9)]);
        assert_eq!(changed(&deleted, &deleted), []);
    }
}
