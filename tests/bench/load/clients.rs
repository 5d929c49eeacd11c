//! The clients of a run: thousands of WebSockets on a few threads, which read and count and do nothing else.

mod client;
mod counters;
mod dedup;
mod histogram;
mod received;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use mio::{Poll, Waker};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;

use self::received::ThreadResults;
use self::worker::{Command, WAKE, WorkerSetup};

pub(super) use self::counters::{Count, Counters};
pub(super) use self::histogram::Latencies;
pub(super) use self::worker::Totals;
use crate::socket_io::ConnectionError;
pub(super) use crate::socket_io::packet::Query;

/// Connections opening at once, over all threads; below the backlog of a node.
const OPENING_MAX: usize = 200;

/// Open files of the process besides the clients.
const OTHER_FILES: usize = 200;

/// Few: a scenario waits for the outcome of each command.
const COMMANDS_MAX: usize = 16;

/// An error of one client; it ends the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(
        "this process may not open as many files; raise the limit (`ulimit -n`), or take fewer --connections"
    )]
    NoFiles,
    /// An error on this side.
    #[error("the load cannot go on: {0}")]
    Own(String),
}

pub(super) struct Opening {
    /// Index of the node, in the order of the command line.
    pub(super) node: usize,
    pub(super) address: SocketAddr,
    /// `None` for a guest.
    pub(super) token: Option<String>,
}

/// The users of a run; their ids are consecutive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Users {
    pub(super) first: u64,
    pub(super) count: usize,
}

impl Users {
    /// Index of a user of this run.
    fn place(self, user: u64) -> Option<usize> {
        let place = usize::try_from(user.checked_sub(self.first)?).ok()?;
        (place < self.count).then_some(place)
    }
}

pub(super) struct Load {
    threads: Vec<Thread>,
    clients: usize,
}

/// Handle of a thread, which ends when the handle is dropped.
struct Thread {
    commands: SyncSender<Command>,
    waker: Waker,
}

impl Load {
    /// Starts at least `threads` threads for `clients` clients.
    pub(super) fn start(
        size: (usize, usize, usize),
        users: Users,
        counters: &Arc<Counters>,
    ) -> Result<Self, ClientError> {
        Self::try_start(size, users, counters).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::EMFILE as i32 => ClientError::NoFiles,
            _ => ClientError::Own(error.to_string()),
        })
    }

    fn try_start(
        (clients, threads, nodes): (usize, usize, usize),
        users: Users,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let files = raise_limit().saturating_sub(OTHER_FILES);
        let threads = threads.max(clients.div_ceil(files.max(1)));
        // The limit applies to a table of file descriptors, and each thread can have its own table.
        let own_files = clients > files;
        let mut started = Vec::new();
        for thread in 0..threads {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            let (commands, receiver) = sync_channel(COMMANDS_MAX);
            let setup = WorkerSetup {
                poll,
                commands: receiver,
                counters: counters.clone(),
                users,
                share: (thread, threads),
                nodes,
                opening_max: OPENING_MAX.div_ceil(threads),
                own_files,
            };
            std::thread::Builder::new()
                .name(format!("clients-{thread}"))
                .spawn(move || worker::run(setup))?;
            started.push(Thread { commands, waker });
        }
        Ok(Self {
            threads: started,
            clients: 0,
        })
    }

    /// Starts opening clients; returns their indices.
    pub(super) fn open(&mut self, openings: impl Iterator<Item = Opening>) -> Range<usize> {
        let first = self.clients;
        let mut shares: Vec<_> = self.threads.iter().map(|_| Vec::new()).collect();
        for opening in openings {
            let thread = self.clients % self.threads.len();
            shares[thread].push((self.clients, opening));
            self.clients += 1;
        }
        for (thread, share) in self.threads.iter().zip(shares) {
            thread.tell(Command::Open(share));
        }
        first..self.clients
    }

    pub(super) fn query(&self, clients: &Range<usize>, query: Query) {
        for thread in &self.threads {
            thread.tell(Command::Query(clients.clone(), query));
        }
    }

    pub(super) fn disconnect(&self, clients: &Range<usize>) {
        for thread in &self.threads {
            thread.tell(Command::Disconnect(clients.clone()));
        }
    }

    /// Takes what was measured since the last call, together with the totals of `clients`.
    pub(super) async fn report(&self, clients: &Range<usize>, nodes: usize) -> Results {
        let mut results = Results::new(nodes);
        for thread in &self.threads {
            let (sender, report) = oneshot::channel();
            thread.tell(Command::Report(clients.clone(), sender));
            // A thread that ended has recorded why; the next wait reports it.
            if let Ok((thread, totals)) = report.await {
                results.add(&thread, &totals);
            }
        }
        results
    }
}

/// Raises the limit on open files to what the system allows; returns it.
pub(crate) fn raise_limit() -> usize {
    /// Assumed where the system does not say.
    const USUAL: usize = 1024;

    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return USUAL;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

impl Thread {
    fn tell(&self, command: Command) {
        // A thread that ended has recorded why; the next wait reports it.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

/// The measurements of all threads.
pub(super) struct Results {
    /// From opening TCP to CONNECT.
    pub(super) opening: Latencies,
    pub(super) acks: Latencies,
    /// From the request to the receipt, by node of the client.
    pub(super) updates: Vec<Latencies>,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    /// Ids in the shortest answer to `get-online-users`.
    pub(super) ids_min: Option<u64>,
    pub(super) totals: Totals,
}

impl Results {
    fn new(nodes: usize) -> Self {
        let nothing = ThreadResults::new(nodes);
        Self {
            opening: nothing.opening,
            acks: nothing.acks,
            updates: nothing.updates,
            duplicates: 0,
            out_of_order: 0,
            ids_min: None,
            totals: Totals {
                updates: vec![0; nodes],
                statuses: 0,
            },
        }
    }

    /// Latencies of updates on the first node, to which they are posted, and on the others.
    pub(super) fn latencies(&self) -> (Latencies, Latencies) {
        let (mut here, mut elsewhere) = (Latencies::new(), Latencies::new());
        for (node, latencies) in self.updates.iter().enumerate() {
            let side = if node == 0 { &mut here } else { &mut elsewhere };
            side.add(latencies);
        }
        (here, elsewhere)
    }

    fn add(&mut self, thread: &ThreadResults, totals: &Totals) {
        self.opening.add(&thread.opening);
        self.acks.add(&thread.acks);
        for (all, some) in self.updates.iter_mut().zip(&thread.updates) {
            all.add(some);
        }
        self.duplicates += thread.duplicates;
        self.out_of_order += thread.out_of_order;
        self.ids_min = self.ids_min.into_iter().chain(thread.ids_min).min();
        for (all, some) in self.totals.updates.iter_mut().zip(&totals.updates) {
            *all += some;
        }
        self.totals.statuses += totals.statuses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_other_runs_have_no_index() {
        let users = Users {
            first: 100,
            count: 3,
        };
        let places = [99, 100, 102, 103].map(|user| users.place(user));
        assert_eq!(places, [None, Some(0), Some(2), None]);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let reason = r#"{"message":"invalid_token"}"#.to_owned();
        let error = ClientError::from(ConnectionError::Refused { address, reason });
        assert!(error.to_string().contains("VIGIE_AUTH__SECRET"), "{error}");
    }
}
