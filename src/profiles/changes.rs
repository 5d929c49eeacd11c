//! The change listener: hands out what changed and has not been published, whoever changed it.
//!
//! One node at a time does this: the one whose session holds a lock. It proves every second that it lives; the server
//! ends the session of one that stands still, and another takes over. One that wakes up then publishes what has been
//! published already, which does no harm, because revisions decide.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::session::{Session, too_slow};
use super::transaction::{as_id, as_revision, as_user};
use super::{Aspect, Change, Profiles, ProfilesError};

/// How often the holder of the lock reads, notified or not, and how often the others try to get it.
const PULSE: Duration = Duration::from_secs(1);

/// Between attempts to publish what could not be published.
const PAUSE: Duration = Duration::from_secs(1);

/// Delays between attempts to connect grow from the first to the second, with jitter on top.
const RECONNECT_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Held by the node that listens; the second number stands for the schema, as for migrations.
const LOCK: &str = "SELECT pg_try_advisory_lock(1986622055, hashtext(current_schema()))";

/// A session that says nothing for that long is one of a node that stands still.
const SETTINGS: &str = "SET idle_session_timeout = '5s'";

const LISTEN: &str = "LISTEN vigie_changes";

const SIGN_OF_LIFE: &str = "SELECT";

/// The oldest first. What a writer is changing at the moment is left for when it is done.
const READ: &str = "
SELECT user_id, kind, revision FROM changes ORDER BY revision LIMIT 200 FOR UPDATE SKIP LOCKED";

/// Only what was read: a newer change stays. Waits for nobody, so that no writer ever waits for this in a circle.
const FORGET: &str = "
DELETE FROM changes c USING (
    SELECT changes.user_id, changes.kind FROM changes
      JOIN unnest($1::bigint[], $2::text[], $3::bigint[]) AS done (user_id, kind, revision)
        ON done.user_id = changes.user_id AND done.kind = changes.kind AND done.revision = changes.revision
       FOR UPDATE OF changes SKIP LOCKED
) done WHERE c.user_id = done.user_id AND c.kind = done.kind";

/// Some changes, at most 200, to be published.
pub struct Batch {
    changes: Vec<Change>,
    published: oneshot::Sender<()>,
}

impl Batch {
    /// What changed, the oldest first; at most one of each user and aspect.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// All of it has been published and can be forgotten. A batch that is dropped without this is handed out again.
    pub fn published(self) {
        // The listener may have lost its session and read the same again.
        let _ = self.published.send(());
    }
}

/// What changed, in batches, for as long as there is a reader.
pub struct ChangeStream {
    batches: mpsc::Receiver<Batch>,
    listener: AbortHandle,
}

impl ChangeStream {
    /// The next batch; the one after it comes when this one has been published, or dropped. Waits for ever while
    /// another node is the one that listens.
    pub async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }
}

impl Drop for ChangeStream {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Profiles {
    /// Begins to listen, on a connection of its own; connects anew for ever.
    pub fn changes(&self) -> ChangeStream {
        let (sender, batches) = mpsc::channel(1);
        let listener = tokio::spawn(listen(self.clone(), sender)).abort_handle();
        ChangeStream { batches, listener }
    }

    /// Forgets changes that have been published, so that the listener need not do it again.
    ///
    /// # Errors
    /// When Postgres does not answer in time; nothing is lost then.
    pub async fn published(&self, changes: &[Change]) -> Result<(), ProfilesError> {
        let (users, kinds, revisions) = columns(changes);
        self.pool
            .query(FORGET, &[&users, &kinds, &revisions])
            .await?;
        Ok(())
    }
}

/// Why a session of the listener ended.
enum Ended {
    /// Nobody reads any more.
    Unread,
    /// Something went wrong with it.
    Lost(ProfilesError),
}

impl<E: Into<ProfilesError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

async fn listen(profiles: Profiles, batches: mpsc::Sender<Batch>) {
    let mut outage = Outage::default();
    while let Err(Ended::Lost(error)) = listen_once(&profiles, &batches, &mut outage).await {
        tokio::time::sleep(outage.goes_on(&error)).await;
    }
}

/// Listens until the session is lost, or nobody reads any more.
async fn listen_once(
    profiles: &Profiles,
    batches: &mpsc::Sender<Batch>,
    outage: &mut Outage,
) -> Result<(), Ended> {
    let listener = Listener::connect(profiles).await?;
    while !listener.get_lock().await? {
        outage.is_over();
        listener.wait(batches.closed(), PULSE).await?;
        if batches.is_closed() {
            return Err(Ended::Unread);
        }
    }
    listener
        .within(listener.session.client.batch_execute(LISTEN))
        .await?;
    loop {
        let changes = listener.read().await?;
        outage.is_over();
        let more = !changes.is_empty() && listener.publish(changes, batches).await?;
        if !more {
            listener
                .wait(listener.session.bell.notified(), PULSE)
                .await?;
        }
    }
}

/// The session that listens, or waits for its turn.
struct Listener {
    session: Session,
    timeout: Duration,
    read: Statement,
    forget: Statement,
}

impl Listener {
    async fn connect(profiles: &Profiles) -> Result<Self, ProfilesError> {
        let timeout = profiles.pool.timeout();
        let session = profiles.pool.connector().session().await?;
        let prepare = async |client: &Client| {
            client.batch_execute(SETTINGS).await?;
            let limit = format!("SET statement_timeout = {}", timeout.as_millis());
            client.batch_execute(&limit).await?;
            Ok::<_, tokio_postgres::Error>((
                client.prepare(READ).await?,
                client.prepare(FORGET).await?,
            ))
        };
        let prepared = tokio::time::timeout(timeout, prepare(&session.client)).await;
        let (read, forget) = prepared.map_err(|_| too_slow(timeout))??;
        Ok(Self {
            session,
            timeout,
            read,
            forget,
        })
    }

    async fn get_lock(&self) -> Result<bool, ProfilesError> {
        let row = self
            .within(self.session.client.query_one(LOCK, &[]))
            .await?;
        Ok(row.try_get(0)?)
    }

    async fn read(&self) -> Result<Vec<Change>, ProfilesError> {
        let rows = self
            .within(self.session.client.query(&self.read, &[]))
            .await?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            changes.extend(change(row)?);
        }
        Ok(changes)
    }

    /// Hands out changes, waits until they have been published, and forgets them. Whether to go on at once.
    async fn publish(
        &self,
        changes: Vec<Change>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<bool, Ended> {
        let (published, outcome) = oneshot::channel();
        let (users, kinds, revisions) = columns(&changes);
        let batch = Batch { changes, published };
        let handed_out = self.alive_during(batches.send(batch)).await?;
        handed_out.map_err(|_| Ended::Unread)?;
        if self.alive_during(outcome).await?.is_err() {
            self.alive_during(tokio::time::sleep(jittered(PAUSE)))
                .await?;
            return Ok(true);
        }
        let parameters: [&(dyn ToSql + Sync); 3] = [&users, &kinds, &revisions];
        let forgotten = self
            .within(self.session.client.execute(&self.forget, &parameters))
            .await?;
        // What is left has a newer revision, or a writer is at it: no reason to hurry.
        Ok(forgotten == users.len() as u64)
    }

    /// Waits for something, or for so long.
    async fn wait(
        &self,
        something: impl Future<Output = ()>,
        at_most: Duration,
    ) -> Result<(), ProfilesError> {
        // Either is a reason to go on.
        let _ = tokio::time::timeout(at_most, something).await;
        match self.session.client.is_closed() {
            true => Err(ProfilesError::Unavailable(
                "the connection was lost".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Waits for something as long as it takes, and gives signs of life meanwhile.
    async fn alive_during<T>(
        &self,
        something: impl Future<Output = T>,
    ) -> Result<T, ProfilesError> {
        let mut something = std::pin::pin!(something);
        loop {
            if let Ok(done) = tokio::time::timeout(PULSE, &mut something).await {
                return Ok(done);
            }
            self.within(self.session.client.batch_execute(SIGN_OF_LIFE))
                .await?;
        }
    }

    /// Waits for an answer, but not for ever.
    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ProfilesError> {
        let answered = tokio::time::timeout(self.timeout, answer).await;
        Ok(answered.map_err(|_| too_slow(self.timeout))??)
    }
}

/// A row of `changes`; nothing where its kind is one that this version does not know.
fn change(row: &Row) -> Result<Option<Change>, ProfilesError> {
    let user = as_user(row.try_get(0)?)?;
    let revision = as_revision(row.try_get(2)?);
    let aspect = Aspect::from_name(row.try_get(1)?);
    Ok(aspect.map(|aspect| Change {
        user,
        aspect,
        revision,
    }))
}

/// Changes as the parameters of a statement.
fn columns(changes: &[Change]) -> (Vec<i64>, Vec<&'static str>, Vec<i64>) {
    let users = changes.iter().map(|change| as_id(change.user));
    let kinds = changes.iter().map(|change| change.aspect.as_str());
    let revisions = changes
        .iter()
        .map(|change| i64::try_from(change.revision).unwrap_or(i64::MAX));
    (users.collect(), kinds.collect(), revisions.collect())
}

/// A time during which Postgres could not be reached, told once.
#[derive(Default)]
struct Outage {
    delay: Option<Duration>,
}

impl Outage {
    /// Another attempt has failed; returns how long to wait for the next one.
    fn goes_on(&mut self, error: &ProfilesError) -> Duration {
        let (first, longest) = RECONNECT_DELAYS;
        let delay = match self.delay {
            None => {
                tracing::info!(reason = %error, "not listening to postgres; trying again until it works");
                first
            }
            Some(last) => (last * 2).min(longest),
        };
        self.delay = Some(delay);
        jittered(delay)
    }

    fn is_over(&mut self) {
        if self.delay.take().is_some() {
            tracing::info!("listening to postgres again");
        }
    }
}

/// So much and up to half as much again, so that nodes do not all come back in the same millisecond.
fn jittered(delay: Duration) -> Duration {
    delay + delay.mul_f64(rand::random::<f64>() / 2.0)
}
