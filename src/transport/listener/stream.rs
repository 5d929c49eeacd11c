//! One TCP connection: metered, watched for standing still, and closed from outside.
//!
//! The stream is shared with a handle that reaches the handlers through the request, because the library
//! cannot close a connection whose outbound queue is full: asking it to needs room in that queue.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::open::{OpenStreams, Place, Stage};
use super::outbound::{Life, Namespace, Outbound, slices};
use crate::telemetry::{ClosedBecause, Metrics};
use crate::transport::limits::CurrentLimits;
use crate::transport::rate::Bucket;

/// What a connection shares with those who may close it.
#[derive(Debug)]
pub(super) struct Shared {
    stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) opened_ms: u64,
    /// Where it stands among the others of its listener.
    pub(super) place: Place,
    /// Since when a write waits for the other side, in ms of this process; 0 while none does.
    blocked_since_ms: AtomicU64,
    outbound: Mutex<Outbound>,
    open: Arc<OpenStreams>,
}

impl Shared {
    pub(super) fn new(
        stream: TcpStream,
        address: SocketAddr,
        place: Place,
        open: Arc<OpenStreams>,
    ) -> Self {
        Self {
            stream,
            address,
            opened_ms: uptime_ms(),
            place,
            blocked_since_ms: AtomicU64::new(0),
            outbound: Mutex::default(),
            open,
        }
    }

    pub(super) fn close(&self) {
        // It fails where the connection is closed already.
        let _ = socket2::SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Whether bytes have come that nobody has read yet, or an answer is not written yet: then this process is late, not
    /// the other side.
    pub(super) fn is_busy(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let unread = socket2::SockRef::from(&self.stream).peek(&mut byte);
        unread.is_ok_and(|count| count > 0) || self.blocked_since_ms.load(Ordering::Relaxed) != 0
    }

    pub(super) fn overdue(
        &self,
        now_ms: u64,
        stalled_write: Duration,
        handshake: Duration,
    ) -> Option<ClosedBecause> {
        let longer_than = |since_ms: u64, limit: Duration| {
            since_ms != 0 && Duration::from_millis(now_ms.saturating_sub(since_ms)) >= limit
        };
        if longer_than(self.blocked_since_ms.load(Ordering::Relaxed), stalled_write) {
            return Some(ClosedBecause::Stalled);
        }
        let is_silent = self.place.stage() == Stage::Silent;
        (is_silent && longer_than(self.opened_ms, handshake)).then_some(ClosedBecause::Handshake)
    }

    /// No call leaves it half changed, so a poisoned lock is as good as any.
    pub(super) fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what the library wants written, unless the rest of another frame has to go first.
    fn write_for_library(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.place.stage() != Stage::Upgraded {
            return self.stream.try_write_vectored(slices);
        }
        let mut outbound = self.outbound();
        while outbound.blocks_library() {
            self.write_pending(&mut outbound, 1)?;
        }
        let count = self.stream.try_write_vectored(slices)?;
        let mut left = count;
        for slice in slices {
            let passed = left.min(slice.len());
            outbound.passed(&slice[..passed]);
            left -= passed;
        }
        self.write_all_pending(&mut outbound);
        Ok(count)
    }

    /// Writes some of what waits, of so many frames.
    fn write_pending(&self, outbound: &mut Outbound, frames_max: usize) -> io::Result<usize> {
        let mut slices = slices();
        let most = slices.len().min(frames_max);
        let filled = outbound.next(&mut slices[..most]);
        if filled == 0 {
            return Ok(0);
        }
        let count = self.stream.try_write_vectored(&slices[..filled])?;
        outbound.written(count);
        self.note(false);
        Ok(count)
    }

    /// Writes what waits, as far as there is room. A connection that is broken is noticed by who reads from it.
    fn write_all_pending(&self, outbound: &mut Outbound) {
        loop {
            match self.write_pending(outbound, usize::MAX) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return self.note(error.kind() == io::ErrorKind::WouldBlock),
            }
        }
    }

    /// Writes a frame, or puts it to those that wait. Returns how many do.
    fn send(&self, namespace: Namespace, life: Life, frame: &Bytes, at_once: bool) -> usize {
        let mut outbound = self.outbound();
        if !outbound.is_alive(namespace, life) {
            return 0;
        }
        if !at_once || !outbound.may_pass(namespace) {
            outbound.put(namespace, frame.clone());
            return outbound.len();
        }
        match self.try_send(frame) {
            Ok(count) if count == frame.len() => {}
            Ok(count) => outbound.put_rest(namespace, frame.slice(count..)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                outbound.put(namespace, frame.clone());
            }
            // Who reads from it notices.
            Err(_) => {}
        }
        self.note(outbound.len() > 0);
        outbound.len()
    }

    /// Writes without a look at what the runtime knows of the stream, which costs more than it saves: most often there is
    /// room. Where there is none, the next flush finds that out by the runtime's own means.
    fn try_send(&self, frame: &[u8]) -> io::Result<usize> {
        socket2::SockRef::from(&self.stream).send(frame)
    }

    /// A write has moved (`false`), or waits for the other side (`true`).
    fn note(&self, blocked: bool) {
        let since_ms = self.blocked_since_ms.load(Ordering::Relaxed);
        if blocked != (since_ms != 0) {
            self.blocked_since_ms
                .store(if blocked { uptime_ms() } else { 0 }, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.open.forget(self);
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} frames wait", self.len())
    }
}

/// Who is on the other side of a request's TCP connection, and how to close it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The other side's address.
    pub address: SocketAddr,
    stream: Weak<Shared>,
}

impl Peer {
    /// Whether the TCP connection is still there.
    pub fn is_open(&self) -> bool {
        self.stream.strong_count() > 0
    }

    /// Closes the TCP connection at once, whatever waits to be written.
    pub fn close(&self) {
        if let Some(stream) = self.stream.upgrade() {
            stream.close();
        }
    }

    /// The way to write frames to a namespace that is about to be joined: nothing is written before the library has
    /// told that it is connected. Ways that were made before for the same namespace lead nowhere from now on.
    pub fn link(&self, namespace: Namespace) -> Link {
        let stream = self.stream.upgrade();
        Link {
            stream: self.stream.clone(),
            namespace,
            life: stream.map_or(0, |stream| stream.outbound().expect(namespace)),
        }
    }

    /// A whole request has come; it is being answered until the result is dropped.
    pub fn asked(&self) -> Asking {
        self.advance(Stage::Asking);
        Asking(self.clone())
    }

    /// From now on it carries a WebSocket.
    pub fn upgraded(&self) {
        self.advance(Stage::Upgraded);
    }

    fn advance(&self, stage: Stage) {
        if let Some(stream) = self.stream.upgrade() {
            stream.open.advance(&stream, stage);
        }
    }
}

/// A request that is being answered: its TCP connection is not closed to make room for others.
#[derive(Debug)]
pub struct Asking(Peer);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.advance(Stage::Idle);
    }
}

/// The way to write frames to one namespace over a TCP connection.
#[derive(Clone, Debug)]
pub struct Link {
    stream: Weak<Shared>,
    /// Which one.
    pub namespace: Namespace,
    life: Life,
}

impl Link {
    /// Whether the TCP connection is still there.
    pub fn is_open(&self) -> bool {
        self.stream.strong_count() > 0
    }

    /// Writes a frame at once, where nothing waits, or puts it to those that wait. Returns how many do.
    pub fn send(&self, frame: &Bytes, at_once: bool) -> usize {
        let stream = self.stream.upgrade();
        stream.map_or(0, |stream| {
            stream.send(self.namespace, self.life, frame, at_once)
        })
    }

    /// Writes frames that wait, as far as there is room. Returns how many are left.
    pub fn flush(&self) -> usize {
        let Some(stream) = self.stream.upgrade() else {
            return 0;
        };
        let mut outbound = stream.outbound();
        if !outbound.is_alive(self.namespace, self.life) {
            return 0;
        }
        stream.write_all_pending(&mut outbound);
        outbound.len()
    }
}

/// Counts what comes in, and says when it is too much.
pub(super) struct Meter {
    bucket: Bucket,
    limits: CurrentLimits,
    metrics: Arc<Metrics>,
    /// A proxy sends the requests of many clients over one connection, until it carries one client's WebSocket.
    speaks_for_many: bool,
}

impl Meter {
    pub(super) fn new(
        limits: CurrentLimits,
        metrics: Arc<Metrics>,
        speaks_for_many: bool,
        now: Instant,
    ) -> Self {
        let (rate, burst) = rate_of(&limits);
        Self {
            bucket: Bucket::new(rate, burst, now),
            limits,
            metrics,
            speaks_for_many,
        }
    }

    /// Whether so many bytes more may come in.
    fn admits(&mut self, count: usize, stage: Stage, now: Instant) -> bool {
        if self.speaks_for_many && stage != Stage::Upgraded {
            return true;
        }
        let (rate, burst) = rate_of(&self.limits);
        self.bucket.adjust(rate, burst);
        self.bucket.take(count as f64, now)
    }
}

fn rate_of(limits: &CurrentLimits) -> (f64, f64) {
    let limits = limits.get();
    (limits.inbound_rate as f64, limits.inbound_burst as f64)
}

/// One TCP connection, for whoever reads and writes it.
pub struct Stream {
    shared: Arc<Shared>,
    meter: Option<Meter>,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, meter: Option<Meter>) -> Self {
        Self { shared, meter }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer {
        Peer {
            address: self.shared.address,
            stream: Arc::downgrade(&self.shared),
        }
    }

    /// Waits until something has come.
    #[cfg(test)]
    pub(super) async fn readable(&self) {
        self.shared.stream.readable().await.expect("it is open");
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// When the other side sends more than it may. The connection is closed then.
    fn take_in(&mut self, count: usize) -> io::Result<()> {
        let Some(meter) = &mut self.meter else {
            return Ok(());
        };
        let stage = self.shared.place.stage();
        if meter.admits(count, stage, Instant::now()) {
            return Ok(());
        }
        tracing::debug!(peer = %self.shared.address, "closed a TCP connection that sends too much");
        meter.metrics.count_closed(ClosedBecause::InboundRate);
        self.shared.close();
        Err(io::Error::other("the other side sends too much"))
    }

    fn poll_write_slices(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.shared.stream.poll_write_ready(context) else {
                self.shared.note(true);
                return Poll::Pending;
            };
            ready?;
            match self.shared.write_for_library(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    self.shared.note(false);
                    return Poll::Ready(outcome);
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.shared.stream.poll_read_ready(context))?;
            match self.shared.stream.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(self.take_in(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match socket2::SockRef::from(&self.shared.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Time since this process first asked, in ms, from 1 on.
pub(super) fn uptime_ms() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}
