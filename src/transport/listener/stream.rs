//! One TCP connection: its inbound bytes are metered, a stalled write is noticed, and handlers can close it.
//!
//! Handlers get a [`Peer`] with each request, because the library cannot close a connection whose outbound queue is full:
//! its own close packet needs room in that queue.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection_table::{ConnectionTable, Phase, QueueEntry};
use crate::telemetry::{ClosedBecause, Metrics};
use crate::transport::limits::CurrentLimits;
use crate::transport::listener::socket::Socket;
use crate::transport::rate::Bucket;

/// The shared part of a TCP connection: its reader, its writers and the table hold it.
#[derive(Debug)]
pub(crate) struct TcpConn {
    stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) opened_ms: u64,
    pub(super) entry: QueueEntry,
    /// When a write became blocked, in ms of [`uptime_ms`]; 0 while none is.
    blocked_since_ms: AtomicU64,
    /// Frames left over when a session's last write was blocked.
    waiting: AtomicUsize,
    open: Arc<ConnectionTable>,
}

impl TcpConn {
    pub(super) fn new(
        stream: TcpStream,
        address: SocketAddr,
        entry: QueueEntry,
        open: Arc<ConnectionTable>,
    ) -> Self {
        Self {
            stream,
            address,
            opened_ms: uptime_ms(),
            entry,
            blocked_since_ms: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            open,
        }
    }

    pub(super) fn close(&self) {
        // Fails only if the connection is closed already.
        let _ = socket2::SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Whether bytes are unread or a write is blocked. Then the connection is not idle: this process is late.
    pub(super) fn is_busy(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let unread = socket2::SockRef::from(&self.stream).peek(&mut byte);
        unread.is_ok_and(|count| count > 0) || self.is_blocked()
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
        let is_silent = self.entry.phase() == Phase::Silent;
        (is_silent && longer_than(self.opened_ms, handshake)).then_some(ClosedBecause::Handshake)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn is_blocked(&self) -> bool {
        self.blocked_since_ms.load(Ordering::Relaxed) != 0
    }

    fn mark_blocked(&self) {
        if !self.is_blocked() {
            self.blocked_since_ms.store(uptime_ms(), Ordering::Relaxed);
        }
    }

    /// Records progress of a write. Checks first, so that the usual case writes to no shared cache line.
    fn mark_moving(&self) {
        if self.is_blocked() {
            self.blocked_since_ms.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for TcpConn {
    fn drop(&mut self) {
        self.open.remove(self);
    }
}

impl Socket for Arc<TcpConn> {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(context)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(buffer)
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write_ready(context)
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        socket2::SockRef::from(&self.stream).send(bytes)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.try_write_vectored(slices)
    }

    fn note_waiting(&self, frames: usize) {
        self.waiting.store(frames, Ordering::Relaxed);
        if frames > 0 {
            self.mark_blocked();
        } else {
            self.mark_moving();
        }
    }

    fn blocked_for(&self) -> Duration {
        match self.blocked_since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_ms => Duration::from_millis(uptime_ms().saturating_sub(since_ms)),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = socket2::SockRef::from(&self.stream).shutdown(how);
    }
}

/// The client end of a request's TCP connection: its address, and a handle that closes it. Does not keep it open.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Remote address and port; a proxy's, if there is one in between.
    pub address: SocketAddr,
    stream: Weak<TcpConn>,
}

impl Peer {
    /// Whether the TCP connection still exists.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.strong_count() > 0
    }

    /// Closes the TCP connection at once and discards what is not written yet.
    pub(crate) fn close(&self) {
        if let Some(stream) = self.stream.upgrade() {
            stream.close();
        }
    }

    /// Marks the connection as busy with a request until the guard is dropped.
    pub(crate) fn begin_request(&self) -> RequestGuard {
        self.advance(Phase::Busy);
        RequestGuard(self.clone())
    }

    /// Marks the connection as a WebSocket, for good.
    pub(crate) fn mark_upgraded(&self) {
        self.advance(Phase::Upgraded);
    }

    fn advance(&self, phase: Phase) {
        if let Some(stream) = self.stream.upgrade() {
            stream.open.advance(&stream, phase);
        }
    }
}

/// Guard of a request in progress: its connection is not closed to make room for others.
#[derive(Debug)]
pub(crate) struct RequestGuard(Peer);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.advance(Phase::Idle);
    }
}

/// Limits the rate of inbound bytes of one connection.
pub(crate) struct Meter {
    bucket: Bucket,
    limits: CurrentLimits,
    metrics: Arc<Metrics>,
    /// The peer is a proxy, so its HTTP requests are those of many clients and are not metered.
    is_proxy: bool,
}

impl Meter {
    pub(super) fn new(
        limits: CurrentLimits,
        metrics: Arc<Metrics>,
        is_proxy: bool,
        now: Instant,
    ) -> Self {
        let (rate, burst) = rate_of(&limits);
        Self {
            bucket: Bucket::new(rate, burst, now),
            limits,
            metrics,
            is_proxy,
        }
    }

    /// Counts bytes of a WebSocket.
    ///
    /// # Errors
    /// When the client exceeds its rate; the caller closes the connection.
    pub(crate) fn take_frames(&mut self, count: usize) -> io::Result<()> {
        self.take(count, Phase::Upgraded)
    }

    fn take(&mut self, count: usize, phase: Phase) -> io::Result<()> {
        if self.is_proxy && phase != Phase::Upgraded {
            return Ok(());
        }
        let (rate, burst) = rate_of(&self.limits);
        self.bucket.adjust(rate, burst);
        if self.bucket.take(count as f64, Instant::now()) {
            return Ok(());
        }
        self.metrics.count_closed(ClosedBecause::InboundRate);
        Err(io::Error::other("inbound rate exceeded"))
    }
}

fn rate_of(limits: &CurrentLimits) -> (f64, f64) {
    let limits = limits.get();
    (limits.inbound_rate as f64, limits.inbound_burst as f64)
}

/// The reading and writing end of a TCP connection.
pub(crate) struct Stream {
    shared: Arc<TcpConn>,
    meter: Option<Meter>,
}

impl Stream {
    pub(super) fn new(shared: Arc<TcpConn>, meter: Option<Meter>) -> Self {
        Self { shared, meter }
    }

    /// A handle for request handlers.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            address: self.shared.address,
            stream: Arc::downgrade(&self.shared),
        }
    }

    #[cfg(test)]
    pub(super) async fn readable(&self) {
        self.shared.stream.readable().await.expect("it is open");
    }

    /// The connection and its meter, for a WebSocket session that takes them over from HTTP.
    pub(crate) fn into_session(self) -> (Arc<TcpConn>, Option<Meter>) {
        (self.shared, self.meter)
    }

    /// Counts bytes that were read; closes the connection and fails if the client exceeds its rate.
    fn meter_read(&mut self, count: usize) -> io::Result<()> {
        let Some(meter) = &mut self.meter else {
            return Ok(());
        };
        meter
            .take(count, self.shared.entry.phase())
            .inspect_err(|error| {
                tracing::debug!(peer = %self.shared.address, %error, "closed a TCP connection");
                self.shared.close();
            })
    }

    fn poll_write_slices(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.shared.stream.poll_write_ready(context) else {
                self.shared.mark_blocked();
                return Poll::Pending;
            };
            ready?;
            match self.shared.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    self.shared.mark_moving();
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
                    return Poll::Ready(self.meter_read(count));
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

/// Time since the first call, in ms, plus 1: never 0.
pub(super) fn uptime_ms() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}
