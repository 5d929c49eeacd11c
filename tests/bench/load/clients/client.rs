//! One client: a WebSocket that opens, joins, asks, and counts what it is told.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use super::counters::Count;
use super::received::{Common, Told};
use super::{ClientError, Opening};
use crate::socket_io::frame::{self, Frame};
use crate::socket_io::packet::{self, Packet, Question};
use crate::socket_io::{ConnectionError, HEAD_END, check_head, upgrade_request};

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP is not open yet.
    Connecting,
    /// The upgrade to a WebSocket was asked for.
    Upgrading,
    /// Engine.IO is not open yet.
    Opening,
    /// The namespace was asked for.
    Joining,
    /// Everything is there.
    Open,
    /// The goodbye was said.
    Leaving,
    /// The connection is no more.
    Gone,
}

/// A client.
pub(super) struct Client {
    /// None once the connection is no more: what was received still counts.
    stream: Option<TcpStream>,
    stage: Stage,
    opening: Opening,
    question: Option<Question>,
    /// When it began to open, or to wait for an answer.
    since: Instant,
    /// The beginning of something whose end has not arrived.
    rest: Vec<u8>,
    told: Told,
}

impl Client {
    /// A client whose TCP connection is being opened.
    pub(super) fn new(stream: TcpStream, opening: Opening) -> Self {
        Self {
            stream: Some(stream),
            stage: Stage::Connecting,
            opening,
            question: None,
            since: Instant::now(),
            rest: Vec::new(),
            told: Told::default(),
        }
    }

    /// How far it has come.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The node that it is on.
    pub(super) fn node(&self) -> usize {
        self.opening.node
    }

    /// What it has been told.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// The socket has become writable.
    pub(super) fn on_writable(&mut self, common: &mut Common<'_>) -> Result<(), ClientError> {
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
        common.out.extend(request.as_bytes());
        self.stage = Stage::Upgrading;
        self.write(common)
    }

    /// Reads all that there is.
    pub(super) fn on_readable(
        &mut self,
        buffer: &mut [u8],
        common: &mut Common<'_>,
    ) -> Result<(), ClientError> {
        while let Some(stream) = &mut self.stream {
            match stream.read(buffer) {
                Ok(0) => return self.ended(None, common),
                Ok(count) => {
                    self.take(&buffer[..count], common)?;
                    if count < buffer.len() {
                        // There was no more; whatever comes now is announced.
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.ended(Some(&error), common),
            }
        }
        Ok(())
    }

    /// Asks something, unless the node has closed the connection.
    pub(super) fn ask(
        &mut self,
        question: Question,
        common: &mut Common<'_>,
    ) -> Result<(), ClientError> {
        if self.stage != Stage::Open {
            return Ok(());
        }
        self.question = Some(question);
        self.since = Instant::now();
        frame::write_text(&mut common.out, &packet::ask(question));
        self.write(common)
    }

    /// Says goodbye; the node then closes.
    pub(super) fn leave(&mut self, common: &mut Common<'_>) -> Result<(), ClientError> {
        if self.stage != Stage::Open {
            return Ok(());
        }
        self.stage = Stage::Leaving;
        frame::write_text(&mut common.out, packet::LEAVE);
        frame::write_close(&mut common.out);
        self.write(common)
    }

    /// The connection has ended, by itself or with an error.
    fn ended(
        &mut self,
        error: Option<&io::Error>,
        common: &mut Common<'_>,
    ) -> Result<(), ClientError> {
        let count = match (self.stage, error) {
            (Stage::Open, _) => Count::Dropped,
            (Stage::Leaving, _) => Count::Closed,
            (Stage::Gone, _) => return Ok(()),
            (_, Some(error)) => return Err(self.failed(error)),
            (_, None) => {
                return Err(self.refused("it closed the connection"));
            }
        };
        (self.stage, self.stream) = (Stage::Gone, None);
        common.count(count);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> ClientError {
        ConnectionError::failed(self.opening.address, error).into()
    }

    /// Writes at once what is to be written: it is little, and the node reads.
    fn write(&mut self, common: &mut Common<'_>) -> Result<(), ClientError> {
        let whole = common.out.len();
        let outcome = self
            .stream
            .as_mut()
            .map_or(Ok(whole), |stream| stream.write(&common.out));
        common.out.clear();
        match outcome {
            Ok(count) if count == whole => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.ended(Some(&error), common)
            }
            _ => Err(self.failed(&io::Error::other("it does not read"))),
        }
    }

    fn take(&mut self, bytes: &[u8], common: &mut Common<'_>) -> Result<(), ClientError> {
        if self.rest.is_empty() {
            let taken = self.work_off(bytes, common)?;
            self.rest.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let taken = self.work_off(&rest, common)?;
        if taken < rest.len() {
            rest.drain(..taken);
            self.rest = rest;
        }
        Ok(())
    }

    /// Works off what is whole; returns how many bytes that was.
    fn work_off(&mut self, bytes: &[u8], common: &mut Common<'_>) -> Result<usize, ClientError> {
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
                    self.on_frame(frame, now, common)?;
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
        common: &mut Common<'_>,
    ) -> Result<(), ClientError> {
        match frame {
            Frame::Text(text) => {
                let packet = common.reader.read(text);
                self.on_packet(packet, now, common)
            }
            Frame::Ping(payload) => {
                frame::write_pong(&mut common.out, payload);
                self.write(common)
            }
            // Who said goodbye first may close when it is answered; some servers wait for that.
            Frame::Close if self.stage == Stage::Leaving => self.ended(None, common),
            // The end of the stream follows.
            Frame::Close | Frame::Other => Ok(()),
        }
    }

    fn on_packet(
        &mut self,
        packet: Packet<'_>,
        now: Instant,
        common: &mut Common<'_>,
    ) -> Result<(), ClientError> {
        match packet {
            Packet::Update { number, revision } => {
                let update = (number, revision);
                self.told.update(update, self.opening.node, now, common);
            }
            Packet::Status { user, online } => {
                let guest = self.opening.token.is_none();
                self.told.status(user, online, guest, common);
            }
            Packet::Ping => {
                frame::write_text(&mut common.out, packet::PONG);
                return self.write(common);
            }
            Packet::Opened => {
                self.stage = Stage::Joining;
                let join = packet::join(self.opening.token.as_deref());
                frame::write_text(&mut common.out, &join);
                return self.write(common);
            }
            Packet::Joined => {
                self.stage = Stage::Open;
                common.findings.opening.record(now - self.since);
                common.count(Count::Joined);
            }
            Packet::Refused(reason) => return Err(self.refused(String::from_utf8_lossy(reason))),
            Packet::Answer(answer) => return self.on_answer(answer, now, common),
            Packet::Event(_) | Packet::Closed | Packet::Other => {}
        }
        Ok(())
    }

    fn on_answer(
        &mut self,
        answer: &[u8],
        now: Instant,
        common: &mut Common<'_>,
    ) -> Result<(), ClientError> {
        match self.question.take() {
            Some(Question::OnlineUsers) => {
                let Some(ids) = packet::count_ids(answer) else {
                    return Err(self.refused(String::from_utf8_lossy(answer)));
                };
                let ids_min = &mut common.findings.ids_min;
                *ids_min = Some(ids_min.map_or(ids, |min| min.min(ids)));
            }
            Some(Question::Watch(_)) => {
                if memchr::memmem::find(answer, b"\"ok\":true").is_none() {
                    return Err(self.refused(String::from_utf8_lossy(answer)));
                }
            }
            None => return Ok(()),
        }
        common.findings.answering.record(now - self.since);
        common.count(Count::Answers);
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
