//! Which commands an engine refuses, and whether it evicts data.

use super::{Engine, EngineError};

/// The eviction policy with which Redis drops nothing that it was given.
pub(crate) const KEEPS_EVERYTHING: &str = "noeviction";

/// What an examination of the engine found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// Why commands that the hub needs are refused; `None` where all are carried out.
    pub refused: Option<String>,
    /// Other servers carry all of them out.
    pub is_partial: bool,
    /// What the engine does when its memory is full; `None` where it does not say.
    pub eviction_policy: Option<String>,
}

impl Examination {
    /// The same of two servers: what either refuses, and the policy that drops anything.
    pub(crate) fn join(self, other: Self) -> Self {
        let keeps = |policy: &String| policy == KEEPS_EVERYTHING;
        let mut policies = [self.eviction_policy, other.eviction_policy]
            .into_iter()
            .flatten();
        let first = policies.next();
        let evicting = policies.find(|policy| !keeps(policy));
        Self {
            is_partial: self.is_partial
                || other.is_partial
                || self.refused.is_some() != other.refused.is_some(),
            refused: self.refused.or(other.refused),
            eviction_policy: match first {
                Some(first) if keeps(&first) => Some(evicting.unwrap_or(first)),
                first => first,
            },
        }
    }
}

impl Engine {
    /// Runs each command that the hub needs, and says which are refused.
    pub async fn examine(&self) -> Result<Examination, EngineError> {
        match self {
            Self::Memory(_) => Ok(Examination::default()),
            Self::Redis(redis) => redis.examine().await,
        }
    }
}
