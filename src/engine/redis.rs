//! The engine for any number of nodes: presence and last updates in Redis, messages over its sharded pub/sub.
//!
//! Each server has two connections: one for commands, one for subscriptions, so that neither waits for the other.

mod answer;
mod bus;
mod client;
mod cluster;
pub mod doctor;
mod entry;
pub mod inspect;
mod keys;
mod matchmaking;
mod page;
mod preflight;
mod scripts;
mod servers;
mod tls;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use fred::types::FromValue;
use futures_util::future::join_all;
use serde_json::value::RawValue;

use self::bus::Listener;
use self::keys::Keys;
use self::page::{BEGINNING, Page};
use self::scripts::{Script, Scripts, not_understood};
use self::servers::{Servers, slot_of};
use super::{
    Admission, EngineError, Expired, Kind, LiveNode, Messages, NodeInfo, OpenError, Position,
    Published, Reaped, Refusal, RegisteredConnection, Registration, Revoked, Standing, Stored,
    Update, Views,
};
use crate::ids::{ConnectionId, Incarnation, Revision, UserId, random_name};
use crate::telemetry::Metrics;

/// Version of the keys' layout. A node that finds another one refuses to start.
const LAYOUT: u64 = 1;

/// Members asked for by one `SSCAN`: few enough that Redis stays responsive in between.
const SCAN_COUNT: u32 = 1000;

/// Leases taken away by one call of the script.
const BURY_BATCH_MAX: u32 = 100;

/// How long a master may take to show that some of the Cluster is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How to reach Redis and how to use it.
#[derive(Clone)]
pub struct Options {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`.
    pub url: String,
    /// PEM file with the authorities that sign certificates of encrypted servers; without it those of the system do.
    pub ca_file: Option<PathBuf>,
    /// Every key and channel starts with it.
    pub prefix: String,
    /// How many partitions the users are spread over; the same on every node.
    pub partitions: u32,
    /// How long last updates are kept after the newest one.
    pub profile_ttl: Duration,
    /// How long revocations are kept.
    pub revocation_ttl: Duration,
    /// How long one command may take, reconnecting included.
    pub command_timeout: Duration,
}

/// The Redis engine of one node.
pub struct Redis {
    incarnation: RwLock<Incarnation>,
    partitions: u64,
    keys: Keys,
    scripts: Scripts,
    servers: Servers,
    /// The channel of the incarnation that is subscribed, as far as is known.
    own_channel: Mutex<Option<String>>,
    profile_ttl_ms: u128,
    revocation_ttl_ms: u128,
}

impl Redis {
    /// Connects, checks the data's layout, and returns the engine with its stream of messages. How long scripts take is
    /// noted in `metrics`.
    ///
    /// # Errors
    /// When the URL is none, Redis does not answer, or the data has another layout.
    pub async fn open(
        incarnation: Incarnation,
        options: &Options,
        metrics: &Metrics,
    ) -> Result<(Arc<Self>, Messages), OpenError> {
        let (listener, messages) = Listener::new(Keys::new(&options.prefix, options.partitions));
        let servers = Servers::open(options, Some(listener)).await?;
        let redis = Self::on(servers, incarnation, options, metrics);
        redis.check_servers().await?;
        redis.claim_layout(options).await?;
        Ok((Arc::new(redis), messages))
    }

    fn on(
        servers: Servers,
        incarnation: Incarnation,
        options: &Options,
        metrics: &Metrics,
    ) -> Self {
        Self {
            incarnation: RwLock::new(incarnation),
            partitions: u64::from(options.partitions),
            keys: Keys::new(&options.prefix, options.partitions),
            scripts: Scripts::new(metrics),
            servers,
            own_channel: Mutex::default(),
            profile_ttl_ms: options.profile_ttl.as_millis(),
            revocation_ttl_ms: options.revocation_ttl.as_millis(),
        }
    }

    /// Connects without being a node, to look at the data: records no layout, and subscribes to nothing.
    ///
    /// # Errors
    /// When the URL is none, Redis does not answer, or the data has another layout.
    pub async fn visit(options: &Options) -> Result<Self, OpenError> {
        let servers = Servers::open(options, None).await?;
        let nobody = Incarnation::new(&random_name());
        let redis = Self::on(servers, nobody, options, &Metrics::new());
        let recorded = redis
            .recorded_layout()
            .await
            .map_err(|error| redis.not_opened(error))?;
        if let Some(found) = recorded {
            agree(options, found)?;
        }
        Ok(redis)
    }

    async fn recorded_layout(&self) -> Result<Option<(u64, u64)>, EngineError> {
        let fields = vec!["layout".to_owned(), "partitions".to_owned()];
        let (layout, partitions): (Option<u64>, Option<u64>) =
            self.servers.call("HMGET", self.keys.meta(), fields).await?;
        Ok(layout.zip(partitions))
    }

    /// Records the layout, or compares with the one that is recorded.
    async fn claim_layout(&self, options: &Options) -> Result<(), OpenError> {
        let args = vec![LAYOUT.to_string(), self.partitions.to_string()];
        let found: Result<(u64, u64), _> = self
            .scripts
            .claim
            .call(&self.servers, vec![self.keys.meta()], args)
            .await;
        match found {
            Ok(found) => agree(options, found),
            // The node begins without; `begin` compares before the lease begins.
            Err(error) if self.is_partial(&error).await => {
                tracing::warn!(%error, "the layout of the data could not be compared yet");
                Ok(())
            }
            Err(error) => Err(self.not_opened(error)),
        }
    }

    fn not_opened(&self, error: EngineError) -> OpenError {
        preflight::open_error(self.servers.name(), error)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why the server rejects connections of this node.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.servers.refusal()
    }

    pub(super) fn go_on_as(&self, next: Incarnation) -> Incarnation {
        let mut incarnation = self
            .incarnation
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *incarnation, next)
    }

    pub(super) fn partitions(&self) -> u32 {
        self.keys.partitions()
    }

    /// Whether an error concerns some of the masters of a Cluster only, as others answer.
    pub(super) async fn is_partial(&self, error: &EngineError) -> bool {
        let may_pass = matches!(error, EngineError::Unavailable(_) | EngineError::NotNow(_));
        may_pass && self.is_partly_there().await
    }

    pub(super) async fn is_partly_there(&self) -> bool {
        let (some, all) = self.servers.answers(ANSWER_WITHIN).await;
        some && !all
    }

    pub(super) fn may_hold_leases(&self, partitions: &[u32]) -> bool {
        let leases = slot_of(&self.keys.leases());
        let mut slots = partitions
            .iter()
            .map(|partition| self.keys.slot(*partition));
        slots.any(|slot| self.servers.share_a_server(slot, leases))
    }

    /// The clock on which leases end.
    pub(super) async fn now_ms(&self) -> Result<u64, EngineError> {
        let slot = slot_of(&self.keys.leases());
        let (seconds, microseconds): (u64, u64) = self.servers.call_at(slot, "TIME", &[]).await?;
        Ok(seconds * 1000 + microseconds / 1000)
    }

    fn partition_of(&self, user: UserId) -> u32 {
        (user.get() % self.partitions) as u32
    }

    pub(super) async fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        let partition = self.partition_of(user);
        let keys = vec![
            self.keys.connections(user),
            self.keys.owed(partition, self.incarnation().as_str()),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
            self.keys.revision(partition),
            self.keys.epoch(partition),
            self.keys.profile(user),
            self.keys.revoked(user),
        ];
        let args = vec![
            user.to_string(),
            self.incarnation().to_string(),
            connection.to_string(),
            admission.connections_max.to_string(),
            self.keys.presence_channel(partition),
            admission.issued_at_ms.unwrap_or(0).to_string(),
        ];
        let answer: Vec<fred::types::Value> = self
            .scripts
            .register
            .call(&self.servers, keys, args)
            .await?;
        let number = |at: usize| answer.get(at).and_then(fred::types::Value::as_u64);
        match answer.first().and_then(|status| status.as_str()).as_deref() {
            Some("deleted") => Ok(Registration::AccountDeleted),
            Some("revoked") => Ok(Registration::TokenRevoked),
            Some("full") => Ok(Registration::TooManyConnections),
            Some("ok") => Ok(Registration::Registered {
                refcount: number(1).unwrap_or(0),
                revision: number(2).unwrap_or(0),
                since_ms: number(3).unwrap_or(0),
            }),
            _ => Err(EngineError::Answer("register.lua".to_owned())),
        }
    }

    pub(super) async fn release(
        &self,
        user: UserId,
        connection: ConnectionId,
        grace: Duration,
    ) -> Result<u64, EngineError> {
        let incarnation = self.incarnation();
        self.release_of(incarnation.as_str(), user, connection, grace)
            .await
    }

    /// Releases a connection of any incarnation.
    async fn release_of(
        &self,
        incarnation: &str,
        user: UserId,
        connection: ConnectionId,
        grace: Duration,
    ) -> Result<u64, EngineError> {
        let partition = self.partition_of(user);
        let keys = vec![
            self.keys.connections(user),
            self.keys.owed(partition, incarnation),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
        ];
        let args = vec![
            user.to_string(),
            incarnation.to_owned(),
            connection.to_string(),
            grace.as_millis().to_string(),
        ];
        let (refcount, _offline_at_ms): (u64, u64) =
            self.scripts.release.call(&self.servers, keys, args).await?;
        Ok(refcount)
    }

    pub(super) async fn expire(
        &self,
        partition: u32,
        batch_max: u32,
        ahead: Duration,
        patience: Duration,
    ) -> Result<Expired, EngineError> {
        let keys = vec![
            self.keys.leaving(partition),
            self.keys.online(partition),
            self.keys.revision(partition),
            self.keys.epoch(partition),
            self.keys.server(partition),
        ];
        let args = vec![
            batch_max.to_string(),
            self.keys.presence_channel(partition),
            ahead.as_millis().to_string(),
            patience.as_millis().to_string(),
        ];
        let (offline, next_due_ms): (Vec<u64>, i64) =
            self.scripts.expire.call(&self.servers, keys, args).await?;
        let offline = offline.into_iter();
        Ok(Expired {
            offline: offline.filter_map(|id| UserId::try_from(id).ok()).collect(),
            next_due: u64::try_from(next_due_ms).ok().map(Duration::from_millis),
        })
    }

    pub(super) async fn position(&self, partition: u32) -> Result<Position, EngineError> {
        let keys = vec![self.keys.revision(partition), self.keys.epoch(partition)];
        let (epoch, revision): (String, u64) = self
            .scripts
            .position
            .call(&self.servers, keys, Vec::new())
            .await?;
        Ok(Position { epoch, revision })
    }

    pub(super) async fn online(&self, partition: u32) -> Result<Vec<UserId>, EngineError> {
        // Members that no node can have written are left to the doctor.
        let ids: Vec<String> = self.scan(self.keys.online(partition)).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// The members of a set, read in steps. Those that come or go meanwhile may be among them or not.
    async fn scan<T>(&self, key: String) -> Result<Vec<T>, EngineError>
    where
        Vec<T>: FromValue,
    {
        let mut members = Vec::new();
        let mut cursor = Some(BEGINNING.to_owned());
        while let Some(at) = cursor {
            let page: Page<T> = self.page("SSCAN", &key, &at, SCAN_COUNT).await?;
            members.extend(page.items);
            cursor = page.next;
        }
        Ok(members)
    }

    pub(super) async fn connections_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        let online_key = self.keys.online(self.partition_of(user));
        let is_online = self
            .servers
            .call("SISMEMBER", online_key, vec![user.to_string()]);
        let connections = self
            .servers
            .call("HGETALL", self.keys.connections(user), Vec::new());
        let (online, connections): (bool, HashMap<String, String>) =
            tokio::try_join!(is_online, connections)?;
        let read = |(field, since): (String, String)| registered((field, since.parse().ok()?));
        let mut connections: Vec<_> = connections.into_iter().filter_map(read).collect();
        connections.sort_by(|a, b| {
            (a.connected_at_ms, &a.connection).cmp(&(b.connected_at_ms, &b.connection))
        });
        Ok((online, connections))
    }

    pub(super) async fn subscribe_presence(&self, partition: u32) -> Result<(), EngineError> {
        let presence = self.keys.presence_channel(partition);
        let pulse = self.keys.pulse_channel(partition);
        self.servers.subscribe(vec![presence, pulse]).await
    }

    pub(super) async fn subscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        self.servers.subscribe(self.topics(users)).await
    }

    pub(super) async fn unsubscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        self.servers.unsubscribe(self.topics(users)).await
    }

    pub(super) async fn pulse(&self, partition: u32) -> Result<(), EngineError> {
        let keys = vec![self.keys.revision(partition), self.keys.epoch(partition)];
        let args = vec![self.keys.pulse_channel(partition)];
        let _listeners: u64 = self.scripts.pulse.call(&self.servers, keys, args).await?;
        Ok(())
    }

    pub(super) async fn recover(&self, partition: u32, silence: Duration) {
        self.servers.recover(partition, silence).await;
    }

    fn topics(&self, users: &[UserId]) -> Vec<String> {
        users.iter().map(|user| self.keys.topic(*user)).collect()
    }

    pub(super) async fn publish(
        &self,
        updates: Vec<Update>,
    ) -> Vec<Result<Published, EngineError>> {
        // Issued together they leave in one go, and Redis works them off in this order. The first of several in
        // a partition brings the script along, since each may be on a server of its own: were it forgotten,
        // those sent again would come after those that were not.
        let several = updates.len() > 1;
        let mut begun = HashSet::new();
        let published = updates.iter().map(|update| {
            let is_first = begun.insert(self.partition_of(update.user));
            self.publish_once(update, several && is_first)
        });
        let mut outcomes = join_all(published).await;
        // Where a slot is on the move, those that were not carried out are repeated one after the other, in order.
        for (outcome, update) in outcomes.iter_mut().zip(&updates) {
            if matches!(outcome, Err(Attempt::Redirected)) {
                *outcome = self.publish_one(update).await.map_err(Attempt::Failed);
            }
        }
        let outcomes = outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.map_err(EngineError::from))
            .collect()
    }

    async fn publish_one(&self, update: &Update) -> Result<Published, EngineError> {
        let (keys, args) = self.update_words(update);
        let answer = self.scripts.update.call(&self.servers, keys, args).await?;
        published(answer)
    }

    /// The same, once: where the Cluster points elsewhere the update is not carried out.
    async fn publish_once(&self, update: &Update, with_source: bool) -> Result<Published, Attempt> {
        let (keys, args) = self.update_words(update);
        let script = &self.scripts.update;
        let answer = script
            .call_once(&self.servers, keys, args, with_source)
            .await;
        match answer {
            Ok(answer) => published(answer).map_err(Attempt::Failed),
            Err(error) if Servers::is_redirected(&error) => Err(Attempt::Redirected),
            Err(error) => Err(Attempt::Failed(self.servers.failure(error))),
        }
    }

    fn update_words(&self, update: &Update) -> (Vec<String>, Vec<String>) {
        let partition = self.partition_of(update.user);
        let keys = vec![
            self.keys.profile(update.user),
            self.keys.epoch(partition),
            self.keys.request(partition, &random_name()),
        ];
        let args = vec![
            update.kind.as_str().to_owned(),
            update.revision.map_or(0, |revision| revision.0).to_string(),
            update
                .public
                .as_ref()
                .map_or("null", |view| view.get())
                .to_owned(),
            update.full.get().to_owned(),
            self.profile_ttl_ms.to_string(),
            self.keys.topic(update.user),
        ];
        (keys, args)
    }

    pub(super) async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        let keys = vec![
            self.keys.profile(user),
            self.keys.epoch(self.partition_of(user)),
        ];
        let (epoch, fields): (String, Vec<String>) = self
            .scripts
            .read
            .call(&self.servers, keys, Vec::new())
            .await?;
        let fields = pairs(fields);
        let number = |name: &str| {
            fields
                .get(name)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let read = |kind: Kind| {
            let views = stored_views(&fields, kind, &epoch)?;
            Some((kind, views, number(&format!("{}.at", kind.as_str()))))
        };
        Ok(Stored {
            updates: Kind::ALL.into_iter().filter_map(read).collect(),
            epoch: epoch.clone(),
            deleted: fields.contains_key("deleted"),
            disconnected_at_ms: number("disconnected"),
        })
    }

    pub(super) async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<Option<u64>, EngineError> {
        let event = serde_json::Value::from(event);
        let message = format!(
            r#"{{"kind":"event","event":{event},"data":{}}}"#,
            data.get()
        );
        self.publish_message(user, message).await
    }

    pub(super) async fn disconnect(&self, user: UserId) -> Result<Option<u64>, EngineError> {
        let keys = self.request_keys(user);
        let args = vec![self.profile_ttl_ms.to_string(), self.keys.topic(user)];
        let nodes: i64 = self
            .scripts
            .disconnect
            .call(&self.servers, keys, args)
            .await?;
        Ok(u64::try_from(nodes).ok())
    }

    pub(super) async fn revoke(&self, user: UserId) -> Result<Option<Revoked>, EngineError> {
        let mut keys = self.request_keys(user);
        keys.push(self.keys.revoked(user));
        let args = vec![
            self.profile_ttl_ms.to_string(),
            self.revocation_ttl_ms.to_string(),
            self.keys.topic(user),
        ];
        let (nodes, before_ms): (i64, u64) =
            self.scripts.revoke.call(&self.servers, keys, args).await?;
        let nodes = u64::try_from(nodes).ok();
        Ok(nodes.map(|nodes| Revoked { nodes, before_ms }))
    }

    pub(super) async fn standing(&self, user: UserId) -> Result<Standing, EngineError> {
        // Sent together, in one round trip: neither says anything about the other.
        let (profile, revoked) = (self.keys.profile(user), self.keys.revoked(user));
        let deleted = self
            .servers
            .call("HEXISTS", profile, vec!["deleted".to_owned()]);
        let revoked_before_ms = self.servers.call("GET", revoked, Vec::new());
        let (deleted, revoked_before_ms): (bool, Option<u64>) =
            tokio::try_join!(deleted, revoked_before_ms)?;
        Ok(Standing {
            deleted,
            revoked_before_ms: revoked_before_ms.unwrap_or(0),
        })
    }

    /// Where the answer to a new request is kept, and what says that the account was deleted.
    fn request_keys(&self, user: UserId) -> Vec<String> {
        let partition = self.partition_of(user);
        vec![
            self.keys.request(partition, &random_name()),
            self.keys.profile(user),
        ]
    }

    async fn publish_message(
        &self,
        user: UserId,
        message: String,
    ) -> Result<Option<u64>, EngineError> {
        let keys = self.request_keys(user);
        let args = vec![message, self.keys.topic(user)];
        let nodes: i64 = self.scripts.publish.call(&self.servers, keys, args).await?;
        Ok(u64::try_from(nodes).ok())
    }

    pub(super) async fn forget_updates(&self, user: UserId) -> Result<bool, EngineError> {
        // Whether the account is deleted, and who is to be disconnected, is kept.
        let of_kind = |kind: Kind| {
            let parts = ["revision", "at", "public", "full"];
            parts.map(|part| format!("{}.{part}", kind.as_str()))
        };
        let fields: Vec<String> = Kind::ALL.into_iter().flat_map(of_kind).collect();
        let profile = self.keys.profile(user);
        let removed: u64 = self.servers.call("HDEL", profile, fields).await?;
        Ok(removed > 0)
    }

    pub(super) async fn delete_account(&self, user: UserId) -> Result<u64, EngineError> {
        let keys = vec![self.keys.profile(user)];
        let args = vec![self.keys.topic(user)];
        self.scripts
            .delete_account
            .call(&self.servers, keys, args)
            .await
    }

    pub(super) async fn send_canary(&self, nonce: u64) -> Result<(), EngineError> {
        let channel = self.subscribe_own().await?;
        // Changes nothing, and is refused where nothing can be changed: a server that has become a replica would
        // publish the canary nevertheless.
        let field = vec!["canary".to_owned()];
        let _: u64 = self.servers.call("HDEL", channel.clone(), field).await?;
        let listeners = self.spublish(channel, nonce.to_string()).await?;
        if listeners == 0 {
            self.forget_own_channel();
        }
        Ok(())
    }

    /// Makes sure that the channel of the present incarnation is subscribed, and returns it.
    async fn subscribe_own(&self) -> Result<String, EngineError> {
        let channel = self.keys.node(self.incarnation().as_str());
        if self.own_channel().as_ref() != Some(&channel) {
            self.servers.subscribe(vec![channel.clone()]).await?;
            *self.own_channel() = Some(channel.clone());
        }
        Ok(channel)
    }

    fn own_channel(&self) -> MutexGuard<'_, Option<String>> {
        self.own_channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the node's own channel subscribed again before the next canary.
    pub(super) fn forget_own_channel(&self) {
        *self.own_channel() = None;
    }

    /// Returns how many nodes listen.
    async fn spublish(&self, channel: String, message: String) -> Result<u64, EngineError> {
        self.servers.call("SPUBLISH", channel, vec![message]).await
    }

    pub(super) async fn ask_watchers(&self, user: UserId, survey: u64) -> Result<u64, EngineError> {
        let question = bus::watchers_question(self.incarnation().as_str(), survey);
        self.spublish(self.keys.topic(user), question).await
    }

    pub(super) async fn tell_watchers(
        &self,
        asker: &str,
        survey: u64,
        watchers: u64,
    ) -> Result<(), EngineError> {
        let answer = bus::watchers_answer(survey, watchers);
        self.spublish(self.keys.node(asker), answer).await?;
        Ok(())
    }

    pub(super) async fn begin(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        let args = vec![LAYOUT.to_string(), self.partitions.to_string()];
        // Recorded again where Redis has lost its data; another node's record stays.
        let recorded: (u64, u64) = self
            .scripts
            .claim
            .call(&self.servers, vec![self.keys.meta()], args)
            .await?;
        if recorded != (LAYOUT, self.partitions) {
            let (layout, partitions) = recorded;
            return Err(EngineError::Answer(format!(
                "the data has layout {layout} and {partitions} partitions; this node is configured otherwise"
            )));
        }
        let _ends_at_ms = self.lease(&self.scripts.begin, info, lease).await?;
        self.describe(info, lease).await
    }

    pub(super) async fn renew(
        &self,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<Option<u64>, EngineError> {
        let ends_ms = self.lease(&self.scripts.renew, info, lease).await?;
        if ends_ms == 0 {
            return Ok(None);
        }
        self.describe(info, lease).await?;
        Ok(Some(ends_ms))
    }

    /// Returns the end of the lease, in ms.
    async fn lease(
        &self,
        script: &Script,
        info: &NodeInfo,
        lease: Duration,
    ) -> Result<u64, EngineError> {
        let args = vec![info.incarnation.clone(), lease.as_millis().to_string()];
        script
            .call(&self.servers, vec![self.keys.leases()], args)
            .await
    }

    /// Tells the others about the node, until the lease ends.
    async fn describe(&self, info: &NodeInfo, lease: Duration) -> Result<(), EngineError> {
        let key = self.keys.node(&info.incarnation);
        let not_heard: Vec<String> = info.not_heard.iter().map(u32::to_string).collect();
        let fields = [
            ("id", info.id.clone()),
            ("incarnation", info.incarnation.clone()),
            ("version", info.version.clone()),
            ("startedAt", info.started_at.to_string()),
            ("connections", info.connections.to_string()),
            ("guests", info.guests.to_string()),
            ("users", info.users.to_string()),
            ("topics", info.topics.to_string()),
            ("notHeard", not_heard.join(",")),
        ];
        let mut set = vec![key.clone()];
        set.extend(
            fields
                .into_iter()
                .flat_map(|(field, value)| [field.to_owned(), value]),
        );
        let expire = vec![key.clone(), lease.as_millis().to_string()];
        // Together, so that a node that dies in between leaves no hash without an end.
        let commands = [("HSET", set), ("PEXPIRE", expire)];
        self.servers.call_together(&key, &commands).await?;
        Ok(())
    }

    pub(super) async fn bury(&self, until_ms: u64) -> Result<Vec<String>, EngineError> {
        let keys = vec![self.keys.leases()];
        let args = vec![BURY_BATCH_MAX.to_string(), until_ms.to_string()];
        self.scripts.bury.call(&self.servers, keys, args).await
    }

    pub(super) async fn dead(&self, partition: u32) -> Result<Vec<String>, EngineError> {
        let nodes = self.keys.registered_nodes(partition);
        let mut owing: Vec<String> = self.servers.call("SMEMBERS", nodes, Vec::new()).await?;
        // Asked for after, so that a node that began meanwhile is seen with its lease.
        let leases = self.leases().await?;
        let has_lease = |incarnation: &str| leases.iter().any(|(name, _)| name == incarnation);
        if !has_lease(self.incarnation().as_str()) {
            // So is everybody else's, perhaps: the list may be lost.
            return Ok(Vec::new());
        }
        owing.retain(|incarnation| !has_lease(incarnation));
        Ok(owing)
    }

    pub(super) async fn reap(
        &self,
        partition: u32,
        incarnation: &str,
        batch_max: u32,
        grace: Duration,
    ) -> Result<Reaped, EngineError> {
        let keys = vec![
            self.keys.owed(partition, incarnation),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
        ];
        let args = vec![
            incarnation.to_owned(),
            self.keys.connections_begin(partition),
            batch_max.to_string(),
            grace.as_millis().to_string(),
        ];
        let (released, left) = self.scripts.reap.call(&self.servers, keys, args).await?;
        Ok(Reaped { released, left })
    }

    pub(super) async fn owed(
        &self,
        partition: u32,
    ) -> Result<Vec<(UserId, ConnectionId)>, EngineError> {
        let incarnation = self.incarnation();
        let entries: Vec<String> = self
            .scan(self.keys.owed(partition, incarnation.as_str()))
            .await?;
        Ok(entries
            .iter()
            .filter_map(|entry| answer::read_entry(entry))
            .collect())
    }

    pub(super) async fn answer(
        &self,
        reply: &str,
        held: &[(UserId, ConnectionId)],
    ) -> Result<(), EngineError> {
        // Read after `held` was: where a new life began meanwhile, the answer is not taken for the old one's.
        let incarnation = self.incarnation().to_string();
        answer::give(&self.servers, &self.keys.reply(reply), incarnation, held).await
    }

    pub(super) async fn reconnect(&self) {
        self.forget_own_channel();
        let own = self.keys.node(self.incarnation().as_str());
        self.servers.reconnect(&own).await;
    }

    pub(super) async fn resign(&self) -> Result<(), EngineError> {
        let incarnation = self.incarnation().to_string();
        let node = self.keys.node(&incarnation);
        let leases = self.keys.leases();
        let _: u64 = self.servers.call("ZREM", leases, vec![incarnation]).await?;
        let _: u64 = self.servers.call("DEL", node, Vec::new()).await?;
        Ok(())
    }

    pub(super) async fn leases(&self) -> Result<Vec<(String, u64)>, EngineError> {
        let range = ["0", "-1", "WITHSCORES"].map(str::to_owned).to_vec();
        let leases: Vec<String> = self
            .servers
            .call("ZRANGE", self.keys.leases(), range)
            .await?;
        let lease = |pair: &[String]| Some((pair[0].clone(), pair[1].parse::<f64>().ok()? as u64));
        Ok(leases.chunks_exact(2).filter_map(lease).collect())
    }

    pub(super) async fn nodes(&self) -> Result<Vec<LiveNode>, EngineError> {
        let leases = self.leases().await?;
        let told = leases.iter().map(|(incarnation, _)| {
            let key = self.keys.node(incarnation);
            self.servers
                .call::<HashMap<String, String>>("HGETALL", key, Vec::new())
        });
        let mut nodes = Vec::with_capacity(leases.len());
        for (fields, (_, ends_at)) in join_all(told).await.into_iter().zip(&leases) {
            // The hash ends with the lease, so a node without one is no longer alive.
            if let Some(info) = node_info(&fields?) {
                nodes.push(LiveNode {
                    info,
                    lease_ends_at_ms: *ends_at,
                });
            }
        }
        nodes.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        Ok(nodes)
    }
}

/// Checks what can be checked without connecting.
///
/// # Errors
/// When the URL is none, or there is nobody to trust.
pub fn check(options: &Options) -> Result<(), OpenError> {
    tls::config(options).map(|_| ())
}

/// Why an update that was sent once was not stored.
enum Attempt {
    /// Its slot is served elsewhere, or on the move: it was not carried out.
    Redirected,
    Failed(EngineError),
}

impl From<Attempt> for EngineError {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Redirected => Self::NotNow("the slot is on the move".to_owned()),
            Attempt::Failed(error) => error,
        }
    }
}

/// Reads what `profile/update.lua` answers.
fn published(answer: fred::types::Value) -> Result<Published, EngineError> {
    let answer = answer.convert().map_err(not_understood)?;
    let (status, revision, nodes): (String, u64, u64) = answer;
    let revision = Revision(revision);
    match status.as_str() {
        "ok" => Ok(Published::Stored { revision, nodes }),
        "stale" => Ok(Published::Stale { revision }),
        "deleted" => Ok(Published::AccountDeleted),
        _ => Err(EngineError::Answer("update.lua".to_owned())),
    }
}

/// Whether the data has the layout that this version and these settings need.
fn agree(options: &Options, (found_layout, found_partitions): (u64, u64)) -> Result<(), OpenError> {
    let partitions = u64::from(options.partitions);
    if (found_layout, found_partitions) == (LAYOUT, partitions) {
        return Ok(());
    }
    Err(OpenError::Disagreement {
        prefix: options.prefix.clone(),
        layout: LAYOUT,
        partitions,
        found_layout,
        found_partitions,
    })
}

fn pairs(flat: Vec<String>) -> HashMap<String, String> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
}

fn registered((field, connected_at_ms): (String, u64)) -> Option<RegisteredConnection> {
    let (incarnation, connection) = field.rsplit_once('/')?;
    Some(RegisteredConnection {
        incarnation: incarnation.to_owned(),
        connection: connection.to_owned(),
        connected_at_ms,
    })
}

fn stored_views(fields: &HashMap<String, String>, kind: Kind, epoch: &str) -> Option<Views> {
    let field = |name: &str| fields.get(&format!("{}.{name}", kind.as_str()));
    let json = |text: &String| Some(Arc::from(RawValue::from_string(text.clone()).ok()?));
    Some(Views {
        epoch: epoch.to_owned(),
        revision: Revision(field("revision")?.parse().ok()?),
        public: field("public")
            .filter(|text| *text != "null")
            .and_then(json),
        full: field("full").and_then(json)?,
    })
}

fn node_info(fields: &HashMap<String, String>) -> Option<NodeInfo> {
    let text = |name: &str| fields.get(name).cloned();
    let number = |name: &str| fields.get(name)?.parse().ok();
    Some(NodeInfo {
        id: text("id")?,
        incarnation: text("incarnation")?,
        version: text("version")?,
        started_at: number("startedAt")?,
        connections: number("connections")?,
        guests: number("guests")?,
        users: number("users")?,
        topics: number("topics")?,
        not_heard: text("notHeard")
            .iter()
            .flat_map(|not_heard| not_heard.split(','))
            .filter_map(|partition| partition.parse().ok())
            .collect(),
    })
}
