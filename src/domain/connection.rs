//! One connection of this node, from its admission to its end.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::account::Accounts;
use super::delivery::{Deliveries, Delivery};
use super::matchmaking::{JoinError, Joined, Matchmaking};
use super::presence::Presence;
use super::token::Identity;
use super::topic::Topics;
use crate::engine::{EngineError, Registration};
use crate::ids::{ConnectionId, UserId};
use crate::telemetry::{ConnectionKind, Metrics, Transport};

/// The limits of one connection, or one user. They can change while the node runs.
#[derive(Clone, Copy, Debug)]
pub struct Allowances {
    /// Most profiles that one connection may watch.
    pub watches: usize,
    /// Most connections of one user on all nodes.
    pub connections_per_user: usize,
}

/// Admits connections. Each one keeps what it needs of this until its end.
pub(crate) struct Connections {
    pub(crate) topics: Arc<Topics>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) matchmaking: Arc<Matchmaking>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) deliveries: Deliveries,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) allowances: ArcSwap<Allowances>,
}

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
    shared: Arc<Connections>,
    id: ConnectionId,
    user: Option<UserId>,
    transport: Transport,
    watched: HashSet<UserId>,
}

impl Connections {
    pub(crate) async fn connect(
        self: &Arc<Self>,
        id: ConnectionId,
        identity: Option<Identity>,
        transport: Transport,
    ) -> Result<Connection, Refused> {
        if let Some(identity) = &identity {
            self.admit(id, identity).await?;
        }
        let user = identity.map(|identity| identity.user);
        self.count(user, transport, 1);
        Ok(Connection {
            shared: Arc::clone(self),
            id,
            user,
            transport,
            watched: HashSet::new(),
        })
    }

    fn count(&self, user: Option<UserId>, transport: Transport, change: i64) {
        let kind = match user {
            Some(_) => ConnectionKind::User,
            None => ConnectionKind::Guest,
        };
        self.metrics.count_connection(kind, transport, change);
    }

    async fn admit(&self, id: ConnectionId, identity: &Identity) -> Result<(), Refused> {
        let user = identity.user;
        if self.presence.is_overdue() {
            let reason = "too many connections wait to be released".to_owned();
            return Err(EngineError::NotNow(reason).into());
        }
        let mut hold = self.topics.hold(user);
        hold.confirmed().await?;
        if self.accounts.exist() {
            // An account that was deleted while Redis had lost its data is found here.
            hold.load().await?;
        }
        // Told before counted: whatever happens to the account from the moment of counting on is heard.
        let entered = hold.enter_own(id);
        let connections_max = self.allowances.load().connections_per_user as u64;
        let registered = self.presence.register(identity, id, connections_max).await;
        let refused = match registered {
            Ok(Registration::Registered { since_ms, .. }) => {
                self.topics.counts_since(user, id, since_ms, entered);
                return Ok(());
            }
            Ok(Registration::AccountDeleted) => Refused::AccountDeleted,
            Ok(Registration::TokenRevoked) => Refused::TokenRevoked,
            Ok(Registration::TooManyConnections) => Refused::TooManyConnections,
            Err(error) => error.into(),
        };
        self.topics.leave(user, id);
        // It may count nevertheless: an answer was lost, or everything was registered again in that moment.
        self.presence.release(user, id);
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

    /// Has the oldest open question answered in its turn, after what is to be told before.
    pub async fn take_turn(&self) {
        let place = self.shared.deliveries.place().await;
        place.put(Delivery::Turn { to: self.id });
    }

    /// Has the question "who is online" answered through the stream of deliveries.
    pub async fn answer_online_users(&self) {
        self.shared.presence.answer_online_users(self.id).await;
    }

    /// Watches `target`. The answer comes through the stream of deliveries once its topic is received.
    ///
    /// # Errors
    /// When the connection watches too many, or the engine cannot be reached; then nothing has changed.
    pub async fn watch(&mut self, target: UserId) -> Result<(), WatchError> {
        let watches_max = self.shared.allowances.load().watches;
        let watched_before = self.watched.contains(&target);
        if !watched_before && self.watched.len() >= watches_max {
            return Err(WatchError::TooMany(watches_max));
        }
        let mut hold = self.shared.topics.hold(target);
        hold.confirmed().await?;
        hold.enter_watcher(self.id, self.user, watched_before)
            .await?;
        self.watched.insert(target);
        Ok(())
    }

    /// Puts the connection's user in the queue. Send the answer before you drop the result: until then no match is
    /// announced to the user.
    ///
    /// # Errors
    /// When it is a guest's, or the engine cannot be reached.
    pub async fn join_matchmaking(&self) -> Result<Joined, JoinError> {
        let user = self.user.ok_or(JoinError::NotSignedIn)?;
        Ok(self.shared.matchmaking.join_here(user).await?)
    }

    /// Takes the connection's user out of the queue.
    ///
    /// # Errors
    /// When it is a guest's, or the engine cannot be reached.
    pub async fn leave_matchmaking(&self) -> Result<(), JoinError> {
        let user = self.user.ok_or(JoinError::NotSignedIn)?;
        self.shared.matchmaking.leave(user).await?;
        Ok(())
    }

    /// Stops watching `target`, if it did.
    pub fn unwatch(&mut self, target: UserId) {
        if self.watched.remove(&target) {
            self.shared.topics.unwatch(target, self.id);
        }
    }

    /// Forgets the connection: watches nobody, is no longer counted.
    pub fn close(self) {
        for target in &self.watched {
            self.shared.topics.unwatch(*target, self.id);
        }
        self.shared.count(self.user, self.transport, -1);
        if let Some(user) = self.user {
            self.shared.topics.leave(user, self.id);
            self.shared.presence.release(user, self.id);
            if !self.shared.topics.is_here(user) {
                self.shared.matchmaking.forget(user);
            }
        }
    }
}
