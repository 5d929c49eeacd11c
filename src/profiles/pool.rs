//! The connections that calls share: taken for one call, given up after an answer that did not come.

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

use super::error::{Failure, Remedy};
use super::session::{Connector, too_slow};
use super::transaction::{Mutation, Transaction};
use super::{Options, ProfilesError};

/// How often a transaction is tried again that others were in the way of.
const RETRIES_MAX: usize = 3;

/// Before that, so that those who were in the way get what they wait for first.
const RETRY_PAUSE: Duration = Duration::from_millis(40);

/// The schema is there when this can be read.
const PING: &str = "SELECT revision FROM changes LIMIT 1";

/// The connections; clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    connections: deadpool_postgres::Pool,
    connector: Arc<Connector>,
    timeout: Duration,
}

impl Pool {
    /// A pool that has no connection yet.
    pub(super) fn new(options: &Options) -> Result<Self, ProfilesError> {
        let connector = Arc::new(Connector::new(options)?);
        let manager = Manager::from_connect(
            connector.config().clone(),
            Carried(connector.clone()),
            ManagerConfig::default(),
        );
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(options.pool)
            .post_create(limits(options.timeout))
            .pre_recycle(Hook::sync_fn(|client, _| match client.is_closed() {
                true => Err(HookError::message("closed")),
                false => Ok(()),
            }))
            .build()
            .map_err(|error| ProfilesError::Setup(error.to_string()))?;
        Ok(Self {
            connections,
            connector,
            timeout: options.timeout,
        })
    }

    /// How to connect outside the pool.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks for something that only a database with the schema can answer.
    pub(super) async fn ping(&self) -> Result<(), ProfilesError> {
        self.query(PING, &[]).await.map(|_| ())
    }

    /// Runs one statement.
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

    /// Runs one transaction, from the beginning again where others were in the way.
    pub(super) async fn transaction<M: Mutation>(
        &self,
        mutation: M,
    ) -> Result<M::Outcome, ProfilesError> {
        self.attempt(&InTransaction(mutation)).await
    }

    /// Does some work on a connection, again where that may help.
    async fn attempt<W: Work>(&self, work: &W) -> Result<W::Outcome, ProfilesError> {
        let mut retries = 0;
        loop {
            let mut client = self.take().await?;
            let done = tokio::time::timeout(self.timeout, work.run(&mut client)).await;
            let failure = match done {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    // What was asked may still be answered: nobody else is to wait for that.
                    drop(Object::take(client));
                    return Err(too_slow(self.timeout));
                }
            };
            let remedy = failure.remedy();
            match remedy {
                Remedy::Reconnect => drop(Object::take(client)),
                Remedy::Again | Remedy::None => drop(client),
            }
            if remedy == Remedy::None || retries == RETRIES_MAX {
                return Err(failure.into());
            }
            retries += 1;
            if remedy == Remedy::Again {
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

/// What is done on a connection. No closure: the compiler cannot tell of one that takes a reference whether its future
/// may move between threads.
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

/// A connection that is lost during the commit leaves open what happened: doing it again might do it twice.
fn undecided(failure: Failure) -> Failure {
    match failure.remedy() {
        Remedy::Reconnect => ProfilesError::from(failure).into(),
        Remedy::Again | Remedy::None => failure,
    }
}

/// Makes the server give up what nobody waits for any more.
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

/// Connects as everybody here does, so that a lost connection is not logged for each of the pool.
struct Carried(Arc<Connector>);

type Connecting<'a> = Pin<
    Box<
        dyn Future<Output = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>>
            + Send
            + 'a,
    >,
>;

impl Connect for Carried {
    fn connect(&self, _config: &Config) -> Connecting<'_> {
        Box::pin(self.0.connect(Arc::new(Notify::new())))
    }
}
