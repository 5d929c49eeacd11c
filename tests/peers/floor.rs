//! The physical floor: what the machine itself takes for the work of a hub, without a hub.
//!
//!     cargo run --release --features bench --example floor -- 127.0.0.1:8181 127.0.0.1:8182 [INTERNAL ADDRESS OF ANOTHER…]
//!
//! Accepts the WebSocket clients of `vigie-bench`, and does one `send` of a ready-made frame for each of them when it is
//! told of an update, and nothing else: no users, no rooms, no queue, no second frame for whoever does not keep up. It
//! pings as Engine.IO does, so that idle connections can be compared, too. One thread; what it hears of an update it
//! tells the others, as bytes.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem::find;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tungstenite::handshake::derive_accept_key;

const PING_EVERY: Duration = Duration::from_secs(25);
const PUBLIC: Token = Token(0);
const INTERNAL: Token = Token(1);
/// Connections come after the listeners.
const FIRST: usize = 2;

const OPEN: &str =
    r#"0{"sid":"floor","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":16384}"#;
const JOINED: &str = r#"40{"sid":"floor"}"#;
const WATCHING: &str = r#"430[{"ok":true}]"#;
const PING: &str = "2";

fn main() -> Result<(), Box<dyn Error>> {
    let addresses = std::env::args().skip(1).map(|address| address.parse());
    let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>()?;
    match addresses.as_slice() {
        [public, internal, others @ ..] => Floor::listen(*public, *internal, others)?.run(),
        _ => Err("give two addresses: public, internal".into()),
    }
}

/// The purpose of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// HTTP on the public listener, before the upgrade.
    Handshake,
    /// A WebSocket.
    Client { watches: bool },
    /// HTTP on the internal listener.
    BackEnd,
}

struct Connection {
    stream: TcpStream,
    kind: Kind,
}

struct Floor {
    poll: Poll,
    public: TcpListener,
    internal: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Whom to ping, and when, the next one first.
    pings: VecDeque<(Instant, usize)>,
    /// Where the others hear of updates, and the connection to each once there was one.
    others: Vec<(SocketAddr, Option<std::net::TcpStream>)>,
    revision: u64,
}

impl Floor {
    fn listen(
        public: SocketAddr,
        internal: SocketAddr,
        others: &[SocketAddr],
    ) -> Result<Self, Box<dyn Error>> {
        let poll = Poll::new()?;
        let mut public = TcpListener::bind(public)?;
        let mut internal = TcpListener::bind(internal)?;
        let registry = poll.registry();
        registry.register(&mut public, PUBLIC, Interest::READABLE)?;
        registry.register(&mut internal, INTERNAL, Interest::READABLE)?;
        println!(
            "floor listening public=http://{} internal=http://{}",
            public.local_addr()?,
            internal.local_addr()?
        );
        Ok(Self {
            poll,
            public,
            internal,
            connections: Vec::new(),
            free: Vec::new(),
            pings: VecDeque::new(),
            others: others.iter().map(|other| (*other, None)).collect(),
            revision: 0,
        })
    }

    fn run(mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let until_ping = self.pings.front().map(|(at, _)| *at);
            let wait = until_ping.map(|at| at.saturating_duration_since(Instant::now()));
            self.poll.poll(&mut events, wait)?;
            for event in &events {
                match event.token() {
                    PUBLIC => self.accept(true)?,
                    INTERNAL => self.accept(false)?,
                    Token(token) => self.on_readable(token - FIRST, &mut buffer),
                }
            }
            self.ping_due();
        }
    }

    fn accept(&mut self, public: bool) -> io::Result<()> {
        let (listener, kind) = match public {
            true => (&self.public, Kind::Handshake),
            false => (&self.internal, Kind::BackEnd),
        };
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let registry = self.poll.registry();
            registry.register(&mut stream, Token(FIRST + slot), Interest::READABLE)?;
            self.connections[slot] = Some(Connection { stream, kind });
        }
    }

    fn close(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.free.push(slot);
    }

    /// Everything that is sent here is short, and so arrives whole.
    fn on_readable(&mut self, slot: usize, buffer: &mut [u8]) {
        while let Some(connection) = self.connections[slot].as_mut() {
            match connection.stream.read(buffer) {
                Ok(count) if count > 0 => {
                    if !self.on_bytes(slot, &mut buffer[..count]) {
                        self.close(slot);
                    }
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.close(slot),
            }
        }
    }

    /// Answers; says whether the connection stays.
    fn on_bytes(&mut self, slot: usize, bytes: &mut [u8]) -> bool {
        match self.connections[slot].as_ref().map(|open| open.kind) {
            Some(Kind::Handshake) => self.upgrade(slot, bytes),
            Some(Kind::Client { .. }) => self.on_frames(slot, bytes),
            Some(Kind::BackEnd) => self.on_request(slot, bytes),
            None => true,
        }
    }

    fn upgrade(&mut self, slot: usize, request: &[u8]) -> bool {
        let Some(key) = header(request, b"Sec-WebSocket-Key: ") else {
            return false;
        };
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key)
        )
        .into_bytes();
        answer.extend(text_frame(OPEN));
        if let Some(connection) = &mut self.connections[slot] {
            connection.kind = Kind::Client { watches: false };
        }
        self.pings.push_back((Instant::now() + PING_EVERY, slot));
        self.send(slot, &answer)
    }

    fn on_frames(&mut self, slot: usize, mut bytes: &mut [u8]) -> bool {
        while let Some((opcode, payload, rest)) = next_frame(bytes) {
            let stays = match (opcode, payload) {
                (1, [b'4', b'0', ..]) => self.send(slot, &text_frame(JOINED)),
                (1, [b'4', b'2', ..]) => {
                    if let Some(connection) = &mut self.connections[slot] {
                        connection.kind = Kind::Client { watches: true };
                    }
                    self.send(slot, &text_frame(WATCHING))
                }
                (8, _) => false,
                _ => true,
            };
            if !stays {
                return false;
            }
            bytes = rest;
        }
        true
    }

    /// `POST …/profile-update` of a back end, or the same from another of its kind.
    fn on_request(&mut self, slot: usize, request: &[u8]) -> bool {
        let Some(body) = find(request, b"\r\n\r\n").map(|end| &request[end + 4..]) else {
            return false;
        };
        let relayed = request.starts_with(b"POST /relay ");
        let body = String::from_utf8_lossy(body);
        let Some(user) = body
            .strip_prefix("{\"user\":")
            .and_then(|body| body.strip_suffix('}'))
        else {
            return false;
        };
        if !relayed {
            self.relay(&body);
        }
        self.revision += 1;
        let event = format!(
            "42[\"profile-update\",{{\"user\":{user},\"revision\":{}}}]",
            1_795_358_406_000_000 + self.revision
        );
        self.tell(&text_frame(&event));
        relayed || self.send(slot, &http_answer(self.revision))
    }

    fn relay(&mut self, body: &str) {
        let request = format!(
            "POST /relay HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for (address, stream) in &mut self.others {
            if stream.is_none() {
                *stream = std::net::TcpStream::connect(*address).ok();
                if let Some(stream) = stream {
                    // It only delays where it fails.
                    let _ = stream.set_nodelay(true);
                }
            }
            let sent = stream
                .as_mut()
                .map(|stream| stream.write_all(request.as_bytes()));
            if let Some(Err(_)) = sent {
                *stream = None;
            }
        }
    }

    /// The one thing that this is about.
    fn tell(&mut self, frame: &[u8]) {
        for connection in self.connections.iter_mut().flatten() {
            if connection.kind == (Kind::Client { watches: true }) {
                // A slow consumer misses it, which the clients notice.
                let _ = connection.stream.write(frame);
            }
        }
    }

    fn ping_due(&mut self) {
        let now = Instant::now();
        while let Some(&(at, slot)) = self.pings.front()
            && at <= now
        {
            self.pings.pop_front();
            let client = self.connections[slot]
                .as_ref()
                .is_some_and(|open| matches!(open.kind, Kind::Client { .. }));
            if client && self.send(slot, &text_frame(PING)) {
                self.pings.push_back((at + PING_EVERY, slot));
            }
        }
    }

    fn send(&mut self, slot: usize, bytes: &[u8]) -> bool {
        let connection = self.connections[slot].as_mut();
        connection.is_some_and(|open| {
            open.stream
                .write(bytes)
                .is_ok_and(|count| count == bytes.len())
        })
    }
}

fn header<'a>(request: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = &request[find(request, name)? + name.len()..];
    Some(&value[..find(value, b"\r\n")?])
}

fn http_answer(revision: u64) -> Vec<u8> {
    let body = format!("{{\"revision\":{revision}}}");
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A message of a server.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length @ 0..126) => frame.push(length as u8),
        Ok(length) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => unreachable!("nothing here is as long"),
    }
    frame.extend(text.as_bytes());
    frame
}

/// The first frame of a client, unmasked, and what follows it.
fn next_frame(bytes: &mut [u8]) -> Option<(u8, &[u8], &mut [u8])> {
    let (head, rest) = bytes.split_at_mut_checked(2)?;
    let (opcode, mut length) = (head[0] & 0x0f, usize::from(head[1] & 0x7f));
    let mut rest = rest;
    if length == 126 {
        let (long, after) = rest.split_at_mut_checked(2)?;
        length = usize::from(u16::from_be_bytes([long[0], long[1]]));
        rest = after;
    }
    let (mask, rest) = rest.split_at_mut_checked(4)?;
    let (payload, rest) = rest.split_at_mut_checked(length)?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some((opcode, payload, rest))
}
