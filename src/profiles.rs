//! Accounts, friendships and results in Postgres: SQL, migrations, and the listener for what changed.
//!
//! Postgres is the truth about profiles, and others write to it too. Triggers give every change its revision and
//! note it in the table `changes`, whoever made it; [`Profiles::changes`] hands these notes out until they have been
//! published. Nothing here knows who is told, or how.

mod account;
mod accounts;
mod avatar;
mod change;
mod changes;
mod error;
mod friendship;
mod matches;
mod migrate;
mod pool;
mod session;
mod tls;
mod transaction;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::pool::Pool;

pub use account::{Account, Outcome};
pub use avatar::Image;
pub use change::{Aspect, Change};
pub use changes::{Batch, ChangeStream};
pub use error::ProfilesError;
pub use friendship::Friendship;
pub use matches::NewMatch;
pub use migrate::Migration;

/// How to reach Postgres and how to use it.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host/database`.
    pub url: String,
    /// Connections at most, besides the one that listens for changes.
    pub pool: usize,
    /// How long getting a connection may take, and then the work on it.
    pub timeout: Duration,
}

/// The database, for as many callers as there are. Cloning is cheap: clones share the connections.
#[derive(Clone)]
pub struct Profiles {
    pool: Pool,
    migration: Arc<Mutex<Migration>>,
}

impl Profiles {
    /// Prepares for connecting and connects nowhere yet, so that a node starts while Postgres is away.
    ///
    /// # Errors
    /// When the URL is none, or what it asks for cannot be had.
    pub fn new(options: &Options) -> Result<Self, ProfilesError> {
        let pool = Pool::new(options)?;
        let migration = Arc::default();
        Ok(Self { pool, migration })
    }

    /// Whether Postgres answers, with the schema that this version needs.
    ///
    /// # Errors
    /// When it does not answer in time, or the schema is missing.
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
        let options = Options {
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
            let options = Options {
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
