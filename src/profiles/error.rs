//! What a caller can do about a call that failed.

use std::error::Error;

use tokio_postgres::error::{DbError, SqlState};

use crate::ids::UserId;

/// Why nothing was changed, or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfilesError {
    /// Postgres cannot be reached, or did not answer in time: try again later.
    #[error("postgres cannot be reached: {0}")]
    Unavailable(String),
    /// There is no such account.
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    /// The account was deleted, and stays so.
    #[error("the account of user {0} was deleted")]
    AccountDeleted(UserId),
    /// What was to be stored breaks a rule; says which.
    #[error("{0}")]
    Invalid(String),
    /// Postgres received the statement and refuses it; says why.
    #[error("postgres refuses: {0}")]
    Refused(String),
    /// The tables are missing or not up to date; says what to do.
    #[error("{0}")]
    Schema(String),
    /// Postgres or the settings are not as they have to be; says what to do.
    #[error("{0}")]
    Setup(String),
}

/// What went wrong inside a transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// What the caller is told.
    Told(ProfilesError),
    /// What Postgres or the connection to it said.
    Postgres(tokio_postgres::Error),
}

/// What to do with a transaction that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Others were in the way: the same again may succeed.
    Again,
    /// The connection is of no more use; the same on another may succeed.
    Reconnect,
    /// The same again fails again.
    None,
}

impl Failure {
    /// What to do about it.
    pub(super) fn remedy(&self) -> Remedy {
        let Self::Postgres(error) = self else {
            return Remedy::None;
        };
        let Some(code) = error.code() else {
            return match error.is_closed()
                || error
                    .source()
                    .is_some_and(|cause| cause.is::<std::io::Error>())
            {
                true => Remedy::Reconnect,
                false => Remedy::None,
            };
        };
        match *code {
            SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => Remedy::Again,
            // The session was ended from outside, or its prepared statements no longer fit the schema.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::IDLE_SESSION_TIMEOUT
            | SqlState::FEATURE_NOT_SUPPORTED
            | SqlState::INVALID_SQL_STATEMENT_NAME => Remedy::Reconnect,
            _ => Remedy::None,
        }
    }
}

impl From<ProfilesError> for Failure {
    fn from(error: ProfilesError) -> Self {
        Self::Told(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Told(ProfilesError::Refused(format!(
            "a list that cannot be read: {error}"
        )))
    }
}

impl From<Failure> for ProfilesError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Told(error) => error,
            Failure::Postgres(error) => error.into(),
        }
    }
}

impl From<tokio_postgres::Error> for ProfilesError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refusal) => refused(refusal),
            None => Self::Unavailable(advised(in_words(&error))),
        }
    }
}

/// What the server refused, by what can be done about it.
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
            "postgres lets nobody in with postgres.url (VIGIE_POSTGRES__URL): {message}"
        )),
        // Values that do not fit their types, and constraints.
        ("22" | "23", _) => ProfilesError::Invalid(message),
        // The connection was lost, or the server starts, stops or has too many connections.
        ("08" | "57", _) | (_, &SqlState::TOO_MANY_CONNECTIONS) => {
            ProfilesError::Unavailable(message)
        }
        _ => ProfilesError::Refused(message),
    }
}

/// Says what to do about a server that does not prove who it is.
fn advised(words: String) -> String {
    let unknown = ["UnknownIssuer", "BadSignature"];
    match unknown.iter().any(|problem| words.contains(problem)) {
        true => format!(
            "{words}: nobody who is trusted has signed the certificate; name the PEM file of the authority that did in \
             sslrootcert of postgres.url (VIGIE_POSTGRES__URL)"
        ),
        false => words,
    }
}

/// The error and everything behind it: the outermost alone reads "db error".
pub(super) fn in_words(error: &(dyn Error + 'static)) -> String {
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
