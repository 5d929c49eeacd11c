//! The engine for a single node: the behaviour of the Redis scripts, in this process.
//!
//! Nothing outlives the process, so there is one epoch, no lease to lose, and no message to miss.

mod matchmaking;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use self::matchmaking::MatchmakingState;
use super::{
    AccountStatus, Admission, EngineError, EngineMessage, Expired, Kind, LiveNode, MESSAGES_MAX,
    Messages, NodeInfo, NodeRequest, Position, PublishOutcome, Pulse, Reaped, RegisteredConnection,
    Registration, Revoked, Stored, TopicMessage, Transition, Update, Views,
};
use crate::clock::{now_ms, now_us};
use crate::ids::{ConnectionId, Incarnation, Revision, SAFE_INTEGER_MAX, UserConnection, UserId};

/// Messages buffered for a slow reader before the oldest are lost, which counts as an interruption.
const BUFFER: usize = 16 * 1024;

/// The only epoch.
const EPOCH: &str = "memory";

/// The embedded engine.
pub struct Memory {
    incarnation: Incarnation,
    profile_ttl_ms: u64,
    revocation_ttl_ms: u64,
    state: Mutex<MemoryState>,
    matchmaking: Mutex<MatchmakingState>,
    messages: broadcast::Sender<EngineMessage>,
}

#[derive(Default)]
struct MemoryState {
    revision: u64,
    users: HashMap<UserId, MemoryUser>,
    /// Users without connections, by when they go offline (ms).
    leaving: BTreeSet<(u64, UserId)>,
    profiles: HashMap<UserId, Profile>,
    revocations: HashMap<UserId, Revocation>,
    topics: HashSet<UserId>,
    node: Option<LiveNode>,
}

#[derive(Default)]
struct MemoryUser {
    connections: BTreeMap<ConnectionId, u64>,
    offline_at_ms: Option<u64>,
}

struct Revocation {
    /// Tokens issued before this time are rejected.
    before_ms: u64,
    /// When the revocation expires.
    ends_at_ms: u64,
}

enum Profile {
    Known {
        /// The last update of each kind, and when it was stored (ms).
        kinds: BTreeMap<Kind, (Views, u64)>,
        updated_at_ms: u64,
        disconnected_at_ms: u64,
    },
    Deleted,
}

impl Profile {
    fn new() -> Self {
        Self::Known {
            kinds: BTreeMap::new(),
            updated_at_ms: now_ms(),
            disconnected_at_ms: 0,
        }
    }
}

impl MemoryState {
    fn account_status(&self, user: UserId, now_ms: u64) -> AccountStatus {
        let revocation = self
            .revocations
            .get(&user)
            .filter(|revocation| revocation.ends_at_ms > now_ms);
        AccountStatus {
            deleted: matches!(self.profiles.get(&user), Some(Profile::Deleted)),
            revoked_before_ms: revocation.map_or(0, |revocation| revocation.before_ms),
        }
    }
}

impl Memory {
    /// Creates the engine and its stream of messages. Updates expire `profile_ttl` after the newest one, revocations
    /// after `revocation_ttl`.
    pub fn open(
        incarnation: Incarnation,
        profile_ttl: Duration,
        revocation_ttl: Duration,
    ) -> (Arc<Self>, Messages) {
        let (messages, arriving) = broadcast::channel(BUFFER);
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(forward(arriving, sender));
        let memory = Self {
            incarnation,
            profile_ttl_ms: profile_ttl.as_millis() as u64,
            revocation_ttl_ms: revocation_ttl.as_millis() as u64,
            state: Mutex::default(),
            matchmaking: Mutex::default(),
            messages,
        };
        (Arc::new(memory), receiver)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation.clone()
    }

    /// Call with the state locked, so that messages leave in the order of the changes.
    fn send(&self, message: EngineMessage) {
        // The receiver is gone while the node stops.
        let _ = self.messages.send(message);
    }

    fn publish_transition(
        &self,
        state: &mut MemoryState,
        online: Vec<UserId>,
        offline: Vec<UserId>,
    ) {
        state.revision += 1;
        self.send(EngineMessage::Presence {
            partition: 0,
            transition: Transition {
                epoch: EPOCH.to_owned(),
                revision: state.revision,
                online,
                offline,
            },
        });
    }

    /// Returns the number of receiving nodes: one or none.
    fn send_to_topic(&self, state: &MemoryState, user: UserId, message: TopicMessage) -> u64 {
        if !state.topics.contains(&user) {
            return 0;
        }
        self.send(EngineMessage::Topic { user, message });
        1
    }

    pub(super) fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let status = state.account_status(user, now_ms());
        if status.deleted {
            return Ok(Registration::AccountDeleted);
        }
        if admission.issued_at_ms.unwrap_or(0) < status.revoked_before_ms {
            return Ok(Registration::TokenRevoked);
        }
        let known = state.users.get(&user);
        let full = known.is_some_and(|known| {
            known.connections.len() as u64 >= admission.connections_max
                && !known.connections.contains_key(&connection)
        });
        if full {
            return Ok(Registration::TooManyConnections);
        }
        let came_online = known.is_none();
        let known = state.users.entry(user).or_default();
        let since_ms = *known.connections.entry(connection).or_insert_with(now_ms);
        let refcount = known.connections.len() as u64;
        if let Some(offline_at_ms) = known.offline_at_ms.take() {
            state.leaving.remove(&(offline_at_ms, user));
        }
        if came_online {
            self.publish_transition(state, vec![user], Vec::new());
        }
        Ok(Registration::Registered {
            refcount,
            revision: state.revision,
            since_ms,
        })
    }

    /// The engine loses nothing, so all that are open are registered.
    pub(super) fn register_again(
        &self,
        _connections: &[UserConnection],
    ) -> Result<(), EngineError> {
        Ok(())
    }

    pub(super) fn release(
        &self,
        connections: &[UserConnection],
        grace: Duration,
    ) -> Result<u64, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut users = 0;
        for (user, connection) in connections {
            let Some(known) = state.users.get_mut(user) else {
                continue;
            };
            known.connections.remove(connection);
            if known.connections.is_empty() && known.offline_at_ms.is_none() {
                let offline_at_ms = now_ms() + grace.as_millis() as u64;
                known.offline_at_ms = Some(offline_at_ms);
                state.leaving.insert((offline_at_ms, *user));
            }
            users += u64::from(known.offline_at_ms.is_some());
        }
        Ok(users)
    }

    pub(super) fn expire(
        &self,
        _partition: u32,
        batch_max: u32,
        ahead: Duration,
        _restart_grace: Duration,
    ) -> Result<Expired, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now_ms = now_ms();
        let horizon_ms = now_ms + ahead.as_millis() as u64;
        let mut offline = Vec::new();
        while let Some(&(offline_at_ms, user)) = state.leaving.first() {
            if offline_at_ms > horizon_ms || offline.len() >= batch_max as usize {
                break;
            }
            state.leaving.pop_first();
            state.users.remove(&user);
            offline.push(user);
        }
        if !offline.is_empty() {
            self.publish_transition(state, Vec::new(), offline.clone());
        }
        let next = state.leaving.first();
        Ok(Expired {
            offline,
            more: next.is_some_and(|(offline_at_ms, _)| *offline_at_ms <= horizon_ms),
        })
    }

    pub(super) fn position(&self, _partition: u32) -> Result<Position, EngineError> {
        Ok(Position {
            epoch: EPOCH.to_owned(),
            revision: self.state.lock().revision,
        })
    }

    pub(super) fn online(&self, _partition: u32) -> Result<Vec<UserId>, EngineError> {
        Ok(self.state.lock().users.keys().copied().collect())
    }

    pub(super) fn connections_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        let state = self.state.lock();
        let Some(known) = state.users.get(&user) else {
            return Ok((false, Vec::new()));
        };
        let registered =
            |(connection, &connected_at_ms): (&ConnectionId, &u64)| RegisteredConnection {
                incarnation: self.incarnation.to_string(),
                connection: connection.to_string(),
                connected_at_ms,
            };
        Ok((true, known.connections.iter().map(registered).collect()))
    }

    pub(super) fn subscribe_presence(&self, _partition: u32) -> Result<(), EngineError> {
        Ok(())
    }

    pub(super) fn subscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        self.state.lock().topics.extend(users);
        Ok(())
    }

    pub(super) fn unsubscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        for user in users {
            state.topics.remove(user);
        }
        Ok(())
    }

    pub(super) fn publish(&self, updates: Vec<Update>) -> Vec<Result<PublishOutcome, EngineError>> {
        let mut guard = self.state.lock();
        updates
            .into_iter()
            .map(|update| Ok(self.publish_one(&mut guard, update)))
            .collect()
    }

    fn publish_one(&self, state: &mut MemoryState, update: Update) -> PublishOutcome {
        let profile = state
            .profiles
            .entry(update.user)
            .or_insert_with(Profile::new);
        let Profile::Known {
            kinds,
            updated_at_ms,
            ..
        } = profile
        else {
            return PublishOutcome::AccountDeleted;
        };
        let stored = kinds
            .get(&update.kind)
            .map_or(0, |(views, _)| views.revision.0);
        let revision = update
            .revision
            .map_or_else(|| now_us().max(stored + 1), |revision| revision.0);
        // Once a caller has used the largest revision, no update is newer.
        if revision <= stored || revision > SAFE_INTEGER_MAX {
            return PublishOutcome::Stale {
                revision: Revision(stored),
            };
        }
        let revision = Revision(revision);
        let views = Views {
            epoch: EPOCH.to_owned(),
            revision,
            public: update.public,
            full: update.full,
        };
        *updated_at_ms = now_ms();
        kinds.insert(update.kind, (views.clone(), *updated_at_ms));
        let nodes =
            self.send_to_topic(state, update.user, TopicMessage::Update(update.kind, views));
        PublishOutcome::Stored { revision, nodes }
    }

    pub(super) fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        Ok(match self.state.lock().profiles.get(&user) {
            Some(Profile::Known {
                kinds,
                disconnected_at_ms,
                ..
            }) => Stored {
                epoch: EPOCH.to_owned(),
                updates: kinds
                    .iter()
                    .map(|(kind, (views, at_ms))| (*kind, views.clone(), *at_ms))
                    .collect(),
                deleted: false,
                disconnected_at_ms: *disconnected_at_ms,
            },
            Some(Profile::Deleted) => Stored {
                deleted: true,
                ..Stored::default()
            },
            None => Stored::default(),
        })
    }

    pub(super) fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<Option<u64>, EngineError> {
        let event = event.to_owned();
        Ok(self.send_to_account(user, TopicMessage::Event { event, data }))
    }

    pub(super) fn disconnect(&self, user: UserId) -> Result<Option<u64>, EngineError> {
        Ok(self.disconnect_in(&mut self.state.lock(), user))
    }

    fn disconnect_in(&self, state: &mut MemoryState, user: UserId) -> Option<u64> {
        let profile = state.profiles.entry(user).or_insert_with(Profile::new);
        match profile {
            Profile::Deleted => return None,
            Profile::Known {
                disconnected_at_ms, ..
            } => *disconnected_at_ms = now_ms(),
        }
        Some(self.send_to_topic(state, user, TopicMessage::Disconnect { before_ms: None }))
    }

    pub(super) fn revoke(&self, user: UserId) -> Result<Option<Revoked>, EngineError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now_ms = now_ms();
        let Some(nodes) = self.disconnect_in(state, user) else {
            return Ok(None);
        };
        // Tokens of the current millisecond are revoked too. The time never moves back.
        let before_ms = state
            .account_status(user, now_ms)
            .revoked_before_ms
            .max(now_ms + 1);
        let ends_at_ms = now_ms.saturating_add(self.revocation_ttl_ms);
        let revocation = Revocation {
            before_ms,
            ends_at_ms,
        };
        state.revocations.insert(user, revocation);
        Ok(Some(Revoked { nodes, before_ms }))
    }

    pub(super) fn account_status(&self, user: UserId) -> Result<AccountStatus, EngineError> {
        Ok(self.state.lock().account_status(user, now_ms()))
    }

    fn send_to_account(&self, user: UserId, message: TopicMessage) -> Option<u64> {
        let state = self.state.lock();
        match state.profiles.get(&user) {
            Some(Profile::Deleted) => None,
            Some(Profile::Known { .. }) | None => Some(self.send_to_topic(&state, user, message)),
        }
    }

    pub(super) fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        match self.state.lock().profiles.get_mut(&user) {
            Some(Profile::Known { kinds, .. }) => Ok(!std::mem::take(kinds).is_empty()),
            Some(Profile::Deleted) | None => Ok(false),
        }
    }

    pub(super) fn delete_account(&self, user: UserId) -> Result<u64, EngineError> {
        let mut state = self.state.lock();
        state.profiles.insert(user, Profile::Deleted);
        Ok(self.send_to_topic(&state, user, TopicMessage::AccountDeleted))
    }

    pub(super) fn request_watchers(&self, user: UserId, count_id: u64) -> Result<u64, EngineError> {
        let state = self.state.lock();
        if !state.topics.contains(&user) {
            return Ok(0);
        }
        let asker = self.incarnation.to_string();
        self.send(EngineMessage::Request(NodeRequest::Watchers {
            user,
            asker,
            count_id,
        }));
        Ok(1)
    }

    pub(super) fn reply_watchers(
        &self,
        _asker: &str,
        count_id: u64,
        watchers: u64,
    ) -> Result<(), EngineError> {
        self.send(EngineMessage::WatcherCount { count_id, watchers });
        Ok(())
    }

    pub(super) fn pulse(
        &self,
        partition: u32,
        _restart_grace: Duration,
    ) -> Result<(), EngineError> {
        let Position { epoch, revision } = self.position(partition)?;
        let pulse = Pulse { epoch, revision };
        self.send(EngineMessage::Pulse { partition, pulse });
        Ok(())
    }

    pub(super) fn send_canary(&self, nonce: u64) -> Result<(), EngineError> {
        self.send(EngineMessage::Canary { nonce });
        Ok(())
    }

    pub(super) fn begin(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let now_ms = now_ms();
        state.node = Some(LiveNode {
            info: info.clone(),
            lease_ends_at_ms: now_ms + lease.as_millis() as u64,
        });
        // Redis expires updates and revocations by itself.
        state.profiles.retain(|_, profile| match profile {
            Profile::Known { updated_at_ms, .. } => *updated_at_ms + self.profile_ttl_ms > now_ms,
            Profile::Deleted => true,
        });
        let revocations = &mut state.revocations;
        revocations.retain(|_, revocation| revocation.ends_at_ms > now_ms);
        Ok(())
    }

    pub(super) fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        self.begin(info, lease)?;
        Ok(Some(now_ms() + lease.as_millis() as u64))
    }

    pub(super) fn describe(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        self.begin(info, lease)
    }

    pub(super) fn expire_leases(&self, _until_ms: u64) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    pub(super) fn registered_nodes(&self, _partitions: &[u32]) -> Vec<(u32, String)> {
        Vec::new()
    }

    pub(super) fn reap(
        &self,
        _partition: u32,
        _incarnation: &str,
        _batch_max: u32,
        _grace: Duration,
    ) -> Result<Reaped, EngineError> {
        Ok(Reaped {
            released: 0,
            left: 0,
        })
    }

    pub(super) fn registrations(
        &self,
        _partition: u32,
    ) -> Result<Vec<UserConnection>, EngineError> {
        let state = self.state.lock();
        let registered = state.users.iter().flat_map(|(user, known)| {
            known
                .connections
                .keys()
                .map(move |connection| (*user, *connection))
        });
        Ok(registered.collect())
    }

    /// No other process can send requests.
    pub(super) fn reply_connections(
        &self,
        _reply: &str,
        _held: &[UserConnection],
    ) -> Result<(), EngineError> {
        Ok(())
    }

    pub(super) fn resign(&self) -> Result<(), EngineError> {
        self.state.lock().node = None;
        Ok(())
    }

    pub(super) fn leases(&self) -> Result<Vec<(String, u64)>, EngineError> {
        let state = self.state.lock();
        let lease = |node: &LiveNode| (node.info.incarnation.clone(), node.lease_ends_at_ms);
        Ok(state.node.iter().map(lease).collect())
    }

    pub(super) fn now_ms(&self) -> Result<u64, EngineError> {
        Ok(now_ms())
    }

    pub(super) fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        Ok(self.state.lock().node.iter().cloned().collect())
    }
}

async fn forward(
    mut arriving: broadcast::Receiver<EngineMessage>,
    sender: mpsc::Sender<EngineMessage>,
) {
    loop {
        let message = match arriving.recv().await {
            Ok(message) => message,
            Err(RecvError::Lagged(_)) => EngineMessage::Interrupted {
                partitions: vec![0],
                leases: true,
            },
            Err(RecvError::Closed) => return,
        };
        if sender.send(message).await.is_err() {
            return;
        }
    }
}
