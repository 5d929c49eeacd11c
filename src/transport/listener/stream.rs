//! One TCP connection: metered, watched for standing still, and closed from outside.
//!
//! The stream is shared with a handle that reaches the handlers through the request, because the library
//! cannot close a connection whose outbound queue is full: asking it to needs room in that queue.

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

use super::open::{OpenStreams, Place, Stage};
use crate::telemetry::{ClosedBecause, Metrics};
use crate::transport::limits::CurrentLimits;
use crate::transport::rate::Bucket;
use crate::transport::websocket::socket::Socket;

/// One TCP connection, shared by those who read, write and close it.
#[derive(Debug)]
pub struct TcpConn {
    stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) opened_ms: u64,
    /// Where it stands among the others of its listener.
    pub(super) place: Place,
    /// Since when a write waits for the other side, in ms of this process; 0 while none does.
    blocked_since_ms: AtomicU64,
    /// Frames that waited when a write of a session's last found no room.
    waiting: AtomicUsize,
    open: Arc<OpenStreams>,
}

impl TcpConn {
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
            waiting: AtomicUsize::new(0),
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

    /// Frames that wait for room, as far as a session has reported.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
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

impl Drop for TcpConn {
    fn drop(&mut self) {
        self.open.forget(self);
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
        self.note(frames > 0);
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

/// Who is on the other side of a request's TCP connection, and how to close it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The other side's address.
    pub address: SocketAddr,
    stream: Weak<TcpConn>,
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

/// Counts what comes in, and says when it is too much.
pub struct Meter {
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

    /// Counts bytes of a WebSocket.
    ///
    /// # Errors
    /// The other side sends more than it may; the connection is to be closed.
    pub fn take_frames(&mut self, count: usize) -> io::Result<()> {
        self.take(count, Stage::Upgraded)
    }

    fn take(&mut self, count: usize, stage: Stage) -> io::Result<()> {
        if self.speaks_for_many && stage != Stage::Upgraded {
            return Ok(());
        }
        let (rate, burst) = rate_of(&self.limits);
        self.bucket.adjust(rate, burst);
        if self.bucket.take(count as f64, Instant::now()) {
            return Ok(());
        }
        self.metrics.count_closed(ClosedBecause::InboundRate);
        Err(io::Error::other("the other side sends too much"))
    }
}

fn rate_of(limits: &CurrentLimits) -> (f64, f64) {
    let limits = limits.get();
    (limits.inbound_rate as f64, limits.inbound_burst as f64)
}

/// One TCP connection, for whoever reads and writes it.
pub struct Stream {
    shared: Arc<TcpConn>,
    meter: Option<Meter>,
}

impl Stream {
    pub(super) fn new(shared: Arc<TcpConn>, meter: Option<Meter>) -> Self {
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

    /// The connection and its meter, for a session that takes it over from HTTP.
    pub fn into_session(self) -> (Arc<TcpConn>, Option<Meter>) {
        (self.shared, self.meter)
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// When the other side sends more than it may. The connection is closed then.
    fn take_in(&mut self, count: usize) -> io::Result<()> {
        let Some(meter) = &mut self.meter else {
            return Ok(());
        };
        meter
            .take(count, self.shared.place.stage())
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
                self.shared.note(true);
                return Poll::Pending;
            };
            ready?;
            match self.shared.stream.try_write_vectored(slices) {
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
