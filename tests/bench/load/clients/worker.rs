//! One thread that holds clients: waits for their sockets, and does what the scenario wants.

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
use super::counters::{COUNTS, Tally};
use super::received::{Common, Findings};
use super::{ClientError, Opening, Users};
use crate::socket_io::ConnectionError;
use crate::socket_io::packet::{Question, Reader};

/// What wakes a thread when there is a command.
pub(super) const WAKE: Token = Token(usize::MAX);

/// What is read at once: more than any burst that a socket holds.
const BUFFER: usize = 256 * 1024;

/// Sockets looked at in one go.
const EVENTS_MAX: usize = 1024;

/// A thread that hears nothing looks up so often, in case its scenario is gone.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What a scenario wants of a thread; clients are named by their place among all of them.
pub(super) enum Command {
    /// Opens clients, which have these places.
    Open(Vec<(usize, Opening)>),
    /// Has clients ask something.
    Ask(Range<usize>, Question),
    /// Has clients leave.
    Leave(Range<usize>),
    /// Tells what was found out, and begins anew; what was received is that of these clients.
    Report(Range<usize>, oneshot::Sender<(Findings, Received)>),
}

/// What some clients have received, each thing once for each of them.
#[derive(Default)]
pub(crate) struct Received {
    /// Updates, by the node that the client is on.
    pub(crate) updates: Vec<u64>,
    /// Comings and goings.
    pub(crate) statuses: u64,
}

/// What a thread is started with.
pub(super) struct Setup {
    pub(super) poll: Poll,
    pub(super) commands: Receiver<Command>,
    pub(super) tally: Arc<Tally>,
    pub(super) users: Users,
    /// Which of the threads this is, and of how many.
    pub(super) share: (usize, usize),
    pub(super) nodes: usize,
    /// Connections that may be opening at once.
    pub(super) opening_max: usize,
    /// Whether the thread needs file numbers of its own.
    pub(super) own_files: bool,
}

/// Holds clients until nobody gives commands any more.
pub(super) fn run(setup: Setup) {
    let tally = setup.tally.clone();
    if setup.own_files && nix::sched::unshare(CloneFlags::CLONE_FILES).is_err() {
        return tally.fail(ClientError::NoFiles);
    }
    if let Err(error) = Worker::new(setup, &tally).run() {
        tally.fail(error);
    }
}

struct Worker<'a> {
    poll: Poll,
    commands: Receiver<Command>,
    share: (usize, usize),
    nodes: usize,
    /// By their place, divided by the number of threads.
    clients: Vec<Option<Client>>,
    waiting: VecDeque<(usize, Opening)>,
    opening: usize,
    opening_max: usize,
    buffer: Vec<u8>,
    common: Common<'a>,
}

impl<'a> Worker<'a> {
    fn new(setup: Setup, tally: &'a Tally) -> Self {
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
            common: Common {
                tally,
                users: setup.users,
                reader: Reader::new(),
                out: Vec::new(),
                counts: [0; COUNTS],
                findings: Findings::new(setup.nodes),
            },
        }
    }

    fn run(&mut self) -> Result<(), ClientError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, Some(LOOK_UP)) {
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
            if !self.obey()? {
                return Ok(());
            }
            self.open_waiting()?;
            self.common.tally.add(&self.common.counts);
            self.common.counts = [0; COUNTS];
        }
    }

    fn on_event(&mut self, event: &mio::event::Event) -> Result<(), ClientError> {
        let slot = event.token().0;
        let Some(Some(client)) = self.clients.get_mut(slot) else {
            return Ok(());
        };
        let before = client.stage();
        if event.is_writable() {
            client.on_writable(&mut self.common)?;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            client.on_readable(&mut self.buffer, &mut self.common)?;
        }
        if is_opening(before) && !is_opening(client.stage()) {
            self.opening -= 1;
        }
        Ok(())
    }

    /// Does what there is to do; says whether there will be more.
    fn obey(&mut self) -> Result<bool, ClientError> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Open(openings)) => self.waiting.extend(openings),
                Ok(Command::Ask(places, question)) => {
                    self.each(places, |client, common| client.ask(question, common))?;
                }
                Ok(Command::Leave(places)) => {
                    self.each(places, |client, common| client.leave(common))?;
                }
                Ok(Command::Report(places, report)) => {
                    let received = self.received(places)?;
                    let findings = &mut self.common.findings;
                    let findings = std::mem::replace(findings, Findings::new(self.nodes));
                    // Whoever asked may have given up.
                    let _ = report.send((findings, received));
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn each(
        &mut self,
        places: Range<usize>,
        mut each: impl FnMut(&mut Client, &mut Common<'a>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let (own, of) = self.share;
        for place in places.filter(|place| place % of == own) {
            if let Some(Some(client)) = self.clients.get_mut(place / of) {
                each(client, &mut self.common)?;
            }
        }
        Ok(())
    }

    fn received(&mut self, places: Range<usize>) -> Result<Received, ClientError> {
        let mut received = Received {
            updates: vec![0; self.nodes],
            statuses: 0,
        };
        self.each(places, |client, _| {
            received.updates[client.node()] += client.told().updates();
            received.statuses += client.told().statuses();
            Ok(())
        })?;
        Ok(received)
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
        Stage::Connecting | Stage::Upgrading | Stage::Opening | Stage::Joining
    )
}

/// Begins to open a TCP connection.
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

/// The address that a client connects from. An address has a limited number of ports, and a port rests for a minute when
/// its connection has ended: on loopback every run takes addresses of its own, and one for so many clients.
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
