//! Who may use the internal listener: whoever knows the key. And which routes there are only with Postgres.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::domain::Hub;
use crate::domain::account::AccountError;
use crate::transport::listener::Peer;

/// Compares keys without telling by its timing how much of one was right.
#[derive(Clone)]
pub struct ApiKeyCheck(Arc<str>);

impl ApiKeyCheck {
    /// Lets through whoever knows `key`.
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes())
            .and_then(|value| value.split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
            .map(|(_, key)| key.trim_ascii());
        let key = headers.get("x-api-key").map(|value| value.as_bytes());
        let right = |given: &[u8]| bool::from(given.ct_eq(self.0.as_bytes()));
        bearer.into_iter().chain(key).any(right)
    }
}

/// Lets a request with the key through.
pub(super) async fn with_key(
    State(key): State<ApiKeyCheck>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if key.admits(request.headers()) {
        return Ok(next.run(request).await);
    }
    let detail =
        "send the key of internal.api_key as `Authorization: Bearer <key>` or `X-API-Key: <key>`";
    Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
}

/// Lets a request from this machine through, and others with the key.
pub(super) async fn with_key_or_loopback(
    key: State<ApiKeyCheck>,
    peer: ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if peer.0.address.ip().to_canonical().is_loopback() {
        return Ok(next.run(request).await);
    }
    with_key(key, request, next).await
}

/// Lets a request about accounts through where there are any.
pub(super) async fn with_accounts(
    State(hub): State<Hub>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    match hub.has_accounts() {
        true => Ok(next.run(request).await),
        false => Err(AccountError::NotConfigured.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use axum::http::HeaderValue;

    use super::*;

    fn admits(name: &'static str, value: &str) -> bool {
        let value = HeaderValue::from_str(value).expect("a header value");
        ApiKeyCheck::new("right").admits(&HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            value,
        )]))
    }

    #[test]
    fn the_key_is_taken_from_either_header() {
        assert!(admits("authorization", "Bearer right"));
        assert!(admits("authorization", "bearer right"));
        assert!(admits("x-api-key", "right"));
    }

    #[test]
    fn nothing_else_is_a_key() {
        for value in [
            "",
            "right",
            "Bearer",
            "Bearer ",
            "Bearer righ",
            "Bearer rights",
            "Basic right",
        ] {
            assert!(!admits("authorization", value), "{value}");
        }
        for value in ["", "righ", "Right", "Bearer right"] {
            assert!(!admits("x-api-key", value), "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn only_the_key_opens(key in "[!-~]{1,40}", given in proptest::collection::vec(any::<u8>(), 0..60)) {
            let check = ApiKeyCheck::new(&key);
            let with = |name: header::HeaderName, value: &[u8]| {
                let value = HeaderValue::from_bytes(value).ok()?;
                Some(check.admits(&HeaderMap::from_iter([(name, value)])))
            };
            let own = header::HeaderName::from_static("x-api-key");
            prop_assert_eq!(with(own.clone(), key.as_bytes()), Some(true));
            prop_assert_eq!(with(header::AUTHORIZATION, format!("bEARER  {key} ").as_bytes()), Some(true));
            let is_key = given == key.as_bytes();
            prop_assert!(with(own, &given).is_none_or(|admitted| admitted == is_key));
            let bearer = [b"Bearer ", &given[..]].concat();
            let is_key = given.trim_ascii() == key.as_bytes();
            prop_assert!(with(header::AUTHORIZATION, &bearer).is_none_or(|admitted| admitted == is_key));
            prop_assert!(with(header::AUTHORIZATION, &given).is_none_or(|admitted| !admitted));
        }
    }
}
