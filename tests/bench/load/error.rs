//! Why a run has no figures, and what to do about it.

use super::clients::ClientError;
use super::usage::NoProcess;
use crate::remote::RemoteError;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// The nodes cannot be spoken to.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The scenario compares nodes.
    #[error("this scenario compares nodes: give --node, --internal and --pid for two of them")]
    OneNode,
    /// There are more or fewer processes than nodes.
    #[error(
        "--pid was given {pids} times and --node {nodes} times; give one for each node, in the same order, or none"
    )]
    Pids {
        /// How many processes.
        pids: usize,
        /// How many nodes.
        nodes: usize,
    },
    /// Tokens cannot be signed.
    #[error("cannot sign tokens: {0}")]
    Token(String),
    /// A client is in trouble.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A process is gone.
    #[error(transparent)]
    Process(#[from] NoProcess),
    /// Something does not come.
    #[error("{doing} came to a standstill at {reached} of {of}; what do the nodes' logs say?")]
    Stuck {
        /// What was being done.
        doing: &'static str,
        /// How far it came.
        reached: u64,
        /// How far it should have come.
        of: u64,
    },
    /// Most of it does not arrive.
    #[error(
        "gave up after {updates} updates: too many did not arrive; what do the nodes' logs say?"
    )]
    Lost {
        /// How many were posted.
        updates: usize,
    },
    /// Nothing that a node is to blame for.
    #[error("the load cannot go on: {0}")]
    Own(String),
}
