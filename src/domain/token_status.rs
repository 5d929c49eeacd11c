//! Whether a valid token is still accepted: the account may have been deleted, or the token revoked.

use super::token::Identity;
use crate::engine::{AccountStatus, Engine, EngineError};

/// Whether a valid token is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// The token is valid.
    Accepted,
    /// The account was deleted.
    AccountDeleted,
    /// The user's tokens were revoked, and this one was issued earlier or does not say when.
    Revoked,
}

pub(crate) async fn token_status(
    engine: &Engine,
    identity: &Identity,
) -> Result<TokenStatus, EngineError> {
    let account = engine.account_status(identity.user).await?;
    Ok(status_of(account, identity))
}

fn status_of(account: AccountStatus, identity: &Identity) -> TokenStatus {
    if account.deleted {
        return TokenStatus::AccountDeleted;
    }
    if identity.issued_at.unwrap_or(0) < account.revoked_before_ms {
        TokenStatus::Revoked
    } else {
        TokenStatus::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    #[test]
    fn a_token_counts_from_the_time_of_a_revocation_on() {
        let of = |deleted, revoked_before_ms, issued_at| {
            let user = UserId::try_from(1).unwrap();
            let identity = Identity {
                user,
                expires_at: 2_000,
                issued_at,
            };
            let status = AccountStatus {
                deleted,
                revoked_before_ms,
            };
            status_of(status, &identity)
        };
        for issued_at in [None, Some(0), Some(999)] {
            assert_eq!(of(false, 0, issued_at), TokenStatus::Accepted);
            assert_eq!(of(false, 1_000, issued_at), TokenStatus::Revoked);
        }
        for issued_at in [Some(1_000), Some(1_001)] {
            assert_eq!(of(false, 1_000, issued_at), TokenStatus::Accepted);
            assert_eq!(of(true, 1_000, issued_at), TokenStatus::AccountDeleted);
        }
    }
}
