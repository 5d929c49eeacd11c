//! Subscribes to and reads partitions again after their messages, or data, may have been lost.

use std::sync::Arc;

use super::cluster_events::{ClusterEvents, EventKind};
use super::lease::Lease;
use super::presence::Presence;
use super::registration::Registrations;
use super::topic::Topics;
use crate::engine::Engine;
use crate::telemetry::Metrics;

pub(crate) struct Recovery {
    pub(crate) engine: Engine,
    pub(crate) topics: Arc<Topics>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<ClusterEvents>,
}

impl Recovery {
    /// Recovers partitions whose messages may have been missed. Their data may be lost too, and with `leases` the list
    /// of leases.
    pub(crate) fn interrupted(&self, partitions: &[u32], leases: bool) {
        tracing::info!(
            ?partitions,
            "messages may have been missed; subscribing and reading again"
        );
        self.metrics.interruptions.inc();
        self.events.record(EventKind::Interrupted);
        self.read_again(partitions);
        self.engine.forget_own_channel();
        if leases {
            self.lease.request_renewal();
        }
    }

    /// Subscribes, reads and registers everything in these partitions again.
    pub(crate) fn read_again(&self, partitions: &[u32]) {
        self.presence.interrupted(partitions);
        self.topics.interrupted(partitions);
        self.registrations.request(partitions);
    }
}
