//! The clients of a run: thousands of WebSockets, spread over few threads, that read and count and do nothing else.

mod client;
mod counters;
mod dedup;
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

use self::received::Findings;
use self::worker::{Command, Setup, WAKE};

pub(super) use self::counters::{Count, Latencies, Tally};
pub(super) use self::worker::Received;
use crate::socket_io::ConnectionError;
pub(super) use crate::socket_io::packet::Question;

/// Connections that are opening at once, over all threads: nodes' backlogs take them.
const OPENING_MAX: usize = 200;

/// Files of the process that are not clients.
const OTHER_FILES: usize = 200;

/// Commands on their way to a thread; a scenario waits for what it wants, so they are few.
const COMMANDS_MAX: usize = 16;

/// What is wrong with a client, and with it the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClientError {
    /// There is no connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The process has as many files open as it may.
    #[error(
        "this process may not open as many files; raise the limit (`ulimit -n`), or take fewer --connections"
    )]
    NoFiles,
    /// Nothing that a node is to blame for.
    #[error("the load cannot go on: {0}")]
    Own(String),
}

/// How a client is to be opened.
pub(super) struct Opening {
    /// Which node, in the order of the command line.
    pub(super) node: usize,
    /// Its address.
    pub(super) address: SocketAddr,
    /// As which user; none is a guest.
    pub(super) token: Option<String>,
}

/// The users of a run, who have ids in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Users {
    /// The first one.
    pub(super) first: u64,
    /// How many.
    pub(super) count: usize,
}

impl Users {
    /// Which of them this is; none where it is somebody else.
    fn place(self, user: u64) -> Option<usize> {
        let place = usize::try_from(user.checked_sub(self.first)?).ok()?;
        (place < self.count).then_some(place)
    }
}

/// The clients of a run.
pub(super) struct Load {
    threads: Vec<Thread>,
    clients: usize,
}

/// One of the threads, as the scenario sees it. It ends when this goes.
struct Thread {
    commands: SyncSender<Command>,
    waker: Waker,
}

impl Load {
    /// Starts the threads for so many clients; `threads` is the least that there are.
    ///
    /// # Errors
    /// When the process may not have what it takes.
    pub(super) fn start(
        size: (usize, usize, usize),
        users: Users,
        tally: &Arc<Tally>,
    ) -> Result<Self, ClientError> {
        Self::try_start(size, users, tally).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::EMFILE as i32 => ClientError::NoFiles,
            _ => ClientError::Own(error.to_string()),
        })
    }

    fn try_start(
        (clients, threads, nodes): (usize, usize, usize),
        users: Users,
        tally: &Arc<Tally>,
    ) -> io::Result<Self> {
        let files = raise_limit().saturating_sub(OTHER_FILES);
        let threads = threads.max(clients.div_ceil(files.max(1)));
        // The limit counts file numbers, and threads may have numbers of their own.
        let own_files = clients > files;
        let mut started = Vec::new();
        for thread in 0..threads {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            let (commands, receiver) = sync_channel(COMMANDS_MAX);
            let setup = Setup {
                poll,
                commands: receiver,
                tally: tally.clone(),
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

    /// Begins to open clients; returns their places.
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

    /// Has clients ask something.
    pub(super) fn ask(&self, clients: &Range<usize>, question: Question) {
        for thread in &self.threads {
            thread.tell(Command::Ask(clients.clone(), question));
        }
    }

    /// Has clients leave.
    pub(super) fn leave(&self, clients: &Range<usize>) {
        for thread in &self.threads {
            thread.tell(Command::Leave(clients.clone()));
        }
    }

    /// What was found out since this was asked last, and all that these clients have received.
    pub(super) async fn report(&self, clients: &Range<usize>, nodes: usize) -> Harvest {
        let mut harvest = Harvest::new(nodes);
        for thread in &self.threads {
            let (sender, report) = oneshot::channel();
            thread.tell(Command::Report(clients.clone(), sender));
            // A thread that ended has said why, and whoever waits next is told.
            if let Ok((findings, received)) = report.await {
                harvest.add(&findings, &received);
            }
        }
        harvest
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
        // A thread that ended has said why, and whoever waits next is told.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

/// What the clients have found out, together.
pub(super) struct Harvest {
    /// From opening TCP to being connected.
    pub(super) opening: Latencies,
    /// From a question to its answer.
    pub(super) answering: Latencies,
    /// From the request to the receipt, by node.
    pub(super) updates: Vec<Latencies>,
    /// Received twice.
    pub(super) duplicates: u64,
    /// Received after a newer one.
    pub(super) out_of_order: u64,
    /// Of all answers about who is online, how many ids the shortest had.
    pub(super) ids_min: Option<u64>,
    /// What the clients that were asked about have received.
    pub(super) received: Received,
}

impl Harvest {
    fn new(nodes: usize) -> Self {
        let nothing = Findings::new(nodes);
        Self {
            opening: nothing.opening,
            answering: nothing.answering,
            updates: nothing.updates,
            duplicates: 0,
            out_of_order: 0,
            ids_min: None,
            received: Received {
                updates: vec![0; nodes],
                statuses: 0,
            },
        }
    }

    /// How long updates took to clients of the first node, which is told of them, and to those of the others.
    pub(super) fn latencies(&self) -> (Latencies, Latencies) {
        let (mut here, mut elsewhere) = (Latencies::new(), Latencies::new());
        for (node, latencies) in self.updates.iter().enumerate() {
            let side = if node == 0 { &mut here } else { &mut elsewhere };
            side.add(latencies);
        }
        (here, elsewhere)
    }

    fn add(&mut self, findings: &Findings, received: &Received) {
        self.opening.add(&findings.opening);
        self.answering.add(&findings.answering);
        for (all, some) in self.updates.iter_mut().zip(&findings.updates) {
            all.add(some);
        }
        self.duplicates += findings.duplicates;
        self.out_of_order += findings.out_of_order;
        self.ids_min = self.ids_min.into_iter().chain(findings.ids_min).min();
        for (all, some) in self.received.updates.iter_mut().zip(&received.updates) {
            *all += some;
        }
        self.received.statuses += received.statuses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_the_run_are_told_from_others() {
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
