//! A bare TCP connection to a node: says what no client library would say, and hears what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::DEADLINE;
use super::cluster::Cluster;

/// The query of a request that opens a WebSocket.
pub const WEBSOCKET: &str = "EIO=4&transport=websocket";

/// Most bytes of an answer that a test waits for.
const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;

/// An open TCP connection.
pub struct Wire {
    stream: TcpStream,
    /// Bytes that have arrived and are not parsed yet.
    unread: Vec<u8>,
}

/// A frame of a node on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Binary(Vec<u8>),
    /// A close frame, a ping or a pong.
    Control(u8),
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Cluster {
    /// A TCP connection to a node's public listener.
    pub async fn wire(&self, node: usize) -> Wire {
        Wire::connect(self.public_address(node), None).await
    }

    /// The same from an address of its own: on loopback every machine has all of 127.0.0.0/8.
    pub async fn wire_from(&self, address: &str, node: usize) -> Wire {
        let from = SocketAddr::new(address.parse().expect("an address"), 0);
        Wire::connect_from(from, self.public_address(node), None).await
    }

    /// The same to its internal listener.
    pub async fn internal_wire(&self, node: usize) -> Wire {
        let address = self.internal_url(node).trim_start_matches("http://");
        Wire::connect(address.parse().expect("an address"), None).await
    }

    /// A WebSocket to a node that has not said anything yet; the node has.
    pub async fn websocket(&self, node: usize) -> Wire {
        let mut wire = self.wire(node).await;
        assert_eq!(wire.upgrade(WEBSOCKET).await, Some(101));
        wire.hear_until("0{").await.expect("a session");
        wire
    }

    /// A WebSocket that has joined the root namespace, as a guest or with a token.
    pub async fn joined(&self, node: usize, user: Option<u64>) -> Wire {
        let mut wire = self.websocket(node).await;
        wire.join(user.map(|user| self.token(user)).as_deref())
            .await
            .expect("the node admits it");
        wire
    }
}

impl Wire {
    /// Connects; `receive_buffer` is how much the own kernel takes in of what nobody reads.
    pub async fn connect(address: SocketAddr, receive_buffer: Option<u32>) -> Self {
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::connect_from(anywhere, address, receive_buffer).await
    }

    async fn connect_from(
        from: SocketAddr,
        address: SocketAddr,
        receive_buffer: Option<u32>,
    ) -> Self {
        let socket = TcpSocket::new_v4().expect("there are sockets left");
        if !from.ip().is_unspecified() {
            socket.bind(from).expect("an address of loopback");
        }
        if let Some(size) = receive_buffer {
            let set = socket.set_recv_buffer_size(size);
            set.expect("a size that is allowed");
        }
        let connecting = tokio::time::timeout(DEADLINE, socket.connect(address)).await;
        let stream = connecting.expect("in time").expect("the node listens");
        // Several writes arrive as several segments.
        stream.set_nodelay(true).expect("every TCP socket can");
        let unread = Vec::new();
        Self { stream, unread }
    }

    // ---- bytes

    /// Writes; `false` once the node has closed the connection.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let writing = tokio::time::timeout(DEADLINE, self.stream.write_all(bytes.as_ref()));
        writing.await.is_ok_and(|written| written.is_ok())
    }

    /// Says that nothing more will come, and reads up to the end, which the node makes.
    pub async fn finish(mut self) -> Vec<u8> {
        // It fails where the node has closed the connection.
        let _ = self.stream.shutdown().await;
        self.ended().await
    }

    /// Reads up to the end, which the node makes.
    pub async fn ended(self) -> Vec<u8> {
        self.ended_within(DEADLINE).await
    }

    /// The same where the node waits for something first.
    pub async fn ended_within(self, deadline: Duration) -> Vec<u8> {
        let ended = self.ends_within(deadline).await;
        ended.unwrap_or_else(|| panic!("still open after {deadline:?}"))
    }

    /// Reads up to the end, if the node makes it in time.
    pub async fn ends_within(mut self, deadline: Duration) -> Option<Vec<u8>> {
        let reading = async { while self.read_some().await {} };
        let read = tokio::time::timeout(deadline, reading).await;
        read.ok().map(|()| self.unread)
    }

    /// Breaks the connection without a word (RST).
    pub fn reset(self) {
        let linger = self.stream.set_zero_linger();
        linger.expect("every TCP socket can");
    }

    /// Takes in whatever comes next; `false` at the end.
    async fn read_some(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.unread.extend(&buffer[..count]);
                assert!(self.unread.len() <= ANSWER_LEN_MAX, "the node never stops");
                true
            }
        }
    }

    /// Takes so many bytes; `None` where the connection ends before.
    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let reading = async {
            while self.unread.len() < count {
                if !self.read_some().await {
                    return false;
                }
            }
            true
        };
        let there = tokio::time::timeout(DEADLINE, reading).await;
        there
            .expect("the node says something, or ends the connection")
            .then(|| self.unread.drain(..count).collect())
    }

    // ---- HTTP

    /// Sends a request with these header lines beside `Host`, and a body as it is.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Option<Reply> {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: vigie\r\n{headers}\r\n");
        // The answer may come before the node has read everything.
        let _ = self.write([head.as_bytes(), body].concat()).await;
        self.reply().await
    }

    /// Sends a body whose length is told.
    pub async fn post(&mut self, target: &str, headers: &str, body: &[u8]) -> Option<Reply> {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        self.request("POST", target, &headers, body).await
    }

    /// Reads an answer; `None` where there is none.
    pub async fn reply(&mut self) -> Option<Reply> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.take(1).await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let body = self.take(length.unwrap_or(0)).await?;
        Some(Reply {
            status: status.expect("an answer has a status"),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Opens an Engine.IO session by polling; returns its id.
    pub async fn poll_open(&mut self) -> String {
        let target = "/socket.io/?EIO=4&transport=polling";
        let reply = self
            .request("GET", target, "", b"")
            .await
            .expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        let (_, rest) = reply.body.split_once("\"sid\":\"").expect("a session");
        rest.split('"').next().unwrap_or_default().to_owned()
    }

    /// The body of the next poll.
    pub async fn polled(&mut self, target: &str) -> String {
        let reply = self.request("GET", target, "", b"").await;
        reply.expect("an answer").body
    }

    // ---- WebSocket

    /// Asks for a WebSocket; returns the status.
    pub async fn upgrade(&mut self, query: &str) -> Option<u16> {
        let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let target = format!("/socket.io/?{query}");
        let reply = self.request("GET", &target, headers, b"").await?;
        Some(reply.status)
    }

    /// Joins the root namespace; the refusal where the node refuses.
    pub async fn join(&mut self, token: Option<&str>) -> Result<(), String> {
        let auth = serde_json::json!({ "token": token });
        self.say(&format!("40{auth}")).await;
        self.verdict().await
    }

    /// The node's answer to the CONNECT of the root namespace.
    pub async fn verdict(&mut self) -> Result<(), String> {
        loop {
            match self.hear().await {
                Some(Heard::Text(text)) if text.starts_with("40{") => return Ok(()),
                Some(Heard::Text(text)) if text.starts_with("44{") => return Err(text),
                Some(_) => {}
                None => return Err("the node has closed the connection".to_owned()),
            }
        }
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) -> bool {
        self.write(frame(0x81, text.as_bytes())).await
    }

    /// Sends a binary message.
    pub async fn say_binary(&mut self, bytes: &[u8]) -> bool {
        self.write(frame(0x82, bytes)).await
    }

    /// The next message; `None` at the end.
    pub async fn hear(&mut self) -> Option<Heard> {
        let head = self.take(2).await?;
        let length = match head[1] {
            126 => big_endian(&self.take(2).await?),
            127 => big_endian(&self.take(8).await?),
            length => usize::from(length),
        };
        let payload = self.take(length).await?;
        Some(match head[0] & 0x0f {
            1 => Heard::Text(String::from_utf8_lossy(&payload).into_owned()),
            2 => Heard::Binary(payload),
            opcode => Heard::Control(opcode),
        })
    }

    /// Hears messages up to a text that begins with `wanted`, and returns the rest of it; `None` where the
    /// connection ends before.
    pub async fn hear_until(&mut self, wanted: &str) -> Option<String> {
        loop {
            if let Heard::Text(text) = self.hear().await?
                && let Some(rest) = text.strip_prefix(wanted)
            {
                return Some(rest.to_owned());
            }
        }
    }

    /// Whether the session goes on: whatever was sent before has had its effect then.
    pub async fn goes_on(&mut self) -> bool {
        // The node may answer packets that arrived together with the one for which it closes the connection.
        for _ in 0..2 {
            self.say(r#"42987654321["get-online-users"]"#).await;
            if self.hear_until("43987654321[[").await.is_none() {
                return false;
            }
        }
        true
    }
}

/// A frame with `first` as its first byte, masked with zeros, which leave the payload as it is.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = announcing(first, payload.len() as u64);
    frame.extend(payload);
    frame
}

/// The beginning of a frame that says that so many bytes follow.
pub fn announcing(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..126 => head.push(0x80 | length as u8),
        126..65_536 => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(length.to_be_bytes());
        }
    }
    head.extend([0; 4]);
    head
}

fn big_endian(bytes: &[u8]) -> usize {
    let fold = |number: usize, byte: &u8| number << 8 | usize::from(*byte);
    bytes.iter().fold(0, fold)
}
