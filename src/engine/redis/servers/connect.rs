//! Connecting: to the single server, to the servers in the URL, to the masters of a Cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::prelude::Config;
use fred::types::config::{Server as FredServer, ServerConfig};

use super::master::{Master, Subscriptions, ms_since, named};
use super::pool::{Owners, ServerPool, SlotMap};
use crate::engine::OpenError;
use crate::engine::redis::bus::{Affected, Subscriber};
use crate::engine::redis::client::{Purpose, RunningClient};
use crate::engine::redis::cluster::{Address, ClusterView};
use crate::engine::redis::preflight::open_error;

impl ServerPool {
    /// Connects to the single server, or to the primary that a Sentinel names.
    pub(super) async fn open_one(self: &Arc<Self>) -> Result<(), OpenError> {
        let open = async |purpose| {
            let config = self.config.clone();
            let client =
                RunningClient::open(config, &self.options, purpose, self.trust.as_ref()).await?;
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
        self.map.store(Arc::new(SlotMap {
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
    pub(super) async fn open_cluster(self: &Arc<Self>) -> Result<(), OpenError> {
        self.members.lock().extend(self.seeds());
        let view = self.ask_members().await?;
        self.apply_views(&[view]);
        // A single server's view may be outdated.
        self.update_map().await;
        Ok(())
    }

    pub(super) fn seeds(&self) -> impl Iterator<Item = Address> {
        let seeds = self.config.server.hosts().into_iter();
        seeds.map(|server| Address {
            host: server.host.to_string(),
            port: server.port,
            name: server.tls_server_name.as_ref().map(ToString::to_string),
        })
    }

    /// The view of whichever known server answers first.
    pub(super) async fn ask_members(&self) -> Result<ClusterView, OpenError> {
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
        let purpose = Purpose::Commands;
        let client =
            RunningClient::open(config, &self.options, purpose, self.trust.as_ref()).await?;
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

    fn config_for(&self, address: &Address) -> Config {
        let name = address.name.clone().filter(|_| self.config.uses_tls());
        let server = FredServer::new_with_tls(address.host.clone(), address.port, name);
        Config {
            server: ServerConfig::Centralized { server },
            ..self.config.clone()
        }
    }

    pub(super) fn start(self: &Arc<Self>, address: &Address) -> Result<Arc<Master>, OpenError> {
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
}
