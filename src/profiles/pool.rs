//! The connection pool: a connection is taken for one call, and closed if the answer does not arrive in time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, Connect, Hook, HookError, Manager, ManagerConfig, Object, PoolError,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};

use super::connector::{Connector, too_slow};
use super::error::{Failure, Retry};
use super::transaction::{Mutation, Transaction};
use super::{PostgresOptions, ProfilesError};

/// Retries of a transaction.
const RETRIES_MAX: usize = 3;

/// Pause before a retry, so that the interfering transactions finish first.
const RETRY_PAUSE: Duration = Duration::from_millis(40);

/// Succeeds only if the schema exists.
const PING: &str = "SELECT revision FROM changes LIMIT 1";

/// The pool; clones share it.
#[derive(Clone)]
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    connector: Arc<Connector>,
    timeout: Duration,
}

impl Pool {
    /// Does not connect yet.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, ProfilesError> {
        let connector = Arc::new(Connector::new(options)?);
        let manager = Manager::from_connect(
            connector.config().clone(),
            SharedConnector(connector.clone()),
            ManagerConfig::default(),
        );
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(options.pool)
            .post_create(limits(options.timeout))
            .pre_recycle(Hook::sync_fn(|client, _| {
                if client.is_closed() {
                    return Err(HookError::message("closed"));
                }
                Ok(())
            }))
            .build()
            .map_err(|error| ProfilesError::Setup(error.to_string()))?;
        Ok(Self {
            connections,
            connector,
            timeout: options.timeout,
        })
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Checks that Postgres answers and the schema exists.
    pub(super) async fn ping(&self) -> Result<(), ProfilesError> {
        self.query(PING, &[]).await.map(|_| ())
    }

    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ProfilesError> {
        let statement = Statement {
            text: statement,
            parameters,
        };
        self.attempt(&statement).await
    }

    /// Runs a transaction, retrying it from the beginning if others interfere.
    pub(super) async fn transaction<M: Mutation>(
        &self,
        mutation: M,
    ) -> Result<M::Outcome, ProfilesError> {
        self.attempt(&InTransaction(mutation)).await
    }

    /// Runs `work` on a connection, with retries.
    async fn attempt<W: Work>(&self, work: &W) -> Result<W::Outcome, ProfilesError> {
        let mut retries = 0;
        loop {
            let mut client = self.take().await?;
            let done = tokio::time::timeout(self.timeout, work.run(&mut client)).await;
            let failure = match done {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    // The answer may still arrive, so the connection must not be reused.
                    drop(Object::take(client));
                    return Err(too_slow(self.timeout));
                }
            };
            let retry = failure.retry();
            match retry {
                Retry::NewConnection => drop(Object::take(client)),
                Retry::AfterPause | Retry::Never => drop(client),
            }
            if retry == Retry::Never || retries == RETRIES_MAX {
                return Err(failure.into());
            }
            retries += 1;
            if retry == Retry::AfterPause {
                tokio::time::sleep(RETRY_PAUSE.mul_f64(rand::random::<f64>() + 0.5)).await;
            }
        }
    }

    async fn take(&self) -> Result<Client, ProfilesError> {
        let taken = tokio::time::timeout(self.timeout, self.connections.get()).await;
        taken
            .map_err(|_| too_slow(self.timeout))?
            .map_err(|error| match error {
                PoolError::Backend(error)
                | PoolError::PostCreateHook(HookError::Backend(error)) => error.into(),
                other => ProfilesError::Unavailable(other.to_string()),
            })
    }
}

/// Work on a connection. A trait rather than a closure: the compiler cannot prove that the future of a closure taking a
/// reference is `Send`.
trait Work: Sync {
    type Outcome: Send;

    fn run(
        &self,
        client: &mut Client,
    ) -> impl Future<Output = Result<Self::Outcome, Failure>> + Send;
}

struct Statement<'a> {
    text: &'a str,
    parameters: &'a [&'a (dyn ToSql + Sync)],
}

impl Work for Statement<'_> {
    type Outcome = Vec<Row>;

    async fn run(&self, client: &mut Client) -> Result<Vec<Row>, Failure> {
        let prepared = client.prepare_cached(self.text).await?;
        Ok(client.query(&prepared, self.parameters).await?)
    }
}

struct InTransaction<M>(M);

impl<M: Mutation> Work for InTransaction<M> {
    type Outcome = M::Outcome;

    async fn run(&self, client: &mut Client) -> Result<M::Outcome, Failure> {
        let transaction = Transaction::new(client.transaction().await?);
        let outcome = self.0.run(&transaction).await?;
        transaction.commit().await.map_err(undecided)?;
        Ok(outcome)
    }
}

/// If the connection is lost during the commit, the outcome is unknown, so a retry might apply the changes twice.
fn undecided(failure: Failure) -> Failure {
    match failure.retry() {
        Retry::NewConnection => ProfilesError::from(failure).into(),
        Retry::AfterPause | Retry::Never => failure,
    }
}

/// Makes the server abort statements and transactions after the timeout.
fn limits(timeout: Duration) -> Hook {
    let limit_ms = timeout.as_millis();
    let statement = Arc::new(format!(
        "SET statement_timeout = {limit_ms}; SET idle_in_transaction_session_timeout = {limit_ms}"
    ));
    Hook::async_fn(move |client, _| {
        let statement = statement.clone();
        Box::pin(async move {
            let set = client.batch_execute(&statement).await;
            set.map_err(HookError::Backend)
        })
    })
}

/// Connects with [`Connector`], so that an outage is not logged once per pooled connection.
struct SharedConnector(Arc<Connector>);

type ConnectFuture<'a> = Pin<
    Box<
        dyn Future<Output = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>>
            + Send
            + 'a,
    >,
>;

impl Connect for SharedConnector {
    fn connect(&self, _config: &Config) -> ConnectFuture<'_> {
        Box::pin(self.0.connect(Arc::new(Notify::new())))
    }
}
