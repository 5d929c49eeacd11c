//! Connecting to Postgres: what every connection has in common, and the connections outside the pool.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config};

use super::tls::{self, Tls};
use super::{Options, ProfilesError};

/// After this long without a word TCP asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// How often it asks then, and how many times in vain before the connection is given up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long sent bytes may go unacknowledged before the connection is given up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// How to connect.
pub(super) struct Connector {
    config: Config,
    tls: Tls,
    timeout: Duration,
}

/// One connection outside the pool; closed when dropped.
pub(super) struct Session {
    pub(super) client: Client,
    /// Rings for every notification, and when the connection ends.
    pub(super) bell: Arc<Notify>,
    carrier: JoinHandle<()>,
}

impl Connector {
    /// Reads the URL; connects nowhere.
    pub(super) fn new(options: &Options) -> Result<Self, ProfilesError> {
        let (url, tls) = tls::take_from(&options.url)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let words = super::error::in_words(&error);
            // With a password that nobody has escaped, half of it is an unknown option, and not to be repeated.
            let query = options.url.split_once('?').map_or("", |(_, query)| query);
            let problem = match query.contains('@') {
                true => "write the `?` and the `@` of a password as %3F and %40",
                false => &words,
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

    /// What connections are made with, except TLS.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a connection; the task returned carries it.
    pub(super) async fn connect(
        &self,
        bell: Arc<Notify>,
    ) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(self.tls.connect.clone()).await?;
        let carrier = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => bell.notify_one(),
                    Ok(_) => {}
                    // Whoever uses the client is told the same, and handles it.
                    Err(error) => {
                        tracing::debug!(reason = %super::error::in_words(&error), "postgres connection lost");
                        break;
                    }
                }
            }
            bell.notify_one();
        });
        Ok((client, carrier))
    }

    /// Opens a connection outside the pool.
    pub(super) async fn session(&self) -> Result<Session, ProfilesError> {
        let bell = Arc::new(Notify::new());
        let connecting = tokio::time::timeout(self.timeout, self.connect(bell.clone()));
        let connected = connecting.await.map_err(|_| too_slow(self.timeout))?;
        let (client, carrier) = connected?;
        Ok(Session {
            client,
            bell,
            carrier,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

/// What is said when the time is up.
pub(super) fn too_slow(timeout: Duration) -> ProfilesError {
    ProfilesError::Unavailable(format!(
        "no answer within {}",
        humantime::format_duration(timeout)
    ))
}
