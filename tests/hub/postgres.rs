//! Profiles in Postgres: the schema and its triggers, each call, and the listener for changes.

mod accounts;
mod friendships;
mod listener;
mod matches;
mod migrate;
mod plans;
mod triggers;

use std::collections::BTreeMap;

use vigie::UserId;
use vigie::internals::{Account, AccountChange, Part, Profiles};

use crate::harness::{ADA, BOB, EVE, Postgres};

/// Names that have to come back as they were written.
const AWKWARD: [&str; 6] = [
    "Robert'); DROP TABLE users; --",
    "$1 %s {} \\ \" ' ` ; NULL",
    "',(SELECT 1)--",
    "😀 ǅ \u{202e}sdrawkcab \u{fffd}",
    "line\r\nbreak\ttab\u{7f}\u{1}",
    "",
];

fn id(user: u64) -> UserId {
    UserId::try_from(user).expect("an id")
}

/// A database in which Ada, Bob and Eve have accounts that have been told of.
async fn populated() -> Postgres {
    let postgres = Postgres::start().await;
    populate(&postgres).await;
    postgres
}

async fn populate(postgres: &Postgres) {
    let sql = format!(
        "INSERT INTO users (id, username) VALUES ({ADA}, 'ada'), ({BOB}, 'bob'), ({EVE}, 'eve')"
    );
    postgres.psql(&sql).await;
    forget(postgres).await;
}

/// Forgets what has been noted so far.
async fn forget(postgres: &Postgres) {
    postgres.psql("DELETE FROM changes").await;
}

/// The recorded changes that are not published yet, as `user kind`.
async fn noted(postgres: &Postgres) -> Vec<String> {
    let sql = "SELECT user_id || ' ' || kind FROM changes ORDER BY user_id, kind";
    let lines = postgres.psql(sql).await;
    lines.lines().map(str::to_owned).collect()
}

/// The changes that this SQL alone records, in order.
async fn notes_of(postgres: &Postgres, sql: &str) -> Vec<String> {
    forget(postgres).await;
    postgres.psql(sql).await;
    noted(postgres).await
}

/// Every revision of a user: of all, then profile, stats, friends, matches.
async fn revisions(postgres: &Postgres, user: u64) -> [u64; 5] {
    let sql = format!(
        "SELECT revision, profile_revision, stats_revision, friends_revision, matches_revision FROM users WHERE id = {user}"
    );
    let line = postgres.psql(&sql).await;
    let numbers: Vec<u64> = line
        .split('|')
        .map(|number| number.parse().expect("a number"))
        .collect();
    numbers.try_into().expect("five of them")
}

/// Changes without their revisions.
fn told(changes: &[AccountChange]) -> Vec<(u64, Part)> {
    let mut told: Vec<_> = changes
        .iter()
        .map(|change| (change.user.get(), change.part))
        .collect();
    told.sort();
    told
}

/// That changes carry the revisions that are noted for them, and that all that is noted was returned.
async fn assert_noted(postgres: &Postgres, changes: &[AccountChange]) {
    let lines = postgres
        .psql("SELECT user_id, kind, revision FROM changes")
        .await;
    let line = |change: &AccountChange| {
        format!(
            "{}|{}|{}",
            change.user,
            <&str>::from(change.part),
            change.revision
        )
    };
    let mut wanted: Vec<String> = changes.iter().map(line).collect();
    let mut noted: Vec<&str> = lines.lines().collect();
    wanted.sort();
    noted.sort_unstable();
    assert_eq!(noted, wanted);
}

/// One account as the hub reads it.
async fn account(profiles: &Profiles, user: u64) -> Account {
    let accounts = profiles.read(&[id(user)]).await.expect("postgres answers");
    accounts.into_iter().next().expect("the account exists")
}

/// The friends of each user, as the hub reads them.
async fn friends(profiles: &Profiles, users: &[u64]) -> BTreeMap<u64, Vec<u64>> {
    let users: Vec<UserId> = users.iter().copied().map(id).collect();
    let accounts = profiles.read(&users).await.expect("postgres answers");
    let list = |account: Account| {
        let friends = account.friends.iter();
        (
            account.user.get(),
            friends.map(|friend| friend.user_id.get()).collect(),
        )
    };
    accounts.into_iter().map(list).collect()
}
