//! Accepts TCP connections, and closes those that take too much or too long.

mod files;
mod open;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub use self::files::{Room, files_for, files_max};
use self::open::OpenStreams;
pub use self::stream::{Asking, Meter, Peer, Stream, TcpConn};
use super::address::{TrustedProxies, network_of};
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

/// Connections that were closed to make room and whose tasks have not ended yet. Where there are more, the next one is
/// accepted a little later: files are needed for other things, too.
const CLOSING_MAX: usize = 64;

/// How long, and how often at most, their tasks are waited for.
const CLOSING_DELAY: Duration = Duration::from_millis(1);
const CLOSING_DELAYS_MAX: usize = 50;

/// How often the log says that there are no files left.
const WARN_EVERY: Duration = Duration::from_secs(60);

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
    /// When the log last said that connections cannot be accepted.
    warned_at: Mutex<Option<Instant>>,
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
            warned_at: Mutex::default(),
        })
    }

    /// The address listened on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. Where there are as many as may be, the one that has asked for nothing for longest is closed.
    pub async fn accept(&self) -> Stream {
        loop {
            self.wait_for_closing().await;
            match self.listener.accept().await {
                Ok((stream, address)) if self.has_room() => return self.take_in(stream, address),
                // Closed without a word: a word would cost more than the connection did.
                Ok(_) => self.metrics.count_closed(ClosedBecause::Full),
                Err(error) => {
                    self.not_accepted(&error);
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    async fn wait_for_closing(&self) {
        for _ in 0..CLOSING_DELAYS_MAX {
            if self.open.closing() <= CLOSING_MAX {
                return;
            }
            tokio::time::sleep(CLOSING_DELAY).await;
        }
    }

    fn has_room(&self) -> bool {
        self.open.len() < self.connections_max() || self.open.make_room(&self.metrics)
    }

    /// A connection could not be accepted. Where it is for want of files, one is freed.
    fn not_accepted(&self, error: &io::Error) {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        if !matches!(errno, Errno::EMFILE | Errno::ENFILE) {
            tracing::debug!(%error, "could not accept a connection");
            return;
        }
        self.open.make_room(&self.metrics);
        let mut warned_at = self
            .warned_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned_at = Some(Instant::now());
            tracing::warn!(
                %error,
                limit = files_max(),
                "no connection can be accepted: this process, or the machine, has as many files open as it may; raise the \
                 limit (ulimit -n, or LimitNOFILE in systemd), or lower limits.connections"
            );
        }
    }

    fn take_in(&self, stream: TcpStream, address: SocketAddr) -> Stream {
        // Events are small and wanted at once. A socket without this option still works.
        let _ = stream.set_nodelay(true);
        let (network, meter) = (self.network(address.ip()), self.meter(address.ip()));
        self.open
            .take_in(stream, address, network, meter, &self.metrics)
    }

    /// Whose connections without a request are counted together. A proxy speaks for many, and back ends are known.
    fn network(&self, address: IpAddr) -> Option<IpAddr> {
        match &self.audience {
            Audience::Public(proxies) => (!proxies.trust(address)).then(|| network_of(address)),
            Audience::Internal => None,
        }
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
            Audience::Public(_) => self.limits.get().tcp_public,
            Audience::Internal => self.limits.get().tcp_internal,
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::transport::limits::Limits;

    fn listener(tcp_public: usize) -> Listener {
        let limits = Limits {
            tcp_public,
            ..Limits::sample()
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let audience = Audience::Public(TrustedProxies::default());
        let metrics = Arc::new(Metrics::new());
        Listener::bind(address, audience, CurrentLimits::new(limits), metrics).expect("loopback")
    }

    /// A connection, as its client and as the listener see it.
    async fn connect(listener: &Listener) -> (TcpStream, Stream) {
        let address = listener.address().expect("an address");
        let client = TcpStream::connect(address).await.expect("it listens");
        (client, listener.accept().await)
    }

    /// Whether the listener has closed it.
    async fn is_closed(client: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(Duration::from_millis(100), client.read_u8());
        read.await.is_ok_and(|read| read.is_err())
    }

    #[tokio::test]
    async fn closed_connections_are_forgotten_although_nobody_looks_for_overdue_ones() {
        let listener = listener(10);
        let kept = connect(&listener).await;
        for _ in 0..1000 {
            drop(connect(&listener).await);
        }
        let remembered = listener.open.remembered();
        assert!(remembered < 10, "{remembered} are remembered");
        assert_eq!((listener.open.len(), listener.open.queued()), (1, 1));
        drop(kept);
        assert_eq!((listener.open.len(), listener.open.queued()), (0, 0));
    }

    #[tokio::test]
    async fn the_one_that_asked_for_nothing_for_longest_makes_room() {
        let listener = listener(6);
        let mut upgraded = connect(&listener).await;
        drop(upgraded.1.peer().asked());
        upgraded.1.peer().upgraded();
        let mut asking = connect(&listener).await;
        let _request = asking.1.peer().asked();
        let mut idle = connect(&listener).await;
        drop(idle.1.peer().asked());
        let mut late = connect(&listener).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let mut new = connect(&listener).await;
        let mut newer = connect(&listener).await;

        let mut busy = Vec::new();
        for goes in [&mut late, &mut idle, &mut new, &mut newer] {
            // It asks for something, so it is not the next to go.
            let (mut client, stream) = connect(&listener).await;
            let request = stream.peer().asked();
            assert!(is_closed(&mut goes.0).await);
            assert!(!is_closed(&mut client).await);
            busy.push((client, stream, request));
        }
        assert!(!listener.has_room(), "all others are busy");
        assert!(!is_closed(&mut upgraded.0).await && !is_closed(&mut asking.0).await);
        assert_eq!((listener.open.len(), listener.open.closing()), (6, 4));
        drop((late, idle, new, newer));
        assert_eq!((listener.open.len(), listener.open.closing()), (6, 0));
    }

    #[tokio::test]
    async fn one_whose_request_waits_to_be_read_is_not_closed() {
        let listener = listener(2);
        let mut heard = connect(&listener).await;
        heard.0.write_all(b"GET").await.expect("it is open");
        heard.1.readable().await;
        let mut silent = connect(&listener).await;
        let _new = connect(&listener).await;
        assert!(is_closed(&mut silent.0).await);
        assert!(!is_closed(&mut heard.0).await);
    }

    #[tokio::test]
    async fn an_address_has_so_many_without_a_request() {
        let listener = listener(10_000);
        let mut all = Vec::new();
        for _ in 0..=open::SILENT_PER_ADDRESS {
            all.push(connect(&listener).await);
        }
        let network = IpAddr::from([127, 0, 0, 1]);
        let now_ms = stream::uptime_ms();
        let close_excess = |now_ms| {
            listener
                .open
                .close_excess(network, now_ms, &listener.metrics)
        };
        close_excess(now_ms);
        assert_eq!(listener.open.len(), all.len(), "none is late yet");
        close_excess(now_ms + 60_000);
        assert!(is_closed(&mut all[0].0).await);
        assert!(!is_closed(&mut all[1].0).await);
        assert_eq!(listener.open.len(), open::SILENT_PER_ADDRESS);
    }
}
