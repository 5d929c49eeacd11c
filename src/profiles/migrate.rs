//! The schema: applied once, by one node at a time.

use std::sync::PoisonError;
use std::time::Duration;

use super::error::in_words;
use super::session::Session;
use super::{Profiles, ProfilesError};

/// Held while migrations are applied. Two numbers make the key; the other one stands for the schema, so that hubs
/// in one database do not wait for each other.
const LOCK: &str = "SELECT pg_advisory_lock(1986622054, hashtext(current_schema()))";

/// Between attempts to reach Postgres.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// What refinery makes of `config/migrations`.
#[allow(missing_docs, unreachable_pub)]
mod embedded {
    refinery::embed_migrations!("config/migrations");
}

/// How far a node is with bringing the schema up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    /// This node does not migrate.
    #[default]
    NotAsked,
    /// Postgres could not be reached yet.
    Pending,
    /// Migrations run, here or on another node.
    Running,
    /// The schema is up to date.
    Done,
    /// Postgres refuses a migration; says why. The node tries again.
    Failed(String),
}

impl Profiles {
    /// Brings the schema up to date; returns what was applied, nothing where all was.
    ///
    /// Takes as long as it takes: only connecting is limited. Several at once wait for each other.
    ///
    /// # Errors
    /// When Postgres cannot be reached, or refuses a migration.
    pub async fn migrate(&self) -> Result<Vec<String>, ProfilesError> {
        let session = self.pool.connector().session().await?;
        apply(session).await
    }

    /// From now on this node is to bring the schema up to date; see [`Self::migrate_until_done`].
    pub fn expect_migration(&self) {
        self.set_migration(Migration::Pending);
    }

    /// How far this node is with that.
    pub fn migration(&self) -> Migration {
        let migration = self.migration.lock();
        migration.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_migration(&self, migration: Migration) {
        *self
            .migration
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = migration;
    }

    /// Brings the schema up to date as soon as Postgres can be reached and takes the migrations, however long that
    /// takes. Returns what was applied.
    pub async fn migrate_until_done(&self) -> Vec<String> {
        let mut logged = None;
        loop {
            if let Ok(session) = self.pool.connector().session().await {
                self.set_migration(Migration::Running);
                match apply(session).await {
                    Ok(applied) => {
                        self.set_migration(Migration::Done);
                        return applied;
                    }
                    Err(ProfilesError::Unavailable(_)) => self.set_migration(Migration::Pending),
                    Err(error) => {
                        let reason = error.to_string();
                        if logged.as_ref() != Some(&reason) {
                            tracing::error!(
                                reason,
                                "the schema in postgres cannot be brought up to date; trying again"
                            );
                        }
                        logged = Some(reason.clone());
                        self.set_migration(Migration::Failed(reason));
                    }
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

async fn apply(mut session: Session) -> Result<Vec<String>, ProfilesError> {
    // The server releases the lock when the session ends, whatever way it does.
    session.client.batch_execute(LOCK).await?;
    let runner = embedded::migrations::runner();
    let report = runner.run_async(&mut session.client).await;
    let report = report.map_err(|error| match session.client.is_closed() {
        true => ProfilesError::Unavailable(in_words(&error)),
        false => ProfilesError::Setup(in_words(&error)),
    })?;
    let applied = report.applied_migrations().iter();
    Ok(applied.map(ToString::to_string).collect())
}
