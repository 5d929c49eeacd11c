//! The error codes of the contract. `vigie types` and README show them with their doc comments.

use std::fmt;

use serde::{Serialize, Serializer};
use ts_rs::TS;

/// Declares an enum of codes with their texts. The doc comments reach front ends and README.
macro_rules! codes {
    ($(
        $(#[doc = $about:literal])+
        pub enum $name:ident {
            $($(#[doc = $docs:literal])+ $code:ident = $text:literal,)+
        }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, TS)]
        pub enum $name {
            $($(#[doc = $docs])+ $code,)+
        }

        impl $name {
            /// Text and lines of the doc comment of each code.
            pub const ALL: &[(&str, &[&str])] = &[$(($text, &[$($docs),+])),+];
            /// Doc comment of the enum.
            pub(super) const ABOUT: &[&str] = &[$($about),+];

            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )+};
}

codes! {
    /// Why an event was refused.
    pub enum ErrorCode {
        /// The payload does not have the shape that the event takes, or is nested deeper than 16 levels.
        InvalidPayload = "invalid_payload",
        /// The event needs a user, and the connection is a guest's.
        NotSignedIn = "not_signed_in",
        /// Too many events in too short a time.
        RateLimited = "rate_limited",
        /// The connection watches `limits.watches` profiles already.
        TooManyWatches = "too_many_watches",
        /// The hub cannot handle the event at the moment; try again.
        Unavailable = "unavailable",
        /// The token is not valid, has expired, was revoked, or belongs to another user or to a deleted account.
        InvalidToken = "invalid_token",
        /// There is no such event.
        UnknownEvent = "unknown_event",
    }

    /// Why a connection was refused for good; the `message` of `connect_error`. Temporary failures are not reported this
    /// way: the transport closes, and the client reconnects by itself.
    pub enum ConnectErrorCode {
        /// The token is not valid, or was revoked.
        InvalidToken = "invalid_token",
        /// The token has expired.
        TokenExpired = "token_expired",
        /// The account was deleted.
        AccountDeleted = "account_deleted",
    }

    /// Why the hub closes a connection on purpose.
    pub enum KickCode {
        /// The token has expired; sign in again.
        TokenExpired = "token_expired",
        /// A back end closed the user's connections.
        Kicked = "kicked",
        /// The account was deleted.
        AccountDeleted = "account_deleted",
        /// The client sends more than it may.
        RateLimited = "rate_limited",
    }
}
