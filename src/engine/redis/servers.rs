//! The Redis servers that hold the data: one, or the masters of a Redis Cluster, and the map of which serves which
//! slot.
//!
//! In a Cluster each master has a pair of clients (commands, subscriptions). A master that is unavailable, hangs or
//! fails over affects only the slots that it serves. fred's own Cluster client has one task for all masters and stalls
//! if one of them does; hence plain clients, with `MOVED`, `ASK` and `TRYAGAIN` followed here.

mod connect;
mod master;
mod pool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::prelude::Client;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use fred::util::redis_keyslot;
use futures_util::future::join_all;
use tokio::task::JoinHandle;

pub(super) use self::master::Master;
use self::master::{Side, SlotState, Subscriptions};
use self::pool::ServerPool;
use super::bus::{Affected, Subscriber};
use super::client::server_of;
use super::cluster::Redirect;
use super::scripts::bad_answer;
use super::{RedisOptions, tls};
use crate::engine::{EngineError, ErrorReply, OpenError};

/// Pause before a redirected command is retried a second time.
const REDIRECT_PAUSE: Duration = Duration::from_millis(50);

/// All servers; disconnects when dropped.
pub(super) struct Servers {
    pool: Arc<ServerPool>,
    refresher: Option<JoinHandle<()>>,
}

impl Servers {
    /// Connects to the server in `options`, or to every master of its Cluster. Without a `subscriber` nothing can be
    /// subscribed. Unresponsive masters are connected to in the background.
    pub(super) async fn open(
        options: &RedisOptions,
        subscriber: Option<Subscriber>,
    ) -> Result<Self, OpenError> {
        let (config, trust) = tls::config(options)?;
        let pool = ServerPool::new(options, config, trust, subscriber);
        let pool = Arc::new(pool);
        let refresher = if pool.is_cluster {
            pool.open_cluster().await?;
            Some(tokio::spawn(pool.clone().run_refresh()))
        } else {
            pool.open_one().await?;
            None
        };
        Ok(Self { pool, refresher })
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.pool.is_cluster
    }

    /// Host and port of the first server.
    pub(super) fn name(&self) -> String {
        let masters = &self.pool.map.load().masters;
        let first = masters.first();
        first.map_or_else(String::new, |master| server_of(master.commands.client()))
    }

    /// Host and port of a slot's server.
    pub(super) fn name_at(&self, slot: u16) -> String {
        let owner = self.pool.owner(slot);
        owner.map_or_else(
            |_| self.name(),
            |master| server_of(master.commands.client()),
        )
    }

    /// The Redis user.
    pub(super) fn user(&self) -> &str {
        let user = self.pool.config.username.as_deref();
        user.unwrap_or("default")
    }

    pub(super) fn masters(&self) -> Vec<Arc<Master>> {
        self.pool.map.load().masters.clone()
    }

    pub(super) fn refusal(&self) -> Option<ErrorReply> {
        self.pool.rejection.refusal()
    }

    /// Converts an error of fred's, for which a rejected connection is a timeout.
    pub(super) fn failure(&self, error: Error) -> EngineError {
        self.pool.failure(error)
    }

    /// The client for the server of a key, for commands with binary arguments. Does not follow redirects.
    pub(super) fn client_of(&self, key: &str) -> Result<Client, EngineError> {
        let owner = self
            .pool
            .owner(slot_of(key))
            .map_err(|error| self.failure(error))?;
        Ok(owner.commands.client().clone())
    }

    pub(super) fn share_a_server(&self, one: u16, other: u16) -> bool {
        let map = self.pool.map.load();
        map.owner_address(one) == map.owner_address(other)
    }

    /// Whether any master, and whether every master, answers within `within`.
    pub(super) async fn answers(&self, within: Duration) -> (bool, bool) {
        let masters = self.masters();
        let asked = masters
            .iter()
            .map(|master| tokio::time::timeout(within, master.time()));
        let answers = join_all(asked).await.into_iter();
        let count = answers.filter(|answer| matches!(answer, Ok(Ok(_)))).count();
        (count > 0, count == masters.len())
    }

    /// Runs `command` on the server of `key`, its first argument.
    pub(super) async fn call<R: FromValue>(
        &self,
        command: &'static str,
        key: String,
        arguments: Vec<String>,
    ) -> Result<R, EngineError> {
        let slot = slot_of(&key);
        let mut args = arguments;
        args.insert(0, key);
        self.call_at(slot, command, &args).await
    }

    /// Runs `command` on the server of `slot`.
    pub(super) async fn call_at<R: FromValue>(
        &self,
        slot: u16,
        command: &'static str,
        args: &[String],
    ) -> Result<R, EngineError> {
        let answer = self
            .send(slot, command, args)
            .await
            .map_err(|error| self.failure(error))?;
        answer.convert().map_err(bad_answer)
    }

    /// Runs `command` on the server of `slot`, following redirects.
    pub(super) async fn send(
        &self,
        slot: u16,
        command: &'static str,
        args: &[String],
    ) -> Result<Value, Error> {
        let mut outcome = self.send_once(slot, command, args).await;
        let Some(mut redirect) = self.redirect_of(slot, &outcome) else {
            return outcome;
        };
        let deadline = Instant::now() + self.pool.options.command_timeout;
        // A moved slot is found at once; a migrating one takes a while.
        let mut pause = Duration::ZERO;
        while Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = REDIRECT_PAUSE;
            outcome = self.follow(redirect, slot, command, args).await;
            match self.redirect_of(slot, &outcome) {
                Some(next) => redirect = next,
                None => break,
            }
        }
        outcome
    }

    async fn follow(
        &self,
        redirect: Redirect,
        slot: u16,
        command: &'static str,
        args: &[String],
    ) -> Result<Value, Error> {
        match redirect {
            Redirect::Moved(_, address) => self.pool.record_move(slot, address),
            Redirect::TryAgain => tokio::time::sleep(REDIRECT_PAUSE).await,
            Redirect::Ask(address) => {
                let master = self.pool.master_at(&address)?;
                let answer = master.send(&[(command, args)], SlotState::Importing).await;
                // Otherwise the migration has progressed; ask the owner again.
                if !answer.as_ref().is_err_and(Self::is_redirected) {
                    return answer;
                }
            }
        }
        self.send_once(slot, command, args).await
    }

    /// Runs `command` without following redirects, for callers that must keep an order.
    pub(super) async fn send_once(
        &self,
        slot: u16,
        command: &'static str,
        args: &[String],
    ) -> Result<Value, Error> {
        let master = self.pool.owner(slot)?;
        let sent_at_ms = self.pool.now_ms();
        let sent = master.send(&[(command, args)], SlotState::Owned).await;
        self.pool.record_outcome(&master, sent_at_ms, &sent);
        sent
    }

    /// Records where the slot has moved to, if that is what the error says.
    pub(super) fn record_move(&self, slot: u16, error: &Error) -> bool {
        match Redirect::parse(error.details(), &self.pool.host_of(slot)) {
            Some(Redirect::Moved(_, address)) => {
                self.pool.record_move(slot, address);
                true
            }
            Some(Redirect::Ask(_) | Redirect::TryAgain) | None => false,
        }
    }

    /// Whether the Cluster redirected the command, so that it was not executed.
    pub(super) fn is_redirected(error: &Error) -> bool {
        Redirect::parse(error.details(), "").is_some()
    }

    fn redirect_of(&self, slot: u16, outcome: &Result<Value, Error>) -> Option<Redirect> {
        let error = outcome.as_ref().err().filter(|_| self.pool.is_cluster)?;
        Redirect::parse(error.details(), &self.pool.host_of(slot))
    }

    /// Runs commands on the server of `key` as one pipeline. Returns the answers in order.
    pub(super) async fn call_together(
        &self,
        key: &str,
        commands: &[(&'static str, Vec<String>)],
    ) -> Result<Vec<Value>, EngineError> {
        let slot = slot_of(key);
        let commands: Vec<(&'static str, &[String])> = commands
            .iter()
            .map(|(command, args)| (*command, args.as_slice()))
            .collect();
        let deadline = Instant::now() + self.pool.options.command_timeout;
        loop {
            let master = self.pool.owner(slot).map_err(|error| self.failure(error))?;
            let answers = master.send_all(&commands, SlotState::Owned).await;
            let error = match answers {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if !self.pool.is_cluster || Instant::now() >= deadline {
                return Err(self.failure(error));
            }
            match Redirect::parse(error.details(), &self.pool.host_of(slot)) {
                None => return Err(self.failure(error)),
                Some(Redirect::Moved(_, address)) => self.pool.record_move(slot, address),
                Some(Redirect::Ask(address)) => {
                    let master = self
                        .pool
                        .master_at(&address)
                        .map_err(|error| self.failure(error))?;
                    if let Ok(answers) = master.send_all(&commands, SlotState::Importing).await {
                        return Ok(answers);
                    }
                }
                Some(Redirect::TryAgain) => {}
            }
            tokio::time::sleep(REDIRECT_PAUSE).await;
        }
    }

    /// Subscribes to `channels`; returns once each is confirmed.
    pub(super) async fn subscribe(&self, channels: Vec<String>) -> Result<(), EngineError> {
        let subscribed = channels
            .into_iter()
            .map(|channel| self.subscribe_one(channel));
        let outcomes = join_all(subscribed).await;
        outcomes
            .into_iter()
            .collect::<Result<(), Error>>()
            .map_err(|error| self.failure(error))
    }

    /// fred matches replies to commands by order, and takes only the first of the several replies to an `SSUBSCRIBE` of
    /// several channels. So each channel gets its own command; they are sent together.
    async fn subscribe_one(&self, channel: String) -> Result<(), Error> {
        let slot = slot_of(&channel);
        let master = self.pool.owner(slot)?;
        let Some(subscriptions) = &master.subscriptions else {
            return Err(Error::new(
                ErrorKind::Config,
                "this client subscribes to nothing",
            ));
        };
        let command = CustomCommand::new_static("SSUBSCRIBE", ClusterHash::Custom(slot), false);
        let client = subscriptions.client.client();
        let confirmed = client.custom::<Value, _>(command, vec![channel]).await;
        let Err(error) = confirmed else {
            return Ok(());
        };
        if let Some(Redirect::Moved(moved, address)) =
            Redirect::parse(error.details(), &self.pool.host_of(slot))
        {
            // fred expects no reply to `SUNSUBSCRIBE`, and would assign an error to the next command.
            if moved == slot {
                self.pool.record_move(slot, address);
            }
        } else if *error.kind() == ErrorKind::Timeout {
            // The connection may look open but carry nothing.
            master.reconnect_soon(Side::Subscriptions);
            self.pool.refresh.notify_one();
        }
        Err(error)
    }

    /// Unsubscribes from `channels`. After an error the remaining ones are still unsubscribed.
    pub(super) async fn unsubscribe(&self, channels: Vec<String>) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for channel in channels {
            let unsubscribed = match self.pool.owner(slot_of(&channel)) {
                Ok(master) => master.unsubscribe(channel).await,
                Err(error) => Err(error),
            };
            if let Err(error) = unsubscribed {
                outcome = Err(self.failure(error));
            }
        }
        outcome
    }

    /// Replaces both connections to the server of `key`: they may look open but carry nothing.
    pub(super) async fn reconnect(&self, key: &str) {
        if let Ok(master) = self.pool.owner(slot_of(key)) {
            master.commands.reconnect().await;
            if let Some(subscriptions) = &master.subscriptions {
                subscriptions.client.reconnect().await;
            }
        }
        self.pool.refresh.notify_one();
    }

    /// Recovers `partition`, from which nothing has arrived for `silence`: finds its current server, and interrupts the
    /// partition so that it is subscribed and read again.
    pub(super) async fn recover(&self, partition: u32, silence: Duration) {
        let Some(subscriber) = &self.pool.subscriber else {
            return;
        };
        if self.pool.is_cluster {
            self.pool.update_map_once().await;
        }
        if let Ok(master) = self.pool.owner(subscriber.keys().slot(partition)) {
            let received_at_ms = master
                .subscriptions
                .as_ref()
                .map(Subscriptions::received_at_ms);
            let since_ms = self
                .pool
                .now_ms()
                .saturating_sub(received_at_ms.unwrap_or(0));
            if u128::from(since_ms) >= silence.as_millis() {
                // Nothing at all arrives on the connection: it may look open but carry nothing.
                master.reconnect_soon(Side::Subscriptions);
            }
        }
        subscriber.interrupt(Affected {
            partitions: [partition].into(),
            leases: false,
        });
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(refresher) = &self.refresher {
            refresher.abort();
        }
    }
}

pub(super) fn slot_of(key: &str) -> u16 {
    redis_keyslot(key.as_bytes())
}
