//! One connection to one Redis server: its configuration, and the task that keeps it running.

use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::prelude::{Builder, Client, Config, ReconnectPolicy};
use fred::types::ConnectHandle;
use fred::types::config::UnresponsiveConfig;
use socket2::TcpKeepalive;
use tokio::task::{AbortHandle, JoinHandle};

use super::RedisOptions;
use super::tls::{self, Trust};
use crate::engine::OpenError;
use crate::tls::LastRefusal;

/// Pub/sub messages that fred buffers for a slow reader before it drops the oldest (an interruption). At 1 KiB each
/// this is at most 16 MiB.
const PUBSUB_BUFFER: usize = 16 * 1024;

/// The same for a client without subscriptions. fred fills several channels of this size per client.
const NO_PUBSUB_BUFFER: usize = 32;

/// Commands queued while a server is unreachable; more are rejected at once. At 1 KiB each this is 64 MiB.
const COMMAND_BUFFER: usize = 64 * 1024;

/// How long [`RunningClient::reconnect`] waits for the new connection.
const RECONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Reconnect delays grow from the first to the second, plus jitter.
const RECONNECT_DELAY_MS: (u32, u32) = (50, 2_000);

/// Random extra delay, so that nodes do not all reconnect in the same millisecond.
const RECONNECT_JITTER_MS: u32 = 100;

/// Pause before a client task that ended is started again.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// TCP keepalive: a peer that vanished without a FIN is noticed after 10 + 3 × 5 s, even on an idle connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Commands,
    Subscriptions,
}

/// A client whose task runs until this is dropped. fred's task can end by itself; then it is restarted.
pub(super) struct RunningClient {
    client: Client,
    supervisor: JoinHandle<()>,
}

/// Ends fred's task together with the task that waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RunningClient {
    /// Connects to the server in `config`; with TLS if there is any `trust`.
    pub(super) async fn open(
        mut config: Config,
        options: &RedisOptions,
        purpose: Purpose,
        trust: Option<&Trust>,
    ) -> Result<Self, OpenError> {
        let refusal = LastRefusal::default();
        if let Some(trust) = trust {
            config.tls = Some(trust.connector(&refusal)?);
        }
        let client = build(config, options, purpose)?;
        let task = client.init().await.map_err(|error| {
            tls::open_error(server_of(&client), &error, trust.is_some(), &refusal)
        })?;
        Ok(Self::supervise(client, Some(task)))
    }

    /// Connects in the background, however long it takes. Until then commands wait up to their timeout.
    pub(super) fn start(
        mut config: Config,
        options: &RedisOptions,
        purpose: Purpose,
    ) -> Result<Self, OpenError> {
        config.fail_fast = false;
        Ok(Self::supervise(build(config, options, purpose)?, None))
    }

    fn supervise(client: Client, task: Option<ConnectHandle>) -> Self {
        let supervisor = tokio::spawn(run_client(client.clone(), task));
        Self { client, supervisor }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Replaces the connection, unless that is in progress. fred closes an unresponsive connection only if nothing was
    /// sent for a while, so it never closes one in use.
    pub(super) async fn reconnect(&self) {
        if !self.client.is_connected() {
            return;
        }
        let reconnected = self.client.force_reconnection();
        match tokio::time::timeout(RECONNECT_WITHIN, reconnected).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not reconnect to redis; retrying")
            }
            Err(_) => tracing::debug!("reconnecting to redis is slow; retrying"),
        }
    }
}

impl Drop for RunningClient {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

async fn run_client(client: Client, mut task: Option<ConnectHandle>) {
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

fn build(config: Config, options: &RedisOptions, purpose: Purpose) -> Result<Client, OpenError> {
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
            performance.broadcast_channel_capacity = match purpose {
                Purpose::Commands => NO_PUBSUB_BUFFER,
                Purpose::Subscriptions => PUBSUB_BUFFER,
            };
        })
        .with_connection_config(|connection| {
            connection.max_command_buffer_len = COMMAND_BUFFER;
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

/// The host and port of a client's server.
pub(super) fn server_of(client: &Client) -> String {
    let hosts = client.client_config().server.hosts();
    hosts.first().map_or_else(String::new, ToString::to_string)
}
