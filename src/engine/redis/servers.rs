//! The Redis servers that hold the data: one, or the masters of a Redis Cluster, and the map of which serves which
//! slot.
//!
//! In a Cluster each master has a pair of clients (commands, subscriptions). A master that is unavailable, hangs or
//! fails over affects only the slots that it serves. fred's own Cluster client has one task for all masters and stalls
//! if one of them does; hence plain clients, with `MOVED`, `ASK` and `TRYAGAIN` followed here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::prelude::{Client, Config};
use fred::types::config::{Server as FredServer, ServerConfig};
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use fred::util::redis_keyslot;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::bus::{Affected, Subscriber};
use super::client::{Purpose, RunningClient, server_of};
use super::cluster::{Address, ClusterView, Redirect, SLOTS, merge};
use super::preflight::open_error;
use super::rejection::LastRejection;
use super::scripts::{bad_answer, unavailable};
use super::{RedisOptions, tls};
use crate::engine::{EngineError, ErrorReply, OpenError};

/// Interval between periodic reads of the map.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Pause after reading the map, so that a burst of requests causes one read.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// Timeout for one master's view; the others' views are used without it.
const VIEW_WITHIN: Duration = Duration::from_millis(500);

/// Pause before a redirected command is retried a second time.
const REDIRECT_PAUSE: Duration = Duration::from_millis(50);

/// All servers; disconnects when dropped.
pub(super) struct Servers {
    pool: Arc<ServerPool>,
    refresher: Option<JoinHandle<()>>,
}

pub(super) struct ServerPool {
    options: RedisOptions,
    /// The configuration of every client, apart from the server.
    config: Config,
    rejection: LastRejection,
    is_cluster: bool,
    map: ArcSwap<Map>,
    /// Held while the map is replaced.
    writing: Mutex<()>,
    /// When the last read of the map began; locked during a read.
    updating: tokio::sync::Mutex<Option<Instant>>,
    /// All servers seen, to ask if no master answers.
    members: Mutex<BTreeSet<Address>>,
    refresh: Notify,
    subscriber: Option<Subscriber>,
    begun: Instant,
}

/// The masters and the slots they serve. Replaced as a whole.
struct Map {
    masters: Vec<Arc<Master>>,
    /// The index of each slot's master.
    owners: Owners,
}

enum Owners {
    /// A single server serves all slots.
    One,
    BySlot(Vec<Option<usize>>),
}

/// One server with its clients.
pub(super) struct Master {
    address: Option<Address>,
    commands: RunningClient,
    subscriptions: Option<Subscriptions>,
    /// When the server last answered, in ms since `begun`.
    answered_at_ms: AtomicU64,
    reconnecting: [AtomicBool; 2],
}

struct Subscriptions {
    client: RunningClient,
    reader: JoinHandle<()>,
    /// When the last message arrived, in ms since `begun`.
    received_at_ms: Arc<AtomicU64>,
}

impl Subscriptions {
    fn received_at_ms(&self) -> u64 {
        self.received_at_ms.load(Ordering::Relaxed)
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Servers {
    /// Connects to the server in `options`, or to every master of its Cluster. Without a `subscriber` nothing can be
    /// subscribed. Unresponsive masters are connected to in the background.
    ///
    /// # Errors
    /// If the URL is invalid, or no server answers.
    pub(super) async fn open(
        options: &RedisOptions,
        subscriber: Option<Subscriber>,
    ) -> Result<Self, OpenError> {
        let config = tls::config(options)?;
        let is_cluster = matches!(config.server, ServerConfig::Clustered { .. });
        let pool = Arc::new(ServerPool {
            options: options.clone(),
            config,
            rejection: LastRejection::default(),
            is_cluster,
            map: ArcSwap::from_pointee(Map {
                masters: Vec::new(),
                owners: Owners::BySlot(vec![None; usize::from(SLOTS)]),
            }),
            writing: Mutex::default(),
            updating: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            refresh: Notify::new(),
            subscriber,
            begun: Instant::now(),
        });
        let refresher = if is_cluster {
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

/// A server's relation to the slot of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Owned,
    Importing,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Commands,
    Subscriptions,
}

impl Master {
    /// Sends one command; to an importing server right after `ASKING`.
    async fn send(
        &self,
        commands: &[(&'static str, &[String])],
        slot_state: SlotState,
    ) -> Result<Value, Error> {
        if let ([(command, args)], SlotState::Owned) = (commands, slot_state) {
            return self
                .commands
                .client()
                .custom(named(command), args.to_vec())
                .await;
        }
        let mut answers = self.send_all(commands, slot_state).await?;
        Ok(answers.pop().unwrap_or(Value::Null))
    }

    async fn send_all(
        &self,
        commands: &[(&'static str, &[String])],
        slot_state: SlotState,
    ) -> Result<Vec<Value>, Error> {
        let pipeline = self.commands.client().pipeline();
        for (command, args) in commands {
            if slot_state == SlotState::Importing {
                let _: Value = pipeline
                    .custom(named("ASKING"), Vec::<String>::new())
                    .await?;
            }
            let _: Value = pipeline.custom(named(command), args.to_vec()).await?;
        }
        let answers: Vec<Value> = pipeline.all().await?;
        let step = if slot_state == SlotState::Importing {
            2
        } else {
            1
        };
        Ok(answers.into_iter().skip(step - 1).step_by(step).collect())
    }

    /// The server's clock, in seconds and microseconds.
    pub(super) async fn time(&self) -> Result<(u64, u64), Error> {
        self.ask("TIME", Vec::new()).await
    }

    /// Runs a command that concerns the server rather than a key.
    pub(super) async fn ask<R: FromValue>(
        &self,
        command: &'static str,
        args: Vec<String>,
    ) -> Result<R, Error> {
        self.commands.client().custom(named(command), args).await
    }

    async fn view(&self) -> Option<ClusterView> {
        let host = self.address.as_ref()?.host.clone();
        let asked = self.ask::<String>("CLUSTER", vec!["NODES".to_owned()]);
        let text = tokio::time::timeout(VIEW_WITHIN, asked).await.ok()?.ok()?;
        Some(ClusterView::parse(&text, &host))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), Error> {
        use fred::interfaces::PubsubInterface;
        match &self.subscriptions {
            Some(subscriptions) => subscriptions.client.client().sunsubscribe(channel).await,
            None => Ok(()),
        }
    }

    /// Replaces a connection in the background, unless that is in progress.
    fn reconnect_soon(self: &Arc<Self>, side: Side) {
        if self.reconnecting[side as usize].swap(true, Ordering::Relaxed) {
            return;
        }
        let server = server_of(self.commands.client());
        tracing::debug!(server, ?side, "redis does not answer; reconnecting");
        let master = self.clone();
        tokio::spawn(async move {
            match (side, &master.subscriptions) {
                (Side::Subscriptions, Some(subscriptions)) => {
                    subscriptions.client.reconnect().await
                }
                (Side::Commands | Side::Subscriptions, _) => master.commands.reconnect().await,
            }
            master.reconnecting[side as usize].store(false, Ordering::Relaxed);
        });
    }
}

fn ms_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn named(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::FirstKey, false)
}

pub(super) fn slot_of(key: &str) -> u16 {
    redis_keyslot(key.as_bytes())
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Arc<Master>> {
        let index = match &self.owners {
            Owners::One => 0,
            Owners::BySlot(owners) => (*owners.get(usize::from(slot))?)?,
        };
        self.masters.get(index)
    }

    fn owner_address(&self, slot: u16) -> Option<&Address> {
        self.owner(slot)?.address.as_ref()
    }
}

impl ServerPool {
    fn now_ms(&self) -> u64 {
        ms_since(self.begun)
    }

    /// Connects to the single server, or to the primary that a Sentinel names.
    async fn open_one(self: &Arc<Self>) -> Result<(), OpenError> {
        let open = async |purpose| {
            let client = RunningClient::open(self.config.clone(), &self.options, purpose).await?;
            self.rejection.watch(client.client());
            Ok::<_, OpenError>(client)
        };
        let commands = open(Purpose::Commands).await?;
        let subscriptions = match &self.subscriber {
            Some(subscriber) => {
                let client = open(Purpose::Subscriptions).await?;
                Some(self.listen(client, None, subscriber))
            }
            None => None,
        };
        self.map.store(Arc::new(Map {
            masters: vec![Arc::new(Master {
                address: None,
                commands,
                subscriptions,
                answered_at_ms: AtomicU64::new(0),
                reconnecting: Default::default(),
            })],
            owners: Owners::One,
        }));
        Ok(())
    }

    /// Queries the servers in the URL until one knows the masters.
    async fn open_cluster(self: &Arc<Self>) -> Result<(), OpenError> {
        self.members.lock().extend(self.seeds());
        match self.ask_members().await {
            Ok(view) => {
                self.apply_views(&[view]);
                // A single server's view may be outdated.
                self.update_map().await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn seeds(&self) -> impl Iterator<Item = Address> {
        let seeds = self.config.server.hosts().into_iter();
        seeds.map(|server| Address {
            host: server.host.to_string(),
            port: server.port,
            name: server.tls_server_name.as_ref().map(ToString::to_string),
        })
    }

    /// The view of whichever known server answers first.
    async fn ask_members(&self) -> Result<ClusterView, OpenError> {
        let members: Vec<Address> = self.members.lock().iter().cloned().collect();
        if members.is_empty() {
            return Err(self.no_master());
        }
        let requests = members
            .iter()
            .map(|address| Box::pin(self.ask_member(address)));
        let (view, _others) = futures_util::future::select_ok(requests).await?;
        Ok(view)
    }

    async fn ask_member(&self, address: &Address) -> Result<ClusterView, OpenError> {
        let config = self.config_for(address);
        let client = RunningClient::open(config, &self.options, Purpose::Commands).await?;
        let args = vec!["NODES".to_owned()];
        let text: Result<String, Error> = client.client().custom(named("CLUSTER"), args).await;
        let text = text.map_err(|error| open_error(address.to_string(), self.failure(error)))?;
        let view = ClusterView::parse(&text, &address.host);
        if view.masters.is_empty() {
            return Err(self.no_master());
        }
        Ok(view)
    }

    fn no_master(&self) -> OpenError {
        let hosts = self.config.server.hosts();
        OpenError::Unreachable {
            server: hosts.first().map_or_else(String::new, ToString::to_string),
            cause: "no server of the cluster knows a master with slots".to_owned(),
        }
    }

    fn failure(&self, error: Error) -> EngineError {
        self.rejection.explain(unavailable(error))
    }

    fn config_for(&self, address: &Address) -> Config {
        let name = address.name.clone().filter(|_| self.config.uses_tls());
        let server = FredServer::new_with_tls(address.host.clone(), address.port, name);
        Config {
            server: ServerConfig::Centralized { server },
            ..self.config.clone()
        }
    }

    fn listen(
        self: &Arc<Self>,
        client: RunningClient,
        address: Option<Address>,
        subscriber: &Subscriber,
    ) -> Subscriptions {
        let received_at_ms = Arc::new(AtomicU64::new(self.now_ms()));
        let (received, begun) = (received_at_ms.clone(), self.begun);
        let note = move || received.store(ms_since(begun), Ordering::Relaxed);
        let pool = Arc::downgrade(self);
        let affected = move || {
            let pool = pool.upgrade();
            pool.map_or_else(Affected::default, |pool| pool.served_at(address.as_ref()))
        };
        let reader = tokio::spawn(subscriber.clone().read(client.client(), note, affected));
        Subscriptions {
            client,
            reader,
            received_at_ms,
        }
    }

    /// The partitions, and perhaps the leases, of the server at `address`.
    fn served_at(&self, address: Option<&Address>) -> Affected {
        let Some(subscriber) = &self.subscriber else {
            return Affected::default();
        };
        let map = self.map.load();
        let keys = subscriber.keys();
        let is_there = |slot| map.owner_address(slot) == address;
        let all = 0..keys.partitions();
        Affected {
            partitions: all
                .filter(|partition| is_there(keys.slot(*partition)))
                .collect(),
            leases: is_there(slot_of(&keys.leases())),
        }
    }

    fn start(self: &Arc<Self>, address: &Address) -> Result<Arc<Master>, OpenError> {
        let start = |purpose| {
            let client = RunningClient::start(self.config_for(address), &self.options, purpose)?;
            self.rejection.watch(client.client());
            Ok::<_, OpenError>(client)
        };
        let subscriptions = match &self.subscriber {
            Some(subscriber) => {
                let client = start(Purpose::Subscriptions)?;
                Some(self.listen(client, Some(address.clone()), subscriber))
            }
            None => None,
        };
        Ok(Arc::new(Master {
            address: Some(address.clone()),
            commands: start(Purpose::Commands)?,
            subscriptions,
            answered_at_ms: AtomicU64::new(self.now_ms()),
            reconnecting: Default::default(),
        }))
    }

    fn owner(&self, slot: u16) -> Result<Arc<Master>, Error> {
        let owner = self.map.load().owner(slot).cloned();
        owner.ok_or_else(|| {
            self.refresh.notify_one();
            Error::new(
                ErrorKind::Cluster,
                format!("no server of the cluster serves slot {slot}"),
            )
        })
    }

    /// The host that serves a slot; a redirect may omit it.
    fn host_of(&self, slot: u16) -> String {
        let map = self.map.load();
        let address = map.owner_address(slot);
        address.map_or_else(String::new, |address| address.host.clone())
    }

    /// Records whether a master answers. One that has answered nothing since a timed-out command was sent is
    /// reconnected, and may no longer serve its slots.
    fn record_outcome(
        &self,
        master: &Arc<Master>,
        sent_at_ms: u64,
        outcome: &Result<Value, Error>,
    ) {
        let ran_out = matches!(outcome, Err(error) if *error.kind() == ErrorKind::Timeout);
        if !ran_out {
            master
                .answered_at_ms
                .store(self.now_ms(), Ordering::Relaxed);
        } else if master.answered_at_ms.load(Ordering::Relaxed) < sent_at_ms {
            master.reconnect_soon(Side::Commands);
            self.refresh.notify_one();
        }
    }

    /// The master at `address`, connecting to it if it is new.
    fn master_at(self: &Arc<Self>, address: &Address) -> Result<Arc<Master>, Error> {
        let address = &self.complete(address);
        let _writing = self.writing.lock();
        let map = self.map.load();
        if let Some(known) = find(&map.masters, address) {
            return Ok(known.clone());
        }
        let started = self.start(address);
        let master = started.map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?;
        let Owners::BySlot(owners) = &map.owners else {
            return Ok(master);
        };
        let mut masters = map.masters.clone();
        masters.push(master.clone());
        let owners = Owners::BySlot(owners.clone());
        self.map.store(Arc::new(Map { masters, owners }));
        Ok(master)
    }

    /// The address as in `CLUSTER NODES`: a redirect omits the name, or has it in index of the host.
    fn complete(&self, address: &Address) -> Address {
        let members = self.members.lock();
        let known = members.iter().filter(|member| {
            let named = member.name.as_ref() == Some(&address.host);
            member.port == address.port && (named || member.host == address.host)
        });
        let known = known.max_by_key(|member| member.name.is_some());
        known.unwrap_or(address).clone()
    }

    /// Records that `slot` has moved to `address`.
    fn record_move(self: &Arc<Self>, slot: u16, address: Address) {
        let address = self.complete(&address);
        self.refresh.notify_one();
        if self.map.load().owner_address(slot) == Some(&address)
            || self.master_at(&address).is_err()
        {
            return;
        }
        let _writing = self.writing.lock();
        let map = self.map.load();
        let index = map
            .masters
            .iter()
            .position(|master| is_at(master, &address));
        let (Some(index), Owners::BySlot(owners)) = (index, &map.owners) else {
            return;
        };
        let mut owners = owners.clone();
        owners[usize::from(slot)] = Some(index);
        let masters = map.masters.clone();
        self.replace(
            &map,
            Map {
                masters,
                owners: Owners::BySlot(owners),
            },
        );
    }

    /// Reads the map periodically, and on request.
    async fn run_refresh(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(REFRESH_INTERVAL) => {}
                () = self.refresh.notified() => {}
            }
            self.update_map_once().await;
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    /// Reads the map; concurrent callers share one read.
    async fn update_map_once(self: &Arc<Self>) {
        let asked = Instant::now();
        let mut last = self.updating.lock().await;
        if last.is_none_or(|begun| begun < asked) {
            *last = Some(Instant::now());
            self.update_map().await;
        }
    }

    /// Reads the map from every master that answers, or from any known server if none does.
    async fn update_map(self: &Arc<Self>) {
        let masters = self.map.load().masters.clone();
        let views = join_all(masters.iter().map(|master| master.view())).await;
        let mut views: Vec<ClusterView> = views.into_iter().flatten().collect();
        if views.is_empty() {
            match self.ask_members().await {
                Ok(view) => views.push(view),
                Err(error) => return tracing::debug!(%error, "no server of the cluster answers"),
            }
        }
        self.apply_views(&views);
    }

    /// Replaces the map by the merged `views`. Former masters are disconnected.
    fn apply_views(self: &Arc<Self>, views: &[ClusterView]) {
        {
            let seen = views.iter().flat_map(|view| view.members.iter().cloned());
            let mut members = self.members.lock();
            *members = self.seeds().chain(seen).collect();
        }
        let (addresses, owners) = merge(views);
        let _writing = self.writing.lock();
        let map = self.map.load();
        let mut masters = Vec::with_capacity(addresses.len());
        for address in &addresses {
            match find(&map.masters, address)
                .cloned()
                .map_or_else(|| self.start(address), Ok)
            {
                Ok(master) => masters.push(master),
                Err(error) => return tracing::warn!(%error, "cannot connect to a master"),
            }
        }
        let owners = Owners::BySlot(owners);
        self.replace(&map, Map { masters, owners });
    }

    /// Stores a map, and interrupts the partitions that moved to another master: their subscriptions are lost.
    fn replace(&self, before: &Map, after: Map) {
        if let Some(subscriber) = &self.subscriber {
            let keys = subscriber.keys();
            let has_moved = |slot| before.owner_address(slot) != after.owner_address(slot);
            let partitions = 0..keys.partitions();
            let moved = Affected {
                partitions: partitions
                    .filter(|partition| has_moved(keys.slot(*partition)))
                    .collect(),
                leases: has_moved(slot_of(&keys.leases())),
            };
            let is_first = before.masters.is_empty();
            if !is_first && (moved.leases || !moved.partitions.is_empty()) {
                let partitions = &moved.partitions;
                tracing::info!(?partitions, "partitions are served by another master now");
                self.map.store(Arc::new(after));
                return subscriber.interrupt(moved);
            }
        }
        self.map.store(Arc::new(after));
    }
}

fn is_at(master: &Master, address: &Address) -> bool {
    let known = master.address.as_ref();
    known == Some(address)
}

fn find<'a>(masters: &'a [Arc<Master>], address: &Address) -> Option<&'a Arc<Master>> {
    masters.iter().find(|master| is_at(master, address))
}
