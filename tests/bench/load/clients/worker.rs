//! One thread of clients: polls their sockets and carries out the commands of the scenario.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use super::client::{Client, Stage};
use super::counters::{COUNTS, Counters};
use super::received::{Context, ThreadResults};
use super::{ClientError, Opening, Users};
use crate::socket_io::ConnectionError;
use crate::socket_io::packet::{Query, Reader};

/// The token of the waker, which announces commands.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Read buffer; larger than what a socket holds.
const BUFFER: usize = 256 * 1024;

const EVENTS_MAX: usize = 1024;

/// How often an idle thread checks whether its scenario is gone.
const COMMAND_CHECK: Duration = Duration::from_secs(1);

/// A command of the scenario. Clients are named by their index among all.
pub(super) enum Command {
    /// Opens clients of these indices.
    Open(Vec<(usize, Opening)>),
    Query(Range<usize>, Query),
    Disconnect(Range<usize>),
    /// Sends the results since the last report, and the totals of these clients.
    Report(Range<usize>, oneshot::Sender<(ThreadResults, Totals)>),
}

/// The events that some clients have received, without duplicates.
#[derive(Default)]
pub(crate) struct Totals {
    /// Updates, by node of the client.
    pub(crate) updates: Vec<u64>,
    pub(crate) statuses: u64,
}

pub(super) struct WorkerSetup {
    pub(super) poll: Poll,
    pub(super) commands: Receiver<Command>,
    pub(super) counters: Arc<Counters>,
    pub(super) users: Users,
    /// Index of the thread, and number of threads.
    pub(super) share: (usize, usize),
    pub(super) nodes: usize,
    pub(super) opening_max: usize,
    /// Whether the thread needs its own table of file descriptors.
    pub(super) own_files: bool,
}

/// Runs until the scenario drops its end of `commands`.
pub(super) fn run(setup: WorkerSetup) {
    let counters = setup.counters.clone();
    if setup.own_files && nix::sched::unshare(CloneFlags::CLONE_FILES).is_err() {
        return counters.fail(ClientError::NoFiles);
    }
    if let Err(error) = Worker::new(setup, &counters).run() {
        counters.fail(error);
    }
}

struct Worker<'a> {
    poll: Poll,
    commands: Receiver<Command>,
    share: (usize, usize),
    nodes: usize,
    /// By index divided by the number of threads.
    clients: Vec<Option<Client>>,
    waiting: VecDeque<(usize, Opening)>,
    opening: usize,
    opening_max: usize,
    buffer: Vec<u8>,
    context: Context<'a>,
}

impl<'a> Worker<'a> {
    fn new(setup: WorkerSetup, counters: &'a Counters) -> Self {
        Self {
            poll: setup.poll,
            commands: setup.commands,
            share: setup.share,
            nodes: setup.nodes,
            clients: Vec::new(),
            waiting: VecDeque::new(),
            opening: 0,
            opening_max: setup.opening_max,
            buffer: vec![0; BUFFER],
            context: Context {
                counters,
                users: setup.users,
                reader: Reader::new(),
                out: Vec::new(),
                counts: [0; COUNTS],
                results: ThreadResults::new(setup.nodes),
            },
        }
    }

    fn run(&mut self) -> Result<(), ClientError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, Some(COMMAND_CHECK)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(own(&error));
                }
                _ => {}
            }
            for event in &events {
                if event.token() != WAKE {
                    self.on_event(event)?;
                }
            }
            if !self.run_commands()? {
                return Ok(());
            }
            self.open_waiting()?;
            self.context.counters.add(&self.context.counts);
            self.context.counts = [0; COUNTS];
        }
    }

    fn on_event(&mut self, event: &mio::event::Event) -> Result<(), ClientError> {
        let slot = event.token().0;
        let Some(Some(client)) = self.clients.get_mut(slot) else {
            return Ok(());
        };
        let before = client.stage();
        if event.is_writable() {
            client.on_writable(&mut self.context)?;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            client.on_readable(&mut self.buffer, &mut self.context)?;
        }
        if is_opening(before) && !is_opening(client.stage()) {
            self.opening -= 1;
        }
        Ok(())
    }

    /// Runs the pending commands; returns whether more can come.
    fn run_commands(&mut self) -> Result<bool, ClientError> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Open(openings)) => self.waiting.extend(openings),
                Ok(Command::Query(places, query)) => {
                    self.each(places, |client, context| client.query(query, context))?;
                }
                Ok(Command::Disconnect(places)) => {
                    self.each(places, |client, context| client.disconnect(context))?;
                }
                Ok(Command::Report(places, report)) => {
                    let totals = self.totals(places)?;
                    let results = &mut self.context.results;
                    let results = std::mem::replace(results, ThreadResults::new(self.nodes));
                    // The scenario may have given up.
                    let _ = report.send((results, totals));
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn each(
        &mut self,
        places: Range<usize>,
        mut each: impl FnMut(&mut Client, &mut Context<'a>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let (own, of) = self.share;
        for place in places.filter(|place| place % of == own) {
            if let Some(Some(client)) = self.clients.get_mut(place / of) {
                each(client, &mut self.context)?;
            }
        }
        Ok(())
    }

    fn totals(&mut self, places: Range<usize>) -> Result<Totals, ClientError> {
        let mut totals = Totals {
            updates: vec![0; self.nodes],
            statuses: 0,
        };
        self.each(places, |client, _| {
            totals.updates[client.node()] += client.received().updates();
            totals.statuses += client.received().statuses();
            Ok(())
        })?;
        Ok(totals)
    }

    fn open_waiting(&mut self) -> Result<(), ClientError> {
        while self.opening < self.opening_max
            && let Some((place, opening)) = self.waiting.pop_front()
        {
            self.open(place, opening)?;
        }
        Ok(())
    }

    fn open(&mut self, place: usize, opening: Opening) -> Result<(), ClientError> {
        let address = opening.address;
        let stream = connect(place, address).map_err(|error| failed(address, &error))?;
        let mut stream = TcpStream::from_std(stream);
        let slot = place / self.share.1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry
            .register(&mut stream, Token(slot), interest)
            .map_err(|error| own(&error))?;
        if slot >= self.clients.len() {
            self.clients.resize_with(slot + 1, || None);
        }
        self.clients[slot] = Some(Client::new(stream, opening));
        self.opening += 1;
        Ok(())
    }
}

fn is_opening(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Connecting | Stage::Upgrading | Stage::Opening | Stage::NamespaceConnecting
    )
}

/// Starts opening a TCP connection.
fn connect(place: usize, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(from) = source_of(place, to) {
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// The address that a client connects from. An address has a limited number of ports, and a closed port stays in
/// TIME_WAIT for a minute: on loopback each run uses its own addresses, one per 10,000 clients.
fn source_of(place: usize, to: SocketAddr) -> Option<SocketAddr> {
    const CLIENTS_PER_ADDRESS: usize = 10_000;
    match to {
        SocketAddr::V4(to) if to.ip().is_loopback() => {
            let run = std::process::id().to_be_bytes();
            let address = [
                127,
                run[2] | 1,
                run[3],
                1 + (place / CLIENTS_PER_ADDRESS) as u8,
            ];
            Some(SocketAddr::from((address, 0)))
        }
        _ => None,
    }
}

fn failed(address: SocketAddr, error: &io::Error) -> ClientError {
    match error.raw_os_error() {
        Some(code) if code == Errno::EMFILE as i32 => ClientError::NoFiles,
        _ => ConnectionError::failed(address, error).into(),
    }
}

fn own(error: &io::Error) -> ClientError {
    ClientError::Own(error.to_string())
}
