//! The outbound queue of a session. The thread that sends a frame writes it at once. Bytes that the kernel does not take
//! wait in a bounded queue, and the session's task writes them when there is room. A session whose queue overflows is
//! closed as a slow consumer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;

use super::frame;
use crate::transport::limits::CurrentLimits;
use crate::transport::listener::socket::Socket;
use crate::transport::session::sink::{Backlog, NOT_READING, SendOutcome};

/// Frames that one system call writes.
const SLICES_MAX: usize = 32;

/// Writes frames to one session, from any thread.
#[derive(Debug)]
pub(crate) struct FrameWriter<S> {
    socket: S,
    limits: CurrentLimits,
    state: Mutex<WriterState>,
}

#[derive(Debug, Default)]
struct WriterState {
    queue: VecDeque<Bytes>,
    /// Bytes of the first frame that are written.
    written: usize,
    phase: WriterPhase,
    /// The session's task, and whether it waits for room already.
    task: Option<Waker>,
    is_flushing: bool,
}

/// How far the end of a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WriterPhase {
    #[default]
    Open,
    /// A close frame is the last in the queue.
    Closing,
    /// The node has closed the session.
    Aborted,
    /// The queue has overflowed.
    Overflowed,
    /// The connection takes nothing any more.
    Broken,
}

impl<S: Socket> FrameWriter<S> {
    /// A writer whose queue holds `limits.outbound_queue` frames.
    pub(crate) fn new(socket: S, limits: CurrentLimits) -> Self {
        Self {
            socket,
            limits,
            state: Mutex::default(),
        }
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    pub(super) fn phase(&self) -> WriterPhase {
        self.state.lock().phase
    }

    /// The frames that wait.
    pub(crate) fn backlog(&self) -> Backlog {
        let waiting = self.state.lock().queue.len();
        Backlog {
            waiting,
            is_reading: self.socket.blocked_for() < NOT_READING,
            needs_flush: false,
        }
    }

    /// Writes a frame, or several in one piece.
    pub(crate) fn send(&self, frame: &Bytes) -> SendOutcome {
        let mut state = self.state.lock();
        if state.phase != WriterPhase::Open {
            return SendOutcome::Closed;
        }
        if !state.queue.is_empty() {
            return self.enqueue(&mut state, frame);
        }
        match self.socket.try_send(frame) {
            Ok(count) if count == frame.len() => SendOutcome::Queued(0),
            Ok(count) => {
                state.queue.push_back(frame.slice(count..));
                self.wait(&mut state)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.queue.push_back(frame.clone());
                self.wait(&mut state)
            }
            Err(_) => self.end(&mut state, WriterPhase::Broken),
        }
    }

    /// Queues a frame for the next [`Self::flush`], so that a batch takes few system calls.
    pub(crate) fn push(&self, frame: &Bytes) -> SendOutcome {
        let mut state = self.state.lock();
        if state.phase != WriterPhase::Open {
            return SendOutcome::Closed;
        }
        self.enqueue(&mut state, frame)
    }

    fn enqueue(&self, state: &mut WriterState, frame: &Bytes) -> SendOutcome {
        state.queue.push_back(frame.clone());
        let len = state.queue.len();
        if len <= self.limits.get().outbound_queue {
            if state.is_flushing {
                self.socket.note_waiting(len);
            }
            return SendOutcome::Queued(len);
        }
        self.end(state, WriterPhase::Overflowed);
        SendOutcome::Overflow(len)
    }

    /// Writes what waits, as far as there is room.
    pub(crate) fn flush(&self) -> SendOutcome {
        let mut state = self.state.lock();
        match self.write_queue(&mut state) {
            Ok(()) => SendOutcome::Queued(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(&mut state),
            Err(_) => self.end(&mut state, WriterPhase::Broken),
        }
    }

    /// Has the task go on, as soon as there is room.
    fn wait(&self, state: &mut WriterState) -> SendOutcome {
        self.socket.note_waiting(state.queue.len());
        if !state.is_flushing {
            state.wake();
        }
        SendOutcome::Queued(state.queue.len())
    }

    fn write_queue(&self, state: &mut WriterState) -> io::Result<()> {
        while !state.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut skipped = state.written;
            let filled = slices.iter_mut().zip(&state.queue).map(|(slice, frame)| {
                *slice = IoSlice::new(&frame[std::mem::take(&mut skipped)..]);
            });
            let filled = filled.count();
            let count = self.socket.try_write_vectored(&slices[..filled])?;
            self.socket.note_waiting(0);
            state.advance(count);
        }
        // A session that is idle again holds no memory for its burst.
        state.queue = VecDeque::new();
        Ok(())
    }

    /// Sends a close frame after all that waits, then nothing more. The session ends once the client has answered, or has
    /// had time to.
    pub(crate) fn close(&self, code: u16, reason: &str) {
        self.close_with(frame::close(Some(code), reason));
    }

    pub(super) fn close_with(&self, frame: Bytes) {
        let mut state = self.state.lock();
        if state.phase == WriterPhase::Open {
            state.phase = WriterPhase::Closing;
            state.queue.push_back(frame);
            // The task writes it, and waits for the answer.
            state.wake();
        }
    }

    /// Closes the session at once, whatever waits.
    pub(crate) fn abort(&self) {
        self.end(&mut self.state.lock(), WriterPhase::Aborted);
    }

    fn end(&self, state: &mut WriterState, phase: WriterPhase) -> SendOutcome {
        if matches!(state.phase, WriterPhase::Open | WriterPhase::Closing) {
            state.phase = phase;
            state.queue = VecDeque::new();
            self.socket.shutdown(Shutdown::Both);
            state.wake();
        }
        SendOutcome::Closed
    }

    /// Writes what waits, for the task: it is woken when there is room, when something new waits, and at the end.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        let waker = context.waker();
        if !state
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(waker))
        {
            state.task = Some(waker.clone());
        }
        loop {
            state.is_flushing = false;
            match self.write_queue(&mut state) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
            self.socket.note_waiting(state.queue.len());
            state.is_flushing = true;
            ready!(self.socket.poll_write_ready(context))?;
        }
    }
}

impl WriterState {
    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// So many bytes are out.
    fn advance(&mut self, count: usize) {
        self.written += count;
        while let Some(frame) = self
            .queue
            .front()
            .filter(|frame| frame.len() <= self.written)
        {
            self.written -= frame.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
