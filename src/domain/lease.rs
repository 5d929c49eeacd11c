//! This node's lease: renewed for as long as the node runs.

use std::time::Duration;

use crate::engine::{Engine, NodeInfo};

/// The rules, as configured.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOptions {
    /// How long a node counts as alive after its last sign of life.
    pub lease: Duration,
    /// How often a node gives one.
    pub heartbeat: Duration,
}

/// Renews the lease every heartbeat, for ever. `info` is asked each time.
pub(crate) async fn keep(engine: &Engine, options: LeaseOptions, info: impl Fn() -> NodeInfo) {
    let mut heartbeat = tokio::time::interval(options.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        heartbeat.tick().await;
        if let Err(error) = engine.renew(&info(), options.lease).await {
            tracing::warn!(%error, "could not renew the lease; trying again");
        }
    }
}
