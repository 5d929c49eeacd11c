//! One connection of this node, from its admission to its end.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;

use super::account::Accounts;
use super::delivery::{Deliveries, Delivery, ReplyTo};
use super::matchmaking::{JoinError, Joined, Matchmaking};
use super::presence::Presence;
use super::token::Identity;
use super::topic::{Membership, Topics};
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

/// Admits connections. Each connection keeps a reference until its end.
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

/// An admitted connection, until it is dropped.
pub struct Connection {
    shared: Arc<Connections>,
    id: ConnectionId,
    user: Option<UserId>,
    transport: Transport,
    own: Option<Membership>,
    watched: HashMap<UserId, Membership>,
}

impl Connections {
    pub(crate) async fn connect(
        self: &Arc<Self>,
        id: ConnectionId,
        identity: Option<Identity>,
        transport: Transport,
    ) -> Result<Connection, Refused> {
        let own = match &identity {
            Some(identity) => Some(self.admit(id, identity).await?),
            None => None,
        };
        let user = identity.map(|identity| identity.user);
        self.count(user, transport, 1);
        Ok(Connection {
            shared: Arc::clone(self),
            id,
            user,
            transport,
            own,
            watched: HashMap::new(),
        })
    }

    fn count(&self, user: Option<UserId>, transport: Transport, change: i64) {
        let kind = match user {
            Some(_) => ConnectionKind::User,
            None => ConnectionKind::Guest,
        };
        self.metrics.count_connection(kind, transport, change);
    }

    async fn admit(&self, id: ConnectionId, identity: &Identity) -> Result<Membership, Refused> {
        let user = identity.user;
        if self.presence.is_overdue() {
            let reason = "too many connections wait to be released".to_owned();
            return Err(EngineError::NotNow(reason).into());
        }
        let interest = self.topics.interest(user).await?;
        if self.accounts.exist() {
            // An account that was deleted while Redis had lost its data is found here.
            interest.load().await?;
        }
        // The connection joins before it is counted: no message about the account is missed from then on.
        let (own, joined) = interest.join(id);
        let connections_max = self.allowances.load().connections_per_user as u64;
        let registered = self.presence.register(identity, id, connections_max).await;
        let refused = match registered {
            Ok(Registration::Registered { since_ms, .. }) => {
                own.registered_at(since_ms, joined);
                return Ok(own);
            }
            Ok(Registration::AccountDeleted) => Refused::AccountDeleted,
            Ok(Registration::TokenRevoked) => Refused::TokenRevoked,
            Ok(Registration::TooManyConnections) => Refused::TooManyConnections,
            Err(error) => error.into(),
        };
        drop(own);
        // The connection may count nevertheless: an answer was lost, or all connections were registered again.
        self.presence.release(user, id);
        Err(refused)
    }
}

impl Connection {
    /// Unique on this node.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The signed-in user; `None` for a guest.
    pub fn user(&self) -> Option<UserId> {
        self.user
    }

    /// Sends an answer through the stream of deliveries, so that it keeps its place among them.
    pub async fn reply(&self, to: ReplyTo, body: Arc<RawValue>) {
        let slot = self.shared.deliveries.reserve().await;
        slot.send(Delivery::Reply { to, body });
    }

    /// Sends the ids of all online users through the stream of deliveries.
    pub async fn answer_online_users(&self, to: ReplyTo) {
        self.shared.presence.answer_online_users(to).await;
    }

    /// Watches `target`. The answer comes through the stream of deliveries, once this node receives the topic of `target`.
    ///
    /// # Errors
    /// When the connection watches too many profiles, or the engine cannot be reached; then nothing has changed, and no
    /// answer comes.
    pub async fn watch(&mut self, target: UserId, to: ReplyTo) -> Result<(), WatchError> {
        let watches_max = self.shared.allowances.load().watches;
        let watched_before = self.watched.contains_key(&target);
        if !watched_before && self.watched.len() >= watches_max {
            return Err(WatchError::TooMany(watches_max));
        }
        let interest = self.shared.topics.interest(target).await?;
        let watch = interest.watch(to, self.user, watched_before);
        if let Some(membership) = watch.await? {
            self.watched.insert(target, membership);
        }
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
        self.watched.remove(&target);
    }
}

/// Ends the connection: it watches nobody, and its user is counted no longer.
impl Drop for Connection {
    fn drop(&mut self) {
        self.watched.clear();
        self.shared.count(self.user, self.transport, -1);
        if let Some(user) = self.user {
            self.own = None;
            self.shared.presence.release(user, self.id);
            if !self.shared.topics.is_here(user) {
                self.shared.matchmaking.forget(user);
            }
        }
    }
}
