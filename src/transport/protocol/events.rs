//! The events of the contract, with payloads and acknowledgements. The code uses the names, and `vigie types` prints
//! everything.

use ts_rs::{Config, TS};

use super::{
    Done, Exception, FriendListUpdate, GameStatsUpdate, Kicked, MatchFound, MatchHistoryUpdate,
    OnlineUsers, ProfileUpdate, Queued, Refusal, TokenExpiring, TokenRefreshed, TokenRequest,
    UserRequest, UserStatusChange, Watching,
};

/// An event as declared in TypeScript.
pub(super) struct EventDeclaration {
    pub(super) name: &'static str,
    /// Lines of the doc comment.
    pub(super) docs: &'static [&'static str],
    /// Type of the payload; empty if there is none.
    pub(super) payload: Vec<String>,
    /// Alternative types of the acknowledgement; empty if there is none.
    pub(super) reply: Vec<String>,
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

            pub(in crate::transport::protocol) fn all(config: &Config) -> Vec<EventDeclaration> {
                vec![$(
                    EventDeclaration {
                        name: $name,
                        docs: &[$($docs),+],
                        payload: vec![$(<$payload as TS>::name(config))?],
                        reply: vec![$($(<$reply as TS>::name(config)),+)?],
                    }
                ),+]
            }
        }
    )+};
}

events! {
    /// Events that clients send.
    pub mod client_event {
        /// Get the online users; `user-status-change` reports every change after the answer.
        GET_ONLINE_USERS = "get-online-users" -> OnlineUsers;
        /// Watch a profile; the answer comes once updates will arrive.
        WATCH_PROFILE = "watch-profile" (UserRequest) -> Watching<'static> | Refusal;
        /// Stop watching a profile.
        UNWATCH_PROFILE = "unwatch-profile" (UserRequest) -> Done | Refusal;
        /// Join the matchmaking queue; `match-found` reports an opponent. All tabs of a user share one place in the queue.
        JOIN_MATCHMAKING = "join-matchmaking" -> Queued | Refusal;
        /// Leave the matchmaking queue.
        LEAVE_MATCHMAKING = "leave-matchmaking" -> Done | Refusal;
        /// Replace the token of the connection by a newer one of the same user.
        REFRESH_TOKEN = "refresh-token" (TokenRequest) -> TokenRefreshed | Refusal;
    }

    /// Events that the hub sends.
    pub mod server_event {
        /// A user came online or went offline.
        USER_STATUS_CHANGE = "user-status-change" (UserStatusChange);
        /// A watched profile, or the user's own, changed.
        PROFILE_UPDATE = "profile-update" (ProfileUpdate<'static>);
        /// Game statistics of a watched user, or the user's own, changed.
        GAME_STATS_UPDATE = "game-stats-update" (GameStatsUpdate<'static>);
        /// The friend list changed; friends and the user see it.
        FRIEND_LIST_UPDATE = "friend-list-update" (FriendListUpdate<'static>);
        /// The match history changed; friends and the user see it.
        MATCH_HISTORY_UPDATE = "match-history-update" (MatchHistoryUpdate<'static>);
        /// The user's own account was deleted; the hub disconnects.
        ACCOUNT_DELETED = "account-deleted";
        /// A watched account was deleted.
        PROFILE_DELETED = "profile-deleted" (UserRequest);
        /// An opponent was found.
        MATCH_FOUND = "match-found" (MatchFound<'static>);
        /// No opponent was found in time; the user has left the queue.
        MATCH_TIMEOUT = "match-timeout";
        /// The token expires soon; send `refresh-token`.
        TOKEN_EXPIRING = "token-expiring" (TokenExpiring);
        /// The hub is about to close the connection.
        KICKED = "kicked" (Kicked);
        /// An event without acknowledgement was refused.
        EXCEPTION = "exception" (Exception);
    }
}
