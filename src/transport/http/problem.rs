//! Errors as RFC 9457 problem JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::account::{AccountError, ProfilesError};
use crate::domain::{EngineError, NotifyError};

/// Seconds after which a caller may try again when the engine or Postgres cannot be reached.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What went wrong and what to do, as RFC 9457 describes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says it all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What went wrong with this request, and what to do.
    detail: String,
}

impl Problem {
    /// A problem with the status that fits best.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    /// The request makes no sense; nothing was changed.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The request is understood, and what it asks for breaks a rule; nothing was changed.
    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// The route exists with another method.
    pub(super) fn method_not_allowed() -> Self {
        let detail = "this route takes another method; GET /api/v1/openapi.json lists them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// The status code.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// What went wrong.
    pub(super) fn into_detail(self) -> String {
        self.detail
    }
}

impl From<NotifyError> for Problem {
    fn from(error: NotifyError) -> Self {
        match error {
            NotifyError::Json(error) => Self::bad_request(error.to_string()),
            NotifyError::AccountDeleted => Self::new(
                StatusCode::GONE,
                "the account was deleted; nothing is published about it any more",
            ),
            NotifyError::Engine(error) => error.into(),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        tracing::warn!(%error, "could not do what the internal API was asked for");
        let cause = match error {
            EngineError::Unavailable(_) => "Redis cannot be reached".to_owned(),
            EngineError::Refused(refusal) => format!("Redis refuses: {refusal}"),
            EngineError::NotNow(reason) => reason,
            EngineError::Answer(_) => "Redis gave an answer that makes no sense".to_owned(),
        };
        let detail = format!("{cause}; nothing may have been published, try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NotConfigured => Self::not_found(error.to_string()),
            AccountError::Profiles(error) => error.into(),
        }
    }
}

impl From<ProfilesError> for Problem {
    fn from(error: ProfilesError) -> Self {
        match error {
            ProfilesError::NoSuchUser(_) => Self::not_found(error.to_string()),
            ProfilesError::AccountDeleted(_) => Self::new(StatusCode::GONE, error.to_string()),
            ProfilesError::Invalid(rule) => Self::unprocessable(rule),
            // Details are for operators, so the log has them and the answer has not.
            ProfilesError::Unavailable(_)
            | ProfilesError::Refused(_)
            | ProfilesError::Schema(_)
            | ProfilesError::Setup(_) => {
                tracing::warn!(%error, "could not do what was asked for about an account");
                let detail = match error {
                    ProfilesError::Unavailable(_) => {
                        "Postgres cannot be reached; nothing may have been changed, try again"
                    }
                    ProfilesError::Schema(_) => {
                        "the tables in Postgres are missing or not up to date, so nothing was changed; try again once \
                         `vigie migrate` has run"
                    }
                    _ => {
                        "Postgres refuses what the hub asks for, so nothing was changed; the log of the node says why"
                    }
                };
                Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let problem_json = HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, problem_json);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }
}
