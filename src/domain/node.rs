//! Nodes of the cluster, as each reports itself with its heartbeat.

pub use crate::engine::{LiveNode, NodeInfo};
