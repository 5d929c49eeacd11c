//! Dispatches each message of the engine to the service concerned.

use std::sync::Arc;

use super::health::Health;
use super::matchmaking::Matchmaking;
use super::node_requests::NodeRequests;
use super::presence::Presence;
use super::pulse::Pulses;
use super::recovery::Recovery;
use super::topic::Topics;
use super::watcher_count::PendingCounts;
use crate::engine::{EngineMessage, Messages, TopicMessage};

pub(crate) struct Router {
    pub(crate) topics: Arc<Topics>,
    pub(crate) matchmaking: Arc<Matchmaking>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) health: Arc<Health>,
    pub(crate) pulses: Arc<Pulses>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) node_requests: Arc<NodeRequests>,
    pub(crate) watcher_counts: Arc<PendingCounts>,
}

impl Router {
    /// Handles messages one by one, which preserves the order of events.
    pub(crate) async fn run(self, mut messages: Messages) {
        while let Some(message) = messages.recv().await {
            match message {
                EngineMessage::Presence {
                    partition,
                    transition,
                } => self.presence.receive(partition, transition).await,
                EngineMessage::Topic { user, message } => match message {
                    TopicMessage::MatchFound { .. }
                    | TopicMessage::MatchTimeout { .. }
                    | TopicMessage::MatchLeft => self.matchmaking.receive(user, message).await,
                    TopicMessage::Update(..)
                    | TopicMessage::Event { .. }
                    | TopicMessage::Disconnect { .. }
                    | TopicMessage::AccountDeleted => {
                        self.topics.receive(user, message).await;
                    }
                },
                EngineMessage::Canary { nonce } => self.health.canary_returned(nonce),
                EngineMessage::Request(request) => self.node_requests.enqueue(request),
                EngineMessage::WatcherCount { count_id, watchers } => {
                    self.watcher_counts.replied(count_id, watchers)
                }
                EngineMessage::Pulse { partition, pulse } => self.pulses.receive(partition, &pulse),
                EngineMessage::Interrupted { partitions, leases } => {
                    self.recovery.interrupted(&partitions, leases);
                }
            }
        }
    }
}
