//! The report about this node that goes with each heartbeat.

use std::sync::Arc;

use super::presence::Presence;
use super::pulse::Pulses;
use super::topic::Topics;
use crate::clock::now_ms;
use crate::engine::NodeInfo;
use crate::ids::Incarnation;
use crate::telemetry::{ConnectionKind, Metrics};

pub(crate) struct LocalNode {
    topics: Arc<Topics>,
    presence: Arc<Presence>,
    pulses: Arc<Pulses>,
    metrics: Arc<Metrics>,
    started_at_ms: u64,
}

impl LocalNode {
    pub(crate) fn new(
        topics: Arc<Topics>,
        presence: Arc<Presence>,
        pulses: Arc<Pulses>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            topics,
            presence,
            pulses,
            metrics,
            started_at_ms: now_ms(),
        }
    }

    pub(crate) fn info(&self, incarnation: &Incarnation) -> NodeInfo {
        let guests = self.metrics.connections(ConnectionKind::Guest);
        NodeInfo {
            id: incarnation.node_id().to_owned(),
            incarnation: incarnation.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at_ms,
            connections: guests + self.metrics.connections(ConnectionKind::User),
            guests,
            users: self.topics.users() as u64,
            topics: self.topics.len() as u64,
            not_heard: self.silent_partitions(),
        }
    }

    /// Partitions whose pulse does not arrive, or whose snapshot is still being read.
    pub(crate) fn silent_partitions(&self) -> Vec<u32> {
        let silent = self.pulses.silent();
        let is_silent =
            |number: &u32| silent.contains(number) || !self.presence.is_complete(*number);
        (0..self.pulses.partitions()).filter(is_silent).collect()
    }
}
