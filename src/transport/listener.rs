//! Accepts TCP connections, and closes those that take too much or too long.

mod outbound;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub use self::outbound::{NAMESPACES_LEN, Namespace};
pub use self::stream::{Link, Peer, Stream};
use self::stream::{Meter, OpenStreams};
use super::address::TrustedProxies;
use super::limits::CurrentLimits;
use crate::telemetry::{ClosedBecause, Metrics};

/// Pause after an accept that failed for want of resources, which another attempt at once would not find.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often connections are looked at that may be overdue.
const OVERDUE_CHECK: Duration = Duration::from_secs(1);

/// Bytes that the kernel may hold for one client that does not read; Linux doubles it for its own bookkeeping.
/// Left to itself it grows to several MiB for each, which belongs to nobody's limit: a thousand stuck clients
/// took 1.5 GB. A burst fits into 64 KiB; what is more waits in the connection's own, counted queue.
const SEND_BUFFER: u32 = 64 * 1024;

/// Connections that wait to be accepted, when everybody comes back at once. The kernel's own limit may be lower.
const BACKLOG: u32 = 4096;

/// TCP connections beyond `limits.connections`: of clients that poll, which may have two each, and of those who ask
/// how the node is while it is full.
const RESERVE: usize = 1024;

/// TCP connections of the internal listener: of back ends and operators, who are few.
const INTERNAL_MAX: usize = 10_000;

/// Whom a listener is for.
#[derive(Clone, Debug)]
pub enum Audience {
    /// Everybody: what comes in is metered, except from proxies, which speak for many over one connection.
    Public(TrustedProxies),
    /// Back ends and operators.
    Internal,
}

/// Accepts connections.
pub struct Listener {
    listener: TcpListener,
    audience: Audience,
    limits: CurrentLimits,
    metrics: Arc<Metrics>,
    open: Arc<OpenStreams>,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub fn bind(
        address: SocketAddr,
        audience: Audience,
        limits: CurrentLimits,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
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
            audience,
            limits,
            metrics,
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

    /// The next connection.
    pub async fn accept(&self) -> Stream {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) if self.open.len() < self.connections_max() => {
                    return self.take_in(stream, address);
                }
                // Closed without a word: a word would cost more than the connection did.
                Ok(_) => self.metrics.count_closed(ClosedBecause::Full),
                Err(error) => {
                    tracing::debug!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn take_in(&self, stream: TcpStream, address: SocketAddr) -> Stream {
        // Events are small and wanted at once. A socket without this option still works.
        let _ = stream.set_nodelay(true);
        self.open.take_in(stream, address, self.meter(address.ip()))
    }

    fn meter(&self, address: IpAddr) -> Option<Meter> {
        let Audience::Public(proxies) = &self.audience else {
            return None;
        };
        let (limits, metrics) = (self.limits.clone(), self.metrics.clone());
        let speaks_for_many = proxies.trust(address);
        Some(Meter::new(limits, metrics, speaks_for_many, Instant::now()))
    }

    fn connections_max(&self) -> usize {
        match self.audience {
            Audience::Public(_) => self.limits.get().connections.saturating_add(RESERVE),
            Audience::Internal => INTERNAL_MAX,
        }
    }

    /// Closes connections that are overdue, for ever: whose writes do not move, or that asked for nothing.
    pub fn close_overdue(&self) -> impl Future<Output = ()> + Send + use<> {
        let (open, limits) = (self.open.clone(), self.limits.clone());
        let metrics = self.metrics.clone();
        async move {
            loop {
                tokio::time::sleep(OVERDUE_CHECK).await;
                let (stalled_write, handshake) = {
                    let limits = limits.get();
                    (limits.stalled_write, limits.handshake)
                };
                open.close_overdue(stalled_write, handshake, &metrics);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::limits::Limits;

    fn listener(connections: usize) -> Listener {
        let limits = Limits {
            connections,
            ..Limits::sample()
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let audience = Audience::Public(TrustedProxies::default());
        let metrics = Arc::new(Metrics::new());
        Listener::bind(address, audience, CurrentLimits::new(limits), metrics).expect("loopback")
    }

    #[tokio::test]
    async fn closed_connections_are_forgotten_although_nobody_looks_for_overdue_ones() {
        let listener = listener(10);
        let address = listener.address().expect("an address");
        let kept = TcpStream::connect(address).await.expect("it listens");
        let kept_here = listener.accept().await;
        for _ in 0..1000 {
            let stream = TcpStream::connect(address).await.expect("it listens");
            drop((stream, listener.accept().await));
        }
        let remembered = listener.open.remembered();
        assert!(remembered < 10, "{remembered} are remembered");
        assert_eq!(listener.open.len(), 1);
        drop((kept, kept_here));
        assert_eq!(listener.open.len(), 0);
    }
}
