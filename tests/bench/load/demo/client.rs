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

/// How long a node may take to close after the goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no connection, or no longer.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Tokens cannot be signed.
    #[error("cannot sign tokens: {0}")]
    Token(String),
}

/// What the hub has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something that is watched has changed.
    Update,
    /// Somebody came or went.
    Status,
    /// An opponent was found.
    Match,
    /// Nobody was found in time.
    Timeout,
    /// Something was refused.
    Refusal,
    /// Something else.
    Other,
}

/// A client that has joined. Dropped without [`Client::leave`], it is gone without a goodbye.
pub(super) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    /// What has arrived and is not worked off.
    buffer: Vec<u8>,
    reader: Reader,
}

impl Client {
    /// Connects, as a user or as a guest.
    ///
    /// # Errors
    /// When the node does not want it, or there is no connection in time.
    pub(super) async fn connect(
        address: SocketAddr,
        token: Option<&str>,
    ) -> Result<Self, ClientError> {
        match timeout(OPEN_WITHIN, Self::open(address, token)).await {
            Ok(client) => client,
            Err(_) => Err(failed(address, "it takes too long")),
        }
    }

    async fn open(address: SocketAddr, token: Option<&str>) -> Result<Self, ClientError> {
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
                Packet::Opened => Some(packet::join(token)),
                Packet::Ping => Some(packet::PONG.to_owned()),
                Packet::Joined => {
                    client.buffer.drain(..length);
                    return Ok(client);
                }
                Packet::Refused(reason) => {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    return Err(ConnectionError::Refused { address, reason }.into());
                }
                _ => None,
            };
            client.buffer.drain(..length);
            if let Some(answer) = answer {
                client.say(&answer).await?;
            }
        }
    }

    async fn read_head(&mut self) -> Result<(), ClientError> {
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

    /// Sends an event, and wants no answer.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) async fn emit(
        &mut self,
        name: &str,
        payload: Option<&str>,
    ) -> Result<(), ClientError> {
        self.say(&packet::event(name, payload)).await
    }

    /// What the hub says next; `None` when it has closed the connection. May be given up and called again: what has
    /// arrived is kept.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) async fn hear(&mut self) -> Result<Option<Heard>, ClientError> {
        loop {
            let Some((text, length)) = self.next_text().await? else {
                return Ok(None);
            };
            let (heard, is_ping) = match self.reader.read(&text) {
                Packet::Ping => (None, true),
                Packet::Closed => return Ok(None),
                packet => (Some(meaning(&packet)), false),
            };
            self.buffer.drain(..length);
            if is_ping {
                self.say(packet::PONG).await?;
            }
            if let Some(heard) = heard {
                return Ok(Some(heard));
            }
        }
    }

    /// Says goodbye, and waits until the node has closed.
    pub(super) async fn leave(mut self) {
        let mut goodbye = Vec::new();
        frame::write_text(&mut goodbye, packet::LEAVE);
        frame::write_close(&mut goodbye);
        if self.write(&goodbye).await.is_ok() {
            let closed = async { while let Ok(Some(_)) = self.hear().await {} };
            // A node that does not close finds the connection closed.
            let _ = timeout(CLOSE_WITHIN, closed).await;
        }
    }

    /// The next text, and how many bytes of the buffer it takes up; `None` at the end.
    async fn next_text(&mut self) -> Result<Option<(Vec<u8>, usize)>, ClientError> {
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

    async fn read(&mut self) -> Result<usize, ClientError> {
        let count = self.stream.read_buf(&mut self.buffer).await;
        count.map_err(|error| failed(self.address, error))
    }

    async fn say(&mut self, text: &str) -> Result<(), ClientError> {
        let mut out = Vec::new();
        frame::write_text(&mut out, text);
        self.write(&out).await
    }

    /// Writes little, which fits into the socket at once: so nothing is cut off where a caller gives up.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let written = self.stream.write_all(bytes).await;
        written.map_err(|error| failed(self.address, error))
    }
}

fn failed(address: SocketAddr, cause: impl std::fmt::Display) -> ClientError {
    ConnectionError::failed(address, cause).into()
}

fn meaning(packet: &Packet<'_>) -> Heard {
    let Packet::Event(event) = packet else {
        return match packet {
            Packet::Status { .. } => Heard::Status,
            Packet::Update { .. } => Heard::Update,
            _ => Heard::Other,
        };
    };
    let name = event.strip_prefix(b"[\"").unwrap_or_default();
    let name = name.split(|&byte| byte == b'"').next().unwrap_or_default();
    match name {
        b"match-found" => Heard::Match,
        b"match-timeout" => Heard::Timeout,
        b"exception" => Heard::Refusal,
        name if name.ends_with(b"-update") => Heard::Update,
        _ => Heard::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_is_understood() {
        let reader = Reader::new();
        for (text, heard) in [
            (
                r#"42["profile-update",{"user":{},"revision":1}]"#,
                Heard::Update,
            ),
            (r#"42["game-stats-update",{"userId":1}]"#, Heard::Update),
            (
                r#"42["user-status-change",{"userId":1,"status":"online"}]"#,
                Heard::Status,
            ),
            (r#"42["match-found",{"matchId":"a"}]"#, Heard::Match),
            (r#"42["match-timeout"]"#, Heard::Timeout),
            (
                r#"42["exception",{"error":"rate_limited"}]"#,
                Heard::Refusal,
            ),
            (r#"42["kicked",{}]"#, Heard::Other),
            ("42[]", Heard::Other),
        ] {
            assert_eq!(meaning(&reader.read(text.as_bytes())), heard, "{text}");
        }
    }
}
