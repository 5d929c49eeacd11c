//! Accepts TCP connections, and closes those that exceed a rate or a timeout.

mod connection_table;
mod files;
pub(crate) mod socket;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::connection_table::ConnectionTable;
pub(crate) use self::files::{FileBudget, files_for, files_max};
pub(crate) use self::stream::{Meter, Peer, RequestGuard, Stream, TcpConn};
use super::address::{TrustedProxies, network_of};
use super::limits::CurrentLimits;
use crate::telemetry::{ClosedBecause, Metrics};

/// Pause after a failed accept: the resources it lacked are not back at once.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often overdue connections are closed.
const OVERDUE_CHECK: Duration = Duration::from_secs(1);

/// Bytes that the kernel buffers for a client that does not read; Linux doubles this for its own bookkeeping. By default
/// the buffer grows to several MiB, outside of any limit: a thousand stuck clients took 1.5 GB. A burst fits into 64 KiB;
/// the rest waits in the outbound queue of the connection, which is bounded.
const SEND_BUFFER: u32 = 64 * 1024;

/// Connections waiting to be accepted, for when all clients reconnect at once. The limit of the kernel may be lower.
const BACKLOG: u32 = 4096;

/// Connections that were closed to make room and whose tasks still hold their files. With more of them, accepting pauses,
/// because the process needs files for other things, too.
const CLOSING_MAX: usize = 64;

/// Length of that pause; it repeats at most `CLOSING_DELAYS_MAX` times.
const CLOSING_DELAY: Duration = Duration::from_millis(1);
const CLOSING_DELAYS_MAX: usize = 50;

/// At most this often the log warns that no files are left.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The clients that a listener is for.
#[derive(Clone, Debug)]
pub(crate) enum ListenerKind {
    /// Anybody's. Inbound bytes are metered, except for the HTTP requests of these proxies.
    Public(TrustedProxies),
    /// Those of back ends and operators; not metered.
    Internal,
}

/// A TCP listener with a bounded number of connections.
pub(crate) struct Listener {
    listener: TcpListener,
    kind: ListenerKind,
    limits: CurrentLimits,
    metrics: Arc<Metrics>,
    open: Arc<ConnectionTable>,
    /// When the log last warned that no files are left.
    warned_at: Mutex<Option<Instant>>,
}

impl Listener {
    /// Listens on `address`; port 0 picks a free port.
    ///
    /// # Errors
    /// When the address is in use or does not belong to this machine.
    pub(crate) fn bind(
        address: SocketAddr,
        kind: ListenerKind,
        limits: CurrentLimits,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // After a restart the port is still in use by connections in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit the buffer size.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        Ok(Self {
            listener: socket.listen(BACKLOG)?,
            kind,
            limits,
            metrics,
            open: Arc::default(),
            warned_at: Mutex::default(),
        })
    }

    /// The bound address, with the port that was picked.
    ///
    /// # Errors
    /// When the operating system does not return it.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next connection. At the limit, closes the connection that has gone without a request for longest.
    pub(crate) async fn accept(&self) -> Stream {
        loop {
            self.wait_for_closing().await;
            match self.listener.accept().await {
                Ok((stream, address)) if self.has_room() => return self.track(stream, address),
                // Closed without an answer, which would cost more than the connection did.
                Ok(_) => self.metrics.count_closed(ClosedBecause::Full),
                Err(error) => {
                    self.on_accept_error(&error);
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

    /// Logs a failed accept. If no files are left, closes a connection to free one.
    fn on_accept_error(&self, error: &io::Error) {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        if !matches!(errno, Errno::EMFILE | Errno::ENFILE) {
            tracing::debug!(%error, "could not accept a connection");
            return;
        }
        self.open.make_room(&self.metrics);
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned_at = Some(Instant::now());
            tracing::warn!(
                %error,
                limit = files_max(),
                "cannot accept connections: this process, or the machine, has reached its limit of open files; raise the \
                 limit (ulimit -n, or LimitNOFILE in systemd), or lower limits.connections"
            );
        }
    }

    fn track(&self, stream: TcpStream, address: SocketAddr) -> Stream {
        // Events are small and urgent. The connection works without the option, too.
        let _ = stream.set_nodelay(true);
        let (network, meter) = (self.network(address.ip()), self.meter(address.ip()));
        self.open
            .track(stream, address, network, meter, &self.metrics)
    }

    /// The network whose silent connections are limited together; `None` for proxies, which carry many clients, and for
    /// back ends.
    fn network(&self, address: IpAddr) -> Option<IpAddr> {
        match &self.kind {
            ListenerKind::Public(proxies) => (!proxies.trust(address)).then(|| network_of(address)),
            ListenerKind::Internal => None,
        }
    }

    fn meter(&self, address: IpAddr) -> Option<Meter> {
        let ListenerKind::Public(proxies) = &self.kind else {
            return None;
        };
        let (limits, metrics) = (self.limits.clone(), self.metrics.clone());
        let is_proxy = proxies.trust(address);
        Some(Meter::new(limits, metrics, is_proxy, Instant::now()))
    }

    fn connections_max(&self) -> usize {
        match self.kind {
            ListenerKind::Public(_) => self.limits.get().tcp_public,
            ListenerKind::Internal => self.limits.get().tcp_internal,
        }
    }

    /// Runs forever and closes overdue connections: those with a stalled write, and those without a first request.
    pub(crate) fn close_overdue(&self) -> impl Future<Output = ()> + Send + use<> {
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
        let kind = ListenerKind::Public(TrustedProxies::default());
        let metrics = Arc::new(Metrics::new());
        Listener::bind(address, kind, CurrentLimits::new(limits), metrics).expect("loopback")
    }

    /// A connection: the client's end and the listener's.
    async fn connect(listener: &Listener) -> (TcpStream, Stream) {
        let address = listener.address().expect("an address");
        let client = TcpStream::connect(address).await.expect("it listens");
        (client, listener.accept().await)
    }

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
        let tracked = listener.open.tracked();
        assert!(tracked < 10, "{tracked} are tracked");
        assert_eq!((listener.open.len(), listener.open.queued()), (1, 1));
        drop(kept);
        assert_eq!((listener.open.len(), listener.open.queued()), (0, 0));
    }

    #[tokio::test]
    async fn the_one_that_asked_for_nothing_for_longest_makes_room() {
        let listener = listener(6);
        let mut upgraded = connect(&listener).await;
        drop(upgraded.1.peer().begin_request());
        upgraded.1.peer().mark_upgraded();
        let mut busy_one = connect(&listener).await;
        let _request = busy_one.1.peer().begin_request();
        let mut idle = connect(&listener).await;
        drop(idle.1.peer().begin_request());
        let mut late = connect(&listener).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let mut new = connect(&listener).await;
        let mut newer = connect(&listener).await;

        let mut busy = Vec::new();
        for goes in [&mut late, &mut idle, &mut new, &mut newer] {
            // It has a request, so it is not the next to close.
            let (mut client, stream) = connect(&listener).await;
            let request = stream.peer().begin_request();
            assert!(is_closed(&mut goes.0).await);
            assert!(!is_closed(&mut client).await);
            busy.push((client, stream, request));
        }
        assert!(!listener.has_room(), "all others are busy");
        assert!(!is_closed(&mut upgraded.0).await && !is_closed(&mut busy_one.0).await);
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
        for _ in 0..=connection_table::SILENT_PER_ADDRESS {
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
        assert_eq!(listener.open.len(), connection_table::SILENT_PER_ADDRESS);
    }
}
