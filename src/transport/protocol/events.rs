//! The events of the contract, with payloads and acknowledgements. The code uses the names; `vigie types` and the tables
//! in README show everything.

use ts_rs::{Config, TS};

use super::{
    Done, Exception, FriendListUpdate, GameStatsUpdate, Kicked, MatchFound, MatchHistoryUpdate,
    OnlineUsers, ProfileUpdate, Queued, Refusal, TokenExpiring, TokenRefreshed, TokenRequest,
    UserRequest, UserStatusChange, Watching,
};

/// An event as TypeScript and README show it.
pub struct EventDeclaration {
    /// The name on the wire.
    pub name: &'static str,
    /// Lines of the doc comment.
    pub docs: &'static [&'static str],
    /// The payload; empty if there is none.
    pub payload: Vec<TypeDeclaration>,
    /// Alternatives of the acknowledgement; empty if there is none.
    pub reply: Vec<TypeDeclaration>,
}

/// A type of the contract.
pub struct TypeDeclaration {
    /// The name in TypeScript.
    pub name: String,
    /// The fields without their types, as in `{ ok: true, expiresAt }`; the type itself if it is no object.
    pub shape: String,
}

impl TypeDeclaration {
    fn of<T: TS>(config: &Config) -> Self {
        Self {
            name: T::name(config),
            shape: shape(&T::inline(config)),
        }
    }
}

/// Shortens an inline type, in which each field follows its doc comment on a line of its own.
fn shape(inline: &str) -> String {
    if !inline.starts_with('{') {
        return inline.to_owned();
    }
    let comments = ["{", "/**", "*", "}"];
    let fields = inline.lines().map(str::trim).filter_map(|line| {
        let (name, of_type) = line.split_once(": ")?;
        let is_field = !comments.iter().any(|begin| line.starts_with(begin));
        let is_literal = of_type.starts_with("true") || of_type.starts_with("false");
        let of_type = of_type.split(',').next().filter(|_| is_literal);
        is_field.then(|| of_type.map_or(name.to_owned(), |of_type| format!("{name}: {of_type}")))
    });
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}

/// Declares the events of one direction: `NAME = "name" (payload) -> reply | refusal;`.
macro_rules! events {
    ($(
        $(#[doc = $about:literal])+
        pub mod $direction:ident {
            $(
                $(#[doc = $docs:literal])+
                $name:ident = $text:literal $(($payload:ty))? $(-> $($reply:ty)|+)?;
            )+
        }
    )+) => {$(
        $(#[doc = $about])+
        pub(crate) mod $direction {
            use super::*;

            $(
                $(#[doc = $docs])+
                pub(crate) const $name: &str = $text;
            )+

            pub(super) fn all(config: &Config) -> Vec<EventDeclaration> {
                vec![$(
                    EventDeclaration {
                        name: $name,
                        docs: &[$($docs),+],
                        payload: vec![$(TypeDeclaration::of::<$payload>(config))?],
                        reply: vec![$($(TypeDeclaration::of::<$reply>(config)),+)?],
                    }
                ),+]
            }
        }
    )+};
}

events! {
    /// Events that clients send.
    pub mod client_event {
        /// Get the ids of the online users, ascending; `user-status-change` reports every change after the answer.
        GET_ONLINE_USERS = "get-online-users" -> OnlineUsers;
        /// Watch a profile. The answer comes once updates will arrive, and is never older than what was sent before; a
        /// kind of which nothing is known is `null`. Only friends and the user's own tabs get `friends` and `matches`.
        WATCH_PROFILE = "watch-profile" (UserRequest) -> Watching<'static> | Refusal;
        /// Stop watching a profile.
        UNWATCH_PROFILE = "unwatch-profile" (UserRequest) -> Done | Refusal;
        /// Join the matchmaking queue; `match-found` reports an opponent. A user has one place in the queue, shared by all
        /// tabs and nodes: `status` is `queued` or `already_queued`. A guest gets `not_signed_in`.
        JOIN_MATCHMAKING = "join-matchmaking" -> Queued | Refusal;
        /// Leave the matchmaking queue.
        LEAVE_MATCHMAKING = "leave-matchmaking" -> Done | Refusal;
        /// Replace the token of the connection with a newer one of the same user.
        REFRESH_TOKEN = "refresh-token" (TokenRequest) -> TokenRefreshed | Refusal;
    }

    /// Events that the hub sends.
    pub mod server_event {
        /// A user came online or went offline: `status` is `online` or `offline`. Sent to everyone, or to the user's
        /// watchers (`presence.audience`).
        USER_STATUS_CHANGE = "user-status-change" (UserStatusChange);
        /// A profile changed. Sent to the user's watchers and own connections, to each once. `user` is
        /// `{ userID, username, avatar, … }`.
        PROFILE_UPDATE = "profile-update" (ProfileUpdate<'static>);
        /// Game statistics changed. Sent to the user's watchers and own connections, to each once.
        GAME_STATS_UPDATE = "game-stats-update" (GameStatsUpdate<'static>);
        /// A friend list changed. Sent to the user's own connections and to watchers who are friends.
        FRIEND_LIST_UPDATE = "friend-list-update" (FriendListUpdate<'static>);
        /// A match history changed. Sent to the user's own connections and to watchers who are friends.
        MATCH_HISTORY_UPDATE = "match-history-update" (MatchHistoryUpdate<'static>);
        /// The account was deleted. Sent to the user's own connections, which the hub then closes.
        ACCOUNT_DELETED = "account-deleted";
        /// An account was deleted. Sent to its watchers.
        PROFILE_DELETED = "profile-deleted" (UserRequest);
        /// An opponent was found. Sent to every connection of both players, to each once. `opponent` is
        /// `{ userId, username, avatar }`, with `null` where nothing is known.
        MATCH_FOUND = "match-found" (MatchFound<'static>);
        /// No opponent was found within `matchmaking.max_wait`. Sent to the user, who has left the queue.
        MATCH_TIMEOUT = "match-timeout";
        /// The token of the connection expires in 30 s; send `refresh-token`.
        TOKEN_EXPIRING = "token-expiring" (TokenExpiring);
        /// The hub is about to close the connection. With `reconnect: false` a disconnect packet follows, and the client has to
        /// sign in again; with `true` the transport closes, and the client comes back by itself.
        KICKED = "kicked" (Kicked);
        /// An event without acknowledgement was refused; `event` is cut off after 128 bytes.
        EXCEPTION = "exception" (Exception);
    }
}

/// The events that clients send, in the order of the declaration.
pub fn client_events() -> Vec<EventDeclaration> {
    client_event::all(&Config::default())
}

/// The events that the hub sends, in the order of the declaration.
pub fn server_events() -> Vec<EventDeclaration> {
    server_event::all(&Config::default())
}
