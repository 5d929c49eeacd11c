//! The engine for any number of nodes: presence and updates in Redis, messages over its sharded pub/sub.
//!
//! Each server has one connection for commands and one for subscriptions, so that neither waits for the other.

mod account;
mod bus;
mod client;
mod cluster;
mod connection_report;
pub(crate) mod doctor;
mod hash_tag;
pub(crate) mod inspect;
mod keys;
mod layout;
mod lease;
mod matchmaking;
mod node;
mod page;
mod preflight;
mod presence;
mod profile;
mod rejection;
mod scripts;
mod servers;
mod tls;
mod topic;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use self::bus::Subscriber;
pub use self::hash_tag::hash_tags;
use self::keys::Keyspace;
use self::layout::check_layout;
use self::scripts::Scripts;
pub use self::scripts::script_text;
use self::servers::Servers;
use super::{EngineError, ErrorReply, Messages, OpenError};
use crate::ids::{Incarnation, UserId, random_name};
use crate::telemetry::Metrics;

/// How long to wait for each master when checking whether part of the Cluster is available.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How to connect to Redis, and how to use it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`.
    pub url: String,
    /// PEM file with trusted authorities for TLS; without it the system's.
    pub ca_file: Option<PathBuf>,
    /// Prefix of every key and channel.
    pub prefix: String,
    /// Number of partitions; the same on every node.
    pub partitions: u32,
    /// How long a user's updates are kept after the newest one.
    pub profile_ttl: Duration,
    /// How long revocations are kept.
    pub revocation_ttl: Duration,
    /// Timeout of a command, reconnecting included.
    pub command_timeout: Duration,
}

/// The Redis engine of one node.
pub struct Redis {
    incarnation: RwLock<Incarnation>,
    keys: Keyspace,
    scripts: Scripts,
    servers: Servers,
    /// The incarnation's channel, if it is subscribed.
    own_channel: Mutex<Option<String>>,
    profile_ttl_ms: u128,
    revocation_ttl_ms: u128,
}

impl Redis {
    /// Connects, checks the data's layout, and returns the engine with its stream of messages. Script durations are
    /// recorded in `metrics`.
    ///
    /// # Errors
    /// If the URL is invalid, Redis does not answer, or the data has another layout.
    pub async fn open(
        incarnation: Incarnation,
        options: &RedisOptions,
        metrics: &Metrics,
    ) -> Result<(Arc<Self>, Messages), OpenError> {
        let keys = Keyspace::new(&options.prefix, options.partitions);
        let (subscriber, messages) = Subscriber::new(keys.clone());
        let servers = Servers::open(options, Some(subscriber)).await?;
        let redis = Self::on(servers, keys, incarnation, options, metrics);
        redis.check_servers().await?;
        redis.claim_layout(options).await?;
        Ok((Arc::new(redis), messages))
    }

    fn on(
        servers: Servers,
        keys: Keyspace,
        incarnation: Incarnation,
        options: &RedisOptions,
        metrics: &Metrics,
    ) -> Self {
        Self {
            incarnation: RwLock::new(incarnation),
            keys,
            scripts: Scripts::new(metrics),
            servers,
            own_channel: Mutex::default(),
            profile_ttl_ms: options.profile_ttl.as_millis(),
            revocation_ttl_ms: options.revocation_ttl.as_millis(),
        }
    }

    /// Connects without being a node: records no layout and subscribes to nothing.
    ///
    /// # Errors
    /// If the URL is invalid, Redis does not answer, or the data has another layout.
    pub async fn connect_readonly(options: &RedisOptions) -> Result<Self, OpenError> {
        let servers = Servers::open(options, None).await?;
        let nobody = Incarnation::new(&random_name());
        let keys = Keyspace::new(&options.prefix, options.partitions);
        let redis = Self::on(servers, keys, nobody, options, &Metrics::new());
        let recorded = redis
            .recorded_layout()
            .await
            .map_err(|error| redis.not_opened(error))?;
        if let Some(found) = recorded {
            check_layout(options, found)?;
        }
        Ok(redis)
    }

    fn not_opened(&self, error: EngineError) -> OpenError {
        preflight::open_error(self.servers.name(), error)
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation.read().clone()
    }

    pub(super) fn refusal(&self) -> Option<ErrorReply> {
        self.servers.refusal()
    }

    pub(super) fn set_incarnation(&self, next: Incarnation) -> Incarnation {
        std::mem::replace(&mut *self.incarnation.write(), next)
    }

    pub(super) fn partitions(&self) -> u32 {
        self.keys.partitions()
    }

    /// Whether an error concerns only some of a Cluster's masters.
    pub(super) async fn is_partial(&self, error: &EngineError) -> bool {
        match error {
            EngineError::NotNow(_) => self.servers.is_cluster(),
            EngineError::Unavailable(_) => self.is_partly_available().await,
            EngineError::Refused(_) | EngineError::Answer(_) => false,
        }
    }

    pub(super) async fn is_partly_available(&self) -> bool {
        let (some, all) = self.servers.answers(ANSWER_WITHIN).await;
        some && !all
    }

    fn partition_of(&self, user: UserId) -> u32 {
        self.keys.partition_of(user)
    }

    pub(super) async fn recover(&self, partition: u32, silence: Duration) {
        self.servers.recover(partition, silence).await;
    }
}

/// Checks the settings without connecting.
///
/// # Errors
/// If the URL is invalid, or no certificate can be trusted.
pub(crate) fn check(options: &RedisOptions) -> Result<(), OpenError> {
    tls::config(options).map(|_| ())
}
