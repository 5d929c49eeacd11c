//! One server of the data, with its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::error::Error;
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use tokio::task::JoinHandle;

use crate::engine::redis::client::{RunningClient, server_of};
use crate::engine::redis::cluster::{Address, ClusterView};

/// Timeout for one master's view; the others' views are used without it.
const VIEW_WITHIN: Duration = Duration::from_millis(500);

/// One server with its clients.
pub(in crate::engine::redis) struct Master {
    pub(super) address: Option<Address>,
    pub(super) commands: RunningClient,
    pub(super) subscriptions: Option<Subscriptions>,
    /// When the server last answered, in ms since `begun`.
    pub(super) answered_at_ms: AtomicU64,
    pub(super) reconnecting: [AtomicBool; 2],
}

pub(super) struct Subscriptions {
    pub(super) client: RunningClient,
    pub(super) reader: JoinHandle<()>,
    /// When the last message arrived, in ms since `begun`.
    pub(super) received_at_ms: Arc<AtomicU64>,
}

/// A server's relation to the slot of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Owned,
    Importing,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Commands,
    Subscriptions,
}

impl Subscriptions {
    pub(super) fn received_at_ms(&self) -> u64 {
        self.received_at_ms.load(Ordering::Relaxed)
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Master {
    /// Sends one command; to an importing server right after `ASKING`.
    pub(super) async fn send(
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

    pub(super) async fn send_all(
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
    pub(in crate::engine::redis) async fn time(&self) -> Result<(u64, u64), Error> {
        self.ask("TIME", Vec::new()).await
    }

    /// Runs a command that concerns the server rather than a key.
    pub(in crate::engine::redis) async fn ask<R: FromValue>(
        &self,
        command: &'static str,
        args: Vec<String>,
    ) -> Result<R, Error> {
        self.commands.client().custom(named(command), args).await
    }

    pub(super) async fn view(&self) -> Option<ClusterView> {
        let host = self.address.as_ref()?.host.clone();
        let asked = self.ask::<String>("CLUSTER", vec!["NODES".to_owned()]);
        let text = tokio::time::timeout(VIEW_WITHIN, asked).await.ok()?.ok()?;
        Some(ClusterView::parse(&text, &host))
    }

    pub(super) async fn unsubscribe(&self, channel: String) -> Result<(), Error> {
        match &self.subscriptions {
            Some(subscriptions) => subscriptions.client.client().sunsubscribe(channel).await,
            None => Ok(()),
        }
    }

    /// Replaces a connection in the background, unless that is in progress.
    pub(super) fn reconnect_soon(self: &Arc<Self>, side: Side) {
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

pub(super) fn ms_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn named(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::FirstKey, false)
}
