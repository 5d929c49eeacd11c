//! A TCP connection for a task that reads and any number of threads that write. It has no buffers.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;

/// A TCP connection: the listener's, or a test's own.
pub(crate) trait Socket: Send + Sync + 'static {
    /// Waits until there may be something to read.
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing to read.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Waits until there may be room to write.
    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes without waiting and without regard to what the runtime knows: most often there is room, and asking costs more
    /// than trying.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes without waiting, unless the runtime knows that there is no room.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Notes how many frames wait for the other side; 0 when a write has moved. The listener closes connections whose
    /// writes stall.
    fn note_waiting(&self, frames: usize);

    /// How long a write has waited for the other side without moving; zero while none waits.
    fn blocked_for(&self) -> Duration;

    /// Ends the outgoing half, or both. The task that reads notices.
    fn shutdown(&self, how: Shutdown);
}

impl Socket for TcpStream {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(context)
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        socket2::SockRef::from(self).send(bytes)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(slices)
    }

    fn note_waiting(&self, _frames: usize) {}

    fn blocked_for(&self) -> Duration {
        Duration::ZERO
    }

    fn shutdown(&self, how: Shutdown) {
        // It fails where the connection is closed already.
        let _ = socket2::SockRef::from(self).shutdown(how);
    }
}
