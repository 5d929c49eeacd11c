//! The TCP connections of a listener that are open, and which of them goes when there are too many.
//!
//! Connections that ask for nothing stand in two queues: those that never sent a whole request, and those between two
//! requests. When there is no room, the first of them is closed. A connection that is being answered, or carries a
//! WebSocket, stands in neither. Every step costs O(log n).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;

use super::stream::{Meter, Stream, TcpConn, uptime_ms};
use crate::telemetry::{ClosedBecause, Metrics};

/// TCP connections of one address (a /64 of IPv6) that have sent no whole request yet. Browsers open one or two ahead of
/// need, so it is enough for a hundred of them behind one address; at 16 KiB each, an address that only opens
/// connections holds 4 MiB, and needs hundreds of addresses to fill a node.
pub(super) const SILENT_PER_ADDRESS: usize = 256;

/// How long the first request of a client may be on its way. A connection that was silent for longer goes before those that
/// did ask; one that was not goes after them, or those who come at the same time would close each other.
const LATE_MS: u64 = 1_000;

/// Connections that are looked at to find one to close. One whose bytes wait to be read is passed over: it has asked, and
/// this process is late.
const LOOKED_AT_MAX: usize = 8;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// It has sent no whole request yet.
    Silent,
    /// A request is being answered.
    Asking,
    /// It is between two requests.
    Idle,
    /// It carries a WebSocket, of one client.
    Upgraded,
}

/// Where a connection stands among the others of its listener.
#[derive(Debug)]
pub(super) struct Place {
    stage: AtomicU8,
    /// Its number in the queue of its stage; 0 while it is in none. Changes only under the queues' lock.
    turn: AtomicU64,
    /// It was closed to make room and is not gone yet.
    is_closing: AtomicBool,
    /// Whose connections without a request it counts among; none for those who speak for many.
    network: Option<IpAddr>,
}

impl Place {
    fn new(network: Option<IpAddr>) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Silent as u8),
            turn: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            network,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        const STAGES: [Stage; 4] = [Stage::Silent, Stage::Asking, Stage::Idle, Stage::Upgraded];
        STAGES[usize::from(self.stage.load(Ordering::Relaxed)) % STAGES.len()]
    }
}

/// The connections that ask for nothing, in the order in which they began to.
#[derive(Default)]
struct Queues {
    last_turn: u64,
    silent: BTreeMap<u64, Weak<TcpConn>>,
    idle: BTreeMap<u64, Weak<TcpConn>>,
    /// The silent ones of each address.
    silent_of: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Queues {
    /// Puts a connection at the end of the queue of its stage.
    fn enter(&mut self, stream: &Arc<TcpConn>) {
        let place = &stream.place;
        let is_queued = place.turn.load(Ordering::Relaxed) != 0;
        if is_queued || place.is_closing.load(Ordering::Relaxed) {
            return;
        }
        let queue = match place.stage() {
            Stage::Silent => &mut self.silent,
            Stage::Idle => &mut self.idle,
            Stage::Asking | Stage::Upgraded => return,
        };
        self.last_turn += 1;
        place.turn.store(self.last_turn, Ordering::Relaxed);
        queue.insert(self.last_turn, Arc::downgrade(stream));
        if let (Stage::Silent, Some(network)) = (place.stage(), place.network) {
            let of_network = self.silent_of.entry(network).or_default();
            of_network.insert(self.last_turn);
        }
    }

    fn leave(&mut self, place: &Place) {
        let turn = place.turn.swap(0, Ordering::Relaxed);
        if turn == 0 || self.idle.remove(&turn).is_some() {
            return;
        }
        self.silent.remove(&turn);
        if let Some(network) = place.network
            && let Some(of_network) = self.silent_of.get_mut(&network)
        {
            of_network.remove(&turn);
            if of_network.is_empty() {
                self.silent_of.remove(&network);
            }
        }
    }

    /// The connection that has been in a queue for longest. Those that are being dropped at this moment are passed over:
    /// there are no more of them than threads.
    fn first(&self, queue: Queue) -> Option<Arc<TcpConn>> {
        match queue {
            Queue::Silent => self.silent.values().find_map(Weak::upgrade),
            Queue::Idle => self.idle.values().find_map(Weak::upgrade),
            Queue::SilentOf(network) => {
                let turns = self.silent_of.get(&network)?.iter();
                let mut streams = turns.filter_map(|turn| self.silent.get(turn));
                streams.find_map(Weak::upgrade)
            }
        }
    }

    fn silent_of(&self, network: IpAddr) -> usize {
        self.silent_of.get(&network).map_or(0, BTreeSet::len)
    }
}

/// Connections of which one may be closed.
#[derive(Clone, Copy)]
enum Queue {
    Silent,
    Idle,
    SilentOf(IpAddr),
}

/// Every TCP connection of a listener that is still open.
#[derive(Default)]
pub(super) struct OpenStreams {
    streams: Mutex<Vec<Weak<TcpConn>>>,
    queues: Mutex<Queues>,
    count: AtomicUsize,
    closing: AtomicUsize,
}

impl OpenStreams {
    fn streams(&self) -> MutexGuard<'_, Vec<Weak<TcpConn>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No connection may be dropped while this is held: it takes itself out of the queues then.
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are open, without those that were closed to make room.
    pub(super) fn len(&self) -> usize {
        let count = self.count.load(Ordering::Relaxed);
        count.saturating_sub(self.closing())
    }

    /// How many were closed to make room, and are not gone yet.
    pub(super) fn closing(&self) -> usize {
        self.closing.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as it is open.
    pub(super) fn take_in(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        network: Option<IpAddr>,
        meter: Option<Meter>,
        metrics: &Metrics,
    ) -> Stream {
        self.count.fetch_add(1, Ordering::Relaxed);
        let place = Place::new(network);
        let shared = Arc::new(TcpConn::new(stream, address, place, self.clone()));
        self.remember(&shared);
        self.queues().enter(&shared);
        if let Some(network) = network {
            self.close_excess(network, uptime_ms(), metrics);
        }
        Stream::new(shared, meter)
    }

    /// Closes the oldest connections of a network that has too many without a whole request, as far as they are late: all
    /// clients behind one address may come back at the same moment.
    pub(super) fn close_excess(&self, network: IpAddr, now_ms: u64, metrics: &Metrics) {
        let queue = Queue::SilentOf(network);
        loop {
            let oldest = {
                let queues = self.queues();
                let is_excess = queues.silent_of(network) > SILENT_PER_ADDRESS;
                is_excess.then(|| queues.first(queue)).flatten()
            };
            let is_late = oldest.is_some_and(|stream| stream.opened_ms + LATE_MS <= now_ms);
            if !is_late || !self.close_first(queue, ClosedBecause::PerAddress, metrics) {
                return;
            }
        }
    }

    /// The networks that have too many connections without a whole request.
    fn crowded(&self) -> Vec<IpAddr> {
        let queues = self.queues();
        let of_networks = queues.silent_of.iter();
        let crowded = of_networks.filter(|(_, silent)| silent.len() > SILENT_PER_ADDRESS);
        crowded.map(|(network, _)| *network).collect()
    }

    /// Before the list grows, those that are closed by now go, whether or not anybody looks for overdue ones.
    fn remember(&self, stream: &Arc<TcpConn>) {
        let mut streams = self.streams();
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
            let room = streams.len() + 1;
            streams.reserve(room);
        }
        streams.push(Arc::downgrade(stream));
    }

    /// A connection goes on to `stage`. One that carries a WebSocket does so to its end.
    pub(super) fn advance(&self, stream: &Arc<TcpConn>, stage: Stage) {
        let mut queues = self.queues();
        if stream.place.stage() == Stage::Upgraded {
            return;
        }
        queues.leave(&stream.place);
        stream.place.stage.store(stage as u8, Ordering::Relaxed);
        queues.enter(stream);
    }

    /// A connection is gone.
    pub(super) fn forget(&self, stream: &TcpConn) {
        self.queues().leave(&stream.place);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if stream.place.is_closing.load(Ordering::Relaxed) {
            self.closing.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Closes the connection that has asked for nothing for longest; `false` where each is being answered or carries a
    /// WebSocket.
    pub(super) fn make_room(&self, metrics: &Metrics) -> bool {
        let first = self.queues().first(Queue::Silent);
        let is_late = first.is_some_and(|stream| stream.opened_ms + LATE_MS <= uptime_ms());
        let queues = match is_late {
            true => [Queue::Silent, Queue::Idle],
            false => [Queue::Idle, Queue::Silent],
        };
        queues
            .into_iter()
            .any(|queue| self.close_first(queue, ClosedBecause::MadeRoom, metrics))
    }

    fn close_first(&self, queue: Queue, why: ClosedBecause, metrics: &Metrics) -> bool {
        for _ in 0..LOOKED_AT_MAX {
            let Some(stream) = self.take_first(queue) else {
                return false;
            };
            if stream.is_busy() {
                self.queues().enter(&stream);
                continue;
            }
            if !stream.place.is_closing.swap(true, Ordering::Relaxed) {
                self.closing.fetch_add(1, Ordering::Relaxed);
            }
            stream.close();
            metrics.count_closed(why);
            tracing::debug!(peer = %stream.address, reason = why.as_str(), "closed a TCP connection");
            return true;
        }
        false
    }

    fn take_first(&self, queue: Queue) -> Option<Arc<TcpConn>> {
        let mut queues = self.queues();
        let stream = queues.first(queue)?;
        queues.leave(&stream.place);
        Some(stream)
    }

    /// Closes connections whose writes have not moved for `stalled_write`, and those that have sent no whole request
    /// `handshake` after they were accepted.
    pub(super) fn close_overdue(
        &self,
        stalled_write: Duration,
        handshake: Duration,
        metrics: &Metrics,
    ) {
        let now_ms = uptime_ms();
        for network in self.crowded() {
            self.close_excess(network, now_ms, metrics);
        }
        self.streams().retain(|stream| {
            let Some(stream) = stream.upgrade() else {
                return false;
            };
            let Some(why) = stream.overdue(now_ms, stalled_write, handshake) else {
                return true;
            };
            tracing::debug!(peer = %stream.address, reason = why.as_str(), "closed a TCP connection");
            stream.close();
            metrics.count_closed(why);
            if why == ClosedBecause::Stalled {
                metrics.overflows.inc();
                metrics.dropped.inc_by(stream.waiting() as u64);
            }
            false
        });
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.streams().len()
    }

    /// How many stand in a queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        let queues = self.queues();
        queues.silent.len() + queues.idle.len()
    }
}

impl fmt::Debug for OpenStreams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} open", self.len())
    }
}
