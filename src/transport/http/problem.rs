//! Errors as RFC 9457 problem JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::account::{AccountError, ProfilesError};
use crate::domain::{EngineError, NotifyError};

/// In seconds, for an engine or a Postgres that cannot be reached.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error response (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status identifies the problem.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Reason phrase of the status.
    title: &'static str,
    /// Same as the HTTP status.
    status: u16,
    /// Explains this occurrence, and what to do.
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    /// The request is malformed; nothing was changed.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The request is well-formed but breaks a rule; nothing was changed.
    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail = "this route takes another method; GET /api/v1/openapi.json lists them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

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
        tracing::warn!(%error, "a request failed because of Redis");
        let cause = match error {
            EngineError::Unavailable(_) => "Redis cannot be reached".to_owned(),
            EngineError::Refused(refusal) => format!("Redis refuses: {refusal}"),
            EngineError::NotNow(reason) => reason,
            EngineError::Answer(_) => "Redis gave an unexpected answer".to_owned(),
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
            // The log has the details, which are for operators; the response has none.
            ProfilesError::Unavailable(_)
            | ProfilesError::Refused(_)
            | ProfilesError::Schema(_)
            | ProfilesError::Setup(_) => {
                tracing::warn!(%error, "a request about an account failed");
                let detail = match error {
                    ProfilesError::Unavailable(_) => {
                        "Postgres cannot be reached; nothing may have been changed, try again"
                    }
                    ProfilesError::Schema(_) => {
                        "the tables in Postgres are missing or not up to date, so nothing was changed; try again once \
                         `vigie migrate` has run"
                    }
                    _ => {
                        "Postgres refuses the statement, so nothing was changed; the log of the node says why"
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
