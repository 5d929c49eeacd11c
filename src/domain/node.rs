//! Nodes of the cluster, as each reports itself with its heartbeat.

pub(crate) use crate::engine::LiveNode;
