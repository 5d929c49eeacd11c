//! What the hub does, without sockets and without Redis: presence, watching, updates.
//!
//! [`Hub`] is the face of it. Calls come from the transport or from a back end in Rust; what is to be told to
//! this node's connections leaves as one stream of [`delivery::Delivery`].

pub mod account;
mod audit;
pub mod connection;
pub mod delivery;
pub mod health;
pub mod incidents;
pub mod lease;
pub mod matchmaking;
pub mod presence;
pub mod profile;
mod pulse;
mod questions;
pub mod replica;
pub mod standing;
pub mod survey;
pub mod token;
mod topic;
pub mod visibility;
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::task::{AbortHandle, JoinSet};

use self::account::Accounts;
use self::delivery::{Deliveries, Delivery, DeliveryStream};
use self::health::{Canaries, Check, Examined};
use self::incidents::{Happening, Incident, Incidents};
use self::lease::{Lease, LeaseOptions};
use self::matchmaking::{Matchmaking, Streams};
use self::presence::{Presence, PresenceOptions};
use self::profile::Notification;
use self::pulse::Pulses;
use self::questions::Questions;
use self::survey::Surveys;
use self::topic::Topics;
use self::visibility::Visibility;
use crate::clock::now_ms;
use crate::engine::matchmaking::PairingRules;
use crate::engine::{
    Engine, EngineError, Kind, LiveNode, Message, Messages, NodeInfo, Published,
    RegisteredConnection, Revoked, Stored, TopicMessage,
};
use crate::ids::{ConnectionId, Incarnation, UserId};
use crate::profiles::Profiles;
use crate::telemetry::{ConnectionKind, Metrics, Transport};

/// How long a starting node waits until it knows who is online.
const REPLICA_WITHIN: Duration = Duration::from_secs(5);

/// The rules of the domain, as configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is counted how, and who is told.
    pub presence: PresenceOptions,
    /// How long a node counts as alive.
    pub lease: LeaseOptions,
    /// How often a node compares what it holds with what the engine says.
    pub audit: Duration,
    /// What one connection, or one user, may have.
    pub allowances: Allowances,
    /// How opponents are found.
    pub matchmaking: PairingRules,
    /// Fields of a user that everybody may see.
    pub public_fields: Vec<String>,
}

/// What one connection, or one user, may have. It can change while the node runs.
#[derive(Clone, Copy, Debug)]
pub struct Allowances {
    /// Most profiles one connection may watch.
    pub watches: usize,
    /// Most connections of one user on all nodes.
    pub connections_per_user: usize,
}

/// One node's hub. Cloning is cheap: clones share everything.
///
/// A back end in Rust tells everybody about a changed profile in one line, on any node:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use vigie::{App, Settings, UserId};
///
/// #[derive(serde::Serialize)]
/// struct Profile<'a> {
///     #[serde(rename = "userID")]
///     user_id: u64,
///     username: &'a str,
///     avatar: &'a str,
/// }
///
/// let app = App::start(Settings::load(None, std::env::vars())?).await?;
/// let ada = UserId::try_from(42)?;
/// let profile = Profile { user_id: 42, username: "ada", avatar: "/a/42.png" };
/// app.hub().notify_profile_update(ada, &profile).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    engine: Engine,
    accounts: Arc<Accounts>,
    topics: Arc<Topics>,
    presence: Presence,
    matchmaking: Arc<Matchmaking>,
    deliveries: Deliveries,
    visibility: Visibility,
    canaries: Canaries,
    examined: Examined,
    questions: Questions,
    surveys: Surveys,
    incidents: Arc<Incidents>,
    lease: Lease,
    pulses: Pulses,
    metrics: Arc<Metrics>,
    options: Options,
    allowances: ArcSwap<Allowances>,
    started_at_ms: u64,
    draining: AtomicBool,
}

/// The hub's own tasks. They end when this is dropped.
pub struct Running {
    tasks: JoinSet<()>,
}

/// What a caller can do about an update that was not published.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The update is no JSON, or a profile no JSON object.
    #[error("the update is not the JSON that is needed: {0}")]
    Json(#[from] serde_json::Error),
    /// The account was deleted.
    #[error("the account was deleted")]
    AccountDeleted,
    /// The engine cannot be reached: nothing was stored or published, or nobody knows.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A published update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The revision that is stored now.
    pub revision: u64,
    /// How many nodes were listening.
    pub nodes: u64,
    /// The update was not newer than what is stored, and changed nothing.
    pub stale: bool,
}

impl Hub {
    /// Starts the hub on an engine, with accounts in Postgres where there are any. Returns it with its tasks and
    /// the stream of what to tell this node's connections, once this node knows who is online.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn start(
        engine: Engine,
        messages: Messages,
        profiles: Option<Profiles>,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Result<(Self, Running, DeliveryStream), EngineError> {
        let (deliveries, stream) = Deliveries::new();
        let visibility = Visibility::new(&options.public_fields);
        let accounts = Accounts::new(engine.clone(), visibility.clone(), profiles);
        let accounts = Arc::new(accounts);
        let topics = Topics::new(
            engine.clone(),
            accounts.clone(),
            deliveries.clone(),
            metrics.clone(),
        );
        let (matchmaking, streams) = Matchmaking::new(
            engine.clone(),
            metrics.clone(),
            options.matchmaking,
            accounts.exist(),
        );
        let incidents = Arc::new(Incidents::default());
        let presence = Presence::new(
            engine.clone(),
            topics.clone(),
            matchmaking.clone(),
            deliveries.clone(),
            metrics.clone(),
            incidents.clone(),
            options.presence,
        );
        let partitions = engine.partitions();
        let hub = Self(Arc::new(Inner {
            visibility,
            engine,
            accounts,
            topics,
            presence,
            matchmaking,
            deliveries,
            canaries: Canaries::default(),
            examined: Examined::default(),
            questions: Questions::default(),
            surveys: Surveys::default(),
            incidents,
            lease: Lease::new(options.lease, partitions),
            pulses: Pulses::new(partitions),
            metrics,
            allowances: ArcSwap::from_pointee(options.allowances),
            options,
            started_at_ms: now_ms(),
            draining: AtomicBool::new(false),
        }));
        let incarnation = hub.0.engine.incarnation();
        let engine = &hub.0.engine;
        let info = hub.node_info(&incarnation);
        match engine.begin(&info, hub.0.lease.length()).await {
            Ok(()) => {}
            // Others serve their partitions. The lease begins when it can.
            Err(error) if engine.is_partial(&error).await => {
                tracing::warn!(%error, "the lease could not begin yet; trying again");
            }
            Err(error) => return Err(error),
        }
        match hub.examine().await {
            Ok(()) => {}
            Err(error) if engine.is_partial(&error).await => {
                tracing::warn!(%error, "some of redis could not be examined yet");
            }
            Err(error) => return Err(error),
        }
        hub.0.accounts.came_back().await;
        let running = hub.spawn(messages, streams);
        hub.0.presence.wait_until_complete(REPLICA_WITHIN).await;
        Ok((hub, running, stream))
    }

    fn spawn(&self, messages: Messages, streams: Streams) -> Running {
        let mut tasks = JoinSet::new();
        let mut run =
            |task: fn(Hub) -> futures_util::future::BoxFuture<'static, ()>| -> AbortHandle {
                tasks.spawn(task(self.clone()))
            };
        run(|hub| Box::pin(async move { hub.0.topics.keep_subscribed().await }));
        run(|hub| Box::pin(async move { hub.0.presence.keep_replica().await }));
        run(|hub| Box::pin(async move { hub.0.presence.keep_releasing().await }));
        run(|hub| Box::pin(async move { hub.0.presence.sweep().await }));
        run(|hub| Box::pin(async move { hub.keep_lease().await }));
        run(|hub| Box::pin(async move { hub.keep_registered().await }));
        run(|hub| Box::pin(async move { hub.run_pulse().await }));
        run(|hub| Box::pin(async move { hub.run_pulse_watch().await }));
        run(|hub| Box::pin(async move { hub.keep_reaping().await }));
        run(|hub| Box::pin(async move { hub.keep_audited(hub.0.options.audit).await }));
        run(|hub| Box::pin(async move { hub.keep_hearing().await }));
        run(|hub| Box::pin(async move { hub.keep_examining().await }));
        run(|hub| Box::pin(async move { hub.keep_answering().await }));
        run(|hub| Box::pin(async move { hub.keep_matching().await }));
        let hub = self.clone();
        tasks.spawn(async move { hub.keep_showing(streams).await });
        tasks.spawn(self.clone().read(messages));
        if let Some(profiles) = self.0.accounts.profiles() {
            let changes = profiles.changes();
            let hub = self.clone();
            tasks.spawn(async move { hub.keep_telling(changes).await });
            let hub = self.clone();
            tasks.spawn(async move { hub.keep_knowing().await });
        }
        Running { tasks }
    }

    /// Hands every message to whom it concerns, one after the other: their order is the order of events.
    async fn read(self, mut messages: Messages) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Presence {
                    partition,
                    transition,
                } => {
                    self.0.presence.receive(partition, transition).await;
                }
                Message::Topic { user, message } => self.hear(user, message).await,
                Message::Canary { nonce } => self.0.canaries.landed(nonce),
                Message::Asked(question) => self.0.questions.put(question),
                Message::Watchers { survey, watchers } => self.0.surveys.answered(survey, watchers),
                Message::Pulse { partition, pulse } => self.on_pulse(partition, &pulse),
                Message::Interrupted(partitions) => self.interrupted(&partitions),
            }
        }
    }

    /// Messages of these partitions may have been missed, and their data may be lost.
    fn interrupted(&self, partitions: &[u32]) {
        tracing::info!(
            ?partitions,
            "messages may have been missed; subscribing and reading again"
        );
        self.0.metrics.interruptions.inc();
        self.0.incidents.note(Happening::Interrupted);
        self.read_again(partitions);
        self.0.engine.forget_own_channel();
        if self.0.engine.may_hold_leases(partitions) {
            self.0.lease.doubt();
        }
    }

    fn read_again(&self, partitions: &[u32]) {
        self.0.presence.interrupted(partitions);
        self.0.topics.interrupted(partitions);
        self.0.lease.register_again(partitions);
    }

    /// Hands a message on a user's topic to those who care.
    async fn hear(&self, user: UserId, message: TopicMessage) {
        let Some(message) = self.0.matchmaking.let_through(user, message) else {
            return;
        };
        let (found, ran_out) = match &message {
            TopicMessage::MatchFound { id, .. } => (Some(id.clone()), false),
            TopicMessage::MatchTimeout { .. } => (None, true),
            // Nobody is told; this node need not remember any more that the user waits.
            TopicMessage::MatchLeft => return self.0.matchmaking.forget(user),
            TopicMessage::Update(..)
            | TopicMessage::Event { .. }
            | TopicMessage::Disconnect { .. }
            | TopicMessage::AccountDeleted => (None, false),
        };
        let heard = self.0.topics.receive(user, message).await;
        if ran_out || (found.is_some() && heard.is_new) {
            self.0.matchmaking.forget(user);
        }
        if let Some(id) = found.filter(|_| heard.is_here) {
            self.0.matchmaking.confirm(user, id);
        }
    }

    /// Tells every watcher of `user` on every node, and the user's own connections, about a changed profile.
    /// Watchers who are neither friends nor the user get its public fields only.
    ///
    /// # Errors
    /// When the profile cannot be written as JSON, the account was deleted, or the engine cannot be reached.
    pub async fn notify_profile_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        profile: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Profile, profile).await
    }

    /// The same for game statistics.
    ///
    /// # Errors
    /// As for [`Self::notify_profile_update`].
    pub async fn notify_game_stats_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        stats: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Stats, stats).await
    }

    /// The same for the friend list, which only friends and the user see.
    ///
    /// # Errors
    /// As for [`Self::notify_profile_update`].
    pub async fn notify_friend_list_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        friends: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Friends, friends).await
    }

    /// The same for the match history, which only friends and the user see.
    ///
    /// # Errors
    /// As for [`Self::notify_profile_update`].
    pub async fn notify_match_history_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        matches: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Matches, matches).await
    }

    async fn notify_one<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        kind: Kind,
        content: &T,
    ) -> Result<Notified, NotifyError> {
        let content = serde_json::value::to_raw_value(content)?.into();
        let notification = Notification {
            user,
            kind,
            content,
            revision: None,
        };
        let mut outcomes = self.notify(vec![notification]).await;
        outcomes
            .pop()
            .unwrap_or_else(|| Err(EngineError::Answer("no outcome".to_owned()).into()))
    }

    /// Publishes updates in order, in one round trip to the engine; one result for each.
    pub async fn notify(
        &self,
        notifications: Vec<Notification>,
    ) -> Vec<Result<Notified, NotifyError>> {
        let outcomes = profile::notify(&self.0.engine, &self.0.visibility, notifications).await;
        outcomes.into_iter().map(notified).collect()
    }

    /// Sends an event to the user's own connections on every node. Returns how many nodes were listening.
    ///
    /// # Errors
    /// When the account was deleted or the engine cannot be reached.
    pub async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<u64, NotifyError> {
        let nodes = self.0.engine.send_event(user, event, data).await?;
        nodes.ok_or(NotifyError::AccountDeleted)
    }

    /// Closes every connection of the user, on every node. Returns how many nodes were listening.
    ///
    /// # Errors
    /// When the account was deleted or the engine cannot be reached.
    pub async fn disconnect_user(&self, user: UserId) -> Result<u64, NotifyError> {
        let nodes = self.0.engine.disconnect(user).await?;
        nodes.ok_or(NotifyError::AccountDeleted)
    }

    /// Revokes the user's tokens: closes every connection of the user, on every node, and refuses tokens that were
    /// issued before now, or do not say when (`iat`), from now on. Most tokens say it in whole seconds: one issued in
    /// this second counts as older. It is kept in mind for `auth.revocation_ttl`.
    ///
    /// # Errors
    /// When the account was deleted or the engine cannot be reached.
    pub async fn revoke_tokens(&self, user: UserId) -> Result<Revoked, NotifyError> {
        let revoked = self.0.engine.revoke(user).await?;
        revoked.ok_or(NotifyError::AccountDeleted)
    }

    /// Forgets the last updates about the user, as if there had been none; nobody is told. Returns whether there were any.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        self.0.engine.forget_updates(user).await
    }

    /// Says that the account is gone: its connections are closed, its watchers are told, its tokens and late
    /// updates about it are refused from now on. Returns how many nodes were listening.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn notify_account_deleted(&self, user: UserId) -> Result<u64, EngineError> {
        let nodes = self.0.engine.delete_account(user).await?;
        self.forget_account(user).await;
        Ok(nodes)
    }

    /// How many users are online.
    pub fn online_count(&self) -> usize {
        self.0.presence.online_count()
    }

    /// At most `limit` online users above `after`, ascending, and how many are online in all.
    pub fn online_page(&self, after: Option<UserId>, limit: usize) -> (Vec<UserId>, usize) {
        self.0.presence.page(after, limit)
    }

    /// Whether `user` is online, and the user's connections on all nodes.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn presence_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        self.0.engine.connections_of(user).await
    }

    /// Every node that is alive. This node's own figures are from its last heartbeat, like the others'.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        self.0.engine.nodes().await
    }

    /// What the clock shows on which leases end, in ms since 1970.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn engine_now_ms(&self) -> Result<u64, EngineError> {
        self.0.engine.now_ms().await
    }

    /// What happened of late, as this node saw it, the newest first.
    pub fn last_incidents(&self) -> Vec<Incident> {
        self.0.incidents.last()
    }

    /// What is kept about the updates of `user`, and whether the account was deleted.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        self.0.engine.stored(user).await
    }

    /// The node's name.
    pub fn node_id(&self) -> String {
        self.0.engine.incarnation().node_id().to_owned()
    }

    /// How long a node counts as alive after its last sign of life.
    pub fn lease_length(&self) -> Duration {
        self.0.lease.length()
    }

    /// Whether this node can do its work; every check is named. Without Postgres it can do most of it.
    async fn checks(&self) -> Vec<Check> {
        let draining = self.0.draining.load(Ordering::Relaxed);
        let silent = self.silent_partitions();
        let all_silent = silent.len() >= self.0.engine.partitions() as usize;
        let silent: Vec<String> = silent.iter().map(u32::to_string).collect();
        let mut vital = self.0.canaries.check(&self.0.engine).await.to_vec();
        vital.push(Check::vital("lease", self.0.lease.failure()));
        if vital.iter().any(|check| check.failure.is_some())
            && self.0.engine.is_partly_there().await
        {
            // The users of the partitions on other servers can be served.
            vital.iter_mut().for_each(|check| check.is_vital = false);
        }
        let mut checks = vital;
        checks.extend([
            Check {
                name: "partitions",
                failure: (!silent.is_empty()).then(|| format!("not heard: {}", silent.join(", "))),
                // The users of other partitions can be served.
                is_vital: all_silent,
            },
            Check::vital(
                "draining",
                draining.then(|| "the node is stopping".to_owned()),
            ),
        ]);
        if matches!(self.0.engine, Engine::Redis(_)) {
            checks.extend(self.0.examined.checks());
        }
        checks.extend(self.0.accounts.check());
        checks
    }

    /// Has `allowances` hold from now on. What somebody has already stays.
    pub fn allow(&self, allowances: Allowances) {
        self.0.allowances.store(Arc::new(allowances));
    }

    /// From now on the node is not ready and admits nobody.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.presence.drain();
    }

    /// Whether the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Says goodbye once every connection is closed: waits at most `within` until all are released, and gives
    /// the lease back. The last node to leave also takes offline those whose grace still runs.
    pub async fn resign(&self, within: Duration) {
        if tokio::time::timeout(within, self.0.presence.wait_until_released())
            .await
            .is_err()
        {
            tracing::warn!("some connections could not be released in time");
        }
        self.0.lease.give_back();
        if let Err(error) = self.0.engine.resign().await {
            tracing::warn!(%error, "could not give the lease back; it ends by itself");
        }
        if self.nodes().await.is_ok_and(|nodes| nodes.is_empty()) {
            self.0.presence.expire_leaving().await;
        }
    }

    /// Brings the gauges up to date before they are read.
    pub fn refresh_metrics(&self) {
        self.0.metrics.online_users.set(count(self.online_count()));
        self.0.metrics.topics.set(count(self.0.topics.len()));
        self.0.metrics.users.set(count(self.0.topics.users()));
        self.0.metrics.watchers.set(count(self.0.topics.watchers()));
    }

    fn node_info(&self, incarnation: &Incarnation) -> NodeInfo {
        let guests = self.0.metrics.connections(ConnectionKind::Guest);
        NodeInfo {
            id: incarnation.node_id().to_owned(),
            incarnation: incarnation.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.0.started_at_ms,
            connections: guests + self.0.metrics.connections(ConnectionKind::User),
            guests,
            users: self.0.topics.users() as u64,
            topics: self.0.topics.len() as u64,
            not_heard: self.silent_partitions(),
        }
    }

    /// Has the oldest open question of a connection answered in its turn.
    async fn take_turn(&self, to: ConnectionId) {
        self.0.deliveries.place().await.put(Delivery::Turn { to });
    }

    /// Partitions of which this node hears nothing, or which it is still reading.
    fn silent_partitions(&self) -> Vec<u32> {
        let silent = self.0.pulses.silent(self.0.lease.heartbeat());
        let all = 0..self.0.engine.partitions();
        all.filter(|partition| {
            silent.contains(partition) || !self.0.presence.is_complete(*partition)
        })
        .collect()
    }

    fn pulses(&self) -> &Pulses {
        &self.0.pulses
    }

    fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn lease(&self) -> &Lease {
        &self.0.lease
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn questions(&self) -> &Questions {
        &self.0.questions
    }

    fn surveys(&self) -> &Surveys {
        &self.0.surveys
    }

    fn incidents(&self) -> &Incidents {
        &self.0.incidents
    }

    fn topics(&self) -> &Arc<Topics> {
        &self.0.topics
    }

    fn presence(&self) -> &Presence {
        &self.0.presence
    }

    fn matchmaking(&self) -> &Arc<Matchmaking> {
        &self.0.matchmaking
    }

    fn allowances(&self) -> Guard<Arc<Allowances>> {
        self.0.allowances.load()
    }

    fn count_connection(&self, user: Option<UserId>, transport: Transport, change: i64) {
        let kind = match user {
            Some(_) => ConnectionKind::User,
            None => ConnectionKind::Guest,
        };
        self.0.metrics.count_connection(kind, transport, change);
    }
}

impl Running {
    /// Ends the hub's tasks.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn notified(outcome: Result<Published, NotifyError>) -> Result<Notified, NotifyError> {
    let (revision, nodes, stale) = match outcome? {
        Published::Stored { revision, nodes } => (revision, nodes, false),
        Published::Stale { revision } => (revision, 0, true),
        Published::AccountDeleted => return Err(NotifyError::AccountDeleted),
    };
    Ok(Notified {
        revision: revision.0,
        nodes,
        stale,
    })
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
