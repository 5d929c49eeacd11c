//! Which commands an engine refuses, and whether it evicts data.

use super::{Engine, EngineError};

/// The eviction policy under which Redis never drops data.
pub(crate) const NOEVICTION: &str = "noeviction";

/// The result of an examination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// Why required commands are refused; `None` if all are accepted.
    pub refused: Option<String>,
    /// Only some of the servers refuse commands.
    pub is_partial: bool,
    /// `maxmemory-policy`; `None` if unknown.
    pub eviction_policy: Option<String>,
}

impl Examination {
    /// Combines the results of two servers: what either refuses, and a policy that evicts if either does.
    pub(crate) fn join(self, other: Self) -> Self {
        let keeps = |policy: &String| policy == NOEVICTION;
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
    /// Tries each command that the hub needs, and reports which are refused.
    pub async fn examine(&self) -> Result<Examination, EngineError> {
        match self {
            Self::Memory(_) => Ok(Examination::default()),
            Self::Redis(redis) => redis.examine().await,
        }
    }
}
