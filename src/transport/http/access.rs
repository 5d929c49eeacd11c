//! Authentication of the internal API by key, and the check for routes that need Postgres.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::watch;

use super::audit::{CallerName, LOOPBACK};
use super::local_caller;
use super::problem::Problem;
use crate::domain::Hub;
use crate::domain::account::AccountError;
use crate::transport::listener::Peer;

/// The keys of the internal API. Clones share them, also after a replacement.
///
/// A presented key is hashed and compared with every known hash in constant time, so timing reveals neither how much of a
/// key was right, nor whose key it is, nor its length.
#[derive(Clone)]
pub struct ApiKeyCheck(watch::Sender<Arc<[ApiKey]>>);

/// The hash of a key, and the name of its holder.
struct ApiKey {
    name: Arc<str>,
    hash: [u8; 32],
}

impl ApiKeyCheck {
    /// Accepts `keys`, which are pairs of a name and a key.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(watch::Sender::new(hashed(keys)))
    }

    /// Replaces all keys in one step.
    pub fn replace<'a>(&self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.0.send_replace(hashed(keys));
    }

    /// Resolves when the present keys are replaced.
    pub(super) fn replaced(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut keys = self.0.subscribe();
        // An error means that the last check was dropped.
        async move { drop(keys.changed().await) }
    }

    /// The holder of the presented key, if it is valid.
    fn caller(&self, headers: &HeaderMap) -> Option<CallerName> {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes())
            .and_then(|value| value.split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
            .map(|(_, key)| key.trim_ascii());
        let key = headers.get("x-api-key").map(|value| value.as_bytes());
        let (bearer, key) = (
            bearer.and_then(|key| self.holder(key)),
            key.and_then(|key| self.holder(key)),
        );
        bearer.or(key).map(CallerName)
    }

    fn holder(&self, presented: &[u8]) -> Option<Arc<str>> {
        let keys = self.0.borrow().clone();
        let hash = Sha256::digest(presented);
        // Counted from 1; 0 means no match.
        let mut position = 0_u32;
        for (number, key) in (1..).zip(keys.iter()) {
            position.conditional_assign(&number, key.hash.ct_eq(&hash));
        }
        let key = keys.get(usize::try_from(position.checked_sub(1)?).ok()?)?;
        Some(key.name.clone())
    }
}

fn hashed<'a>(keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Arc<[ApiKey]> {
    let keys = keys.into_iter().map(|(name, key)| ApiKey {
        name: name.into(),
        hash: Sha256::digest(key).into(),
    });
    keys.collect()
}

/// Attaches the name of the caller to a request with a valid key.
pub(super) async fn identify(
    State(keys): State<ApiKeyCheck>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(caller) = keys.caller(request.headers()) {
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

/// Admits requests with a valid key.
pub(super) async fn with_key(request: Request, next: Next) -> Result<Response, Problem> {
    if request.extensions().get::<CallerName>().is_some() {
        return Ok(next.run(request).await);
    }
    Err(refused(
        "send a key of internal.api_key or internal.api_keys as `Authorization: Bearer <key>` or `X-API-Key: <key>`",
    ))
}

/// Admits requests with a valid key and requests of local programs. The latter are marked on the response.
pub(super) async fn with_key_or_loopback(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if request.extensions().get::<CallerName>().is_some() {
        return Ok(next.run(request).await);
    }
    if local_caller::is_local(peer.address, request.uri(), request.headers()) {
        let mut response = next.run(request).await;
        response
            .extensions_mut()
            .insert(CallerName(LOOPBACK.into()));
        return Ok(response);
    }
    Err(refused(
        "without a key this is for programs on this machine that ask for localhost, 127.0.0.1 or [::1] themselves, not \
         through a proxy or a page of another site; others send a key as `Authorization: Bearer <key>` or \
         `X-API-Key: <key>`",
    ))
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

/// Answers requests about accounts with 404 if the hub has no Postgres.
pub(super) async fn with_accounts(
    State(hub): State<Hub>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if hub.has_accounts() {
        Ok(next.run(request).await)
    } else {
        Err(AccountError::NotConfigured.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use axum::http::HeaderValue;

    use super::*;

    fn presenting(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a header value");
        HeaderMap::from_iter([(header::HeaderName::from_static(name), value)])
    }

    fn caller(keys: &ApiKeyCheck, headers: &HeaderMap) -> Option<String> {
        keys.caller(headers).map(|caller| caller.0.to_string())
    }

    fn admits(name: &'static str, value: &str) -> bool {
        let keys = ApiKeyCheck::new([("default", "right")]);
        caller(&keys, &presenting(name, value)).is_some()
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
            let check = ApiKeyCheck::new([("default", key.as_str())]);
            let with = |name: header::HeaderName, value: &[u8]| {
                let value = HeaderValue::from_bytes(value).ok()?;
                Some(caller(&check, &HeaderMap::from_iter([(name, value)])).is_some())
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

    #[test]
    fn whoever_calls_is_known_by_the_key() {
        let keys = ApiKeyCheck::new([("default", "a"), ("billing", "b"), ("games", "c")]);
        for (key, name) in [("a", "default"), ("b", "billing"), ("c", "games")] {
            let held_by = Some(name.to_owned());
            assert_eq!(caller(&keys, &presenting("x-api-key", key)), held_by);
        }
        for key in ["", "d", "ab", "default", "billing"] {
            assert_eq!(caller(&keys, &presenting("x-api-key", key)), None, "{key}");
        }
        assert_eq!(
            caller(&ApiKeyCheck::new([]), &presenting("x-api-key", "")),
            None
        );

        let mut both = presenting("x-api-key", "b");
        both.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer wrong"),
        );
        assert_eq!(caller(&keys, &both).as_deref(), Some("billing"));
    }

    #[test]
    fn keys_are_replaced_for_all_who_share_them() {
        let keys = ApiKeyCheck::new([("default", "old"), ("billing", "kept")]);
        let shared = keys.clone();
        keys.replace([("billing", "kept"), ("games", "new")]);
        let now = |key: &str| caller(&shared, &presenting("x-api-key", key));
        assert_eq!(now("old"), None);
        assert_eq!(now("kept").as_deref(), Some("billing"));
        assert_eq!(now("new").as_deref(), Some("games"));
    }
}
