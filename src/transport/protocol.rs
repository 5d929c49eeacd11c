//! The client contract: event names, payloads, replies, error codes. `vigie types` prints it as TypeScript.

mod codes;
mod events;
mod namespace;
mod request;
mod typescript;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ts_rs::TS;
use utoipa::ToSchema;

use crate::domain::delivery::LastUpdates;
use crate::domain::token::TokenError;
use crate::domain::update::{Kind, Views};
use crate::domain::visibility::View;
use crate::ids::{MatchId, Revision, UserId};

pub use self::codes::{ConnectErrorCode, ErrorCode, KickCode};
pub use self::events::{EventDeclaration, TypeDeclaration, client_events, server_events};
pub(crate) use self::events::{client_event, server_event};
pub(crate) use self::namespace::Namespace;
pub use self::request::Request;
pub(crate) use self::typescript::typescript;

/// The event that carries updates of this kind; `None` if clients never get them.
pub(crate) fn event_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Profile => Some(server_event::PROFILE_UPDATE),
        Kind::Stats => Some(server_event::GAME_STATS_UPDATE),
        Kind::Friends => Some(server_event::FRIEND_LIST_UPDATE),
        Kind::Matches => Some(server_event::MATCH_HISTORY_UPDATE),
        Kind::Friendships => None,
    }
}

impl From<TokenError> for ConnectErrorCode {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::TokenExpired,
            TokenError::Invalid(_) => Self::InvalidToken,
        }
    }
}

/// The `auth` payload of CONNECT.
#[derive(Debug, Default, Serialize, TS)]
pub(crate) struct HandshakeAuth {
    /// A JWT; `null`, absent or empty for a guest.
    #[ts(optional = nullable)]
    pub token: Option<String>,
}

/// Names a user.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserRequest {
    /// From 1 to 2^53 - 1.
    #[ts(type = "number")]
    pub user_id: UserId,
}

/// A request with a token.
#[derive(Clone, Debug, Deserialize, TS)]
pub(crate) struct TokenRequest {
    /// A JWT of the same user.
    pub token: String,
}

/// The answer to a refused event.
#[derive(Debug, Serialize, TS)]
pub(crate) struct Refusal {
    /// Always `false`.
    #[ts(type = "false")]
    pub ok: bool,
    /// Reason, for programs.
    pub error: ErrorCode,
    /// Reason, for people.
    pub message: String,
}

/// A refused event that had no acknowledgement.
#[derive(Debug, Serialize, TS)]
pub(crate) struct Exception {
    /// Name of the refused event; cut off after 128 bytes.
    pub event: String,
    /// Reason, for programs.
    pub error: ErrorCode,
    /// Reason, for people.
    pub message: String,
}

/// The answer to an event that was carried out.
#[derive(Debug, Serialize, TS)]
pub(crate) struct Done {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
}

/// The outcome of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, TS)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QueueStatus {
    /// The user joined the queue.
    Queued,
    /// The user was in the queue already, from this tab or another.
    AlreadyQueued,
}

impl QueueStatus {
    /// `already`: whether the user was in the queue before.
    pub(crate) fn of(already: bool) -> Self {
        if already {
            Self::AlreadyQueued
        } else {
            Self::Queued
        }
    }
}

/// The answer to `join-matchmaking`.
#[derive(Debug, Serialize, TS)]
pub(crate) struct Queued {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
    /// Tells whether the user was in the queue before.
    pub status: QueueStatus,
}

/// The answer to `refresh-token`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenRefreshed {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
    /// Expiry of the new token, in ms since 1970.
    #[ts(type = "number")]
    pub expires_at: u64,
}

/// The answer to `get-online-users`: the ids of all online users, ascending, without duplicates.
#[derive(Debug, TS)]
#[ts(type = "number[]")]
pub(crate) struct OnlineUsers;

/// The answer to `watch-profile`.
#[derive(Debug, Serialize, TS)]
pub(crate) struct Watching<'a> {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
    /// The last updates, in the view of the connection.
    #[serde(flatten)]
    pub known: KnownUser<'a>,
}

/// The last updates about a user, in the view of the caller; `null` for a kind without an update.
#[derive(Debug, Serialize, ToSchema, TS)]
pub(crate) struct KnownUser<'a> {
    /// The profile.
    #[ts(type = "(User & Record<string, unknown>) | null")]
    #[schema(value_type = Option<Object>)]
    pub profile: Option<&'a RawValue>,
    /// The game statistics.
    #[ts(type = "Record<string, unknown> | null")]
    #[schema(value_type = Option<Object>)]
    pub stats: Option<&'a RawValue>,
    /// The friend list; only for friends and the user.
    #[ts(optional, type = "Friend[] | null")]
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub friends: Option<Option<&'a RawValue>>,
    /// The match history; only for friends and the user.
    #[ts(optional, type = "Match[] | null")]
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<Option<&'a RawValue>>,
    /// Revisions of the profile and the statistics.
    pub revisions: Revisions,
}

/// The revisions of the last updates; `null` for a kind without an update.
#[derive(Debug, Serialize, ToSchema, TS)]
pub(crate) struct Revisions {
    /// Revision of the profile.
    #[ts(type = "number | null")]
    #[schema(value_type = Option<u64>)]
    pub profile: Option<Revision>,
    /// Revision of the game statistics.
    #[ts(type = "number | null")]
    #[schema(value_type = Option<u64>)]
    pub stats: Option<Revision>,
}

impl<'a> Watching<'a> {
    /// The answer for a watcher with `view`.
    pub(crate) fn new(view: View, last: &'a LastUpdates) -> Self {
        Self {
            ok: true,
            known: KnownUser::new(view, last),
        }
    }
}

impl<'a> KnownUser<'a> {
    /// The part of the last updates that `view` shows.
    pub(crate) fn new(view: View, last: &'a LastUpdates) -> Self {
        let seen = |kind: Kind| {
            last.get(&kind)
                .and_then(|views| Some((views.revision, seen(view, views)?)))
        };
        let content = |kind: Kind| seen(kind).map(|(_, content)| content);
        let revision = |kind: Kind| seen(kind).map(|(revision, _)| revision);
        let full = view == View::Full;
        Self {
            profile: content(Kind::Profile),
            stats: content(Kind::Stats),
            friends: full.then(|| content(Kind::Friends)),
            matches: full.then(|| content(Kind::Matches)),
            revisions: Revisions {
                profile: revision(Kind::Profile),
                stats: revision(Kind::Stats),
            },
        }
    }
}

/// The part of an update that `view` shows, if any.
pub(crate) fn seen(view: View, views: &Views) -> Option<&RawValue> {
    match view {
        View::Full => Some(&views.full),
        View::Public => views.public.as_deref(),
    }
}

/// A user as a back end describes one; may have further fields.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, TS)]
pub(crate) struct User {
    /// Id of the user.
    #[ts(rename = "userID", optional, type = "number")]
    pub user_id: Option<UserId>,
    /// Display name.
    #[ts(optional)]
    pub username: Option<String>,
    /// URL of the picture.
    #[ts(optional = nullable)]
    pub avatar: Option<String>,
}

/// An entry of a friend list.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Friend {
    /// Id of the friend.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// Display name.
    pub username: String,
    /// URL of the picture.
    pub avatar: Option<String>,
}

/// The outcome of a match for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MatchResult {
    /// The user won.
    Win,
    /// The opponent won.
    Loss,
}

/// An entry of a match history.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, TS)]
#[ts(rename_all = "camelCase")]
pub(crate) struct Match {
    /// Id of the match.
    #[ts(type = "number | string")]
    pub match_id: String,
    /// The other player.
    pub opponent: Friend,
    /// Outcome for the user.
    pub result: MatchResult,
    /// Points; the user's come first.
    #[ts(type = "[number, number]")]
    pub score: [u32; 2],
    /// End of the match, in ms since 1970.
    #[ts(type = "number")]
    pub played_at: u64,
}

/// Whether a user is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Has a connection, or had one within the grace.
    Online,
    /// Has no connection.
    Offline,
}

impl Status {
    /// The status for a flag of the domain.
    pub(crate) fn of(online: bool) -> Self {
        if online { Self::Online } else { Self::Offline }
    }
}

/// The payload of `user-status-change`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserStatusChange {
    /// The user whose status changed.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The new status.
    pub status: Status,
}

/// The payload of `profile-update`.
#[derive(Debug, Serialize, TS)]
pub(crate) struct ProfileUpdate<'a> {
    /// The profile, in the view of the connection.
    #[ts(type = "User & Record<string, unknown>")]
    pub user: &'a RawValue,
    /// Increases with each update of the profile.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// The payload of `game-stats-update`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GameStatsUpdate<'a> {
    /// The user concerned.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The statistics.
    #[ts(type = "Record<string, unknown>")]
    pub stats: &'a RawValue,
    /// Increases with each update of the statistics.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// The payload of `friend-list-update`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FriendListUpdate<'a> {
    /// The user concerned.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The friends.
    #[ts(type = "Friend[]")]
    pub friends: &'a RawValue,
    /// Increases with each update of the list.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// The payload of `match-history-update`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MatchHistoryUpdate<'a> {
    /// The user concerned.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The matches.
    #[ts(type = "Match[]")]
    pub matches: &'a RawValue,
    /// Increases with each update of the history.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// An opponent, in the public view.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, TS)]
#[ts(rename_all = "camelCase")]
pub(crate) struct Opponent {
    /// Id of the opponent.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// Display name, if known.
    pub username: Option<String>,
    /// URL of the picture, if any.
    pub avatar: Option<String>,
}

/// The payload of `match-found`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MatchFound<'a> {
    /// Id of the match, the same for both players.
    #[ts(type = "string")]
    pub match_id: MatchId,
    /// The other player.
    #[ts(type = "Opponent")]
    pub opponent: &'a RawValue,
}

/// The payload of `token-expiring`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenExpiring {
    /// Expiry of the token, in ms since 1970.
    #[ts(type = "number")]
    pub expires_at: u64,
}

/// The payload of `kicked`.
#[derive(Debug, Serialize, TS)]
pub(crate) struct Kicked {
    /// Reason, for programs.
    pub code: KickCode,
    /// Reason, for people.
    pub message: String,
    /// Whether the client should reconnect with the same token.
    pub reconnect: bool,
}

impl Kicked {
    /// Adds a message for players. Only a rate-limited client may reconnect with the same token.
    pub(crate) fn new(code: KickCode) -> Self {
        let message = match code {
            KickCode::TokenExpired => "your session has expired; sign in again",
            KickCode::Kicked => "your connection was closed by the site",
            KickCode::AccountDeleted => "your account was deleted",
            KickCode::RateLimited => "you send too much; wait a little",
        };
        Self {
            code,
            message: message.to_owned(),
            reconnect: code == KickCode::RateLimited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_not_even_told_that_there_are_friends() {
        let nothing = LastUpdates::new();
        let public = serde_json::to_string(&Watching::new(View::Public, &nothing)).expect("JSON");
        let expected =
            r#"{"ok":true,"profile":null,"stats":null,"revisions":{"profile":null,"stats":null}}"#;
        assert_eq!(public, expected);
        let full = serde_json::to_string(&Watching::new(View::Full, &nothing)).expect("JSON");
        assert!(full.contains(r#""friends":null,"matches":null"#), "{full}");
    }
}
