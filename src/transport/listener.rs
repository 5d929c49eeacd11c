//! Accepts TCP connections, and can close one from outside.
//!
//! The stream is shared with a handle that reaches the handlers through the request, because the library
//! cannot close a connection whose outbound queue is full: asking it to needs room in that queue.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Pause after an accept that failed for want of resources, which another attempt at once would not find.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts connections for axum.
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// The address listened on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    // Events are small and wanted at once. A socket without this option still works.
                    let _ = stream.set_nodelay(true);
                    return (Stream(Arc::new(stream)), peer);
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
pub struct Stream(Arc<TcpStream>);

/// Who is on the other side of a request's TCP connection, and how to close it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The other side's address.
    pub address: SocketAddr,
    stream: Weak<TcpStream>,
}

impl Peer {
    /// Whether the TCP connection is still there.
    pub fn is_open(&self) -> bool {
        self.stream.strong_count() > 0
    }

    /// Closes the TCP connection at once, whatever waits to be written.
    pub fn close(&self) {
        if let Some(stream) = self.stream.upgrade() {
            // It fails where the connection is closed already.
            let _ = socket2::SockRef::from(&*stream).shutdown(Shutdown::Both);
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
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
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
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match attempt(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
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
        match socket2::SockRef::from(&*self.0).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
