//! Every event of the contract: its name, its payload, its acknowledgement. What is declared here is what the code sends
//! and reads by name, and what `vigie types` prints.

use ts_rs::{Config, TS};

use super::{
    Done, Exception, FriendListUpdate, GameStatsUpdate, Kicked, MatchFound, MatchHistoryUpdate,
    OnlineUsers, ProfileUpdate, Queued, Refusal, TokenExpiring, TokenRefreshed, TokenRequest,
    UserRequest, UserStatusChange, Watching,
};

/// An event as TypeScript shows it.
pub(super) struct Event {
    /// Its name.
    pub(super) name: &'static str,
    /// The lines of its doc comment.
    pub(super) docs: &'static [&'static str],
    /// The type of its payload; none where it has none.
    pub(super) payload: Vec<String>,
    /// The types of which its acknowledgement has one; none where there is no acknowledgement.
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
        pub mod $direction {
            use super::*;

            $(
                $(#[doc = $docs])+
                pub const $name: &str = $text;
            )+

            /// All of them.
            pub(in crate::transport::protocol) fn all(config: &Config) -> Vec<Event> {
                vec![$(
                    Event {
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
        /// Who is online? `user-status-change` tells what happens after the answer.
        GET_ONLINE_USERS = "get-online-users" -> OnlineUsers;
        /// Watch a profile; answers once updates arrive.
        WATCH_PROFILE = "watch-profile" (UserRequest) -> Watching<'static> | Refusal;
        /// Stop watching a profile.
        UNWATCH_PROFILE = "unwatch-profile" (UserRequest) -> Done | Refusal;
        /// Wait for an opponent; `match-found` tells when there is one. One place in the queue for all tabs.
        JOIN_MATCHMAKING = "join-matchmaking" -> Queued | Refusal;
        /// Wait no longer.
        LEAVE_MATCHMAKING = "leave-matchmaking" -> Done | Refusal;
        /// Go on with a newer token of the same user.
        REFRESH_TOKEN = "refresh-token" (TokenRequest) -> TokenRefreshed | Refusal;
    }

    /// Events that the hub sends.
    pub mod server_event {
        /// A user came online or went offline.
        USER_STATUS_CHANGE = "user-status-change" (UserStatusChange);
        /// A watched profile, or the own one, changed.
        PROFILE_UPDATE = "profile-update" (ProfileUpdate<'static>);
        /// Game statistics of a watched user, or the own ones, changed.
        GAME_STATS_UPDATE = "game-stats-update" (GameStatsUpdate<'static>);
        /// The friend list changed; friends and the user see it.
        FRIEND_LIST_UPDATE = "friend-list-update" (FriendListUpdate<'static>);
        /// The match history changed; friends and the user see it.
        MATCH_HISTORY_UPDATE = "match-history-update" (MatchHistoryUpdate<'static>);
        /// The own account is gone; the hub disconnects.
        ACCOUNT_DELETED = "account-deleted";
        /// A watched account is gone.
        PROFILE_DELETED = "profile-deleted" (UserRequest);
        /// An opponent was found.
        MATCH_FOUND = "match-found" (MatchFound<'static>);
        /// No opponent was found in time; the user waits no longer.
        MATCH_TIMEOUT = "match-timeout";
        /// The token expires soon; send `refresh-token`.
        TOKEN_EXPIRING = "token-expiring" (TokenExpiring);
        /// The hub is about to close the connection.
        KICKED = "kicked" (Kicked);
        /// An event without acknowledgement was refused.
        EXCEPTION = "exception" (Exception);
    }
}
