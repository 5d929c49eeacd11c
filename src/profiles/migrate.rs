//! The schema: applied once, by one node at a time.

use std::time::Duration;

use super::error::in_words;
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

impl Profiles {
    /// Brings the schema up to date; returns what was applied, nothing where all was.
    ///
    /// Takes as long as it takes: only connecting is limited. Several at once wait for each other.
    ///
    /// # Errors
    /// When Postgres cannot be reached, or refuses a migration.
    pub async fn migrate(&self) -> Result<Vec<String>, ProfilesError> {
        let mut session = self.pool.connector().session().await?;
        // The server lets go of the lock when the session ends, whatever way it does.
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

    /// Brings the schema up to date as soon as Postgres can be reached.
    ///
    /// # Errors
    /// When Postgres refuses a migration.
    pub async fn migrate_when_reachable(&self) -> Result<Vec<String>, ProfilesError> {
        loop {
            match self.migrate().await {
                Err(ProfilesError::Unavailable(_)) => tokio::time::sleep(RETRY_DELAY).await,
                done => return done,
            }
        }
    }
}
