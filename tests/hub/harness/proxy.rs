//! TCP in between: takes targets in turn, and breaks when the test says so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// Nothing goes through, and nobody is told.
    Stalled,
    /// Requests reach the target; its answers are lost.
    Deaf,
    Cut,
}

struct Connection {
    flow: watch::Sender<Flow>,
    /// Redis was asked to subscribe over it.
    subscribes: Arc<Mutex<bool>>,
}

struct State {
    targets: Vec<SocketAddr>,
    turn: AtomicUsize,
    /// Stays with a target as long as that answers.
    sticky: bool,
    refuses: Mutex<bool>,
    connections: Mutex<Vec<Connection>>,
}

/// A proxy; ends, with all its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Takes one target after the other; one that does not answer is passed over.
    pub async fn start(targets: &[SocketAddr]) -> Self {
        Self::listen(targets, false).await
    }

    /// Takes the first target that answers, as polling needs it.
    pub async fn sticky(targets: &[SocketAddr]) -> Self {
        Self::listen(targets, true).await
    }

    async fn listen(targets: &[SocketAddr], sticky: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(State {
            targets: targets.to_vec(),
            turn: AtomicUsize::new(0),
            sticky,
            refuses: Mutex::new(false),
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, state.clone()));
        Self {
            address,
            state,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection, and new ones at once.
    pub fn cut(&self) {
        *self.state.refuses() = true;
        self.set(Flow::Cut, |_| true);
    }

    /// Takes new connections again.
    pub fn mend(&self) {
        *self.state.refuses() = false;
    }

    /// Nothing goes through the connections there are; new ones work.
    pub fn stall(&self) {
        self.set(Flow::Stalled, |_| true);
    }

    /// Drops what the target says over the connections there are; new ones work.
    pub fn deafen(&self) {
        self.set(Flow::Deaf, |_| true);
    }

    /// The same as `stall` for those over which Redis was asked to subscribe; returns how many.
    pub fn stall_subscriptions(&self) -> usize {
        self.set(Flow::Stalled, Connection::subscribes)
    }

    /// Resumes stalled connections.
    pub fn flow(&self) {
        self.set(Flow::Open, |_| true);
    }

    fn set(&self, flow: Flow, of: impl Fn(&Connection) -> bool) -> usize {
        let mut connections = self.state.connections();
        connections.retain(|connection| !connection.flow.is_closed());
        let chosen: Vec<_> = connections
            .iter()
            .filter(|connection| of(connection))
            .collect();
        for connection in &chosen {
            connection.flow.send_replace(flow);
        }
        chosen.len()
    }
}

impl Connection {
    fn subscribes(&self) -> bool {
        *self
            .subscribes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refuses(&self) -> MutexGuard<'_, bool> {
        self.refuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn reach(&self) -> Option<TcpStream> {
        let turn = match self.sticky {
            true => 0,
            false => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        for next in 0..self.targets.len() {
            let target = self.targets[(turn + next) % self.targets.len()];
            if let Ok(stream) = TcpStream::connect(target).await {
                return Some(stream);
            }
        }
        None
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((near, _)) = listener.accept().await {
        if !*state.refuses() {
            tokio::spawn(connect(near, state.clone()));
        }
    }
}

async fn connect(near: TcpStream, state: Arc<State>) {
    let Some(far) = state.reach().await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (flow, flows) = watch::channel(Flow::Open);
    let subscribes = Arc::new(Mutex::new(false));
    {
        let mut connections = state.connections();
        if *state.refuses() {
            return;
        }
        connections.retain(|connection| !connection.flow.is_closed());
        connections.push(Connection {
            flow,
            subscribes: subscribes.clone(),
        });
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let note = |bytes: &[u8]| {
        let asks = bytes.windows(10).any(|word| word == b"SSUBSCRIBE");
        if asks {
            *subscribes.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
    };
    // Either way's end is the end of both.
    tokio::select! {
        () = pump(near_read, far_write, flows.clone(), false, note) => {}
        () = pump(far_read, near_write, flows, true, |_| {}) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    is_answer: bool,
    note: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let passes = flow.wait_for(|flow| *flow != Flow::Stalled).await;
        if passes.map_or(Flow::Cut, |flow| *flow) == Flow::Cut {
            return;
        }
        let read = tokio::select! {
            biased;
            _ = flow.changed() => continue,
            read = from.read(&mut buffer) => read,
        };
        let bytes = match read {
            Ok(count @ 1..) => &buffer[..count],
            Ok(0) | Err(_) => return,
        };
        note(bytes);
        if is_answer && *flow.borrow() == Flow::Deaf {
            continue;
        }
        let cut = async {
            let _ = flow.wait_for(|flow| *flow == Flow::Cut).await;
        };
        tokio::select! {
            written = to.write_all(bytes) => if written.is_err() { return },
            () = cut => return,
        }
    }
}
