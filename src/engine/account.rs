//! Accounts as an engine knows them: deleted or not, and which tokens are valid.

use super::{Engine, EngineError};
use crate::ids::UserId;

/// Which tokens of a user are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountStatus {
    /// The account was deleted; no token is valid.
    pub deleted: bool,
    /// Tokens issued earlier are revoked; in ms since 1970 on the engine's clock, 0 if none are.
    pub revoked_before_ms: u64,
}

/// A revocation of a user's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Nodes that received the request to close connections.
    pub nodes: u64,
    /// Tokens issued before this time are rejected, in ms since 1970 on the engine's clock.
    pub before_ms: u64,
}

impl Engine {
    /// Closes every connection of the user. Returns the number of nodes that received the request, or `None` for a
    /// deleted account.
    pub async fn disconnect(&self, user: UserId) -> Result<Option<u64>, EngineError> {
        dispatch!(self.disconnect(user))
    }

    /// Revokes the user's tokens issued before now, and closes every connection of the user. Returns `None` for a
    /// deleted account.
    pub async fn revoke(&self, user: UserId) -> Result<Option<Revoked>, EngineError> {
        dispatch!(self.revoke(user))
    }

    /// The account's status.
    pub async fn account_status(&self, user: UserId) -> Result<AccountStatus, EngineError> {
        dispatch!(self.account_status(user))
    }

    /// Marks the account as deleted, permanently, announces it, and removes the user from the matchmaking queue.
    /// Returns the number of nodes that received it.
    pub async fn delete_account(&self, user: UserId) -> Result<u64, EngineError> {
        let nodes = dispatch!(self.delete_account(user))?;
        self.cancel(user).await?;
        Ok(nodes)
    }
}
