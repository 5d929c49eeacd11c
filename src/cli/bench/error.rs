//! Why a run has no figures, and what to do about it.

use super::load::ClientError;
use super::usage::NoProcess;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// What was given as a URL is none that can be used.
    #[error("{0:?} is no URL of a node; write http://HOST:PORT (TLS is not spoken here)")]
    Url(String),
    /// Nobody answers.
    #[error("cannot reach {url} ({cause}); is the node running, and {flag} its address?")]
    Unreachable {
        /// Who.
        url: String,
        /// What said so on the command line.
        flag: &'static str,
        /// What happened.
        cause: String,
    },
    /// It answered, but not as it should.
    #[error("{url} answered an update with {status}{}: {body}", hint(*status))]
    Answered {
        /// Who.
        url: String,
        /// The status of HTTP.
        status: u16,
        /// In its words.
        body: String,
    },
    /// The scenario posts updates.
    #[error(
        "this scenario posts updates: say with --internal where the nodes' internal listeners are"
    )]
    NoInternal,
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

/// What to do about an answer.
fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (set VIGIE_INTERNAL__API_KEY to a key of the nodes' internal API)",
        404 => " (is --internal the internal listener?)",
        _ => "",
    }
}
