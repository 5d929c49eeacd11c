//! Extractors for bodies, paths and queries. Their errors name the field at fault.

use axum::extract::rejection::BytesRejection;
use axum::extract::{
    DefaultBodyLimit, FromRef, FromRequest, FromRequestParts, Path, Query, Request,
};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::ids::{Revision, SAFE_INTEGER_MAX, UserId};
use crate::transport::depth::is_deeper_than;

/// Nesting limit of JSON. Scripts and browsers parse the same JSON again, and have limits of their own.
const DEPTH_MAX: usize = 64;

/// A body that is a JSON object, whatever its `Content-Type` claims.
pub(super) struct Json<T>(pub(super) T);

/// A body that is a JSON object; an empty body counts as `{}`.
pub(super) struct OptionalJson<T>(pub(super) T);

/// A body that is a JSON array. Callers that parse its items check their nesting.
pub(super) struct JsonArray<T>(pub(super) Vec<T>);

/// Size limit of a body in bytes.
#[derive(Clone, Copy)]
pub(super) struct BodyMax(pub(super) usize);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    BodyMax: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse_object(&read(request, state).await?).map(Self)
    }
}

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    S: Send + Sync,
    BodyMax: FromRef<S>,
    T: DeserializeOwned + Default,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        parse_object(&bytes).map(Self)
    }
}

impl<S, T> FromRequest<S> for JsonArray<T>
where
    S: Send + Sync,
    BodyMax: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse_any_depth(&read(request, state).await?).map(Self)
    }
}

async fn read<S>(mut request: Request, state: &S) -> Result<Bytes, Problem>
where
    S: Send + Sync,
    BodyMax: FromRef<S>,
{
    let body_max = BodyMax::from_ref(state);
    DefaultBodyLimit::max(body_max.0).apply(&mut request);
    let bytes = Bytes::from_request(request, state).await;
    bytes.map_err(|rejection| unreadable(&rejection, body_max))
}

fn unreadable(rejection: &BytesRejection, BodyMax(body_max): BodyMax) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!(
                "the body has more than {body_max} bytes; send less, or raise limits.http_body"
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        }
        _ => Problem::bad_request("the body could not be read"),
    }
}

/// Parses a JSON object. Refuses an array, which serde would read as the fields in their order.
pub(super) fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::bad_request(
            "the body: a JSON object is needed, not an array",
        ));
    }
    parse(bytes)
}

/// Parses JSON within the nesting limit. Errors name the field at fault.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if is_deeper_than(DEPTH_MAX, bytes) {
        return Err(Problem::bad_request(format!(
            "the body: arrays and objects are nested more than {DEPTH_MAX} levels deep"
        )));
    }
    parse_any_depth(bytes)
}

fn parse_any_depth<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." || path == "?" {
            "the body".to_owned()
        } else {
            format!("`{path}`")
        };
        Problem::bad_request(format!("{place}: {}", error.into_inner()))
    })?;
    json.end()
        .map_err(|error| Problem::bad_request(format!("the body: {error}")))?;
    Ok(value)
}

/// The user id in the path.
pub(super) struct PathUser(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for PathUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        id.parse()
            .map(Self)
            .map_err(|error| Problem::bad_request(format!("`{id}`: {error}")))
    }
}

/// The query string.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

/// Checks the range of a revision that a caller chose.
pub(super) fn checked(revision: Option<u64>) -> Result<Option<Revision>, Problem> {
    match revision {
        None => Ok(None),
        Some(revision @ 1..=SAFE_INTEGER_MAX) => Ok(Some(Revision(revision))),
        Some(_) => Err(Problem::bad_request(format!(
            "`revision`: an integer from 1 to {SAFE_INTEGER_MAX}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_names_its_place() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only its type matters here")]
            revision: u64,
        }

        let detail = |text: &str| {
            parse::<Outer>(text.as_bytes())
                .expect_err(text)
                .into_detail()
        };
        assert!(detail(r#"{"revision":"x"}"#).starts_with("`revision`: invalid type"));
        assert!(detail("{").starts_with("the body: EOF"));
        assert!(detail(r#"{"revision":1} x"#).starts_with("the body: trailing"));
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let parsed = |levels: usize| parse::<serde_json::Value>(nested(levels).as_bytes());
        assert!(parsed(DEPTH_MAX).is_ok());
        let detail = parsed(DEPTH_MAX + 1).expect_err("too deep").into_detail();
        assert!(detail.contains("more than 64 levels"), "{detail}");
    }

    #[test]
    fn revisions_are_safe_positive_integers() {
        assert!(checked(None).is_ok());
        assert!(checked(Some(1)).is_ok());
        assert!(checked(Some(0)).is_err());
        assert!(checked(Some(SAFE_INTEGER_MAX + 1)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2048)
        })]

        #[test]
        fn a_revision_is_an_integer_in_its_range(revision: u64) {
            let read = checked(Some(revision)).ok().flatten();
            let valid = (1..=SAFE_INTEGER_MAX).contains(&revision);
            prop_assert_eq!(read, valid.then_some(Revision(revision)));
        }

        #[test]
        fn whatever_is_read_is_json_and_nothing_more(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            text in "[\\[\\]{}\",:0-9a truefalsn\\\\.-]{0,40}",
        ) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let read = parse::<serde_json::Value>(bytes).ok();
                prop_assert_eq!(&read, &serde_json::from_slice(bytes).ok());
                let object = parse_object::<serde_json::Map<_, _>>(bytes).ok();
                prop_assert_eq!(object.map(serde_json::Value::Object), read.filter(serde_json::Value::is_object));
            }
        }
    }
}
