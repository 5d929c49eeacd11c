//! Errors of a run, each with what to do about it.

use super::clients::ClientError;
use super::usage::NoProcess;
use crate::remote::RemoteError;

#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("this scenario compares nodes: give --node, --internal and --pid for two of them")]
    OneNode,
    #[error(
        "--pid was given {pids} times and --node {nodes} times; give one for each node, in the same order, or none"
    )]
    Pids { pids: usize, nodes: usize },
    #[error("cannot sign tokens: {0}")]
    Token(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Process(#[from] NoProcess),
    /// A counter stopped growing.
    #[error("{doing} came to a standstill at {reached} of {of}; what do the nodes' logs say?")]
    Stuck {
        doing: &'static str,
        reached: u64,
        of: u64,
    },
    #[error(
        "gave up after {updates} updates: too many did not arrive; what do the nodes' logs say?"
    )]
    Lost { updates: usize },
    /// An error on this side.
    #[error("the load cannot go on: {0}")]
    Own(String),
}
