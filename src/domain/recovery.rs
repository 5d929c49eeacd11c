//! Reads partitions again whose messages, or data, may be lost.

use std::sync::Arc;

use super::incidents::{Happening, Incidents};
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
    pub(crate) incidents: Arc<Incidents>,
}

impl Recovery {
    /// Recovers partitions of which messages may have been missed. Their data may be lost, too.
    pub(crate) fn interrupted(&self, partitions: &[u32]) {
        tracing::info!(
            ?partitions,
            "messages may have been missed; subscribing and reading again"
        );
        self.metrics.interruptions.inc();
        self.incidents.note(Happening::Interrupted);
        self.read_again(partitions);
        self.engine.forget_own_channel();
        if self.engine.may_hold_leases(partitions) {
            self.lease.doubt();
        }
    }

    /// Subscribes, reads and registers everything in these partitions again.
    pub(crate) fn read_again(&self, partitions: &[u32]) {
        self.presence.interrupted(partitions);
        self.topics.interrupted(partitions);
        self.registrations.request(partitions);
    }
}
