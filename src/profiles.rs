//! Accounts, friendships and match results in Postgres: SQL, migrations, and the change listener.
//!
//! Postgres is authoritative for profiles, and other programs write to it too. Triggers number every change and record
//! it in the table `changes`; [`Profiles::changes`] hands these records out until they have been published. This module
//! does not know to whom.

mod account;
mod accounts;
mod avatar;
mod change;
mod changes;
mod connector;
mod error;
mod friendship;
mod matches;
mod migrate;
mod pool;
mod tls;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::pool::Pool;

pub use account::{Account, GameResult};
pub use avatar::Image;
pub use change::{AccountChange, Part};
pub use changes::{ChangeBatch, ChangeStream};
pub use error::ProfilesError;
pub use friendship::Friendship;
pub use matches::NewMatch;
pub(crate) use migrate::Migration;

/// How to connect to Postgres.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host/database`.
    pub url: String,
    /// Maximum number of connections, besides the change listener's.
    pub pool: usize,
    /// Timeout of getting a connection, and of the work on it.
    pub timeout: Duration,
}

/// The database. Cloning is cheap: clones share the connections.
#[derive(Clone)]
pub struct Profiles {
    pool: Pool,
    migration: Arc<Mutex<Migration>>,
}

impl Profiles {
    /// Does not connect yet, so that a node starts while Postgres is unavailable.
    ///
    /// # Errors
    /// If the URL, or the TLS settings in it, are invalid.
    pub fn new(options: &PostgresOptions) -> Result<Self, ProfilesError> {
        let pool = Pool::new(options)?;
        let migration = Arc::default();
        Ok(Self { pool, migration })
    }

    /// Whether Postgres answers, with the schema that this version needs.
    ///
    /// # Errors
    /// If it does not answer in time, or the schema is missing.
    pub async fn ping(&self) -> Result<(), ProfilesError> {
        self.pool.ping().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    fn moves_between_threads<T: Send>(_: &T) {}

    #[test]
    fn calls_may_move_between_threads() {
        let options = PostgresOptions {
            url: "postgres://127.0.0.1:1/none".to_owned(),
            pool: 1,
            timeout: Duration::from_secs(1),
        };
        let profiles = Profiles::new(&options).unwrap();
        let user = UserId::try_from(1).unwrap();
        moves_between_threads(&profiles.read(&[user]));
        moves_between_threads(&profiles.rename(user, "ada"));
        moves_between_threads(&profiles.ask_friendship(user, user));
        moves_between_threads(&profiles.migrate_until_done());
    }

    #[test]
    fn a_url_that_cannot_be_used_is_named_and_not_shown() {
        for url in [
            "postgres://u:pa55@h:x/d",
            "postgres://u:pa55@h/d?colour=blue",
            "postgres:///d",
        ] {
            let options = PostgresOptions {
                url: url.to_owned(),
                pool: 1,
                timeout: Duration::from_secs(1),
            };
            let error = Profiles::new(&options).err().unwrap().to_string();
            assert!(
                error.contains("postgres.url") && !error.contains("pa55"),
                "{error}"
            );
        }
    }
}
