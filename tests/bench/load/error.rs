//! Errors of a run, each with what to do about it.

use std::io;
use std::path::PathBuf;

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
    #[error(
        "this scenario starts nodes and a Redis of its own: leave out --node, --internal, --pid, --redis-pid and --config"
    )]
    OwnNodes,
    #[error("there is no {} ({error}); --vigie and --before take the file of a build", file.display())]
    NoBuild { file: PathBuf, error: io::Error },
    /// A child process; `outcome` is how it ended, if it did.
    #[error("{program} does not start ({outcome}):\n{log}")]
    NotStarted {
        program: String,
        outcome: String,
        log: String,
    },
    #[error("Redis: {0}")]
    Redis(#[from] fred::error::Error),
    /// An error on this side.
    #[error("the load cannot go on: {0}")]
    Own(String),
}
