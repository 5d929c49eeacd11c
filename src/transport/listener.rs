//! Accepts TCP connections, and can close one from outside.
//!
//! The stream is shared with a handle that reaches the handlers through the request, because the library
//! cannot close a connection whose outbound queue is full: asking it to needs room in that queue.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Pause after an accept that failed for want of resources, which another attempt at once would not find.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often connections are looked at whose writes may not move.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// Bytes that the kernel may hold for one client that does not read; Linux doubles it for its own bookkeeping.
/// Left to itself it grows to several MiB for each, which belongs to nobody's limit: a thousand stuck clients
/// took 1.5 GB. A burst fits into 64 KiB; what is more waits in the connection's own, counted queue.
const SEND_BUFFER: u32 = 64 * 1024;

/// Connections that wait to be accepted, when everybody comes back at once. The kernel's own limit may be lower.
const BACKLOG: u32 = 4096;

/// Accepts connections for axum.
pub struct Listener {
    listener: TcpListener,
    open: Arc<OpenStreams>,
}

/// Every TCP connection of a listener that is still open.
#[derive(Default)]
pub struct OpenStreams(Mutex<Vec<Weak<Shared>>>);

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A node that starts again at once finds its port in use by connections that are ending.
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        Ok(Self {
            listener: socket.listen(BACKLOG)?,
            open: Arc::default(),
        })
    }

    /// The address listened on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The connections that it has accepted and that are still open.
    pub fn open_streams(&self) -> Arc<OpenStreams> {
        self.open.clone()
    }
}

impl OpenStreams {
    fn streams(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one. Before the list grows, those that are closed by now go, whether or not anybody looks for stalled
    /// ones.
    fn push(&self, stream: &Arc<Shared>) {
        let mut streams = self.streams();
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
            let room = streams.len() + 1;
            streams.reserve(room);
        }
        streams.push(Arc::downgrade(stream));
    }

    /// Closes connections whose writes have not moved for `stalled_write`, for ever, and counts them.
    pub async fn close_stalled(&self, stalled_write: Duration, closed: &Counter) {
        loop {
            tokio::time::sleep(STALL_CHECK).await;
            let now_ms = uptime_ms();
            self.streams().retain(|stream| {
                let Some(stream) = stream.upgrade() else {
                    return false;
                };
                if stream.is_stalled(now_ms, stalled_write) {
                    tracing::debug!("closed a connection whose writes did not move");
                    stream.close();
                    closed.inc();
                    return false;
                }
                true
            });
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Events are small and wanted at once. A socket without this option still works.
                    let _ = stream.set_nodelay(true);
                    let stream = Arc::new(Shared {
                        stream,
                        blocked_since_ms: AtomicU64::new(0),
                    });
                    self.open.push(&stream);
                    return (Stream(stream), peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}

/// One TCP connection.
pub struct Stream(Arc<Shared>);

/// What a connection shares with those who may close it.
#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    /// Since when a write waits for the other side, in ms of this process; 0 while none does.
    blocked_since_ms: AtomicU64,
}

impl Shared {
    fn close(&self) {
        // It fails where the connection is closed already.
        let _ = socket2::SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    fn is_stalled(&self, now_ms: u64, stalled_write: Duration) -> bool {
        let blocked_since_ms = self.blocked_since_ms.load(Ordering::Relaxed);
        let blocked_ms = now_ms.saturating_sub(blocked_since_ms);
        blocked_since_ms != 0 && Duration::from_millis(blocked_ms) >= stalled_write
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
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(incoming: IncomingStream<'_, Listener>) -> Self {
        Self {
            address: *incoming.remote_addr(),
            stream: Arc::downgrade(&incoming.io().0),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Stream {
    /// Writes with `attempt` as soon as the socket takes something.
    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let stream = &self.0.stream;
        loop {
            let Poll::Ready(ready) = stream.poll_write_ready(context) else {
                self.0.note(true);
                return Poll::Pending;
            };
            ready?;
            match attempt(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    self.0.note(false);
                    return Poll::Ready(outcome);
                }
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
        self.poll_write_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match socket2::SockRef::from(&self.0.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Time since this process first asked, in ms, from 1 on.
fn uptime_ms() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;

    use super::*;

    #[tokio::test]
    async fn closed_connections_are_forgotten_although_nobody_looks_for_stalled_ones() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = Listener::bind(address).expect("loopback");
        let address = listener.address().expect("an address");
        let kept = TcpStream::connect(address).await.expect("it listens");
        let (kept_here, _) = listener.accept().await;
        for _ in 0..1000 {
            let stream = TcpStream::connect(address).await.expect("it listens");
            drop((stream, listener.accept().await));
        }
        let open = listener.open.streams();
        assert!(open.len() < 10, "{} are remembered", open.len());
        assert_eq!(open.iter().filter_map(Weak::upgrade).count(), 1);
        drop((kept, kept_here));
    }
}
