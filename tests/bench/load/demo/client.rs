//! One Socket.IO client of the demo, on this runtime.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::socket_io::frame::{self, Frame};
use crate::socket_io::packet::{self, Packet, Reader};
use crate::socket_io::{ConnectionError, HEAD_END, check_head, upgrade_request};

/// How long a connection may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// How long a node may take to close after DISCONNECT.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoClientError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("cannot sign tokens: {0}")]
    Token(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerEvent {
    /// An update of a watched user.
    Update,
    Status,
    Match,
    Timeout,
    Refusal,
    Other,
}

/// A connected client. Dropping it without [`DemoClient::leave`] breaks the connection without DISCONNECT.
pub(super) struct DemoClient {
    address: SocketAddr,
    stream: TcpStream,
    /// Received and not yet handled.
    buffer: Vec<u8>,
    reader: Reader,
}

impl DemoClient {
    pub(super) async fn connect(
        address: SocketAddr,
        token: Option<&str>,
    ) -> Result<Self, DemoClientError> {
        match timeout(OPEN_WITHIN, Self::open(address, token)).await {
            Ok(client) => client,
            Err(_) => Err(failed(address, "it takes too long")),
        }
    }

    async fn open(address: SocketAddr, token: Option<&str>) -> Result<Self, DemoClientError> {
        let stream = TcpStream::connect(address).await;
        let mut client = Self {
            address,
            stream: stream.map_err(|error| failed(address, error))?,
            buffer: Vec::new(),
            reader: Reader::new(),
        };
        client.write(upgrade_request(address).as_bytes()).await?;
        client.read_head().await?;
        loop {
            let Some((text, length)) = client.next_text().await? else {
                return Err(failed(address, "it closed the connection"));
            };
            let answer = match client.reader.read(&text) {
                Packet::Open => Some(packet::connect(token)),
                Packet::Ping => Some(packet::PONG.to_owned()),
                Packet::Connected => {
                    client.buffer.drain(..length);
                    return Ok(client);
                }
                Packet::ConnectError(reason) => {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    return Err(ConnectionError::Refused { address, reason }.into());
                }
                _ => None,
            };
            client.buffer.drain(..length);
            if let Some(answer) = answer {
                client.send_text(&answer).await?;
            }
        }
    }

    async fn read_head(&mut self) -> Result<(), DemoClientError> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, HEAD_END) {
                let address = self.address;
                check_head(&self.buffer[..end])
                    .map_err(|reason| ConnectionError::Refused { address, reason })?;
                self.buffer.drain(..end + HEAD_END.len());
                return Ok(());
            }
            if self.read().await? == 0 {
                return Err(failed(self.address, "it closed the connection"));
            }
        }
    }

    /// Sends an event without acknowledgement.
    pub(super) async fn emit(
        &mut self,
        name: &str,
        payload: Option<&str>,
    ) -> Result<(), DemoClientError> {
        self.send_text(&packet::event(name, payload)).await
    }

    /// The next event; `None` when the hub has closed the connection. Cancel-safe: what has
    /// arrived is kept.
    pub(super) async fn next_event(&mut self) -> Result<Option<ServerEvent>, DemoClientError> {
        loop {
            let Some((text, length)) = self.next_text().await? else {
                return Ok(None);
            };
            let (event, is_ping) = match self.reader.read(&text) {
                Packet::Ping => (None, true),
                Packet::Closed => return Ok(None),
                packet => (Some(meaning(&packet)), false),
            };
            self.buffer.drain(..length);
            if is_ping {
                self.send_text(packet::PONG).await?;
            }
            if let Some(event) = event {
                return Ok(Some(event));
            }
        }
    }

    /// Sends DISCONNECT and waits until the node has closed.
    pub(super) async fn leave(mut self) {
        let mut goodbye = Vec::new();
        frame::write_text(&mut goodbye, packet::DISCONNECT);
        frame::write_close(&mut goodbye);
        if self.write(&goodbye).await.is_ok() {
            let closed = async { while let Ok(Some(_)) = self.next_event().await {} };
            // After the timeout, dropping the stream closes it.
            let _ = timeout(CLOSE_WITHIN, closed).await;
        }
    }

    /// The next text and its length in the buffer; `None` at the end.
    async fn next_text(&mut self) -> Result<Option<(Vec<u8>, usize)>, DemoClientError> {
        loop {
            let frame = frame::read(&self.buffer);
            match frame.map_err(|error| failed(self.address, format_args!("it sent {error}")))? {
                Some((Frame::Text(text), length)) => return Ok(Some((text.to_vec(), length))),
                Some((Frame::Close, _)) => return Ok(None),
                Some((Frame::Ping(payload), length)) => {
                    let mut pong = Vec::new();
                    frame::write_pong(&mut pong, payload);
                    self.buffer.drain(..length);
                    self.write(&pong).await?;
                }
                Some((Frame::Other, length)) => drop(self.buffer.drain(..length)),
                None => {
                    if self.read().await? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> Result<usize, DemoClientError> {
        let count = self.stream.read_buf(&mut self.buffer).await;
        count.map_err(|error| failed(self.address, error))
    }

    async fn send_text(&mut self, text: &str) -> Result<(), DemoClientError> {
        let mut out = Vec::new();
        frame::write_text(&mut out, text);
        self.write(&out).await
    }

    /// Writes little, which fits into the socket buffer: cancellation cuts nothing off.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), DemoClientError> {
        let written = self.stream.write_all(bytes).await;
        written.map_err(|error| failed(self.address, error))
    }
}

fn failed(address: SocketAddr, cause: impl std::fmt::Display) -> DemoClientError {
    ConnectionError::failed(address, cause).into()
}

fn meaning(packet: &Packet<'_>) -> ServerEvent {
    let Packet::Event(event) = packet else {
        return match packet {
            Packet::Status { .. } => ServerEvent::Status,
            Packet::Update { .. } => ServerEvent::Update,
            _ => ServerEvent::Other,
        };
    };
    let name = event.strip_prefix(b"[\"").unwrap_or_default();
    let name = name.split(|&byte| byte == b'"').next().unwrap_or_default();
    match name {
        b"match-found" => ServerEvent::Match,
        b"match-timeout" => ServerEvent::Timeout,
        b"exception" => ServerEvent::Refusal,
        name if name.ends_with(b"-update") => ServerEvent::Update,
        _ => ServerEvent::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_classified() {
        let reader = Reader::new();
        for (text, event) in [
            (
                r#"42["profile-update",{"user":{},"revision":1}]"#,
                ServerEvent::Update,
            ),
            (
                r#"42["game-stats-update",{"userId":1}]"#,
                ServerEvent::Update,
            ),
            (
                r#"42["user-status-change",{"userId":1,"status":"online"}]"#,
                ServerEvent::Status,
            ),
            (r#"42["match-found",{"matchId":"a"}]"#, ServerEvent::Match),
            (r#"42["match-timeout"]"#, ServerEvent::Timeout),
            (
                r#"42["exception",{"error":"rate_limited"}]"#,
                ServerEvent::Refusal,
            ),
            (r#"42["kicked",{}]"#, ServerEvent::Other),
            ("42[]", ServerEvent::Other),
        ] {
            assert_eq!(meaning(&reader.read(text.as_bytes())), event, "{text}");
        }
    }
}
