//! Accounts as an engine knows them: deleted or not, and which tokens count.

use super::{Engine, EngineError, matchmaking};
use crate::ids::UserId;

/// Which tokens of a user count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountStatus {
    /// None: the account was deleted.
    pub deleted: bool,
    /// Those issued at this time or after, in ms since 1970 on the engine's clock; all where it is 0.
    pub revoked_before_ms: u64,
}

/// A revocation of a user's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// How many nodes were listening.
    pub nodes: u64,
    /// Tokens issued before this time are refused, in ms since 1970 on the engine's clock.
    pub before_ms: u64,
}

impl Engine {
    /// Has every connection of the user closed. Returns how many nodes were listening, or `None` for a
    /// deleted account.
    pub async fn disconnect(&self, user: UserId) -> Result<Option<u64>, EngineError> {
        dispatch!(self.disconnect(user))
    }

    /// Refuses the tokens of the user that were issued before now, and has every connection of the user closed.
    /// Returns `None` for a deleted account.
    pub async fn revoke(&self, user: UserId) -> Result<Option<Revoked>, EngineError> {
        dispatch!(self.revoke(user))
    }

    /// Which tokens of `user` count.
    pub async fn account_status(&self, user: UserId) -> Result<AccountStatus, EngineError> {
        dispatch!(self.account_status(user))
    }

    /// Marks the account as deleted for ever and says so; the user waits for no opponent any more. Returns how many
    /// nodes were listening.
    pub async fn delete_account(&self, user: UserId) -> Result<u64, EngineError> {
        let nodes = dispatch!(self.delete_account(user))?;
        self.cancel(user, matchmaking::TicketSelector::Any).await?;
        Ok(nodes)
    }
}
