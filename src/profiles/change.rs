//! Changes of accounts.

use serde::Serialize;

use crate::ids::UserId;

/// The parts of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
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

impl Part {
    /// All parts.
    pub const ALL: [Self; 5] = [
        Self::Profile,
        Self::Stats,
        Self::Friends,
        Self::Matches,
        Self::Deleted,
    ];

    /// The name in the table `changes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Stats => "stats",
            Self::Friends => "friends",
            Self::Matches => "matches",
            Self::Deleted => "deleted",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|part| part.as_str() == name)
    }
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
