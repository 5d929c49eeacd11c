//! The masters and the slots that they serve. In a Cluster this map follows moves and failovers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fred::error::{Error, ErrorKind};
use fred::prelude::Config;
use fred::types::Value;
use fred::types::config::ServerConfig;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::master::{Master, Side, ms_since};
use super::slot_of;
use crate::engine::EngineError;
use crate::engine::redis::RedisOptions;
use crate::engine::redis::bus::{Affected, Subscriber};
use crate::engine::redis::cluster::{Address, ClusterView, SLOTS, merge};
use crate::engine::redis::rejection::LastRejection;
use crate::engine::redis::scripts::unavailable;
use crate::engine::redis::tls::Trust;

/// Interval between periodic reads of the map.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Pause after reading the map, so that a burst of requests causes one read.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct ServerPool {
    pub(super) options: RedisOptions,
    /// The configuration of every client, apart from the server.
    pub(super) config: Config,
    pub(super) trust: Option<Trust>,
    pub(super) rejection: LastRejection,
    pub(super) is_cluster: bool,
    pub(super) map: ArcSwap<SlotMap>,
    /// Held while the map is replaced.
    writing: Mutex<()>,
    /// When the last read of the map began; locked during a read.
    updating: tokio::sync::Mutex<Option<Instant>>,
    /// All servers seen, to ask if no master answers.
    pub(super) members: Mutex<BTreeSet<Address>>,
    pub(super) refresh: Notify,
    pub(super) subscriber: Option<Subscriber>,
    pub(super) begun: Instant,
}

/// The masters and the slots they serve. Replaced as a whole.
pub(super) struct SlotMap {
    pub(super) masters: Vec<Arc<Master>>,
    /// The index of each slot's master.
    pub(super) owners: Owners,
}

pub(super) enum Owners {
    /// A single server serves all slots.
    One,
    BySlot(Vec<Option<usize>>),
}

impl SlotMap {
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Master>> {
        let index = match &self.owners {
            Owners::One => 0,
            Owners::BySlot(owners) => (*owners.get(usize::from(slot))?)?,
        };
        self.masters.get(index)
    }

    pub(super) fn owner_address(&self, slot: u16) -> Option<&Address> {
        self.owner(slot)?.address.as_ref()
    }
}

impl ServerPool {
    pub(super) fn new(
        options: &RedisOptions,
        config: Config,
        trust: Option<Trust>,
        subscriber: Option<Subscriber>,
    ) -> Self {
        Self {
            options: options.clone(),
            is_cluster: matches!(config.server, ServerConfig::Clustered { .. }),
            config,
            trust,
            rejection: LastRejection::default(),
            map: ArcSwap::from_pointee(SlotMap {
                masters: Vec::new(),
                owners: Owners::BySlot(vec![None; usize::from(SLOTS)]),
            }),
            writing: Mutex::default(),
            updating: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            refresh: Notify::new(),
            subscriber,
            begun: Instant::now(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        ms_since(self.begun)
    }

    pub(super) fn failure(&self, error: Error) -> EngineError {
        self.rejection.explain(unavailable(error))
    }

    /// The partitions, and perhaps the leases, of the server at `address`.
    pub(super) fn served_at(&self, address: Option<&Address>) -> Affected {
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

    pub(super) fn owner(&self, slot: u16) -> Result<Arc<Master>, Error> {
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
    pub(super) fn host_of(&self, slot: u16) -> String {
        let map = self.map.load();
        let address = map.owner_address(slot);
        address.map_or_else(String::new, |address| address.host.clone())
    }

    /// Records whether a master answers. One that has answered nothing since a timed-out command was sent is
    /// reconnected, and may no longer serve its slots.
    pub(super) fn record_outcome(
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
    pub(super) fn master_at(self: &Arc<Self>, address: &Address) -> Result<Arc<Master>, Error> {
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
        self.map.store(Arc::new(SlotMap { masters, owners }));
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
    pub(super) fn record_move(self: &Arc<Self>, slot: u16, address: Address) {
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
            SlotMap {
                masters,
                owners: Owners::BySlot(owners),
            },
        );
    }

    /// Reads the map periodically, and on request.
    pub(super) async fn run_refresh(self: Arc<Self>) {
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
    pub(super) async fn update_map_once(self: &Arc<Self>) {
        let asked = Instant::now();
        let mut last = self.updating.lock().await;
        if last.is_none_or(|begun| begun < asked) {
            *last = Some(Instant::now());
            self.update_map().await;
        }
    }

    /// Reads the map from every master that answers, or from any known server if none does.
    pub(super) async fn update_map(self: &Arc<Self>) {
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
    pub(super) fn apply_views(self: &Arc<Self>, views: &[ClusterView]) {
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
        self.replace(&map, SlotMap { masters, owners });
    }

    /// Stores a map, and interrupts the partitions that moved to another master: their subscriptions are lost.
    fn replace(&self, before: &SlotMap, after: SlotMap) {
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
