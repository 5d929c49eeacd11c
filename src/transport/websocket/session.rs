//! The task of a session that began as a WebSocket: the only one that reads from its connection. It decodes frames,
//! answers those that the protocols answer by themselves, sends pings, and writes what waits in the outbound queue.
//!
//! While the session is idle there is no buffer: the task waits until there is something to read, and reads into a
//! buffer that all sessions of a thread share.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::decoder::{Decoder, Received};
use super::engine_packet::{self, EnginePacket, PING_INTERVAL, PING_TIMEOUT};
use super::frame::{self, Fault};
use super::socket_packet::{Content, SocketPacket};
use super::writer::{FrameWriter, WriterPhase};
use crate::transport::listener::socket::Socket;

/// Bytes read at once. Most of what clients send is far shorter.
const READ_LEN: usize = 16 * 1024;

/// How long a client has to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// At so many times within the interval between two pings of a session may a node send pings: every 250 ms.
const PINGS_PER_INTERVAL: u32 = 100;

/// The close code of an orderly end.
const NORMAL_CLOSURE: u16 = 1000;

/// The close code of a packet that breaks a protocol.
const PROTOCOL_ERROR: u16 = 1002;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_LEN]);
}

/// The reason why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The client has closed it.
    Client,
    /// The node has closed it, by its [`FrameWriter`].
    Node,
    /// The connection broke, or was closed from outside.
    Transport,
    /// The client does not read what it is sent.
    SlowConsumer,
    /// The client has not answered a ping.
    PingTimeout,
    /// The client breaks the WebSocket protocol.
    Fault(Fault),
    /// The client breaks the Engine.IO or the Socket.IO protocol.
    BadPacket,
}

/// Takes what a session reads. The session's task calls both, in order; they must not block.
pub(crate) trait PacketHandler {
    /// Bytes have come in.
    ///
    /// # Errors
    /// They are too many; the session is closed at once.
    fn on_bytes(&mut self, count: usize) -> io::Result<()>;

    /// A Socket.IO packet has come in. `Break` ends the session, because it breaks the protocol.
    fn on_packet(&mut self, packet: SocketPacket<'_>) -> ControlFlow<()>;
}

/// Heartbeat and limits of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionOptions {
    /// Most bytes of one message.
    pub message_len_max: usize,
    /// See [`PING_INTERVAL`].
    pub ping_interval: Duration,
    /// See [`PING_TIMEOUT`].
    pub ping_timeout: Duration,
}

impl SessionOptions {
    /// The intervals that the first packet of a session announces.
    pub(crate) fn new(message_len_max: usize) -> Self {
        Self {
            message_len_max,
            ping_interval: PING_INTERVAL,
            ping_timeout: PING_TIMEOUT,
        }
    }
}

/// Runs a session until it ends. `unread` was read together with the request. The connection is closed at the end, also
/// where the task is dropped before.
pub(crate) async fn run_session<S: Socket, H: PacketHandler>(
    writer: &FrameWriter<S>,
    unread: &[u8],
    handler: H,
    options: &SessionOptions,
) -> SessionEnd {
    let mut session = Session {
        writer,
        handler,
        options,
        decoder: Some(Decoder::new(options.message_len_max)),
        attachments_left: 0,
        attached: 0,
        heartbeat: Heartbeat::Idle,
        end: None,
        has_client_closed: false,
    };
    if !unread.is_empty() {
        session.decode(&mut unread.to_vec());
    }
    let mut timer = pin!(sleep_until(next_ping(options.ping_interval)));
    std::future::poll_fn(|context| session.poll(context, timer.as_mut())).await
}

/// The time of the next ping: `interval` from now, or up to a hundredth of it earlier. All sessions of the node share
/// these times, so that one wake-up of a thread sends the pings of many.
fn next_ping(interval: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let due = Instant::now() + interval;
    let step = (interval / PINGS_PER_INTERVAL).max(Duration::from_millis(1));
    let since_step = due.duration_since(*START).as_nanos() % step.as_nanos();
    due - Duration::from_nanos(u64::try_from(since_step).unwrap_or_default())
}

struct Session<'s, S: Socket, H> {
    writer: &'s FrameWriter<S>,
    handler: H,
    options: &'s SessionOptions,
    /// None after a close frame or a fault: nothing that follows can be read.
    decoder: Option<Decoder>,
    /// Binary messages that a packet has announced.
    attachments_left: usize,
    /// Bytes of those that have come.
    attached: usize,
    heartbeat: Heartbeat,
    /// Set when a close frame is on its way; from then on only the client's own counts.
    end: Option<SessionEnd>,
    has_client_closed: bool,
}

/// The purpose of a session's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heartbeat {
    /// The next ping.
    Idle,
    /// The end of the time to answer one.
    Pinged,
    /// It was answered; the timer is still to be set.
    Answered,
    /// The end of the time to answer a close frame.
    Closing,
}

impl<S: Socket, H> Drop for Session<'_, S, H> {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl<S: Socket, H: PacketHandler> Session<'_, S, H> {
    fn poll(&mut self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<SessionEnd> {
        let read = self.poll_read(context);
        if self.heartbeat == Heartbeat::Answered {
            self.heartbeat = Heartbeat::Idle;
            timer.as_mut().reset(next_ping(self.options.ping_interval));
        }
        while self.end.is_none() && timer.as_mut().poll(context).is_ready() {
            if self.heartbeat == Heartbeat::Pinged {
                return Poll::Ready(SessionEnd::PingTimeout);
            }
            self.heartbeat = Heartbeat::Pinged;
            self.writer.send(&engine_packet::ping());
            timer
                .as_mut()
                .reset(Instant::now() + self.options.ping_timeout);
        }
        let flushed = self.writer.poll_flush(context);
        // The writer knows the task by now, so no later change is missed.
        match self.writer.phase() {
            WriterPhase::Open => {}
            WriterPhase::Closing => _ = self.end.get_or_insert(SessionEnd::Node),
            WriterPhase::Aborted => return Poll::Ready(self.end.unwrap_or(SessionEnd::Node)),
            WriterPhase::Overflowed => return Poll::Ready(SessionEnd::SlowConsumer),
            WriterPhase::Broken => return Poll::Ready(self.end.unwrap_or(SessionEnd::Transport)),
        }
        if read.is_ready() || matches!(flushed, Poll::Ready(Err(_))) {
            return Poll::Ready(self.end.unwrap_or(SessionEnd::Transport));
        }
        if let Some(end) = self.end {
            if self.heartbeat != Heartbeat::Closing {
                self.heartbeat = Heartbeat::Closing;
                timer.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
            }
            if flushed.is_ready() {
                // The client reads the close frame, and closes its half.
                self.writer.socket().shutdown(Shutdown::Write);
                if self.has_client_closed {
                    return Poll::Ready(end);
                }
            }
            ready!(timer.poll(context));
            return Poll::Ready(end);
        }
        Poll::Pending
    }

    /// Reads all there is. Ready when there will be no more.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let socket = self.writer.socket();
        loop {
            if ready!(socket.poll_read_ready(context)).is_err() {
                return Poll::Ready(());
            }
            let goes_on = BUFFER.with_borrow_mut(|buffer| match socket.try_read(buffer) {
                Ok(0) => false,
                Ok(count) => self.take(&mut buffer[..count]),
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            });
            if !goes_on {
                return Poll::Ready(());
            }
        }
    }

    /// Takes bytes that were read. Returns whether more may follow.
    fn take(&mut self, input: &mut [u8]) -> bool {
        let is_admitted = self.handler.on_bytes(input.len()).is_ok();
        if is_admitted {
            self.decode(input);
        }
        is_admitted
    }

    fn decode(&mut self, mut input: &mut [u8]) {
        let Some(mut decoder) = self.decoder.take() else {
            return;
        };
        // One pong answers all pings before it (RFC 6455, section 5.5.3).
        let mut pong = None;
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Received::Close(code))) => {
                    self.has_client_closed = true;
                    self.end.get_or_insert(SessionEnd::Client);
                    self.writer.close_with(Received::close_answer(code));
                    break;
                }
                Ok(Some(_)) if self.end.is_some() => {}
                Ok(Some(Received::Text(text))) => self.on_text(&text),
                Ok(Some(Received::Binary(bytes))) => self.on_attachment(bytes.len()),
                Ok(Some(Received::Ping(payload))) => pong = Some(frame::pong(&payload)),
                Ok(Some(Received::Pong(_))) => {}
                Ok(None) => {
                    self.decoder = Some(decoder);
                    break;
                }
                Err(fault) => {
                    self.close(
                        SessionEnd::Fault(fault),
                        fault.close_code(),
                        &fault.to_string(),
                    );
                    break;
                }
            }
        }
        if let Some(pong) = pong {
            self.writer.send(&pong);
        }
    }

    fn on_text(&mut self, text: &str) {
        match EnginePacket::read(text) {
            Ok(EnginePacket::Close) => self.close(SessionEnd::Client, NORMAL_CLOSURE, ""),
            Ok(EnginePacket::Heartbeat) => {
                if self.heartbeat == Heartbeat::Pinged {
                    self.heartbeat = Heartbeat::Answered;
                }
            }
            Ok(EnginePacket::Message(message)) => self.on_message(message),
            Err(error) => self.close(SessionEnd::BadPacket, PROTOCOL_ERROR, &error.to_string()),
        }
    }

    fn on_message(&mut self, message: &str) {
        let bad = |reason| (SessionEnd::BadPacket, PROTOCOL_ERROR, reason);
        let taken = match SocketPacket::read(message) {
            _ if self.attachments_left > 0 => Err(bad("attachments are missing".to_owned())),
            Ok(packet) => {
                self.attached = 0;
                self.attachments_left = match packet.content {
                    Content::Event { attachments, .. } | Content::Ack { attachments, .. } => {
                        attachments
                    }
                    Content::Connect(_) | Content::Disconnect => 0,
                };
                match self.handler.on_packet(packet) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => {
                        Err(bad("the packet is not one of Socket.IO".to_owned()))
                    }
                }
            }
            Err(error) => Err(bad(error.to_string())),
        };
        if let Err((end, code, reason)) = taken {
            self.close(end, code, &reason);
        }
    }

    /// Attachments are counted and dropped: their packet was refused when it came. Together they are one message.
    fn on_attachment(&mut self, len: usize) {
        let Some(left) = self.attachments_left.checked_sub(1) else {
            let reason = "nothing announced this attachment";
            return self.close(SessionEnd::BadPacket, PROTOCOL_ERROR, reason);
        };
        self.attachments_left = left;
        self.attached += len;
        if self.attached > self.options.message_len_max {
            let fault = Fault::TooLarge;
            self.close(
                SessionEnd::Fault(fault),
                fault.close_code(),
                &fault.to_string(),
            );
        }
    }

    fn close(&mut self, end: SessionEnd, code: u16, reason: &str) {
        self.end.get_or_insert(end);
        self.writer.close(code, reason);
    }
}

#[cfg(test)]
mod tests;
