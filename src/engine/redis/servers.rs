//! The Redis servers that hold the data: one, or the masters of a Redis Cluster, and which of them serves what.
//!
//! In a Cluster this keeps one pair of clients (commands, subscriptions) for each master and a map from hash slot to
//! master. A master that is away, hangs or fails over concerns the slots that it serves, and no others. fred's own
//! Cluster client has one task for all masters and stops where one of them does; hence plain clients, and `MOVED`, `ASK`
//! and `TRYAGAIN` are followed here.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::prelude::{Client, Config};
use fred::types::config::{Server as FredServer, ServerConfig};
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use fred::util::redis_keyslot;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::bus::Listener;
use super::client::{RunningClient, server_of};
use super::cluster::{Address, Redirect, SLOTS, View, merge};
use super::entry::Entry;
use super::scripts::{not_understood, unavailable};
use super::{Options, tls};
use crate::engine::{EngineError, OpenError, Refusal};

/// How often the map is read although nothing asks for it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Pause after the map was read: whatever asks for it many times at once gets it once.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// How long a master may take to say how it sees the cluster. The others' views do without it.
const VIEW_WITHIN: Duration = Duration::from_millis(500);

/// Pause before a command that was redirected is repeated, where repeating it at once did not help.
const REDIRECT_PAUSE: Duration = Duration::from_millis(50);

/// The servers. They are connected to until this is dropped.
pub(super) struct Servers {
    shared: Arc<Shared>,
    refresher: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    options: Options,
    /// What every client is configured with, apart from the server.
    config: Config,
    entry: Entry,
    is_cluster: bool,
    map: ArcSwap<Map>,
    /// Held while the map is replaced.
    writing: Mutex<()>,
    /// Servers that were known once, for the day on which no master answers.
    members: Mutex<BTreeSet<Address>>,
    refresh: Notify,
    listener: Option<Listener>,
    begun: Instant,
}

/// Which master serves which slot. Replaced as a whole.
struct Map {
    masters: Vec<Arc<Master>>,
    /// The place of its master for each slot; none where nobody serves it.
    owners: Owners,
}

enum Owners {
    /// The only server there is serves all of them.
    One,
    BySlot(Vec<Option<usize>>),
}

/// One server, with the pair of clients for it.
pub(super) struct Master {
    address: Option<Address>,
    commands: RunningClient,
    subscriptions: Option<Subscriptions>,
    /// When it last answered, in ms since the servers were opened.
    answered_at_ms: AtomicU64,
    reconnecting: AtomicBool,
}

struct Subscriptions {
    client: RunningClient,
    reader: JoinHandle<()>,
    /// When something last arrived, in ms since the servers were opened.
    heard_at_ms: Arc<AtomicU64>,
}

impl Subscriptions {
    fn heard_at_ms(&self) -> u64 {
        self.heard_at_ms.load(Ordering::Relaxed)
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Servers {
    /// Connects to the server that `options` name, or to every master of the Cluster that it belongs to. Without a
    /// `listener` nothing can be subscribed. Masters that do not answer yet are connected to in the background.
    ///
    /// # Errors
    /// When the URL is none, or no server answers.
    pub(super) async fn open(
        options: &Options,
        listener: Option<Listener>,
    ) -> Result<Self, OpenError> {
        let config = tls::config(options)?;
        let is_cluster = matches!(config.server, ServerConfig::Clustered { .. });
        let shared = Arc::new(Shared {
            options: options.clone(),
            config,
            entry: Entry::default(),
            is_cluster,
            map: ArcSwap::from_pointee(Map {
                masters: Vec::new(),
                owners: Owners::BySlot(vec![None; usize::from(SLOTS)]),
            }),
            writing: Mutex::default(),
            members: Mutex::default(),
            refresh: Notify::new(),
            listener,
            begun: Instant::now(),
        });
        let refresher = if is_cluster {
            shared.open_cluster().await?;
            Some(tokio::spawn(shared.clone().run_refresh()))
        } else {
            shared.open_one().await?;
            None
        };
        Ok(Self { shared, refresher })
    }

    /// Whether the data is spread over the masters of a Redis Cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.shared.is_cluster
    }

    /// Where Redis is, without its password.
    pub(super) fn name(&self) -> String {
        let masters = &self.shared.map.load().masters;
        let first = masters.first();
        first.map_or_else(String::new, |master| server_of(master.commands.client()))
    }

    /// Where the server of a slot is.
    pub(super) fn name_at(&self, slot: u16) -> String {
        let owner = self.shared.owner(slot);
        owner.map_or_else(
            |_| self.name(),
            |master| server_of(master.commands.client()),
        )
    }

    /// As whom the hub uses Redis.
    pub(super) fn user(&self) -> &str {
        let user = self.shared.config.username.as_deref();
        user.unwrap_or("default")
    }

    /// Every master.
    pub(super) fn masters(&self) -> Vec<Arc<Master>> {
        self.shared.map.load().masters.clone()
    }

    /// Why the servers reject connections, if they do.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.shared.entry.refusal()
    }

    /// What an error of fred's means; a connection that the server rejects looks like a timeout to it.
    pub(super) fn failure(&self, error: Error) -> EngineError {
        self.shared.entry.explain(unavailable(error))
    }

    /// The client for the server of a key, for commands with words that are no text. It does not follow a key that moves.
    pub(super) fn client_of(&self, key: &str) -> Result<Client, EngineError> {
        let owner = self
            .shared
            .owner(slot_of(key))
            .map_err(|error| self.failure(error))?;
        Ok(owner.commands.client().clone())
    }

    /// Whether one server serves both slots.
    pub(super) fn share_a_server(&self, one: u16, other: u16) -> bool {
        let map = self.shared.map.load();
        map.owner_address(one) == map.owner_address(other)
    }

    /// Whether some of the masters, and whether all of them, answer within `within`.
    pub(super) async fn answers(&self, within: Duration) -> (bool, bool) {
        let masters = self.masters();
        let asked = masters
            .iter()
            .map(|master| tokio::time::timeout(within, master.time()));
        let answers = join_all(asked).await.into_iter();
        let count = answers.filter(|answer| matches!(answer, Ok(Ok(_)))).count();
        (count > 0, count == masters.len())
    }

    /// Runs `command` on the server of `key`, the first word of its arguments.
    pub(super) async fn call<R: FromValue>(
        &self,
        command: &'static str,
        key: String,
        arguments: Vec<String>,
    ) -> Result<R, EngineError> {
        let slot = slot_of(&key);
        let mut words = arguments;
        words.insert(0, key);
        self.call_at(slot, command, &words).await
    }

    /// Runs `command` on the server of `slot`.
    pub(super) async fn call_at<R: FromValue>(
        &self,
        slot: u16,
        command: &'static str,
        words: &[String],
    ) -> Result<R, EngineError> {
        let answer = self
            .send(slot, command, words)
            .await
            .map_err(|error| self.failure(error))?;
        answer.convert().map_err(not_understood)
    }

    /// Runs `command` on the server of `slot`, and follows where the Cluster points.
    pub(super) async fn send(
        &self,
        slot: u16,
        command: &'static str,
        words: &[String],
    ) -> Result<Value, Error> {
        let mut outcome = self.send_once(slot, command, words).await;
        let Some(mut redirect) = self.redirect_of(slot, &outcome) else {
            return outcome;
        };
        let deadline = Instant::now() + self.shared.options.command_timeout;
        // A slot that has just moved is found at once; one that is on the move takes a while.
        let mut pause = Duration::ZERO;
        while Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = REDIRECT_PAUSE;
            outcome = self.follow(redirect, slot, command, words).await;
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
        words: &[String],
    ) -> Result<Value, Error> {
        match redirect {
            Redirect::Moved(address) => self.shared.learn(slot, address),
            Redirect::TryAgain => tokio::time::sleep(REDIRECT_PAUSE).await,
            Redirect::Ask(address) => {
                let master = self.shared.master_at(&address)?;
                let answer = master.send(&[(command, words)], Asking::Yes).await;
                // Otherwise the slot has arrived there, or its other keys have not: its owner knows.
                if !answer.as_ref().is_err_and(Self::is_redirected) {
                    return answer;
                }
            }
        }
        self.send_once(slot, command, words).await
    }

    /// The same, but a redirected command is not repeated: the caller has to keep an order.
    pub(super) async fn send_once(
        &self,
        slot: u16,
        command: &'static str,
        words: &[String],
    ) -> Result<Value, Error> {
        let master = self.shared.owner(slot)?;
        let sent_at_ms = self.shared.now_ms();
        let sent = master.send(&[(command, words)], Asking::No).await;
        self.shared.note(&master, sent_at_ms, &sent);
        sent
    }

    /// Whether the Cluster pointed elsewhere, so that the command was not run.
    pub(super) fn is_redirected(error: &Error) -> bool {
        Redirect::parse(error.details(), "").is_some()
    }

    fn redirect_of(&self, slot: u16, outcome: &Result<Value, Error>) -> Option<Redirect> {
        let error = outcome.as_ref().err().filter(|_| self.shared.is_cluster)?;
        Redirect::parse(error.details(), &self.shared.host_of(slot))
    }

    /// Runs commands on the server of `key`, one directly after the other. The answers are in their order.
    pub(super) async fn call_together(
        &self,
        key: &str,
        commands: &[(&'static str, Vec<String>)],
    ) -> Result<Vec<Value>, EngineError> {
        let slot = slot_of(key);
        let commands: Vec<(&'static str, &[String])> = commands
            .iter()
            .map(|(command, words)| (*command, words.as_slice()))
            .collect();
        let deadline = Instant::now() + self.shared.options.command_timeout;
        loop {
            let master = self
                .shared
                .owner(slot)
                .map_err(|error| self.failure(error))?;
            let answers = master.send_all(&commands, Asking::No).await;
            let error = match answers {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if !self.shared.is_cluster || Instant::now() >= deadline {
                return Err(self.failure(error));
            }
            match Redirect::parse(error.details(), &self.shared.host_of(slot)) {
                None => return Err(self.failure(error)),
                Some(Redirect::Moved(address)) => self.shared.learn(slot, address),
                Some(Redirect::Ask(address)) => {
                    let master = self
                        .shared
                        .master_at(&address)
                        .map_err(|error| self.failure(error))?;
                    if let Ok(answers) = master.send_all(&commands, Asking::Yes).await {
                        return Ok(answers);
                    }
                }
                Some(Redirect::TryAgain) => {}
            }
            tokio::time::sleep(REDIRECT_PAUSE).await;
        }
    }

    /// Listens to `channels`; returns once the server of each has confirmed it.
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

    /// fred matches answers to commands by their order, and an `SSUBSCRIBE` of several channels has several answers of
    /// which it takes the first. So each channel is subscribed by a command of its own, and those are sent together.
    async fn subscribe_one(&self, channel: String) -> Result<(), Error> {
        let slot = slot_of(&channel);
        let master = self.shared.owner(slot)?;
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
        if let Some(Redirect::Moved(address)) =
            Redirect::parse(error.details(), &self.shared.host_of(slot))
        {
            self.shared.learn(slot, address);
        } else if *error.kind() == ErrorKind::Timeout {
            // It may look open and carry nothing.
            master.reconnect_soon(Side::Subscriptions);
            self.shared.refresh.notify_one();
        }
        Err(error)
    }

    /// Stops listening to `channels`. After an error the others are still unsubscribed.
    pub(super) async fn unsubscribe(&self, channels: Vec<String>) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for channel in channels {
            let unsubscribed = match self.shared.owner(slot_of(&channel)) {
                Ok(master) => master.unsubscribe(channel).await,
                Err(error) => Err(error),
            };
            if let Err(error) = unsubscribed {
                outcome = Err(self.failure(error));
            }
        }
        outcome
    }

    /// Replaces both connections to the server of `key`: they may look open and carry nothing.
    pub(super) async fn reconnect(&self, key: &str) {
        if let Ok(master) = self.shared.owner(slot_of(key)) {
            master.commands.reconnect().await;
            if let Some(subscriptions) = &master.subscriptions {
                subscriptions.client.reconnect().await;
            }
        }
        self.shared.refresh.notify_one();
    }

    /// Nothing has arrived from `partition` for `silence`, for whatever reason: finds out where it is served now, and has
    /// everything that concerns it subscribed and read again.
    pub(super) async fn recover(&self, partition: u32, silence: Duration) {
        let Some(listener) = &self.shared.listener else {
            return;
        };
        if self.shared.is_cluster {
            self.shared.update_map().await;
        }
        if let Ok(master) = self.shared.owner(listener.keys().slot(partition)) {
            let heard_at_ms = master
                .subscriptions
                .as_ref()
                .map(Subscriptions::heard_at_ms);
            let since_ms = self
                .shared
                .now_ms()
                .saturating_sub(heard_at_ms.unwrap_or(0));
            if u128::from(since_ms) >= silence.as_millis() {
                // Nothing at all arrives over the connection: it may look open and carry nothing.
                master.reconnect_soon(Side::Subscriptions);
            }
        }
        listener.interrupt([partition]);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(refresher) = &self.refresher {
            refresher.abort();
        }
    }
}

/// Whether the server is to answer for a slot that is on its way to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Commands,
    Subscriptions,
}

impl Master {
    /// Sends one command; with [`Asking::Yes`] directly after the one that lets it in.
    async fn send(
        &self,
        commands: &[(&'static str, &[String])],
        asking: Asking,
    ) -> Result<Value, Error> {
        if let ([(command, words)], Asking::No) = (commands, asking) {
            return self
                .commands
                .client()
                .custom(named(command), words.to_vec())
                .await;
        }
        let mut answers = self.send_all(commands, asking).await?;
        Ok(answers.pop().unwrap_or(Value::Null))
    }

    async fn send_all(
        &self,
        commands: &[(&'static str, &[String])],
        asking: Asking,
    ) -> Result<Vec<Value>, Error> {
        let pipeline = self.commands.client().pipeline();
        for (command, words) in commands {
            if asking == Asking::Yes {
                let _: Value = pipeline
                    .custom(named("ASKING"), Vec::<String>::new())
                    .await?;
            }
            let _: Value = pipeline.custom(named(command), words.to_vec()).await?;
        }
        let answers: Vec<Value> = pipeline.all().await?;
        let step = if asking == Asking::Yes { 2 } else { 1 };
        Ok(answers.into_iter().skip(step - 1).step_by(step).collect())
    }

    /// Its clock, in seconds and microseconds.
    pub(super) async fn time(&self) -> Result<(u64, u64), Error> {
        self.ask("TIME", Vec::new()).await
    }

    /// Runs a command that concerns the server, and no key of it.
    pub(super) async fn ask<R: FromValue>(
        &self,
        command: &'static str,
        words: Vec<String>,
    ) -> Result<R, Error> {
        self.commands.client().custom(named(command), words).await
    }

    async fn view(&self) -> Option<View> {
        let host = self.address.as_ref()?.host.clone();
        let asked = self.ask::<String>("CLUSTER", vec!["NODES".to_owned()]);
        let text = tokio::time::timeout(VIEW_WITHIN, asked).await.ok()?.ok()?;
        Some(View::parse(&text, &host))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), Error> {
        use fred::interfaces::PubsubInterface;
        match &self.subscriptions {
            Some(subscriptions) => subscriptions.client.client().sunsubscribe(channel).await,
            None => Ok(()),
        }
    }

    /// Replaces a connection in the background, once at a time.
    fn reconnect_soon(self: &Arc<Self>, side: Side) {
        if self.reconnecting.swap(true, Ordering::Relaxed) {
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
            master.reconnecting.store(false, Ordering::Relaxed);
        });
    }
}

fn ms_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn named(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::FirstKey, false)
}

/// The slot of a key or channel.
pub(super) fn slot_of(key: &str) -> u16 {
    redis_keyslot(key.as_bytes())
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Arc<Master>> {
        let place = match &self.owners {
            Owners::One => 0,
            Owners::BySlot(owners) => (*owners.get(usize::from(slot))?)?,
        };
        self.masters.get(place)
    }

    fn owner_address(&self, slot: u16) -> Option<&Address> {
        self.owner(slot)?.address.as_ref()
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        ms_since(self.begun)
    }

    /// The one server, or the primary that a Sentinel names.
    async fn open_one(self: &Arc<Self>) -> Result<(), OpenError> {
        let open = async || {
            let client = RunningClient::open(self.config.clone(), &self.options).await?;
            self.entry.watch(client.client());
            Ok::<_, OpenError>(client)
        };
        let commands = open().await?;
        let subscriptions = match &self.listener {
            Some(listener) => Some(self.listen(open().await?, None, listener)),
            None => None,
        };
        self.map.store(Arc::new(Map {
            masters: vec![Arc::new(Master {
                address: None,
                commands,
                subscriptions,
                answered_at_ms: AtomicU64::new(0),
                reconnecting: AtomicBool::new(false),
            })],
            owners: Owners::One,
        }));
        Ok(())
    }

    /// Asks the servers in the URL, one after the other, until one knows the masters.
    async fn open_cluster(self: &Arc<Self>) -> Result<(), OpenError> {
        {
            let mut members = self.members();
            for server in self.config.server.hosts() {
                members.insert(Address {
                    host: server.host.to_string(),
                    port: server.port,
                    name: server.tls_server_name.as_ref().map(ToString::to_string),
                });
            }
        }
        match self.ask_members().await {
            Ok(view) => {
                self.take(&[view]);
                // One server's view may be old.
                self.update_map().await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The view of the first server that answers, of all that were ever known.
    async fn ask_members(&self) -> Result<View, OpenError> {
        let members: Vec<Address> = self.members().iter().cloned().collect();
        let mut failure = None;
        for address in members {
            let opened = RunningClient::open(self.config_for(&address), &self.options).await;
            let client = match opened {
                Ok(client) => client,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            let words = vec!["NODES".to_owned()];
            match client
                .client()
                .custom::<String, _>(named("CLUSTER"), words)
                .await
            {
                Ok(text) => {
                    let view = View::parse(&text, &address.host);
                    if !view.masters.is_empty() {
                        return Ok(view);
                    }
                }
                Err(error) => {
                    let (server, cause) = (address.to_string(), error.details().to_owned());
                    failure = Some(OpenError::Unreachable { server, cause });
                }
            }
        }
        Err(failure.unwrap_or_else(|| OpenError::Unreachable {
            server: self
                .config
                .server
                .hosts()
                .first()
                .map_or_else(String::new, ToString::to_string),
            cause: "no server of the cluster knows a master".to_owned(),
        }))
    }

    fn members(&self) -> MutexGuard<'_, BTreeSet<Address>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
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
        listener: &Listener,
    ) -> Subscriptions {
        let heard_at_ms = Arc::new(AtomicU64::new(self.now_ms()));
        let (heard, begun) = (heard_at_ms.clone(), self.begun);
        let note = move || heard.store(ms_since(begun), Ordering::Relaxed);
        let shared = Arc::downgrade(self);
        let partitions = move || {
            let shared = shared.upgrade();
            shared.map_or_else(Vec::new, |shared| shared.partitions_of(address.as_ref()))
        };
        let arriving = client.client().clone();
        let reader = tokio::spawn(listener.clone().read(arriving, note, partitions));
        Subscriptions {
            client,
            reader,
            heard_at_ms,
        }
    }

    /// The partitions that the server at `address` serves.
    fn partitions_of(&self, address: Option<&Address>) -> Vec<u32> {
        let Some(listener) = &self.listener else {
            return Vec::new();
        };
        let map = self.map.load();
        let keys = listener.keys();
        let all = 0..keys.partitions();
        all.filter(|partition| map.owner_address(keys.slot(*partition)) == address)
            .collect()
    }

    fn start(self: &Arc<Self>, address: &Address) -> Result<Arc<Master>, OpenError> {
        let start = || {
            let client = RunningClient::start(self.config_for(address), &self.options)?;
            self.entry.watch(client.client());
            Ok::<_, OpenError>(client)
        };
        let subscriptions = match &self.listener {
            Some(listener) => Some(self.listen(start()?, Some(address.clone()), listener)),
            None => None,
        };
        Ok(Arc::new(Master {
            address: Some(address.clone()),
            commands: start()?,
            subscriptions,
            answered_at_ms: AtomicU64::new(self.now_ms()),
            reconnecting: AtomicBool::new(false),
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

    /// The host that serves a slot, which a redirect may leave out.
    fn host_of(&self, slot: u16) -> String {
        let map = self.map.load();
        let address = map.owner_address(slot);
        address.map_or_else(String::new, |address| address.host.clone())
    }

    /// Notes whether a master answers. One that has answered nothing since a command was sent that ran out of time is
    /// reconnected to, and may not serve its slots any more.
    fn note(&self, master: &Arc<Master>, sent_at_ms: u64, outcome: &Result<Value, Error>) {
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

    /// The master at `address`; one that was not known is connected to.
    fn master_at(self: &Arc<Self>, address: &Address) -> Result<Arc<Master>, Error> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// A server says that `slot` has moved to `address`.
    fn learn(self: &Arc<Self>, slot: u16, address: Address) {
        self.refresh.notify_one();
        if self.map.load().owner_address(slot) == Some(&address)
            || self.master_at(&address).is_err()
        {
            return;
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.map.load();
        let place = map
            .masters
            .iter()
            .position(|master| is_at(master, &address));
        let (Some(place), Owners::BySlot(owners)) = (place, &map.owners) else {
            return;
        };
        let mut owners = owners.clone();
        owners[usize::from(slot)] = Some(place);
        let masters = map.masters.clone();
        self.replace(
            &map,
            Map {
                masters,
                owners: Owners::BySlot(owners),
            },
        );
    }

    /// Keeps the map true, until the servers are dropped.
    async fn run_refresh(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(REFRESH_INTERVAL) => {}
                () = self.refresh.notified() => {}
            }
            self.update_map().await;
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    /// Reads the map from every master that answers; from any server that was ever known where none does.
    async fn update_map(self: &Arc<Self>) {
        let masters = self.map.load().masters.clone();
        let views = join_all(masters.iter().map(|master| master.view())).await;
        let mut views: Vec<View> = views.into_iter().flatten().collect();
        if views.is_empty() {
            match self.ask_members().await {
                Ok(view) => views.push(view),
                Err(error) => return tracing::debug!(%error, "no server of the cluster answers"),
            }
        }
        self.take(&views);
    }

    /// Replaces the map by what `views` say. Masters that are none any more are disconnected from.
    fn take(self: &Arc<Self>, views: &[View]) {
        {
            let mut members = self.members();
            members.extend(views.iter().flat_map(|view| view.members.iter().cloned()));
        }
        let (addresses, owners) = merge(views);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Stores a map, and interrupts the partitions that are served elsewhere now: their subscriptions were left behind.
    fn replace(&self, before: &Map, after: Map) {
        if let Some(listener) = &self.listener {
            let keys = listener.keys();
            let moved = (0..keys.partitions()).filter(|partition| {
                let slot = keys.slot(*partition);
                before.owner_address(slot) != after.owner_address(slot)
            });
            let moved: Vec<u32> = moved.collect();
            if !moved.is_empty() && !before.masters.is_empty() {
                tracing::info!(partitions = ?moved, "partitions are served by another master now");
                self.map.store(Arc::new(after));
                return listener.interrupt(moved);
            }
        }
        self.map.store(Arc::new(after));
    }
}

fn is_at(master: &Master, address: &Address) -> bool {
    let known = master.address.as_ref();
    known.is_some_and(|known| (&known.host, known.port) == (&address.host, address.port))
}

fn find<'a>(masters: &'a [Arc<Master>], address: &Address) -> Option<&'a Arc<Master>> {
    masters.iter().find(|master| is_at(master, address))
}
