//! One client: a WebSocket that opens, joins, asks, and counts what it is told.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::frame::{self, Frame};
use super::packet::{self, Packet, Question, Reader};
use super::seen::Seen;
use super::tally::{COUNTS, Count, Latencies, Tally};
use super::{ClientError, Opening, Users};

/// What an HTTP head ends with.
const HEAD_END: &[u8] = b"\r\n\r\n";

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

/// What the clients of a thread share: it is read and written by one of them at a time.
pub(super) struct Common<'a> {
    pub(super) tally: &'a Tally,
    pub(super) users: Users,
    pub(super) reader: Reader,
    /// What is to be written; empty between two clients.
    pub(super) out: Vec<u8>,
    pub(super) counts: [u64; COUNTS],
    pub(super) findings: Findings,
}

/// What a thread has found out since it was last asked.
pub(super) struct Findings {
    pub(super) opening: Latencies,
    pub(super) answering: Latencies,
    /// From the request to the receipt, by the node that the client is on.
    pub(super) updates: Vec<Latencies>,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    /// Of all answers about who is online, how many ids the shortest had.
    pub(super) ids_min: Option<u64>,
}

impl Findings {
    /// Nothing, about so many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            opening: Latencies::new(),
            answering: Latencies::new(),
            updates: (0..nodes).map(|_| Latencies::new()).collect(),
            duplicates: 0,
            out_of_order: 0,
            ids_min: None,
        }
    }
}

impl Common<'_> {
    fn count(&mut self, what: Count) {
        self.counts[what as usize] += 1;
    }
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
    updates: Seen,
    last_revision: u64,
    statuses: Seen,
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
            updates: Seen::default(),
            last_revision: 0,
            statuses: Seen::default(),
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

    /// How many different updates it has received.
    pub(super) fn updates(&self) -> u64 {
        self.updates.len()
    }

    /// How many different comings and goings it has been told of.
    pub(super) fn statuses(&self) -> u64 {
        self.statuses.len()
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
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.opening.address
        );
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
                return Err(ClientError::Refused {
                    address: self.opening.address,
                    reason: "it closed the connection".to_owned(),
                });
            }
        };
        (self.stage, self.stream) = (Stage::Gone, None);
        common.count(count);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> ClientError {
        ClientError::Failed {
            address: self.opening.address,
            cause: error.to_string(),
        }
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
        if head.starts_with(b"HTTP/1.1 101 ") {
            self.stage = Stage::Opening;
            return Ok(());
        }
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        Err(ClientError::Refused {
            address: self.opening.address,
            reason: format!(
                "it answered the upgrade with {}",
                String::from_utf8_lossy(line)
            ),
        })
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
            Packet::Update { number, revision } => self.on_update(number, revision, now, common),
            Packet::Status { user, online } => self.on_status(user, online, common),
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
            Packet::Refused(reason) => return Err(self.refused(reason)),
            Packet::Answer(answer) => return self.on_answer(answer, now, common),
            Packet::Closed | Packet::Other => {}
        }
        Ok(())
    }

    fn on_update(&mut self, number: usize, revision: u64, now: Instant, common: &mut Common<'_>) {
        // Another run's, which was still under way.
        if !common.tally.expects(number) {
            return;
        }
        common.count(Count::Updates);
        if let Some(latency) = common.tally.since_sent(number, now)
            && let Some(latencies) = common.findings.updates.get_mut(self.opening.node)
        {
            latencies.record(latency);
        }
        if !self.updates.insert(number) {
            common.findings.duplicates += 1;
        } else if revision < self.last_revision {
            common.findings.out_of_order += 1;
        }
        self.last_revision = self.last_revision.max(revision);
    }

    fn on_status(&mut self, user: u64, online: bool, common: &mut Common<'_>) {
        // Others' coming and going costs the nodes the same, but says nothing about this run.
        common.count(Count::Statuses);
        if self.opening.token.is_none() {
            common.count(Count::Observed);
        }
        if let Some(place) = common.users.place(user)
            && !self.statuses.insert(place * 2 + usize::from(online))
        {
            common.findings.duplicates += 1;
        }
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
                    return Err(self.refused(answer));
                };
                let ids_min = &mut common.findings.ids_min;
                *ids_min = Some(ids_min.map_or(ids, |min| min.min(ids)));
            }
            Some(Question::Watch(_)) => {
                if memchr::memmem::find(answer, b"\"ok\":true").is_none() {
                    return Err(self.refused(answer));
                }
            }
            None => return Ok(()),
        }
        common.findings.answering.record(now - self.since);
        common.count(Count::Answers);
        Ok(())
    }

    fn refused(&self, reason: &[u8]) -> ClientError {
        ClientError::Refused {
            address: self.opening.address,
            reason: String::from_utf8_lossy(reason).into_owned(),
        }
    }

    fn unreadable(&self, error: &frame::FrameError) -> ClientError {
        ClientError::Refused {
            address: self.opening.address,
            reason: format!("it sent {error}"),
        }
    }
}

/// The address that a client connects from. An address has a limited number of ports, and a port rests for a minute when
/// its connection has ended: on loopback every run takes addresses of its own, and one for so many clients.
pub(super) fn source_of(place: usize, to: SocketAddr) -> Option<SocketAddr> {
    const CLIENTS_PER_ADDRESS: usize = 10_000;
    match to {
        SocketAddr::V4(to) if to.ip().is_loopback() => {
            let run = std::process::id().to_be_bytes();
            let address = [
                127,
                run[2] | 1,
                run[3],
                1 + (place / CLIENTS_PER_ADDRESS) as u8,
            ];
            Some(SocketAddr::from((address, 0)))
        }
        _ => None,
    }
}
