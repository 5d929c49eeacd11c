//! The rules of the hub, without sockets and without Redis: presence, watching, updates.
//!
//! [`Hub`] is the façade: the transport, and back ends in Rust, call it. Behind it each service owns its state and its
//! loops; [`Hub::start`] puts them together. Everything that connections of this node have to know leaves as one stream
//! of [`delivery::Delivery`].

pub mod account;
mod audit;
pub mod connection;
pub mod delivery;
pub mod health;
mod heartbeat;
pub mod incidents;
pub mod lease;
mod local_node;
pub mod matchmaking;
pub mod node;
mod node_requests;
pub mod presence;
pub mod profile;
mod pulse;
mod reaper;
mod recovery;
mod registration;
pub mod replica;
mod router;
pub mod standing;
mod tasks;
pub mod token;
mod topic;
pub mod update;
pub mod visibility;
pub mod watcher_count;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::value::RawValue;

use self::account::{AccountError, Accounts, Shown};
use self::audit::Audit;
pub use self::connection::Allowances;
use self::connection::{Connection, Connections, Refused};
use self::delivery::{Deliveries, DeliveryStream};
use self::health::{Check, Health};
use self::heartbeat::Heartbeat;
use self::incidents::{Incident, Incidents};
use self::lease::{Lease, LeaseOptions};
use self::local_node::LocalNode;
use self::matchmaking::{JoinError, Matchmaking, OfflineUsers};
use self::node_requests::NodeRequests;
use self::presence::{Presence, PresenceOptions};
use self::profile::Notification;
pub use self::profile::{Notified, NotifyError};
use self::pulse::Pulses;
use self::reaper::Reaper;
use self::recovery::Recovery;
use self::registration::Registrations;
use self::router::Router;
use self::standing::Acceptance;
pub use self::tasks::Tasks;
use self::token::Identity;
use self::topic::Topics;
use self::visibility::Visibility;
use self::watcher_count::{PendingCounts, WatcherCount};
pub use crate::engine::EngineError;
use crate::engine::matchmaking::{PairingRules, QueueStatus};
use crate::engine::{Engine, Kind, LiveNode, Messages, RegisteredConnection, Revoked, Stored};
use crate::ids::{ConnectionId, UserId};
use crate::profiles::{Friendship, Image, NewMatch, Profiles};
use crate::telemetry::{Metrics, Transport, gauge};

/// How long a starting node waits until it knows who is online.
const REPLICA_WITHIN: Duration = Duration::from_secs(5);

/// The rules of the domain, as configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How users are counted, and which connections hear of their transitions.
    pub presence: PresenceOptions,
    /// How long a node counts as alive.
    pub lease: LeaseOptions,
    /// Interval between two audits: comparisons of the node's connections with the engine's data.
    pub audit: Duration,
    /// The limits of one connection, or one user.
    pub allowances: Allowances,
    /// How opponents are found.
    pub matchmaking: PairingRules,
    /// Fields of a user that everybody may see.
    pub public_fields: Vec<String>,
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
    visibility: Visibility,
    accounts: Arc<Accounts>,
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    matchmaking: Arc<Matchmaking>,
    connections: Arc<Connections>,
    lease: Arc<Lease>,
    heartbeat: Arc<Heartbeat>,
    health: Arc<Health>,
    watcher_counts: Arc<PendingCounts>,
    incidents: Arc<Incidents>,
    metrics: Arc<Metrics>,
}

impl Hub {
    /// Starts the hub on an engine, with accounts in Postgres where there are any. Returns it with its tasks and the
    /// stream of deliveries to this node's connections, once this node knows who is online.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn start(
        engine: Engine,
        messages: Messages,
        profiles: Option<Profiles>,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Result<(Self, Tasks, DeliveryStream), EngineError> {
        let (deliveries, stream) = Deliveries::new();
        let (offline_users, went_offline) = OfflineUsers::new();
        let incidents = Arc::new(Incidents::default());
        let lease = Arc::new(Lease::new(options.lease));
        let visibility = Visibility::new(&options.public_fields);
        let changes = profiles.as_ref().map(Profiles::changes);
        let accounts = Accounts::new(engine.clone(), visibility.clone(), profiles);
        let accounts = Arc::new(accounts);
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
            incidents.clone(),
            options.presence,
        ));
        let (matchmaking, match_streams) = Matchmaking::new(
            engine.clone(),
            topics.clone(),
            presence.clone(),
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
        let reaper = Arc::new(Reaper {
            engine: engine.clone(),
            presence: presence.clone(),
            lease: lease.clone(),
            metrics: metrics.clone(),
            incidents: incidents.clone(),
        });
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
            incidents: incidents.clone(),
        });
        let pulses = Arc::new(Pulses::new(
            engine.clone(),
            presence.clone(),
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
        let heartbeat = Arc::new(Heartbeat {
            engine: engine.clone(),
            lease: lease.clone(),
            node: node.clone(),
            presence: presence.clone(),
            pulses: pulses.clone(),
            recovery: recovery.clone(),
            registrations: registrations.clone(),
            metrics: metrics.clone(),
            incidents: incidents.clone(),
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
        let audit = Audit {
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
        tasks.spawn("sweep", presence.clone().run_sweep());
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
        let hub = Self(Arc::new(Inner {
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
            incidents,
            metrics,
        }));
        Ok((hub, tasks, stream))
    }

    /// Admits a connection of the user of a valid token, or of a guest, over a session that began with `transport`. On
    /// return the user is counted, and updates about the user reach the connection.
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
        self.0.connections.connect(id, identity, transport).await
    }

    /// Whether a valid token is accepted. The call asks the engine, once.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn accepts(&self, identity: &Identity) -> Result<Acceptance, EngineError> {
        standing::accepts(&self.0.engine, identity).await
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
        profile::notify(&self.0.engine, &self.0.visibility, notifications).await
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
        self.0.accounts.forget_account(user).await;
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

    /// Counts the connections that watch `user`, on all nodes.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn count_watchers(&self, user: UserId) -> Result<WatcherCount, EngineError> {
        self.0.watcher_counts.count_watchers(user).await
    }

    /// Puts a user in the queue, for a back end. Without a rating the user gets the one that is known. Returns whether
    /// the user waited already.
    ///
    /// # Errors
    /// When the user is not online, or the engine cannot be reached.
    pub async fn join_matchmaking(
        &self,
        user: UserId,
        rating: Option<i64>,
    ) -> Result<bool, JoinError> {
        self.0.matchmaking.join(user, rating).await
    }

    /// Takes a user out of the queue. Returns whether the user was in it.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn leave_matchmaking(&self, user: UserId) -> Result<bool, EngineError> {
        self.0.matchmaking.leave(user).await
    }

    /// The state of the matchmaking queue.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn queue_status(&self) -> Result<QueueStatus, EngineError> {
        self.0.engine.queue_status().await
    }

    /// Whether the hub keeps accounts.
    pub fn has_accounts(&self) -> bool {
        self.0.accounts.exist()
    }

    /// The account of `user` in the view that `viewer`, or a guest, may have.
    ///
    /// # Errors
    /// When there is no such account, it was deleted, or Postgres cannot be reached.
    pub async fn show_account(
        &self,
        user: UserId,
        viewer: Option<UserId>,
    ) -> Result<Shown, AccountError> {
        self.0.accounts.show_account(user, viewer).await
    }

    /// Whether the account exists and was deleted nowhere: neither in Postgres nor by a back end that told the engine.
    ///
    /// # Errors
    /// When there is no such account, it was deleted, or Postgres cannot be reached.
    pub async fn expect_account(&self, user: UserId) -> Result<(), AccountError> {
        self.0.accounts.expect_account(user).await
    }

    /// Whether the account exists in Postgres and was not deleted there; for whoever has asked the engine already.
    ///
    /// # Errors
    /// When there is no such account, it was deleted, or Postgres cannot be reached.
    pub async fn expect_stored_account(&self, user: UserId) -> Result<(), AccountError> {
        self.0.accounts.expect_stored_account(user).await
    }

    /// Creates an account, or changes it; without an avatar it keeps the one that it has.
    ///
    /// # Errors
    /// When the account was deleted, a value cannot be stored, or Postgres cannot be reached.
    pub async fn put_account(
        &self,
        user: UserId,
        username: &str,
        avatar: Option<&str>,
    ) -> Result<(), AccountError> {
        self.0.accounts.put_account(user, username, avatar).await
    }

    /// Gives the user another name.
    ///
    /// # Errors
    /// When there is no such account, the name cannot be stored, or Postgres cannot be reached.
    pub async fn rename(&self, user: UserId, username: &str) -> Result<(), AccountError> {
        self.0.accounts.rename(user, username).await
    }

    /// Gives the user the picture at a URL.
    ///
    /// # Errors
    /// When there is no such account, the URL cannot be stored, or Postgres cannot be reached.
    pub async fn set_avatar_url(&self, user: UserId, url: &str) -> Result<(), AccountError> {
        self.0.accounts.set_avatar_url(user, url).await
    }

    /// Keeps a picture for the user and serves it.
    ///
    /// # Errors
    /// When there is no such account, or Postgres cannot be reached.
    pub async fn set_avatar_image(&self, user: UserId, image: &Image) -> Result<(), AccountError> {
        self.0.accounts.set_avatar_image(user, image).await
    }

    /// The picture that is kept for the user under this hash, if it is still the present one.
    ///
    /// # Errors
    /// When Postgres cannot be reached.
    pub async fn avatar(&self, user: UserId, hash: &str) -> Result<Option<Image>, AccountError> {
        self.0.accounts.avatar(user, hash).await
    }

    /// Deletes the account: forgets what it shows and whom it is friends with, closes its connections, refuses its
    /// tokens.
    ///
    /// # Errors
    /// When there is no such account, or Postgres cannot be reached.
    pub async fn delete_account(&self, user: UserId) -> Result<(), AccountError> {
        self.0.accounts.delete_account(user).await
    }

    /// Asks for a friendship, or agrees to one. It holds once both have asked.
    ///
    /// # Errors
    /// When one of the accounts does not exist, both are one, or Postgres cannot be reached.
    pub async fn ask_friendship(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<Friendship, AccountError> {
        self.0.accounts.ask_friendship(user, other).await
    }

    /// Ends a friendship, or takes back what was asked, in both directions.
    ///
    /// # Errors
    /// When one of the accounts does not exist, or Postgres cannot be reached.
    pub async fn end_friendship(&self, user: UserId, other: UserId) -> Result<(), AccountError> {
        self.0.accounts.end_friendship(user, other).await
    }

    /// Records the result of a match. Returns its number.
    ///
    /// # Errors
    /// When a player does not exist, the result makes no sense, or Postgres cannot be reached.
    pub async fn record_match(&self, played: &NewMatch) -> Result<u64, AccountError> {
        self.0.accounts.record_match(played).await
    }

    /// Whether this node can do its work; every check is named. Without Postgres it can do most of it.
    pub async fn readiness(&self) -> Vec<Check> {
        self.0.health.readiness().await
    }

    /// Whether this node can do its work, by the last check; the node checks again only if that one failed.
    pub async fn is_ready(&self) -> bool {
        self.0.health.is_ready().await
    }

    /// Replaces the allowances. They hold for whatever begins from now on.
    pub fn allow(&self, allowances: Allowances) {
        self.0.connections.allowances.store(Arc::new(allowances));
    }

    /// From now on the node is not ready and admits no connection.
    pub fn drain(&self) {
        self.0.presence.drain();
    }

    /// Whether the node is stopping.
    pub fn is_draining(&self) -> bool {
        self.0.presence.is_draining()
    }

    /// Leaves the cluster once every connection is closed: waits at most `within` until all are released, and gives
    /// the lease back. The last node to leave also takes offline the users whose grace still runs.
    pub async fn shutdown(&self, within: Duration) {
        self.0.heartbeat.resign(within).await;
    }

    /// Brings the gauges up to date before they are read.
    pub fn refresh_metrics(&self) {
        let metrics = &self.0.metrics;
        metrics.online_users.set(gauge(self.online_count()));
        metrics.topics.set(gauge(self.0.topics.len()));
        metrics.users.set(gauge(self.0.topics.users()));
        metrics.watchers.set(gauge(self.0.topics.watchers()));
    }
}
