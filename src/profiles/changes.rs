//! The change listener: hands out changes that have not been published, whoever made them.
//!
//! One node at a time listens: the one whose connection holds a lock. It sends a query every second; the server closes
//! the connection of a suspended node, and another node takes over. A node that resumes publishes the same changes
//! again, which is harmless, because the engine compares revisions.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::connector::{DedicatedConnection, too_slow};
use super::transaction::{as_id, as_revision, as_user};
use super::{AccountChange, Part, Profiles, ProfilesError};

/// How often the lock's holder reads without a notification, and how often the others try to get the lock.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before a failed batch is handed out again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Reconnect delays grow from the first to the second, plus jitter.
const RECONNECT_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Held by the listening node; the second number stands for the schema, as for migrations.
const LOCK: &str = "SELECT pg_try_advisory_lock(1986622055, hashtext(current_schema()))";

/// A connection idle for this long belongs to a suspended node.
const SETTINGS: &str = "SET idle_session_timeout = '5s'";

const LISTEN: &str = "LISTEN vigie_changes";

const KEEPALIVE: &str = "SELECT";

/// Oldest first. Rows locked by a writer are read later.
const READ: &str = "
SELECT user_id, kind, revision FROM changes ORDER BY revision LIMIT 200 FOR UPDATE SKIP LOCKED";

/// Deletes only what was read; newer changes stay. Skips locked rows, so that it cannot deadlock with a writer.
const FORGET: &str = "
DELETE FROM changes c USING (
    SELECT changes.user_id, changes.kind FROM changes
      JOIN unnest($1::bigint[], $2::text[], $3::bigint[]) AS done (user_id, kind, revision)
        ON done.user_id = changes.user_id AND done.kind = changes.kind AND done.revision = changes.revision
       FOR UPDATE OF changes SKIP LOCKED
) done WHERE c.user_id = done.user_id AND c.kind = done.kind";

/// At most 200 changes to publish.
pub struct ChangeBatch {
    changes: Vec<AccountChange>,
    published: oneshot::Sender<()>,
}

impl ChangeBatch {
    /// The changes, oldest first; at most one of each user and part.
    pub fn changes(&self) -> &[AccountChange] {
        &self.changes
    }

    /// Acknowledges that all changes have been published. A batch dropped without this is handed out again.
    pub fn published(self) {
        // The listener may have reconnected and read the same changes again.
        let _ = self.published.send(());
    }
}

/// The stream of batches; dropping it stops the listener.
pub struct ChangeStream {
    batches: mpsc::Receiver<ChangeBatch>,
    listener: AbortHandle,
}

impl ChangeStream {
    /// The next batch; the following one comes once this one is published or dropped. Pending while another node is the
    /// listener.
    pub async fn next(&mut self) -> Option<ChangeBatch> {
        self.batches.recv().await
    }
}

impl Drop for ChangeStream {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Profiles {
    /// Starts the listener, on a dedicated connection that reconnects indefinitely.
    pub fn changes(&self) -> ChangeStream {
        let (sender, batches) = mpsc::channel(1);
        let listener = tokio::spawn(run_listener(self.clone(), sender)).abort_handle();
        ChangeStream { batches, listener }
    }

    /// Deletes published changes, so that the listener need not publish them again.
    ///
    /// # Errors
    /// If Postgres does not answer in time; then the listener publishes them again.
    pub async fn published(&self, changes: &[AccountChange]) -> Result<(), ProfilesError> {
        let (users, kinds, revisions) = columns(changes);
        self.pool
            .query(FORGET, &[&users, &kinds, &revisions])
            .await?;
        Ok(())
    }
}

/// Why listening ended.
enum Ended {
    /// The stream was dropped.
    Unread,
    /// The connection failed.
    Lost(ProfilesError),
}

impl<E: Into<ProfilesError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

async fn run_listener(profiles: Profiles, batches: mpsc::Sender<ChangeBatch>) {
    let mut outage = Outage::default();
    while let Err(Ended::Lost(error)) = listen_until_lost(&profiles, &batches, &mut outage).await {
        tokio::time::sleep(outage.retry_delay(&error)).await;
    }
}

/// Listens until the connection is lost, or the stream is dropped.
async fn listen_until_lost(
    profiles: &Profiles,
    batches: &mpsc::Sender<ChangeBatch>,
    outage: &mut Outage,
) -> Result<(), Ended> {
    let listener = ChangeListener::connect(profiles).await?;
    while !listener.get_lock().await? {
        outage.end();
        listener.wait(batches.closed(), POLL_INTERVAL).await?;
        if batches.is_closed() {
            return Err(Ended::Unread);
        }
    }
    listener
        .within(listener.connection.client.batch_execute(LISTEN))
        .await?;
    loop {
        let changes = listener.read().await?;
        outage.end();
        let more = !changes.is_empty() && listener.publish(changes, batches).await?;
        if !more {
            listener
                .wait(listener.connection.notified.notified(), POLL_INTERVAL)
                .await?;
        }
    }
}

/// The dedicated connection, with its prepared statements.
struct ChangeListener {
    connection: DedicatedConnection,
    timeout: Duration,
    read: Statement,
    forget: Statement,
}

impl ChangeListener {
    async fn connect(profiles: &Profiles) -> Result<Self, ProfilesError> {
        let timeout = profiles.pool.timeout();
        let connection = profiles.pool.connector().open_dedicated().await?;
        let prepare = async |client: &Client| {
            client.batch_execute(SETTINGS).await?;
            let limit = format!("SET statement_timeout = {}", timeout.as_millis());
            client.batch_execute(&limit).await?;
            Ok::<_, tokio_postgres::Error>((
                client.prepare(READ).await?,
                client.prepare(FORGET).await?,
            ))
        };
        let prepared = tokio::time::timeout(timeout, prepare(&connection.client)).await;
        let (read, forget) = prepared.map_err(|_| too_slow(timeout))??;
        Ok(Self {
            connection,
            timeout,
            read,
            forget,
        })
    }

    async fn get_lock(&self) -> Result<bool, ProfilesError> {
        let row = self
            .within(self.connection.client.query_one(LOCK, &[]))
            .await?;
        Ok(row.try_get(0)?)
    }

    async fn read(&self) -> Result<Vec<AccountChange>, ProfilesError> {
        let rows = self
            .within(self.connection.client.query(&self.read, &[]))
            .await?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            changes.extend(change(row)?);
        }
        Ok(changes)
    }

    /// Hands out changes, waits until they are published, and deletes them. Returns whether to read again at once.
    async fn publish(
        &self,
        changes: Vec<AccountChange>,
        batches: &mpsc::Sender<ChangeBatch>,
    ) -> Result<bool, Ended> {
        let (published, outcome) = oneshot::channel();
        let (users, kinds, revisions) = columns(&changes);
        let batch = ChangeBatch { changes, published };
        let handed_out = self.keep_alive_during(batches.send(batch)).await?;
        handed_out.map_err(|_| Ended::Unread)?;
        if self.keep_alive_during(outcome).await?.is_err() {
            self.keep_alive_during(tokio::time::sleep(jittered(RETRY_DELAY)))
                .await?;
            return Ok(true);
        }
        let parameters: [&(dyn ToSql + Sync); 3] = [&users, &kinds, &revisions];
        let forgotten = self
            .within(self.connection.client.execute(&self.forget, &parameters))
            .await?;
        // Remaining rows have a newer revision or are locked by a writer: no reason to hurry.
        Ok(forgotten == users.len() as u64)
    }

    /// Waits for `something`, at most `at_most`.
    async fn wait(
        &self,
        something: impl Future<Output = ()>,
        at_most: Duration,
    ) -> Result<(), ProfilesError> {
        // Continue in either case.
        let _ = tokio::time::timeout(at_most, something).await;
        if self.connection.client.is_closed() {
            let reason = "the connection was lost".to_owned();
            return Err(ProfilesError::Unavailable(reason));
        }
        Ok(())
    }

    /// Waits for `something` as long as it takes, and keeps the connection alive meanwhile.
    async fn keep_alive_during<T>(
        &self,
        something: impl Future<Output = T>,
    ) -> Result<T, ProfilesError> {
        let mut something = std::pin::pin!(something);
        loop {
            if let Ok(done) = tokio::time::timeout(POLL_INTERVAL, &mut something).await {
                return Ok(done);
            }
            self.within(self.connection.client.batch_execute(KEEPALIVE))
                .await?;
        }
    }

    /// Waits for an answer, up to the timeout.
    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ProfilesError> {
        let answered = tokio::time::timeout(self.timeout, answer).await;
        Ok(answered.map_err(|_| too_slow(self.timeout))??)
    }
}

/// Decodes a row of `changes`; `None` for a part unknown to this version.
fn change(row: &Row) -> Result<Option<AccountChange>, ProfilesError> {
    let user = as_user(row.try_get(0)?)?;
    let revision = as_revision(row.try_get(2)?);
    let part = row.try_get::<_, &str>(1)?.parse::<Part>().ok();
    Ok(part.map(|part| AccountChange {
        user,
        part,
        revision,
    }))
}

/// Changes as parameters of a statement.
fn columns(changes: &[AccountChange]) -> (Vec<i64>, Vec<&'static str>, Vec<i64>) {
    let users = changes.iter().map(|change| as_id(change.user));
    let kinds = changes.iter().map(|change| change.part.into());
    let revisions = changes
        .iter()
        .map(|change| i64::try_from(change.revision).unwrap_or(i64::MAX));
    (users.collect(), kinds.collect(), revisions.collect())
}

/// An outage of Postgres, logged once.
#[derive(Default)]
struct Outage {
    delay: Option<Duration>,
}

impl Outage {
    /// Records a failed attempt; returns the delay before the next one.
    fn retry_delay(&mut self, error: &ProfilesError) -> Duration {
        let (first, longest) = RECONNECT_DELAYS;
        let delay = match self.delay {
            None => {
                tracing::info!(reason = %error, "not listening to postgres; retrying");
                first
            }
            Some(last) => (last * 2).min(longest),
        };
        self.delay = Some(delay);
        jittered(delay)
    }

    fn end(&mut self) {
        if self.delay.take().is_some() {
            tracing::info!("listening to postgres again");
        }
    }
}

/// Adds up to half of the delay, so that nodes do not all reconnect in the same millisecond.
fn jittered(delay: Duration) -> Duration {
    delay + delay.mul_f64(rand::random::<f64>() / 2.0)
}
