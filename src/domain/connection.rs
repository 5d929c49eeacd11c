//! One connection of this node, from its admission to its end.

use std::collections::HashSet;

use super::Hub;
use super::token::Identity;
use crate::engine::{EngineError, Registration};
use crate::ids::{ConnectionId, UserId};
use crate::telemetry::Transport;

/// Why a connection is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The account was deleted.
    #[error("the account was deleted")]
    AccountDeleted,
    /// The user's tokens were revoked, and this one was not issued after that.
    #[error("the user's tokens were revoked")]
    TokenRevoked,
    /// The user has as many connections as allowed.
    #[error("the user has too many connections")]
    TooManyConnections,
    /// The engine cannot be reached.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why a profile is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The connection watches as many as allowed.
    #[error("a connection may watch at most {0} profiles; unwatch one first")]
    TooMany(usize),
    /// The engine cannot be reached.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// An admitted connection. Whoever holds it calls [`Connection::close`] at its end.
pub struct Connection {
    hub: Hub,
    id: ConnectionId,
    user: Option<UserId>,
    transport: Transport,
    watched: HashSet<UserId>,
}

impl Hub {
    /// Admits a connection of whoever a valid token speaks for, or of a guest, over a session that began with
    /// `transport`. On return the user is counted, and
    /// updates about the user reach the connection.
    ///
    /// # Errors
    /// When the account was deleted, the token was revoked, the user has too many connections, or the engine cannot
    /// be reached.
    pub async fn connect(
        &self,
        id: ConnectionId,
        identity: Option<Identity>,
        transport: Transport,
    ) -> Result<Connection, Refused> {
        if let Some(identity) = &identity {
            self.admit(id, identity).await?;
        }
        let user = identity.map(|identity| identity.user);
        self.count_connection(user, transport, 1);
        Ok(Connection {
            hub: self.clone(),
            id,
            user,
            transport,
            watched: HashSet::new(),
        })
    }

    async fn admit(&self, id: ConnectionId, identity: &Identity) -> Result<(), Refused> {
        let user = identity.user;
        if self.presence().is_overdue() {
            let reason = "too many connections wait to be released".to_owned();
            return Err(EngineError::NotNow(reason).into());
        }
        let mut hold = self.topics().hold(user);
        hold.confirmed().await?;
        if self.accounts().exist() {
            // An account that was deleted while Redis had lost its data is found here.
            hold.load().await?;
        }
        // Told before counted: whatever happens to the account from the moment of counting on is heard.
        let entered = hold.enter_own(id);
        let connections_max = self.allowances().connections_per_user as u64;
        let registered = self
            .presence()
            .register(identity, id, connections_max)
            .await;
        let refused = match registered {
            Ok(Registration::Registered { since_ms, .. }) => {
                self.topics().counts_since(user, id, since_ms, entered);
                return Ok(());
            }
            Ok(Registration::AccountDeleted) => Refused::AccountDeleted,
            Ok(Registration::TokenRevoked) => Refused::TokenRevoked,
            Ok(Registration::TooManyConnections) => Refused::TooManyConnections,
            Err(error) => error.into(),
        };
        self.topics().leave(user, id);
        // It may count nevertheless: an answer was lost, or everything was registered again in that moment.
        self.presence().release(user, id);
        Err(refused)
    }
}

impl Connection {
    /// The connection's number on this node.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The account; none for a guest.
    pub fn user(&self) -> Option<UserId> {
        self.user
    }

    /// The hub that it is admitted to.
    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Has the oldest open question answered in its turn, after what is to be told before.
    pub async fn take_turn(&self) {
        self.hub.take_turn(self.id).await;
    }

    /// Has the question "who is online" answered through the stream of deliveries.
    pub async fn answer_online_users(&self) {
        self.hub.presence().answer_online_users(self.id).await;
    }

    /// Watches `target`. The answer comes through the stream of deliveries once its topic is received.
    ///
    /// # Errors
    /// When the connection watches too many, or the engine cannot be reached; then nothing has changed.
    pub async fn watch(&mut self, target: UserId) -> Result<(), WatchError> {
        let watches_max = self.hub.allowances().watches;
        let watched_before = self.watched.contains(&target);
        if !watched_before && self.watched.len() >= watches_max {
            return Err(WatchError::TooMany(watches_max));
        }
        let mut hold = self.hub.topics().hold(target);
        hold.confirmed().await?;
        hold.enter_watcher(self.id, self.user, watched_before)
            .await?;
        self.watched.insert(target);
        Ok(())
    }

    /// Stops watching `target`, if it did.
    pub fn unwatch(&mut self, target: UserId) {
        if self.watched.remove(&target) {
            self.hub.topics().unwatch(target, self.id);
        }
    }

    /// Forgets the connection: watches nobody, is no longer counted.
    pub fn close(self) {
        for target in &self.watched {
            self.hub.topics().unwatch(*target, self.id);
        }
        self.hub.count_connection(self.user, self.transport, -1);
        if let Some(user) = self.user {
            self.hub.topics().leave(user, self.id);
            self.hub.presence().release(user, self.id);
            if !self.hub.topics().is_here(user) {
                self.hub.matchmaking().forget(user);
            }
        }
    }
}
