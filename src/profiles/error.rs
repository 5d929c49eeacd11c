//! Errors of Postgres, and what to do about them.

use std::error::Error;

use rustls::CertificateError;
use tokio_postgres::error::{DbError, SqlState};

use crate::ids::UserId;
use crate::tls;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfilesError {
    /// Postgres is unreachable or did not answer in time; retry later.
    #[error("postgres cannot be reached: {0}")]
    Unavailable(String),
    /// The account does not exist.
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    /// The account was deleted, permanently.
    #[error("the account of user {0} was deleted")]
    AccountDeleted(UserId),
    /// The input violates a rule, which the text names.
    #[error("{0}")]
    Invalid(String),
    /// Postgres rejected the statement; the text says why.
    #[error("postgres refuses: {0}")]
    Refused(String),
    /// The schema is missing or outdated; the text says what to do.
    #[error("{0}")]
    Schema(String),
    /// Postgres or the settings are misconfigured; the text says what to do.
    #[error("{0}")]
    Setup(String),
}

/// Why a transaction failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error for the caller.
    Reported(ProfilesError),
    /// An error of Postgres or of the connection.
    Postgres(tokio_postgres::Error),
}

/// Whether and how to retry a failed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Concurrent transactions interfered: retry.
    AfterPause,
    /// The connection is unusable: retry on another.
    NewConnection,
    /// A retry would fail again.
    Never,
}

impl Failure {
    pub(super) fn retry(&self) -> Retry {
        let Self::Postgres(error) = self else {
            return Retry::Never;
        };
        let Some(code) = error.code() else {
            let cause = error.source();
            let is_io = cause.is_some_and(|cause| cause.is::<std::io::Error>());
            return if error.is_closed() || is_io {
                Retry::NewConnection
            } else {
                Retry::Never
            };
        };
        match *code {
            SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => {
                Retry::AfterPause
            }
            // The server closed the connection, or its prepared statements no longer match the schema.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::IDLE_SESSION_TIMEOUT
            | SqlState::FEATURE_NOT_SUPPORTED
            | SqlState::INVALID_SQL_STATEMENT_NAME => Retry::NewConnection,
            _ => Retry::Never,
        }
    }
}

impl From<ProfilesError> for Failure {
    fn from(error: ProfilesError) -> Self {
        Self::Reported(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Reported(ProfilesError::Refused(format!(
            "a list that cannot be read: {error}"
        )))
    }
}

impl From<Failure> for ProfilesError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reported(error) => error,
            Failure::Postgres(error) => error.into(),
        }
    }
}

impl From<tokio_postgres::Error> for ProfilesError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refusal) => refused(refusal),
            None => Self::Unavailable(with_advice(&error)),
        }
    }
}

/// Classifies an error of the server by what can be done about it.
fn refused(refusal: &DbError) -> ProfilesError {
    let message = refusal.message().to_owned();
    let class = refusal.code().code().get(..2).unwrap_or_default();
    match (class, refusal.code()) {
        (
            _,
            &SqlState::UNDEFINED_TABLE
            | &SqlState::UNDEFINED_COLUMN
            | &SqlState::UNDEFINED_FUNCTION,
        ) => ProfilesError::Schema(format!(
            "the schema is missing or not up to date ({message}); run `vigie migrate`, or set postgres.migrate = true \
                 (VIGIE_POSTGRES__MIGRATE)"
        )),
        (_, &SqlState::INSUFFICIENT_PRIVILEGE) => ProfilesError::Setup(format!(
            "the user of postgres.url may not do that: {message}"
        )),
        // Wrong password, unknown role or database.
        ("28", _) | (_, &SqlState::INVALID_CATALOG_NAME) => ProfilesError::Setup(format!(
            "postgres rejects the login of postgres.url (VIGIE_POSTGRES__URL): {message}"
        )),
        // Invalid values, and constraints.
        ("22" | "23", _) => ProfilesError::Invalid(message),
        // The connection was lost, or the server is starting, stopping or full.
        ("08" | "57", _) | (_, &SqlState::TOO_MANY_CONNECTIONS) => {
            ProfilesError::Unavailable(message)
        }
        _ => ProfilesError::Refused(message),
    }
}

/// The error with all its causes, and advice if the server's certificate is not trusted.
fn with_advice(error: &tokio_postgres::Error) -> String {
    let words = error_chain(error);
    if !refused_certificate(error).is_some_and(tls::is_untrusted) {
        return words;
    }
    format!(
        "{words}: the certificate is not signed by a trusted authority; name the PEM file of its authority in \
         sslrootcert of postgres.url (VIGIE_POSTGRES__URL)"
    )
}

/// Why the server's certificate was refused. rustls's error is within one of IO.
fn refused_certificate<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e CertificateError> {
    let wrapped = error.downcast_ref::<std::io::Error>();
    match wrapped.and_then(|error| error.get_ref()?.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(refused)) => Some(refused),
        _ => refused_certificate(error.source()?),
    }
}

/// The error with all its causes: the outermost alone reads "db error".
pub(super) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}
