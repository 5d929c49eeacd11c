//! Changes of accounts.

use serde::Serialize;
use strum::{EnumIter, EnumString, IntoStaticStr};

use crate::ids::UserId;

/// The parts of an account.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    IntoStaticStr,
    EnumString,
    EnumIter,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Part {
    /// Name and avatar.
    Profile,
    /// Wins and losses.
    Stats,
    /// Friend list.
    Friends,
    /// Match history.
    Matches,
    /// The account was deleted; no other part changes any more.
    Deleted,
}

/// A change of one part of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AccountChange {
    /// The user's id.
    pub user: UserId,
    /// The part that changed.
    pub part: Part,
    /// Orders the changes of this user, across all parts.
    pub revision: u64,
}
