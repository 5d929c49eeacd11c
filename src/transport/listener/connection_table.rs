//! The open TCP connections of a listener, and which of them closes when there are too many.
//!
//! Connections without a request wait in two queues: those that never sent a complete request, and those between two
//! requests. To make room, the listener closes the head of a queue. A connection that is being answered, or carries a
//! WebSocket, is in neither queue. Every step costs O(log n).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::stream::{Meter, Stream, TcpConn, uptime_ms};
use crate::telemetry::{ClosedBecause, Metrics};

/// TCP connections of one address (a /64 of IPv6) that have not sent a complete request yet. Browsers open one or two
/// ahead of need, so this suffices for a hundred browsers behind one address. At 16 KiB each, an address that only opens
/// connections holds 4 MiB, and an attacker needs hundreds of addresses to fill a node.
pub(super) const SILENT_PER_ADDRESS: usize = 256;

/// How long the first request of a client may take to arrive. A connection that was silent for longer closes before idle
/// ones, a younger one after them; otherwise clients that connect at the same time would close each other.
const LATE_MS: u64 = 1_000;

/// Connections to examine for one to close. One with unread bytes is skipped: it did send a request, and this process is
/// late.
const EXAMINED_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No complete request has arrived yet.
    Silent,
    /// A request is being answered.
    Busy,
    /// Between two requests.
    Idle,
    /// The connection carries the WebSocket of one client.
    Upgraded,
}

/// The state of a connection that decides when it is closed to make room.
#[derive(Debug)]
pub(super) struct QueueEntry {
    phase: AtomicU8,
    /// Number in the queue of the phase; 0 while in none. Changes only under the lock of the queues.
    turn: AtomicU64,
    /// Closed to make room, but not dropped yet.
    is_closing: AtomicBool,
    /// The network whose silent connections are limited together; `None` for proxies and back ends.
    network: Option<IpAddr>,
}

impl QueueEntry {
    fn new(network: Option<IpAddr>) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Silent as u8),
            turn: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            network,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        const PHASES: [Phase; 4] = [Phase::Silent, Phase::Busy, Phase::Idle, Phase::Upgraded];
        PHASES[usize::from(self.phase.load(Ordering::Relaxed)) % PHASES.len()]
    }
}

/// The connections without a request, longest first.
#[derive(Default)]
struct Queues {
    last_turn: u64,
    silent: BTreeMap<u64, Weak<TcpConn>>,
    idle: BTreeMap<u64, Weak<TcpConn>>,
    /// The silent connections of each network.
    silent_of: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Queues {
    /// Appends a connection to the queue of its phase.
    fn enter(&mut self, stream: &Arc<TcpConn>) {
        let entry = &stream.entry;
        let is_queued = entry.turn.load(Ordering::Relaxed) != 0;
        if is_queued || entry.is_closing.load(Ordering::Relaxed) {
            return;
        }
        let queue = match entry.phase() {
            Phase::Silent => &mut self.silent,
            Phase::Idle => &mut self.idle,
            Phase::Busy | Phase::Upgraded => return,
        };
        self.last_turn += 1;
        entry.turn.store(self.last_turn, Ordering::Relaxed);
        queue.insert(self.last_turn, Arc::downgrade(stream));
        if let (Phase::Silent, Some(network)) = (entry.phase(), entry.network) {
            let of_network = self.silent_of.entry(network).or_default();
            of_network.insert(self.last_turn);
        }
    }

    fn leave(&mut self, entry: &QueueEntry) {
        let turn = entry.turn.swap(0, Ordering::Relaxed);
        if turn == 0 || self.idle.remove(&turn).is_some() {
            return;
        }
        self.silent.remove(&turn);
        if let Some(network) = entry.network
            && let Some(of_network) = self.silent_of.get_mut(&network)
        {
            of_network.remove(&turn);
            if of_network.is_empty() {
                self.silent_of.remove(&network);
            }
        }
    }

    /// The connection that has been in a queue for longest. Skips those that another thread is dropping right now.
    fn first(&self, queue: CloseQueue) -> Option<Arc<TcpConn>> {
        match queue {
            CloseQueue::Silent => self.silent.values().find_map(Weak::upgrade),
            CloseQueue::Idle => self.idle.values().find_map(Weak::upgrade),
            CloseQueue::SilentOf(network) => {
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

#[derive(Clone, Copy)]
enum CloseQueue {
    Silent,
    Idle,
    SilentOf(IpAddr),
}

/// The open TCP connections of a listener.
#[derive(Default)]
pub(super) struct ConnectionTable {
    streams: Mutex<Vec<Weak<TcpConn>>>,
    /// Dropping a connection locks this, so no connection may be dropped while it is held.
    queues: Mutex<Queues>,
    count: AtomicUsize,
    closing: AtomicUsize,
}

impl ConnectionTable {
    /// Open connections, without those that were closed to make room.
    pub(super) fn len(&self) -> usize {
        let count = self.count.load(Ordering::Relaxed);
        count.saturating_sub(self.closing())
    }

    /// Connections that were closed to make room, but are not dropped yet.
    pub(super) fn closing(&self) -> usize {
        self.closing.load(Ordering::Relaxed)
    }

    /// Adds a connection, which removes itself when it is dropped.
    pub(super) fn track(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        network: Option<IpAddr>,
        meter: Option<Meter>,
        metrics: &Metrics,
    ) -> Stream {
        self.count.fetch_add(1, Ordering::Relaxed);
        let entry = QueueEntry::new(network);
        let shared = Arc::new(TcpConn::new(stream, address, entry, self.clone()));
        self.insert(&shared);
        self.queues.lock().enter(&shared);
        if let Some(network) = network {
            self.close_excess(network, uptime_ms(), metrics);
        }
        Stream::new(shared, meter)
    }

    /// Closes the oldest connections of a network that has too many silent ones, if they are late: all clients behind one
    /// address may reconnect at the same moment.
    pub(super) fn close_excess(&self, network: IpAddr, now_ms: u64, metrics: &Metrics) {
        let queue = CloseQueue::SilentOf(network);
        loop {
            let oldest = {
                let queues = self.queues.lock();
                let is_excess = queues.silent_of(network) > SILENT_PER_ADDRESS;
                is_excess.then(|| queues.first(queue)).flatten()
            };
            let is_late = oldest.is_some_and(|stream| stream.opened_ms + LATE_MS <= now_ms);
            if !is_late || !self.close_first(queue, ClosedBecause::PerAddress, metrics) {
                return;
            }
        }
    }

    /// The networks with too many silent connections.
    fn crowded(&self) -> Vec<IpAddr> {
        let queues = self.queues.lock();
        let of_networks = queues.silent_of.iter();
        let crowded = of_networks.filter(|(_, silent)| silent.len() > SILENT_PER_ADDRESS);
        crowded.map(|(network, _)| *network).collect()
    }

    /// Adds to the list. Drops closed connections before the list grows, even if `close_overdue` never runs.
    fn insert(&self, stream: &Arc<TcpConn>) {
        let mut streams = self.streams.lock();
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
            let room = streams.len() + 1;
            streams.reserve(room);
        }
        streams.push(Arc::downgrade(stream));
    }

    /// Moves a connection to `phase`; [`Phase::Upgraded`] is final.
    pub(super) fn advance(&self, stream: &Arc<TcpConn>, phase: Phase) {
        let mut queues = self.queues.lock();
        if stream.entry.phase() == Phase::Upgraded {
            return;
        }
        queues.leave(&stream.entry);
        stream.entry.phase.store(phase as u8, Ordering::Relaxed);
        queues.enter(stream);
    }

    /// Removes a connection that is being dropped.
    pub(super) fn remove(&self, stream: &TcpConn) {
        self.queues.lock().leave(&stream.entry);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if stream.entry.is_closing.load(Ordering::Relaxed) {
            self.closing.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Closes the connection that has gone without a request for longest. Returns `false` if every connection is being
    /// answered or carries a WebSocket.
    pub(super) fn make_room(&self, metrics: &Metrics) -> bool {
        let first = self.queues.lock().first(CloseQueue::Silent);
        let is_late = first.is_some_and(|stream| stream.opened_ms + LATE_MS <= uptime_ms());
        let queues = if is_late {
            [CloseQueue::Silent, CloseQueue::Idle]
        } else {
            [CloseQueue::Idle, CloseQueue::Silent]
        };
        queues
            .into_iter()
            .any(|queue| self.close_first(queue, ClosedBecause::MadeRoom, metrics))
    }

    fn close_first(&self, queue: CloseQueue, why: ClosedBecause, metrics: &Metrics) -> bool {
        for _ in 0..EXAMINED_MAX {
            let Some(stream) = self.take_first(queue) else {
                return false;
            };
            if stream.is_busy() {
                self.queues.lock().enter(&stream);
                continue;
            }
            if !stream.entry.is_closing.swap(true, Ordering::Relaxed) {
                self.closing.fetch_add(1, Ordering::Relaxed);
            }
            stream.close();
            metrics.count_closed(why);
            tracing::debug!(peer = %stream.address, reason = why.into_str(), "closed a TCP connection");
            return true;
        }
        false
    }

    fn take_first(&self, queue: CloseQueue) -> Option<Arc<TcpConn>> {
        let mut queues = self.queues.lock();
        let stream = queues.first(queue)?;
        queues.leave(&stream.entry);
        Some(stream)
    }

    /// Closes connections whose writes have made no progress for `stalled_write`, and those that are still silent
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
        self.streams.lock().retain(|stream| {
            let Some(stream) = stream.upgrade() else {
                return false;
            };
            let Some(why) = stream.overdue(now_ms, stalled_write, handshake) else {
                return true;
            };
            tracing::debug!(peer = %stream.address, reason = why.into_str(), "closed a TCP connection");
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
    pub(super) fn tracked(&self) -> usize {
        self.streams.lock().len()
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        let queues = self.queues.lock();
        queues.silent.len() + queues.idle.len()
    }
}

impl fmt::Debug for ConnectionTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} open", self.len())
    }
}
