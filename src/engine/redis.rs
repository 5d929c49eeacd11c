//! The engine for any number of nodes: presence and last updates in Redis, messages over its sharded pub/sub.
//!
//! Each server has two connections: one for commands, one for subscriptions, so that neither waits for the other.

mod account;
mod answer;
mod bus;
mod client;
mod cluster;
pub mod doctor;
mod entry;
pub mod inspect;
mod keys;
mod layout;
mod lease;
mod matchmaking;
mod node;
mod page;
mod preflight;
mod presence;
mod profile;
mod scripts;
mod servers;
mod tls;
mod topic;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use self::bus::Listener;
use self::keys::Keys;
use self::layout::check_layout;
use self::scripts::Scripts;
use self::servers::Servers;
use super::{EngineError, Messages, OpenError, Refusal};
use crate::ids::{Incarnation, UserId, random_name};
use crate::telemetry::Metrics;

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
    pub async fn connect_readonly(options: &Options) -> Result<Self, OpenError> {
        let servers = Servers::open(options, None).await?;
        let nobody = Incarnation::new(&random_name());
        let redis = Self::on(servers, nobody, options, &Metrics::new());
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

    /// Why the server rejects connections of this node.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.servers.refusal()
    }

    pub(super) fn set_incarnation(&self, next: Incarnation) -> Incarnation {
        std::mem::replace(&mut *self.incarnation.write(), next)
    }

    pub(super) fn partitions(&self) -> u32 {
        self.keys.partitions()
    }

    /// Whether an error concerns some of the masters of a Cluster only, as others answer.
    pub(super) async fn is_partial(&self, error: &EngineError) -> bool {
        match error {
            EngineError::NotNow(_) => self.servers.is_cluster(),
            EngineError::Unavailable(_) => self.is_partly_there().await,
            EngineError::Refused(_) | EngineError::Answer(_) => false,
        }
    }

    pub(super) async fn is_partly_there(&self) -> bool {
        let (some, all) = self.servers.answers(ANSWER_WITHIN).await;
        some && !all
    }

    fn partition_of(&self, user: UserId) -> u32 {
        (user.get() % self.partitions) as u32
    }

    pub(super) async fn recover(&self, partition: u32, silence: Duration) {
        self.servers.recover(partition, silence).await;
    }
}

/// Checks what can be checked without connecting.
///
/// # Errors
/// When the URL is none, or there is nobody to trust.
pub fn check(options: &Options) -> Result<(), OpenError> {
    tls::config(options).map(|_| ())
}
