//! One connection to one Redis server: how it is configured, and the task that keeps it running.

use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::prelude::{Builder, Client, Config, ReconnectPolicy};
use fred::types::ConnectHandle;
use fred::types::config::UnresponsiveConfig;
use socket2::TcpKeepalive;
use tokio::task::{AbortHandle, JoinHandle};

use super::{Options, tls};
use crate::engine::OpenError;

/// Pub/sub messages that fred keeps for a slow reader before the oldest are lost (which counts as an
/// interruption). At 1 KiB a message this is 16 MiB at the very most.
const PUBSUB_BUFFER: usize = 16 * 1024;

/// How long [`RunningClient::reconnect`] waits for the new connection.
const RECONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Delays between attempts to reconnect grow from the first to the second, with jitter on top.
const RECONNECT_DELAY_MS: (u32, u32) = (50, 2_000);

/// Random extra delay, so that nodes do not all come back in the same millisecond.
const RECONNECT_JITTER_MS: u32 = 100;

/// Pause before a client task that ended is started again.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// TCP keepalive: a peer that vanished without a FIN is noticed after 10 + 3 × 5 s, also where nothing is sent.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// A client whose task runs until this is dropped. fred's task can end by itself; then it is started again.
pub(super) struct RunningClient {
    client: Client,
    keeper: JoinHandle<()>,
}

/// Ends fred's task together with the task that waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RunningClient {
    /// Connects to the server in `config`.
    ///
    /// # Errors
    /// When the server does not answer, or is not trusted.
    pub(super) async fn open(config: Config, options: &Options) -> Result<Self, OpenError> {
        let encrypted = config.uses_tls();
        let client = build(config, options)?;
        let task = client
            .init()
            .await
            .map_err(|error| tls::refusal(server_of(&client), &error, encrypted))?;
        Ok(Self::keep(client, Some(task)))
    }

    /// Connects in the background, for as long as it takes. Commands wait meanwhile, as long as they may take.
    ///
    /// # Errors
    /// When the settings make no client.
    pub(super) fn start(mut config: Config, options: &Options) -> Result<Self, OpenError> {
        config.fail_fast = false;
        Ok(Self::keep(build(config, options)?, None))
    }

    fn keep(client: Client, task: Option<ConnectHandle>) -> Self {
        let keeper = tokio::spawn(keep_running(client.clone(), task));
        Self { client, keeper }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Replaces the connection, unless it is being replaced already. fred closes a connection that does not answer
    /// only when nothing was sent over it for a while, so it never closes one that is in use.
    pub(super) async fn reconnect(&self) {
        if !self.client.is_connected() {
            return;
        }
        let reconnected = self.client.force_reconnection();
        match tokio::time::timeout(RECONNECT_WITHIN, reconnected).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not reconnect to redis; the client keeps trying")
            }
            Err(_) => tracing::debug!("reconnecting to redis takes long; the client keeps trying"),
        }
    }
}

impl Drop for RunningClient {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep_running(client: Client, mut task: Option<ConnectHandle>) {
    loop {
        let running = task.take().unwrap_or_else(|| client.connect());
        let _guard = AbortOnDrop(running.abort_handle());
        let reason = running.await;
        tracing::debug!(
            server = server_of(&client),
            ?reason,
            "a redis client task ended; restarting it"
        );
        tokio::time::sleep(RESTART_DELAY).await;
    }
}

fn build(config: Config, options: &Options) -> Result<Client, OpenError> {
    let mut policy =
        ReconnectPolicy::new_exponential(0, RECONNECT_DELAY_MS.0, RECONNECT_DELAY_MS.1, 2);
    policy.set_jitter(RECONNECT_JITTER_MS);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    Builder::from_config(config)
        .with_performance_config(|performance| {
            performance.default_command_timeout = options.command_timeout;
            performance.broadcast_channel_capacity = PUBSUB_BUFFER;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = options.command_timeout;
            connection.internal_command_timeout = options.command_timeout;
            connection.tcp.nodelay = Some(true);
            connection.tcp.keepalive = Some(keepalive);
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(options.command_timeout * 2),
                interval: options.command_timeout / 2,
            };
        })
        .set_policy(policy)
        .build()
        .map_err(|error| OpenError::Url(error.details().to_owned()))
}

/// Where Redis is looked for, without its password.
pub(super) fn server_of(client: &Client) -> String {
    let hosts = client.client_config().server.hosts();
    hosts.first().map_or_else(String::new, ToString::to_string)
}
