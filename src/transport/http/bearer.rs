//! Authenticates callers of the public API by `Authorization: Bearer`; without the header they are guests.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use super::Public;
use super::problem::Problem;
use crate::domain::EngineError;
use crate::domain::account::{AccountError, ProfilesError};
use crate::domain::token_status::TokenStatus;
use crate::ids::UserId;
use crate::transport::protocol::ConnectErrorCode;

/// A reader: the user of the token, or a guest if the header is absent. An invalid token is an error, never a guest.
pub(super) struct Viewer(pub(super) Option<UserId>);

/// A user whose account exists.
#[derive(Clone, Copy)]
pub(super) struct Caller(pub(super) UserId);

impl FromRequestParts<Public> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, public: &Public) -> Result<Self, Problem> {
        let Some(user) = signed_in(&parts.headers, public).await? else {
            return Ok(Self(None));
        };
        match public.hub.expect_stored_account(user).await {
            // A user without an account yet is a stranger to everybody.
            Ok(()) | Err(AccountError::Profiles(ProfilesError::NoSuchUser(_))) => {
                Ok(Self(Some(user)))
            }
            Err(error) => Err(Caller(user).problem(error)),
        }
    }
}

impl FromRequestParts<Public> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, public: &Public) -> Result<Self, Problem> {
        let user = signed_in(&parts.headers, public).await?.ok_or_else(|| {
            let detail = "this is for users; send `Authorization: Bearer <token>`";
            Problem::new(StatusCode::UNAUTHORIZED, detail)
        })?;
        let caller = Self(user);
        let account = public.hub.expect_stored_account(user).await;
        account
            .map(|()| caller)
            .map_err(|error| caller.problem(error))
    }
}

impl Caller {
    /// Maps an error; if the caller's own account is deleted, it is 401 rather than 410.
    pub(super) fn problem(self, error: AccountError) -> Problem {
        match error {
            AccountError::Profiles(ProfilesError::AccountDeleted(user)) if user == self.0 => {
                account_deleted()
            }
            error => error.into(),
        }
    }
}

async fn signed_in(headers: &HeaderMap, public: &Public) -> Result<Option<UserId>, Problem> {
    let Some(token) = token_of(headers)? else {
        return Ok(None);
    };
    let verified = public.tokens.verify(token);
    let identity = verified.map_err(|error| {
        tracing::debug!(%error, "refused a token");
        refused(error.into(), "sign in again")
    })?;
    match public.hub.token_status(&identity).await {
        Ok(TokenStatus::Accepted) => Ok(Some(identity.user)),
        Ok(TokenStatus::Revoked) => {
            let advice = "the token was revoked; sign in again";
            Err(refused(ConnectErrorCode::InvalidToken, advice))
        }
        Ok(TokenStatus::AccountDeleted) => Err(account_deleted()),
        Err(error) => {
            tracing::warn!(%error, "could not check whether a token is revoked");
            let cause = match &error {
                EngineError::Refused(refusal) => format!("Redis refuses ({})", refusal.code()),
                _ => "Redis cannot be reached".to_owned(),
            };
            let detail =
                format!("{cause}, so the hub cannot tell whether the token is accepted; try again");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// The token in the header; `None` for a guest.
fn token_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(no_token()),
    };
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(no_token)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty() {
        Ok(Some(token))
    } else {
        Err(no_token())
    }
}

fn no_token() -> Problem {
    let advice = "send one `Authorization: Bearer <token>`, or none as a guest";
    refused(ConnectErrorCode::InvalidToken, advice)
}

fn account_deleted() -> Problem {
    refused(ConnectErrorCode::AccountDeleted, "sign in as somebody else")
}

/// 401 with the same code that `connect_error` has.
fn refused(code: ConnectErrorCode, advice: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, format!("{code}: {advice}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |value: &&str| HeaderValue::from_str(value).expect("a header value");
        let named = |value| (header::AUTHORIZATION, value);
        let mut headers = HeaderMap::new();
        for (name, value) in values.iter().map(value).map(named) {
            headers.append(name, value);
        }
        headers
    }

    fn token(values: &[&str]) -> Result<Option<String>, String> {
        let headers = headers(values);
        let token = token_of(&headers).map(|token| token.map(str::to_owned));
        token.map_err(Problem::into_detail)
    }

    #[test]
    fn a_token_is_taken_from_the_header() {
        assert_eq!(token(&[]), Ok(None));
        for value in ["Bearer a.b.c", "bearer a.b.c", "Bearer  a.b.c "] {
            assert_eq!(token(&[value]), Ok(Some("a.b.c".to_owned())), "{value}");
        }
    }

    #[test]
    fn a_header_without_a_token_makes_no_guest() {
        let wrong: [&[&str]; 6] = [
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["a.b.c"],
            &["Basic a.b.c"],
            &["Bearer a.b.c", "Bearer a.b.c"],
        ];
        for values in wrong {
            let detail = token(values).expect_err("refused");
            assert!(detail.starts_with("invalid_token: "), "{detail}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn a_token_is_read_back(
            scheme in "[bB][eE][aA][rR][eE][rR]",
            token in "[!-~]([ -~]{0,200}[!-~])?",
            space in " {1,3}",
        ) {
            let value = format!("{scheme}{space}{token}{space}");
            prop_assert_eq!(super::tests::token(&[&value]), Ok(Some(token)));
        }

        #[test]
        fn whatever_the_header_says_it_makes_no_guest(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
                prop_assert_ne!(token_of(&headers).ok(), Some(None));
            }
        }
    }
}
