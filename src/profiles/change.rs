//! That something about a user changed, and with which revision.

use serde::Serialize;

use crate::ids::UserId;

/// Which part of an account changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// Name or avatar.
    Profile,
    /// Wins and losses.
    Stats,
    /// The list of friends.
    Friends,
    /// The matches.
    Matches,
    /// The account was deleted: nothing else about it is told any more.
    Deleted,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Profile,
        Self::Stats,
        Self::Friends,
        Self::Matches,
        Self::Deleted,
    ];

    /// The name it has in the table `changes`.
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
        all.find(|aspect| aspect.as_str() == name)
    }
}

/// Something about a user changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Whose account it is.
    pub user: UserId,
    /// Which part of it.
    pub aspect: Aspect,
    /// Orders the changes of this user, of any aspect.
    pub revision: u64,
}
