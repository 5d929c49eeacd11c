//! Whether a valid token is accepted: not where the account was deleted, or the user's tokens were revoked since.

use super::token::Identity;
use crate::engine::{Engine, EngineError, Standing};

/// What becomes of a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It counts.
    Accepted,
    /// The account was deleted, so no token of it counts.
    AccountDeleted,
    /// The user's tokens were revoked, and nobody can say that this one was issued after that.
    Revoked,
}

/// Asks the engine, once, whether it accepts a valid token.
pub(crate) async fn accepts(
    engine: &Engine,
    identity: &Identity,
) -> Result<Acceptance, EngineError> {
    let standing = engine.standing(identity.user).await?;
    Ok(acceptance(standing, identity))
}

fn acceptance(standing: Standing, identity: &Identity) -> Acceptance {
    if standing.deleted {
        return Acceptance::AccountDeleted;
    }
    if identity.issued_at.unwrap_or(0) < standing.revoked_before_ms {
        Acceptance::Revoked
    } else {
        Acceptance::Accepted
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
            let standing = Standing {
                deleted,
                revoked_before_ms,
            };
            acceptance(standing, &identity)
        };
        for issued_at in [None, Some(0), Some(999)] {
            assert_eq!(of(false, 0, issued_at), Acceptance::Accepted);
            assert_eq!(of(false, 1_000, issued_at), Acceptance::Revoked);
        }
        for issued_at in [Some(1_000), Some(1_001)] {
            assert_eq!(of(false, 1_000, issued_at), Acceptance::Accepted);
            assert_eq!(of(true, 1_000, issued_at), Acceptance::AccountDeleted);
        }
    }
}
