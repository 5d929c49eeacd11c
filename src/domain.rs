//! The rules of the hub, independent of sockets and of Redis: presence, watching, updates.
//!
//! [`Hub`] is the façade that the transport, and back ends written in Rust, call. Behind it each service owns its state
//! and its loops; [`Hub::start`] wires them together. Everything sent to this node's connections leaves as one stream
//! of [`delivery::Delivery`].

pub(crate) mod account;
mod audit;
pub(crate) mod cluster_events;
pub(crate) mod connection;
pub(crate) mod delivery;
pub(crate) mod health;
mod heartbeat;
pub(crate) mod lease;
mod local_node;
pub(crate) mod matchmaking;
pub(crate) mod node;
mod node_requests;
mod ownership;
pub(crate) mod presence;
pub(crate) mod profile;
mod pulse;
mod reaper;
mod recovery;
mod registration;
mod replica;
mod router;
mod tasks;
pub(crate) mod token;
pub(crate) mod token_status;
mod topic;
pub(crate) mod update;
pub(crate) mod visibility;
pub(crate) mod watcher_count;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::value::RawValue;

use self::account::{AccountError, AccountView, Accounts};
use self::audit::RegistrationAudit;
use self::cluster_events::{ClusterEvent, ClusterEvents};
pub(crate) use self::connection::Allowances;
use self::connection::{Connection, Connections, Refused};
use self::delivery::{Deliveries, DeliveryStream};
use self::health::{Check, Health};
use self::heartbeat::NodeHeartbeat;
use self::lease::{Lease, LeaseOptions};
use self::local_node::LocalNode;
use self::matchmaking::{JoinError, Matchmaking, OfflineUsers};
use self::node_requests::NodeRequests;
use self::ownership::Ownership;
use self::presence::{Presence, PresenceOptions};
use self::profile::Notification;
pub(crate) use self::profile::{Notified, NotifyError};
use self::pulse::Pulses;
use self::reaper::Reaper;
use self::recovery::Recovery;
use self::registration::Registrations;
use self::router::Router;
pub(crate) use self::tasks::Tasks;
use self::token::Identity;
use self::token_status::TokenStatus;
use self::topic::Topics;
use self::visibility::Visibility;
use self::watcher_count::{PendingCounts, WatcherCount};
pub(crate) use crate::engine::EngineError;
use crate::engine::matchmaking::{PairingRules, QueueStats};
use crate::engine::{Engine, Kind, LiveNode, Messages, RegisteredConnection, Revoked, Stored};
use crate::ids::{ConnectionId, UserId};
use crate::profiles::{Friendship, Image, NewMatch, Profiles};
use crate::telemetry::{Metrics, Transport, gauge};

/// How long a starting node waits for the first snapshot of the online users.
const REPLICA_WITHIN: Duration = Duration::from_secs(5);

/// The rules of the domain, as configured.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// How users are counted, and which connections receive status changes.
    pub presence: PresenceOptions,
    /// The node's lease.
    pub lease: LeaseOptions,
    /// Interval between two audits, which compare the node's connections with the engine's registrations.
    pub audit: Duration,
    /// Limits per connection and per user.
    pub allowances: Allowances,
    /// The rules of matchmaking.
    pub matchmaking: PairingRules,
    /// Profile fields visible to everyone.
    pub public_fields: Vec<String>,
}

/// One node's hub. Cloning is cheap: clones share everything.
///
/// A back end in Rust publishes a changed profile in one line, on any node:
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
pub struct Hub(Arc<Services>);

struct Services {
    engine: Engine,
    visibility: Visibility,
    accounts: Arc<Accounts>,
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    matchmaking: Arc<Matchmaking>,
    connections: Arc<Connections>,
    lease: Arc<Lease>,
    heartbeat: Arc<NodeHeartbeat>,
    health: Arc<Health>,
    watcher_counts: Arc<PendingCounts>,
    events: Arc<ClusterEvents>,
    metrics: Arc<Metrics>,
}

impl Hub {
    /// Starts the hub on an engine, with accounts if `profiles` is set. Returns once this node knows who is online,
    /// with the hub's tasks and the stream of deliveries to this node's connections.
    pub async fn start(
        engine: Engine,
        messages: Messages,
        profiles: Option<Profiles>,
        metrics: Arc<Metrics>,
        options: HubOptions,
    ) -> Result<(Self, Tasks, DeliveryStream), EngineError> {
        let (deliveries, stream) = Deliveries::new();
        let (offline_users, went_offline) = OfflineUsers::new();
        let events = Arc::new(ClusterEvents::default());
        let lease = Arc::new(Lease::new(options.lease));
        let ownership = Arc::new(Ownership::new(engine.partitions()));
        let visibility = Visibility::new(&options.public_fields);
        let changes = profiles.as_ref().map(Profiles::changes);
        let accounts = Arc::new(Accounts::new(engine.clone(), visibility.clone(), profiles));
        let topics = Topics::new(
            engine.clone(),
            accounts.clone(),
            deliveries.clone(),
            metrics.clone(),
        );
        let presence = Arc::new(Presence::new(
            engine.clone(),
            topics.clone(),
            offline_users,
            deliveries.clone(),
            metrics.clone(),
            events.clone(),
            options.presence,
        ));
        let (matchmaking, match_streams) = Matchmaking::new(
            engine.clone(),
            topics.clone(),
            presence.clone(),
            ownership.clone(),
            metrics.clone(),
            options.matchmaking,
            accounts.exist(),
        );
        let connections = Arc::new(Connections {
            topics: topics.clone(),
            presence: presence.clone(),
            matchmaking: matchmaking.clone(),
            accounts: accounts.clone(),
            deliveries,
            metrics: metrics.clone(),
            allowances: ArcSwap::from_pointee(options.allowances),
        });
        let reaper = Arc::new(Reaper::new(
            engine.clone(),
            presence.clone(),
            ownership.clone(),
            lease.clone(),
            metrics.clone(),
            events.clone(),
        ));
        let registrations = Arc::new(Registrations::new(
            engine.partitions(),
            topics.clone(),
            presence.clone(),
            matchmaking.clone(),
            reaper.clone(),
        ));
        let recovery = Arc::new(Recovery {
            engine: engine.clone(),
            topics: topics.clone(),
            presence: presence.clone(),
            registrations: registrations.clone(),
            lease: lease.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
        });
        let pulses = Arc::new(Pulses::new(
            engine.clone(),
            presence.clone(),
            ownership.clone(),
            recovery.clone(),
            metrics.clone(),
            lease.heartbeat(),
        ));
        let node = Arc::new(LocalNode::new(
            topics.clone(),
            presence.clone(),
            pulses.clone(),
            metrics.clone(),
        ));
        let heartbeat = Arc::new(NodeHeartbeat {
            engine: engine.clone(),
            lease: lease.clone(),
            node: node.clone(),
            presence: presence.clone(),
            recovery: recovery.clone(),
            registrations: registrations.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
        });
        let health = Arc::new(Health::new(
            engine.clone(),
            accounts.clone(),
            presence.clone(),
            lease.clone(),
            node,
            metrics.clone(),
        ));
        let node_requests = Arc::new(NodeRequests::new(engine.clone(), topics.clone()));
        let watcher_counts = Arc::new(PendingCounts::new(engine.clone()));
        let audit = RegistrationAudit {
            engine: engine.clone(),
            topics: topics.clone(),
            presence: presence.clone(),
            registrations: registrations.clone(),
        };
        let router = Router {
            topics: topics.clone(),
            matchmaking: matchmaking.clone(),
            presence: presence.clone(),
            health: health.clone(),
            pulses: pulses.clone(),
            recovery,
            node_requests: node_requests.clone(),
            watcher_counts: watcher_counts.clone(),
        };

        heartbeat.begin().await?;
        health.begin().await?;
        accounts.probe().await;

        let mut tasks = Tasks::default();
        tasks.spawn("subscriptions", topics.clone().run_subscriptions());
        tasks.spawn("friendship sync", topics.clone().run_friendship_sync());
        tasks.spawn("replica", presence.clone().run_replica());
        tasks.spawn("releases", presence.clone().run_releases());
        tasks.spawn("sweep", presence.clone().run_sweep(ownership));
        tasks.spawn("heartbeat", heartbeat.clone().run());
        tasks.spawn("registrations", registrations.run());
        tasks.spawn("pulses", pulses.clone().run());
        tasks.spawn("pulse watch", pulses.run_watch());
        tasks.spawn("reaper", reaper.run());
        tasks.spawn("audit", audit.run(options.audit));
        tasks.spawn("canary", health.clone().run_canary());
        tasks.spawn("examination", health.clone().run_examination());
        tasks.spawn("node_requests", node_requests.run());
        tasks.spawn("matching", matchmaking.clone().run_matching());
        let match_tasks = matchmaking.clone().run_match_tasks(match_streams);
        tasks.spawn("match tasks", match_tasks);
        let queue_cleanup = matchmaking.clone().run_queue_cleanup(went_offline);
        tasks.spawn("queue cleanup", queue_cleanup);
        tasks.spawn("router", router.run(messages));
        if let Some(changes) = changes {
            tasks.spawn("change feed", accounts.clone().run_change_feed(changes));
        }
        presence.wait_until_complete(REPLICA_WITHIN).await;
        let hub = Self(Arc::new(Services {
            engine,
            visibility,
            accounts,
            topics,
            presence,
            matchmaking,
            connections,
            lease,
            heartbeat,
            health,
            watcher_counts,
            events,
            metrics,
        }));
        Ok((hub, tasks, stream))
    }

    /// Admits a connection of the token's user, or of a guest, over a session that began with `transport`. On return
    /// the user is counted, and updates about the user reach the connection.
    ///
    /// # Errors
    /// If the account was deleted, the token was revoked, the user has too many connections, or the engine cannot
    /// be reached.
    pub async fn connect(
        &self,
        id: ConnectionId,
        identity: Option<Identity>,
        transport: Transport,
    ) -> Result<Connection, Refused> {
        self.0.connections.connect(id, identity, transport).await
    }

    /// Checks that the account of a valid token still exists and that the token is not revoked. Costs one engine call.
    pub async fn token_status(&self, identity: &Identity) -> Result<TokenStatus, EngineError> {
        token_status::token_status(&self.0.engine, identity).await
    }

    /// Publishes a changed profile to every watcher of `user` on every node, and to the user's own connections.
    /// Watchers who are neither friends nor the user get only the public fields.
    ///
    /// # Errors
    /// If the profile cannot be written as JSON, the account was deleted, or the engine cannot be reached.
    pub async fn notify_profile_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        profile: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Profile, profile).await
    }

    /// Publishes changed game statistics; see [`Self::notify_profile_update`].
    pub async fn notify_game_stats_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        stats: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Stats, stats).await
    }

    /// Publishes a changed friend list, which only friends and the user see.
    pub async fn notify_friend_list_update<T: Serialize + ?Sized>(
        &self,
        user: UserId,
        friends: &T,
    ) -> Result<Notified, NotifyError> {
        self.notify_one(user, Kind::Friends, friends).await
    }

    /// Publishes a changed match history, which only friends and the user see.
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

    /// Publishes updates in order, in one round trip to the engine. Returns one result per update.
    pub async fn notify(
        &self,
        notifications: Vec<Notification>,
    ) -> Vec<Result<Notified, NotifyError>> {
        profile::notify(&self.0.engine, &self.0.visibility, notifications).await
    }

    /// Sends an event to the user's own connections on every node. Returns the number of nodes that received it.
    ///
    /// # Errors
    /// If the account was deleted or the engine cannot be reached.
    pub async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<u64, NotifyError> {
        let nodes = self.0.engine.send_event(user, event, data).await?;
        nodes.ok_or(NotifyError::AccountDeleted)
    }

    /// Closes every connection of the user on every node. Returns the number of nodes that received the request.
    ///
    /// # Errors
    /// If the account was deleted or the engine cannot be reached.
    pub async fn disconnect_user(&self, user: UserId) -> Result<u64, NotifyError> {
        let nodes = self.0.engine.disconnect(user).await?;
        nodes.ok_or(NotifyError::AccountDeleted)
    }

    /// Revokes the user's tokens: closes every connection of the user on every node, and rejects tokens issued earlier
    /// or without `iat`. Since most tokens carry whole seconds, one issued within the current second is rejected too.
    /// The revocation is kept for `auth.revocation_ttl`.
    ///
    /// # Errors
    /// If the account was deleted or the engine cannot be reached.
    pub async fn revoke_tokens(&self, user: UserId) -> Result<Revoked, NotifyError> {
        let revoked = self.0.engine.revoke(user).await?;
        revoked.ok_or(NotifyError::AccountDeleted)
    }

    /// Deletes the stored updates about the user without notifying anyone. Returns whether there were any.
    pub async fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        self.0.engine.forget_updates(user).await
    }

    /// Announces that the account was deleted: closes its connections, notifies its watchers, and rejects its tokens
    /// and late updates from now on. Returns the number of nodes that received it.
    pub async fn notify_account_deleted(&self, user: UserId) -> Result<u64, EngineError> {
        let nodes = self.0.engine.delete_account(user).await?;
        self.0.accounts.forget_account(user).await;
        Ok(nodes)
    }

    /// How many users are online.
    pub fn online_count(&self) -> usize {
        self.0.presence.online_count()
    }

    /// At most `limit` online users with ids above `after`, ascending, and the total number online.
    pub fn online_page(&self, after: Option<UserId>, limit: usize) -> (Vec<UserId>, usize) {
        self.0.presence.page(after, limit)
    }

    /// Whether `user` is online, and the user's connections on all nodes.
    pub async fn presence_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        self.0.engine.connections_of(user).await
    }

    /// Every live node, this one included, as of its last heartbeat.
    pub async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        self.0.engine.nodes().await
    }

    /// The engine's clock, on which leases end, in ms since 1970.
    pub async fn engine_now_ms(&self) -> Result<u64, EngineError> {
        self.0.engine.now_ms().await
    }

    /// Recent cluster events as this node observed them, newest first.
    pub fn recent_events(&self) -> Vec<ClusterEvent> {
        self.0.events.recent()
    }

    /// The stored updates about `user`, and whether the account was deleted.
    pub async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        self.0.engine.stored(user).await
    }

    /// The configured node id.
    pub fn node_id(&self) -> String {
        self.0.engine.incarnation().node_id().to_owned()
    }

    /// How long a node counts as alive after its last heartbeat.
    pub fn lease_length(&self) -> Duration {
        self.0.lease.length()
    }

    /// Counts the connections that watch `user` on all nodes.
    pub async fn count_watchers(&self, user: UserId) -> Result<WatcherCount, EngineError> {
        self.0.watcher_counts.count_watchers(user).await
    }

    /// Adds a user to the matchmaking queue on behalf of a back end. Without a `rating` the stored statistics decide.
    /// Returns whether the user was already queued.
    ///
    /// # Errors
    /// If the user is not online, or the engine cannot be reached.
    pub async fn join_matchmaking(
        &self,
        user: UserId,
        rating: Option<i64>,
    ) -> Result<bool, JoinError> {
        self.0.matchmaking.join(user, rating).await
    }

    /// Removes a user from the matchmaking queue. Returns whether the user was queued.
    pub async fn leave_matchmaking(&self, user: UserId) -> Result<bool, EngineError> {
        self.0.matchmaking.leave(user).await
    }

    /// The state of the matchmaking queue.
    pub async fn queue_stats(&self) -> Result<QueueStats, EngineError> {
        self.0.engine.queue_stats().await
    }

    /// Whether the hub has a Postgres database of accounts.
    pub fn has_accounts(&self) -> bool {
        self.0.accounts.exist()
    }

    /// The account of `user`, in the view that `viewer` (`None` for a guest) may see.
    ///
    /// # Errors
    /// If the account does not exist, it was deleted, or Postgres cannot be reached.
    pub async fn show_account(
        &self,
        user: UserId,
        viewer: Option<UserId>,
    ) -> Result<AccountView, AccountError> {
        self.0.accounts.show_account(user, viewer).await
    }

    /// Fails unless the account exists and was deleted neither in Postgres nor by a back end through the engine.
    ///
    /// # Errors
    /// If the account does not exist, it was deleted, or Postgres cannot be reached.
    pub async fn expect_account(&self, user: UserId) -> Result<(), AccountError> {
        self.0.accounts.expect_account(user).await
    }

    /// Like [`Self::expect_account`], but checks Postgres only, for callers that have already asked the engine.
    ///
    /// # Errors
    /// If the account does not exist, it was deleted, or Postgres cannot be reached.
    pub async fn expect_stored_account(&self, user: UserId) -> Result<(), AccountError> {
        self.0.accounts.expect_stored_account(user).await
    }

    /// Creates or updates an account. Without `avatar` an existing one is kept.
    ///
    /// # Errors
    /// If the account was deleted, a value cannot be stored, or Postgres cannot be reached.
    pub async fn put_account(
        &self,
        user: UserId,
        username: &str,
        avatar: Option<&str>,
    ) -> Result<(), AccountError> {
        self.0.accounts.put_account(user, username, avatar).await
    }

    /// # Errors
    /// If the account does not exist, the name cannot be stored, or Postgres cannot be reached.
    pub async fn rename(&self, user: UserId, username: &str) -> Result<(), AccountError> {
        self.0.accounts.rename(user, username).await
    }

    /// # Errors
    /// If the account does not exist, the URL cannot be stored, or Postgres cannot be reached.
    pub async fn set_avatar_url(&self, user: UserId, url: &str) -> Result<(), AccountError> {
        self.0.accounts.set_avatar_url(user, url).await
    }

    /// Stores a picture, which the hub then serves.
    ///
    /// # Errors
    /// If the account does not exist, or Postgres cannot be reached.
    pub async fn set_avatar_image(&self, user: UserId, image: &Image) -> Result<(), AccountError> {
        self.0.accounts.set_avatar_image(user, image).await
    }

    /// The user's current picture, if it has this hash.
    pub async fn avatar(&self, user: UserId, hash: &str) -> Result<Option<Image>, AccountError> {
        self.0.accounts.avatar(user, hash).await
    }

    /// Deletes the account: its profile and friendships, its connections, its tokens.
    ///
    /// # Errors
    /// If the account does not exist, or Postgres cannot be reached.
    pub async fn delete_account(&self, user: UserId) -> Result<(), AccountError> {
        self.0.accounts.delete_account(user).await
    }

    /// Requests or accepts a friendship, which holds once both users have asked.
    ///
    /// # Errors
    /// If one of the accounts does not exist, both are one, or Postgres cannot be reached.
    pub async fn ask_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<Friendship, AccountError> {
        self.0.accounts.ask_friendship(user, other).await
    }

    /// Ends a friendship or withdraws a request, in both directions.
    ///
    /// # Errors
    /// If one of the accounts does not exist, or Postgres cannot be reached.
    pub async fn end_friendship(&self, user: UserId, other: UserId) -> Result<(), AccountError> {
        self.0.accounts.end_friendship(user, other).await
    }

    /// Records the result of a match. Returns the match's number.
    ///
    /// # Errors
    /// If a player does not exist, the result makes no sense, or Postgres cannot be reached.
    pub async fn record_match(&self, played: &NewMatch) -> Result<u64, AccountError> {
        self.0.accounts.record_match(played).await
    }

    /// Runs all health checks. Without Postgres the node still does most of its work.
    pub async fn readiness(&self) -> Vec<Check> {
        self.0.health.readiness().await
    }

    /// Whether the last vital checks passed. The node repeats them only if they failed.
    pub async fn is_ready(&self) -> bool {
        self.0.health.is_ready().await
    }

    /// Replaces the allowances for future requests; existing connections and watches stay.
    pub fn allow(&self, allowances: Allowances) {
        self.0.connections.allowances.store(Arc::new(allowances));
    }

    /// Marks the node as stopping: it is not ready and admits no more connections.
    pub fn drain(&self) {
        self.0.presence.drain();
    }

    /// Whether the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.0.presence.is_draining()
    }

    /// Leaves the cluster after every connection has been closed: waits at most `within` for the releases, then
    /// relinquishes the lease. The last node to leave also takes users offline whose grace period is still running.
    pub async fn shutdown(&self, within: Duration) {
        self.0.heartbeat.resign(within).await;
    }

    /// Updates the gauges; call before they are read.
    pub fn refresh_metrics(&self) {
        let metrics = &self.0.metrics;
        metrics.online_users.set(gauge(self.online_count()));
        metrics.topics.set(gauge(self.0.topics.len()));
        metrics.users.set(gauge(self.0.topics.users()));
        metrics.watchers.set(gauge(self.0.topics.watchers()));
    }
}
