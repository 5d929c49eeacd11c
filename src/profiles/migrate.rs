//! Schema migrations, applied by one node at a time.

use std::time::Duration;

use super::connector::DedicatedConnection;
use super::error::error_chain;
use super::{Profiles, ProfilesError};

/// Held during migrations. The key consists of two numbers; the second stands for the schema, so that hubs in one
/// database do not wait for each other.
const LOCK: &str = "SELECT pg_advisory_lock(1986622054, hashtext(current_schema()))";

/// Pause between attempts.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The migrations in `config/migrations`, compiled in.
#[allow(missing_docs, unreachable_pub)]
mod embedded {
    refinery::embed_migrations!("config/migrations");
}

/// A node's progress with migrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    /// This node runs no migrations.
    #[default]
    NotAsked,
    /// Postgres has not been reached yet.
    Pending,
    /// Migrations are running, here or on another node.
    Running,
    /// The schema is up to date.
    Done,
    /// Postgres rejects a migration, for this reason. The node retries.
    Failed(String),
}

impl Profiles {
    /// Runs pending migrations; returns those applied.
    ///
    /// Only connecting has a timeout. Concurrent calls wait for each other.
    ///
    /// # Errors
    /// If Postgres cannot be reached, or refuses a migration.
    pub async fn migrate(&self) -> Result<Vec<String>, ProfilesError> {
        let connection = self.pool.connector().open_dedicated().await?;
        apply(connection).await
    }

    /// Marks migrations as pending on this node; see [`Self::migrate_until_done`].
    pub fn expect_migration(&self) {
        self.set_migration(Migration::Pending);
    }

    /// This node's progress with migrations.
    pub fn migration(&self) -> Migration {
        self.migration.lock().clone()
    }

    fn set_migration(&self, migration: Migration) {
        *self.migration.lock() = migration;
    }

    /// Runs pending migrations, retrying until Postgres is reachable and accepts them. Returns those applied.
    pub async fn migrate_until_done(&self) -> Vec<String> {
        let mut logged = None;
        loop {
            if let Ok(connection) = self.pool.connector().open_dedicated().await {
                self.set_migration(Migration::Running);
                match apply(connection).await {
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

async fn apply(mut connection: DedicatedConnection) -> Result<Vec<String>, ProfilesError> {
    // The server releases the lock when the connection ends.
    connection.client.batch_execute(LOCK).await?;
    let runner = embedded::migrations::runner();
    let outcome = runner.run_async(&mut connection.client).await;
    let report = outcome.map_err(|error| {
        let reason = error_chain(&error);
        if connection.client.is_closed() {
            ProfilesError::Unavailable(reason)
        } else {
            ProfilesError::Setup(reason)
        }
    })?;
    let applied = report.applied_migrations().iter();
    Ok(applied.map(ToString::to_string).collect())
}
