//! Connects to Postgres: the settings of every connection, and dedicated connections outside the pool.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config};

use super::tls::{self, Tls};
use super::{PostgresOptions, ProfilesError};

/// Idle time before the first TCP keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// Interval of the probes, and how many may fail before the connection is closed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long sent bytes may stay unacknowledged before the connection is closed.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

pub(super) struct Connector {
    config: Config,
    tls: Tls,
    timeout: Duration,
}

/// A connection outside the pool; closed when dropped.
pub(super) struct DedicatedConnection {
    pub(super) client: Client,
    /// Notified of every `NOTIFY`, and when the connection ends.
    pub(super) notified: Arc<Notify>,
    driver: JoinHandle<()>,
}

impl Connector {
    /// Parses the URL; does not connect.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, ProfilesError> {
        let (url, tls) = tls::take_from(&options.url)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let words = super::error::error_chain(&error);
            // Part of an unescaped password would appear as an unknown option; do not print it.
            let query = options.url.split_once('?').map_or("", |(_, query)| query);
            let problem = if query.contains('@') {
                "write the `?` and the `@` of a password as %3F and %40"
            } else {
                &words
            };
            ProfilesError::Setup(format!(
                "postgres.url (VIGIE_POSTGRES__URL) cannot be read: {problem}"
            ))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ProfilesError::Setup(
                "postgres.url (VIGIE_POSTGRES__URL) names no host".to_owned(),
            ));
        }
        if config.get_application_name().is_none() {
            config.application_name("vigie");
        }
        config
            .ssl_mode(tls.mode)
            .connect_timeout(options.timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        let timeout = options.timeout;
        Ok(Self {
            config,
            tls,
            timeout,
        })
    }

    /// The settings of connections, except TLS.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a connection; the returned task drives it.
    pub(super) async fn connect(
        &self,
        notified: Arc<Notify>,
    ) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(self.tls.connect.clone()).await?;
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => notified.notify_one(),
                    Ok(_) => {}
                    // The client's user gets the same error, and handles it.
                    Err(error) => {
                        tracing::debug!(reason = %super::error::error_chain(&error), "postgres connection lost");
                        break;
                    }
                }
            }
            notified.notify_one();
        });
        Ok((client, driver))
    }

    pub(super) async fn open_dedicated(&self) -> Result<DedicatedConnection, ProfilesError> {
        let notified = Arc::new(Notify::new());
        let connecting = tokio::time::timeout(self.timeout, self.connect(notified.clone()));
        let connected = connecting.await.map_err(|_| too_slow(self.timeout))?;
        let (client, driver) = connected?;
        Ok(DedicatedConnection {
            client,
            notified,
            driver,
        })
    }
}

impl Drop for DedicatedConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The error after a timeout.
pub(super) fn too_slow(timeout: Duration) -> ProfilesError {
    ProfilesError::Unavailable(format!(
        "no answer within {}",
        humantime::format_duration(timeout)
    ))
}
