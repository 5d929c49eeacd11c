//! One client: a WebSocket that opens, connects to the namespace, sends queries, and counts what it receives.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use super::counters::Count;
use super::received::{Context, Received};
use super::{ClientError, Opening};
use crate::socket_io::frame::{self, Frame};
use crate::socket_io::packet::{self, Packet, Query};
use crate::socket_io::{ConnectionError, HEAD_END, check_head, upgrade_request};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP is opening.
    Connecting,
    /// The upgrade request is sent.
    Upgrading,
    /// Waiting for the Engine.IO handshake.
    Opening,
    /// CONNECT is sent.
    NamespaceConnecting,
    Open,
    /// DISCONNECT and a close frame are sent.
    Closing,
    Closed,
}

pub(super) struct Client {
    /// `None` once closed; the client stays, because what it received still counts.
    stream: Option<TcpStream>,
    stage: Stage,
    opening: Opening,
    query: Option<Query>,
    /// When opening began, or the last query was sent.
    since: Instant,
    /// An incomplete frame or head.
    rest: Vec<u8>,
    received: Received,
}

impl Client {
    pub(super) fn new(stream: TcpStream, opening: Opening) -> Self {
        Self {
            stream: Some(stream),
            stage: Stage::Connecting,
            opening,
            query: None,
            since: Instant::now(),
            rest: Vec::new(),
            received: Received::default(),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn node(&self) -> usize {
        self.opening.node
    }

    pub(super) fn received(&self) -> &Received {
        &self.received
    }

    pub(super) fn on_writable(&mut self, context: &mut Context<'_>) -> Result<(), ClientError> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        if self.stage != Stage::Connecting {
            return Ok(());
        }
        if let Some(error) = stream.take_error().unwrap_or_else(Some) {
            return Err(self.failed(&error));
        }
        if stream.peer_addr().is_err() {
            return Ok(());
        }
        let request = upgrade_request(self.opening.address);
        context.out.extend(request.as_bytes());
        self.stage = Stage::Upgrading;
        self.write(context)
    }

    pub(super) fn on_readable(
        &mut self,
        buffer: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), ClientError> {
        while let Some(stream) = &mut self.stream {
            match stream.read(buffer) {
                Ok(0) => return self.ended(None, context),
                Ok(count) => {
                    self.on_bytes(&buffer[..count], context)?;
                    if count < buffer.len() {
                        // The socket is drained; `poll` announces the rest.
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.ended(Some(&error), context),
            }
        }
        Ok(())
    }

    /// Sends a query, unless the node has closed the connection.
    pub(super) fn query(
        &mut self,
        query: Query,
        context: &mut Context<'_>,
    ) -> Result<(), ClientError> {
        if self.stage != Stage::Open {
            return Ok(());
        }
        self.query = Some(query);
        self.since = Instant::now();
        frame::write_text(&mut context.out, &packet::query(query));
        self.write(context)
    }

    /// Sends DISCONNECT and a close frame; the node then closes.
    pub(super) fn disconnect(&mut self, context: &mut Context<'_>) -> Result<(), ClientError> {
        if self.stage != Stage::Open {
            return Ok(());
        }
        self.stage = Stage::Closing;
        frame::write_text(&mut context.out, packet::DISCONNECT);
        frame::write_close(&mut context.out);
        self.write(context)
    }

    fn ended(
        &mut self,
        error: Option<&io::Error>,
        context: &mut Context<'_>,
    ) -> Result<(), ClientError> {
        let count = match (self.stage, error) {
            (Stage::Open, _) => Count::Dropped,
            (Stage::Closing, _) => Count::Closed,
            (Stage::Closed, _) => return Ok(()),
            (_, Some(error)) => return Err(self.failed(error)),
            (_, None) => {
                return Err(self.refused("it closed the connection"));
            }
        };
        (self.stage, self.stream) = (Stage::Closed, None);
        context.count(count);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> ClientError {
        ConnectionError::failed(self.opening.address, error).into()
    }

    /// Writes the buffer in one go: it is small, and a node that reads takes it.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), ClientError> {
        let whole = context.out.len();
        let outcome = self
            .stream
            .as_mut()
            .map_or(Ok(whole), |stream| stream.write(&context.out));
        context.out.clear();
        match outcome {
            Ok(count) if count == whole => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.ended(Some(&error), context)
            }
            _ => Err(self.failed(&io::Error::other("it does not read"))),
        }
    }

    fn on_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Result<(), ClientError> {
        if self.rest.is_empty() {
            let taken = self.parse(bytes, context)?;
            self.rest.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let taken = self.parse(&rest, context)?;
        if taken < rest.len() {
            rest.drain(..taken);
            self.rest = rest;
        }
        Ok(())
    }

    /// Handles every complete frame; returns the bytes consumed.
    fn parse(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Result<usize, ClientError> {
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, HEAD_END) else {
                return Ok(0);
            };
            self.on_head(&bytes[..end])?;
            taken = end + HEAD_END.len();
        }
        let now = Instant::now();
        loop {
            let frame = frame::read(&bytes[taken..]);
            match frame.map_err(|error| self.unreadable(&error))? {
                Some((frame, length)) => {
                    taken += length;
                    self.on_frame(frame, now, context)?;
                }
                None => return Ok(taken),
            }
        }
    }

    fn on_head(&mut self, head: &[u8]) -> Result<(), ClientError> {
        check_head(head).map_err(|reason| self.refused(reason))?;
        self.stage = Stage::Opening;
        Ok(())
    }

    fn on_frame(
        &mut self,
        frame: Frame<'_>,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<(), ClientError> {
        match frame {
            Frame::Text(text) => {
                let packet = context.reader.read(text);
                self.on_packet(packet, now, context)
            }
            Frame::Ping(payload) => {
                frame::write_pong(&mut context.out, payload);
                self.write(context)
            }
            // The side that sent the first close frame may close the socket once it is answered; some servers wait for that.
            Frame::Close if self.stage == Stage::Closing => self.ended(None, context),
            Frame::Close | Frame::Other => Ok(()),
        }
    }

    fn on_packet(
        &mut self,
        packet: Packet<'_>,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<(), ClientError> {
        match packet {
            Packet::Update { number, revision } => {
                let update = (number, revision);
                self.received
                    .update(update, self.opening.node, now, context);
            }
            Packet::Status { user, online } => {
                let guest = self.opening.token.is_none();
                self.received.status(user, online, guest, context);
            }
            Packet::Ping => {
                frame::write_text(&mut context.out, packet::PONG);
                return self.write(context);
            }
            Packet::Open => {
                self.stage = Stage::NamespaceConnecting;
                let join = packet::connect(self.opening.token.as_deref());
                frame::write_text(&mut context.out, &join);
                return self.write(context);
            }
            Packet::Connected => {
                self.stage = Stage::Open;
                context.results.opening.record(now - self.since);
                context.count(Count::Connected);
            }
            Packet::ConnectError(reason) => {
                return Err(self.refused(String::from_utf8_lossy(reason)));
            }
            Packet::Ack(answer) => return self.on_ack(answer, now, context),
            Packet::Event(_) | Packet::Closed | Packet::Other => {}
        }
        Ok(())
    }

    fn on_ack(
        &mut self,
        answer: &[u8],
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<(), ClientError> {
        match self.query.take() {
            Some(Query::OnlineUsers) => {
                let Some(ids) = packet::count_ids(answer) else {
                    return Err(self.refused(String::from_utf8_lossy(answer)));
                };
                let ids_min = &mut context.results.ids_min;
                *ids_min = Some(ids_min.map_or(ids, |min| min.min(ids)));
            }
            Some(Query::Watch(_)) => {
                if memchr::memmem::find(answer, b"\"ok\":true").is_none() {
                    return Err(self.refused(String::from_utf8_lossy(answer)));
                }
            }
            None => return Ok(()),
        }
        context.results.acks.record(now - self.since);
        context.count(Count::Acks);
        Ok(())
    }

    fn refused(&self, reason: impl Into<String>) -> ClientError {
        let (address, reason) = (self.opening.address, reason.into());
        ConnectionError::Refused { address, reason }.into()
    }

    fn unreadable(&self, error: &frame::FrameError) -> ClientError {
        self.refused(format!("it sent {error}"))
    }
}
