//! A node: builds engine, then domain, then transport, and shuts them down in reverse.

pub(crate) mod doctor;
pub(crate) mod inspect;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use tokio_util::sync::CancellationToken;

pub(crate) use self::reload::Reload;
use crate::domain::lease::LeaseOptions;
use crate::domain::presence::{PresenceOptions, StatusAudience};
use crate::domain::token::{TokenOptions, TokenSetupError, TokenVerifier};
use crate::domain::{Allowances, Hub, HubOptions, Tasks};
use crate::engine::matchmaking::PairingRules;
use crate::engine::memory::Memory;
use crate::engine::redis::{self, Redis, RedisOptions};
use crate::engine::{Engine, EngineError, Messages, OpenError};
use crate::ids::{Incarnation, random_name};
use crate::profiles::{PostgresOptions, Profiles, ProfilesError};
use crate::settings::{
    AuthSettings, DEVELOPMENT_API_KEY, DEVELOPMENT_SECRET, EngineKind, PresenceAudience, Secret,
    Settings,
};
use crate::telemetry::Metrics;
use crate::transport::address::TrustedProxies;
use crate::transport::http::{
    self, AllowedOrigins, ApiKeyCheck, Internal, Live, Playground, PlaygroundOptions, Public,
};
use crate::transport::limits::{CurrentLimits, Limits};
use crate::transport::listener::{self, Listener};
use crate::transport::server;
use crate::transport::socket::{SocketOptions, SocketServer};

/// Time limit for a stopping node to release its connections and its lease.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// A running node.
pub struct App {
    hub: Hub,
    sockets: SocketServer,
    node_id: String,
    public_address: SocketAddr,
    internal_address: SocketAddr,
    drain: Duration,
    tasks: Tasks,
    servers: Tasks,
    stop_accepting: CancellationToken,
    reload: Reload,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine was lost while the node started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The settings of Postgres are unusable.
    #[error(transparent)]
    Profiles(#[from] ProfilesError),
    /// The keys that verify tokens are unusable.
    #[error(transparent)]
    Tokens(#[from] TokenSetupError),
    /// A listener cannot bind its address.
    #[error("{key} = {address} cannot be listened on ({cause}); free it, or choose another")]
    Listen {
        /// Name of the setting.
        key: &'static str,
        /// Value of the setting.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// Without a key the internal API could not authenticate anybody.
    #[error(
        "neither internal.api_key nor internal.api_keys is set; set one (VIGIE_INTERNAL__API_KEY)"
    )]
    ApiKey,
    /// A reload would replace the node's own keys by the published development keys.
    #[error(
        "the settings have no keys of their own any more, and the development keys are known to everybody: set \
         auth.secret (or a public key) and internal.api_key again; is the settings file where it was?"
    )]
    DevelopmentKeys,
    /// An allowed origin is not a valid header value.
    #[error("http.allowed_origins: {0:?} is no origin; write https://example.com, or *")]
    Origin(String),
}

impl App {
    /// Starts a node, which is listening on return.
    ///
    /// # Errors
    /// When an address is in use, the engine cannot be reached, or a setting is unusable.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let keys = ApiKeyCheck::new(api_keys(&settings)?);
        let tokens = Arc::new(TokenVerifier::new(&token_options(&settings.auth))?);
        let origins = allowed_origins(&settings.http.allowed_origins)?;
        let profiles = profiles(&settings)?;
        let metrics = Arc::new(Metrics::new());
        let limits = CurrentLimits::new(limits(&settings));
        let proxies = TrustedProxies::new(&settings.http.trusted_proxies);
        let listen = |key, address, kind| {
            let listener = Listener::bind(address, kind, limits.clone(), metrics.clone());
            bound(listener).map_err(|cause| StartError::Listen {
                key,
                address,
                cause,
            })
        };
        let kind = listener::ListenerKind::Public(proxies.clone());
        let (public, public_address) = listen("http.listen", settings.http.listen, kind)?;
        let (internal, internal_address) = listen(
            "internal.listen",
            settings.internal.listen,
            listener::ListenerKind::Internal,
        )?;

        let node_id = settings.node.id.clone().unwrap_or_else(random_name);
        let (engine, messages) =
            open_engine(&settings, Incarnation::new(&node_id), &metrics).await?;
        let (hub, tasks, deliveries) = Hub::start(
            engine,
            messages,
            profiles.clone(),
            metrics.clone(),
            domain_options(&settings),
        )
        .await?;
        let sockets = SocketServer::new(
            hub.clone(),
            tokens.clone(),
            metrics.clone(),
            SocketOptions {
                message_len_max: settings.limits.message,
                join_timeout: settings.limits.handshake,
                proxies,
            },
            limits.clone(),
        );

        let stop_accepting = CancellationToken::new();
        let mut servers = Tasks::default();
        if let Some(profiles) = profiles.filter(|_| settings.postgres.migrate) {
            servers.spawn("migration", migrate(profiles));
        }
        servers.spawn("fan-out", sockets.fan_out(deliveries));
        servers.spawn("session checks", sockets.run_session_checks());
        servers.spawn("overdue public connections", public.close_overdue());
        servers.spawn("overdue internal connections", internal.close_overdue());
        let open = Public {
            hub: hub.clone(),
            tokens: tokens.clone(),
            origins,
            limits: limits.clone(),
            metrics: metrics.clone(),
        };
        let routes = http::public(open, sockets.routes());
        let on_aborted = sockets.on_aborted();
        let serve = server::serve(public, routes, on_aborted, stop_accepting.clone());
        servers.spawn("public listener", serve);
        let playground = Playground::default();
        playground.set(playground_options(&settings, public_address).as_ref());
        let routes = http::internal(Internal {
            playground: playground.clone(),
            live: Live::new(hub.clone(), metrics.clone()),
            hub: hub.clone(),
            metrics,
            keys: keys.clone(),
            limits: limits.clone(),
        });
        let serve = server::serve(internal, routes, |_, _| (), stop_accepting.clone());
        servers.spawn("internal listener", serve);
        let reload = Reload {
            hub: hub.clone(),
            tokens,
            keys,
            limits,
            playground,
            public_address,
            exposed: settings.exposed().is_some(),
            development: settings.development(),
        };

        Ok(Self {
            hub,
            sockets,
            node_id,
            public_address,
            internal_address,
            drain: settings.node.drain,
            tasks,
            servers,
            stop_accepting,
            reload,
        })
    }

    /// The hub, for a back end in the same process.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Name of the node: `node.id`, or a random one.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// Bound address of the public listener.
    pub fn public_address(&self) -> SocketAddr {
        self.public_address
    }

    /// Bound address of the internal listener.
    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// A handle that applies changed settings while the node runs.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Runs until `stop` resolves, then drains: admits no connection, closes all transports so that clients reconnect to
    /// other nodes, and releases connections and lease.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        stop.await;
        self.hub.drain();
        let closed = self.sockets.close_all(self.drain);
        if tokio::time::timeout(self.drain + SHUTDOWN_WITHIN, closed)
            .await
            .is_err()
        {
            tracing::warn!("some connections did not close in time");
        }
        // Not earlier: while the node drains, `/readyz` tells balancers that it is not ready.
        self.stop_accepting.cancel();
        self.hub.shutdown(SHUTDOWN_WITHIN).await;
        self.tasks.stop().await;
        self.servers.stop().await;
    }
}

fn bound(listener: io::Result<Listener>) -> io::Result<(Listener, SocketAddr)> {
    let listener = listener?;
    let address = listener.address()?;
    Ok((listener, address))
}

/// The pool of Postgres, if it is configured. Does not connect yet.
///
/// # Errors
/// When the URL is unusable.
pub(crate) fn profiles(settings: &Settings) -> Result<Option<Profiles>, ProfilesError> {
    let Some(url) = &settings.postgres.url else {
        return Ok(None);
    };
    let options = PostgresOptions {
        url: url.expose().to_owned(),
        pool: settings.postgres.pool,
        timeout: settings.postgres.timeout,
    };
    let profiles = Profiles::new(&options)?;
    if settings.postgres.migrate {
        profiles.expect_migration();
    }
    Ok(Some(profiles))
}

/// Migrates the schema as soon as Postgres can be reached, so that a node starts without it.
async fn migrate(profiles: Profiles) {
    let applied = profiles.migrate_until_done().await;
    tracing::info!(?applied, "the schema in postgres is up to date");
}

async fn open_engine(
    settings: &Settings,
    incarnation: Incarnation,
    metrics: &Metrics,
) -> Result<(Engine, Messages), OpenError> {
    match settings.engine {
        EngineKind::Memory => {
            let (memory, messages) = Memory::open(
                incarnation,
                settings.redis.profile_ttl,
                settings.auth.revocation_ttl,
            );
            Ok((Engine::Memory(memory), messages))
        }
        EngineKind::Redis => {
            let options = redis_options(settings);
            let (redis, messages) = Redis::open(incarnation, &options, metrics).await?;
            Ok((Engine::Redis(redis), messages))
        }
    }
}

/// Checks the settings of Redis without connecting.
///
/// # Errors
/// When the URL, or the file with the authorities, is unusable.
pub(crate) fn check_redis(settings: &Settings) -> Result<(), OpenError> {
    match settings.engine {
        EngineKind::Memory => Ok(()),
        EngineKind::Redis => redis::check(&redis_options(settings)),
    }
}

/// The keys of the internal API, each with its name.
fn api_keys(settings: &Settings) -> Result<Vec<(&str, &str)>, StartError> {
    let keys = settings.internal.keys();
    let keys: Vec<_> = keys.map(|(name, key)| (name, key.expose())).collect();
    if keys.is_empty() {
        return Err(StartError::ApiKey);
    }
    Ok(keys)
}

/// Converts `[auth]` to the options of the domain.
pub fn token_options(auth: &AuthSettings) -> TokenOptions {
    let exposed =
        |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    TokenOptions {
        secret: exposed(&auth.secret),
        public_key_file: auth.public_key_file.clone(),
        jwks_file: auth.jwks_file.clone(),
        previous_secret: exposed(&auth.previous_secret),
        previous_public_key_file: auth.previous_public_key_file.clone(),
        previous_until: auth.previous_until,
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        user_id_claim: auth.user_id_claim.clone(),
        leeway: auth.leeway,
    }
}

/// `None` where the playground is not served.
fn playground_options(settings: &Settings, public: SocketAddr) -> Option<PlaygroundOptions> {
    settings.serves_playground().then(|| PlaygroundOptions {
        public,
        api_key: DEVELOPMENT_API_KEY,
        token_secret: DEVELOPMENT_SECRET,
        user_id_claim: settings.auth.user_id_claim.clone(),
        issuer: settings.auth.issuer.clone(),
        audience: settings.auth.audience.clone(),
        allowed_origins: settings.http.allowed_origins.clone(),
    })
}

fn redis_options(settings: &Settings) -> RedisOptions {
    RedisOptions {
        url: settings.redis.url.expose().to_owned(),
        ca_file: settings.redis.ca_file.clone(),
        prefix: settings.redis.prefix.clone(),
        partitions: settings.redis.partitions,
        profile_ttl: settings.redis.profile_ttl,
        revocation_ttl: settings.auth.revocation_ttl,
        command_timeout: settings.redis.command_timeout,
    }
}

fn domain_options(settings: &Settings) -> HubOptions {
    HubOptions {
        presence: PresenceOptions {
            offline_grace: settings.presence.offline_grace,
            audience: match settings.presence.audience {
                PresenceAudience::Everyone => StatusAudience::Everyone,
                PresenceAudience::Watchers => StatusAudience::Watchers,
            },
            // Nodes notice within a heartbeat that they have to register their connections again.
            resync_grace: settings.node.lease + settings.node.heartbeat,
        },
        lease: LeaseOptions {
            lease: settings.node.lease,
            heartbeat: settings.node.heartbeat,
        },
        audit: settings.node.audit,
        allowances: allowances(settings),
        matchmaking: PairingRules {
            rating_window: settings.matchmaking.rating_window,
            widen_per_second: settings.matchmaking.widen_per_second,
            max_wait: settings.matchmaking.max_wait,
        },
        public_fields: settings.visibility.public_fields.clone(),
    }
}

fn allowances(settings: &Settings) -> Allowances {
    Allowances {
        watches: settings.limits.watches,
        connections_per_user: settings.limits.connections_per_user,
    }
}

/// Reduces the number of connections to what the open files of this process allow, and warns if that is fewer than
/// configured.
fn limits(settings: &Settings) -> Limits {
    let limits = &settings.limits;
    let files = listener::files_max();
    let budget = listener::FileBudget::of(files, limits.connections);
    if budget.connections < limits.connections {
        tracing::warn!(
            connections = budget.connections,
            limit = files,
            "the node admits fewer connections than limits.connections ({}), because its limit of open files is too low: \
             raise it (ulimit -n, or LimitNOFILE in systemd) to {}, or lower limits.connections",
            limits.connections,
            listener::files_for(limits.connections)
        );
    }
    Limits {
        connections: budget.connections,
        tcp_public: budget.public,
        tcp_internal: budget.internal,
        connections_per_address: limits.connections_per_address,
        handshake: limits.handshake,
        inbound_rate: limits.inbound_rate,
        inbound_burst: limits.inbound_burst,
        events_per_second: limits.events_per_second,
        events_burst: limits.events_burst,
        outbound_queue: limits.outbound_queue,
        stalled_write: limits.stalled_write,
        http_body: limits.http_body,
    }
}

fn allowed_origins(origins: &[String]) -> Result<AllowedOrigins, StartError> {
    if origins.iter().any(|origin| origin == "*") {
        return Ok(AllowedOrigins::Any);
    }
    let origin = |origin: &String| {
        HeaderValue::from_str(origin).map_err(|_| StartError::Origin(origin.clone()))
    };
    origins
        .iter()
        .map(origin)
        .collect::<Result<_, _>>()
        .map(AllowedOrigins::Only)
}
