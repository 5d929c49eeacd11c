//! The client contract: event names, payloads, replies, error codes. `vigie types` prints it as TypeScript.

mod codes;
mod events;
mod request;
mod typescript;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ts_rs::TS;
use utoipa::ToSchema;

use crate::domain::delivery::LastUpdates;
use crate::domain::token::TokenError;
use crate::domain::visibility::View;
use crate::engine::{Kind, Views};
use crate::ids::{MatchId, Revision, UserId};

pub use self::codes::{ConnectErrorCode, ErrorCode, KickCode};
pub use self::events::{client_event, server_event};
pub use self::request::Request;
pub use self::typescript::typescript;

/// The event that tells about an update, if anybody is told.
pub fn event_of(kind: Kind) -> Option<&'static str> {
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

/// What a client sends with its handshake.
#[derive(Debug, Default, Serialize, TS)]
pub struct HandshakeAuth {
    /// A JWT; `null`, absent or empty for a guest.
    #[ts(optional = nullable)]
    pub token: Option<String>,
}

/// Names a user.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct UserRequest {
    /// From 1 to 2^53 - 1.
    #[ts(type = "number")]
    pub user_id: UserId,
}

/// Carries a token.
#[derive(Clone, Debug, Deserialize, TS)]
pub struct TokenRequest {
    /// A JWT of the same user.
    pub token: String,
}

/// The answer to a refused event.
#[derive(Debug, Serialize, TS)]
pub struct Refusal {
    /// Always `false`.
    #[ts(type = "false")]
    pub ok: bool,
    /// Why.
    pub error: ErrorCode,
    /// Why, for people.
    pub message: String,
}

/// A refused event that had no acknowledgement.
#[derive(Debug, Serialize, TS)]
pub struct Exception {
    /// The refused event; a long name is cut off after 128 bytes.
    pub event: String,
    /// Why.
    pub error: ErrorCode,
    /// Why, for people.
    pub message: String,
}

/// The answer to an event that did what it says.
#[derive(Debug, Serialize, TS)]
pub struct Done {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
}

/// Whether joining changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, TS)]
#[serde(rename_all = "snake_case")]
pub enum QueueStatus {
    /// The user waits from now on.
    Queued,
    /// The user waited already, in this tab or another.
    AlreadyQueued,
}

impl QueueStatus {
    /// What joining came to.
    pub fn of(already: bool) -> Self {
        if already {
            Self::AlreadyQueued
        } else {
            Self::Queued
        }
    }
}

/// The answer to `join-matchmaking`.
#[derive(Debug, Serialize, TS)]
pub struct Queued {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
    /// Whether the user waited already.
    pub status: QueueStatus,
}

/// The answer to `refresh-token`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct TokenRefreshed {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
    /// When the token expires, in ms since 1970.
    #[ts(type = "number")]
    pub expires_at: u64,
}

/// The answer to `get-online-users`: the ids of all users who are online, ascending, each once.
#[derive(Debug, TS)]
#[ts(type = "number[]")]
pub struct OnlineUsers;

/// The answer to `watch-profile`.
#[derive(Debug, Serialize, TS)]
pub struct Watching<'a> {
    /// Always `true`.
    #[ts(type = "true")]
    pub ok: bool,
    /// The last known of what the connection may see.
    #[serde(flatten)]
    pub known: KnownUser<'a>,
}

/// What is known about a user, as far as whoever asked may see it; `null` where nothing is.
#[derive(Debug, Serialize, ToSchema, TS)]
pub struct KnownUser<'a> {
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
    /// The revision of each.
    pub revisions: Revisions,
}

/// The revisions of what is known about a user, `null` where nothing is.
#[derive(Debug, Serialize, ToSchema, TS)]
pub struct Revisions {
    /// Of the profile.
    #[ts(type = "number | null")]
    #[schema(value_type = Option<u64>)]
    pub profile: Option<Revision>,
    /// Of the game statistics.
    #[ts(type = "number | null")]
    #[schema(value_type = Option<u64>)]
    pub stats: Option<Revision>,
}

impl<'a> Watching<'a> {
    /// Says that somebody with `view` watches from here on.
    pub fn new(view: View, last: &'a LastUpdates) -> Self {
        Self {
            ok: true,
            known: KnownUser::new(view, last),
        }
    }
}

impl<'a> KnownUser<'a> {
    /// What somebody with `view` may see of the last updates.
    pub fn new(view: View, last: &'a LastUpdates) -> Self {
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

/// What somebody with `view` may see of an update, if anything.
pub fn seen(view: View, views: &Views) -> Option<&RawValue> {
    match view {
        View::Full => Some(&views.full),
        View::Public => views.public.as_deref(),
    }
}

/// A user as a back end describes one; other fields may follow.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, TS)]
pub struct User {
    /// The user's id.
    #[ts(rename = "userID", optional, type = "number")]
    pub user_id: Option<UserId>,
    /// The name shown.
    #[ts(optional)]
    pub username: Option<String>,
    /// Where the picture is.
    #[ts(optional = nullable)]
    pub avatar: Option<String>,
}

/// An entry of a friend list.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Friend {
    /// The friend's id.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The name shown.
    pub username: String,
    /// Where the picture is.
    pub avatar: Option<String>,
}

/// How a match ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum MatchResult {
    /// The user won.
    Win,
    /// The opponent won.
    Loss,
}

/// An entry of a match history.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, TS)]
#[ts(rename_all = "camelCase")]
pub struct Match {
    /// The match.
    #[ts(type = "number | string")]
    pub match_id: String,
    /// Against whom.
    pub opponent: Friend,
    /// How it ended.
    pub result: MatchResult,
    /// The points, the user's first.
    #[ts(type = "[number, number]")]
    pub score: [u32; 2],
    /// When, in ms since 1970.
    #[ts(type = "number")]
    pub played_at: u64,
}

/// Whether a user is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Has a connection, or had one a moment ago.
    Online,
    /// Has none.
    Offline,
}

impl Status {
    /// Whether somebody is online, in words.
    pub fn of(online: bool) -> Self {
        if online { Self::Online } else { Self::Offline }
    }
}

/// The payload of `user-status-change`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct UserStatusChange {
    /// Who.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// What the user is now.
    pub status: Status,
}

/// The payload of `profile-update`.
#[derive(Debug, Serialize, TS)]
pub struct ProfileUpdate<'a> {
    /// The user, in the view that the connection may have.
    #[ts(type = "User & Record<string, unknown>")]
    pub user: &'a RawValue,
    /// Orders it among the updates of the profile.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// The payload of `game-stats-update`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct GameStatsUpdate<'a> {
    /// Whose.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The statistics.
    #[ts(type = "Record<string, unknown>")]
    pub stats: &'a RawValue,
    /// Orders it among the updates of the statistics.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// The payload of `friend-list-update`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct FriendListUpdate<'a> {
    /// Whose.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The friends.
    #[ts(type = "Friend[]")]
    pub friends: &'a RawValue,
    /// Orders it among the updates of the list.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// The payload of `match-history-update`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MatchHistoryUpdate<'a> {
    /// Whose.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The matches.
    #[ts(type = "Match[]")]
    pub matches: &'a RawValue,
    /// Orders it among the updates of the history.
    #[ts(type = "number")]
    pub revision: Revision,
}

/// Somebody's opponent, as everybody may see them.
#[allow(dead_code, reason = "only the TypeScript made from it is used")]
#[derive(Debug, TS)]
#[ts(rename_all = "camelCase")]
pub struct Opponent {
    /// The opponent's id.
    #[ts(type = "number")]
    pub user_id: UserId,
    /// The name shown, where one is known.
    pub username: Option<String>,
    /// Where the picture is, if there is one.
    pub avatar: Option<String>,
}

/// The payload of `match-found`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MatchFound<'a> {
    /// The match; both players get the same.
    #[ts(type = "string")]
    pub match_id: MatchId,
    /// Against whom.
    #[ts(type = "Opponent")]
    pub opponent: &'a RawValue,
}

/// The payload of `token-expiring`.
#[derive(Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct TokenExpiring {
    /// When, in ms since 1970.
    #[ts(type = "number")]
    pub expires_at: u64,
}

/// The payload of `kicked`.
#[derive(Debug, Serialize, TS)]
pub struct Kicked {
    /// Why.
    pub code: KickCode,
    /// Why, for people.
    pub message: String,
    /// Whether the client should come back with the same token.
    pub reconnect: bool,
}

impl Kicked {
    /// The reason in words that a player understands. Only who was too fast may come back with the same token.
    pub fn new(code: KickCode) -> Self {
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
