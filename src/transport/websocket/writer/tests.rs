use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use super::*;
use crate::transport::limits::Limits;

/// Takes as many bytes as there is room for.
#[derive(Default)]
struct Pipe {
    taken: Mutex<Vec<u8>>,
    room: AtomicUsize,
    blocked: Mutex<Vec<bool>>,
}

impl Pipe {
    fn take(&self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room.load(Ordering::Relaxed);
        let count = bytes.len().min(room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.store(room - count, Ordering::Relaxed);
        let mut taken = self.taken.lock();
        taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

impl Socket for Pipe {
    fn poll_read_ready(&self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn try_read(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_write_ready(&self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.room.load(Ordering::Relaxed) {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
        self.take(&bytes.collect::<Vec<_>>())
    }

    fn note_waiting(&self, frames: usize) {
        let is_blocked = frames > 0;
        let mut blocked = self.blocked.lock();
        if blocked.last().copied().unwrap_or_default() != is_blocked {
            blocked.push(is_blocked);
        }
    }

    fn blocked_for(&self) -> Duration {
        Duration::ZERO
    }

    fn shutdown(&self, _how: Shutdown) {}
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn writer(room: usize) -> FrameWriter<Pipe> {
    let limits = Limits {
        outbound_queue: 40,
        ..Limits::sample()
    };
    let writer = FrameWriter::new(Pipe::default(), CurrentLimits::new(limits));
    writer.socket.room.store(room, Ordering::Relaxed);
    writer
}

/// Goal: frames go out in order, whatever part of them fits. Method: room for one byte more each time.
#[test]
fn a_frame_that_is_begun_is_finished_first() {
    let (writer, woken) = (writer(3), Arc::new(Woken::default()));
    let waker = woken.clone().into();
    let mut context = Context::from_waker(&waker);
    assert!(writer.poll_flush(&mut context).is_ready());
    let mut waiting = Vec::new();
    for frame in [&b"ab"[..], b"cde", b"f", b"ghij"] {
        waiting.push(writer.send(&Bytes::from_static(frame)));
    }
    let expected = [0, 1, 2, 3].map(SendOutcome::Queued);
    assert_eq!(waiting, expected);
    // Once, by the first that had to wait.
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    while writer.poll_flush(&mut context).is_pending() {
        writer.socket.room.fetch_add(1, Ordering::Relaxed);
    }
    let taken = writer.socket.taken.lock();
    assert_eq!(taken.as_slice(), b"abcdefghij");
}

#[test]
fn a_stalled_write_is_noted_until_it_moves() {
    let writer = writer(2);
    for _ in 0..3 {
        writer.send(&Bytes::from_static(b"xx"));
    }
    let blocked = || writer.socket.blocked.lock().clone();
    assert_eq!(blocked(), [true]);
    writer.socket.room.store(1, Ordering::Relaxed);
    writer.flush();
    assert_eq!(blocked(), [true, false, true]);
    writer.socket.room.store(3, Ordering::Relaxed);
    assert_eq!(writer.flush(), SendOutcome::Queued(0));
    assert_eq!(blocked(), [true, false, true, false]);
}

#[test]
fn a_queue_that_overflows_is_closed() {
    let writer = writer(0);
    let frame = Bytes::from_static(b"x");
    for waiting in 1..=40 {
        assert_eq!(writer.send(&frame), SendOutcome::Queued(waiting));
    }
    assert_eq!(writer.send(&frame), SendOutcome::Overflow(41));
    assert_eq!(writer.phase(), WriterPhase::Overflowed);
    assert_eq!(writer.send(&frame), SendOutcome::Closed);
    assert_eq!(writer.flush(), SendOutcome::Queued(0));
}

/// A batch waits for its flush, and then takes as few writes as there are slices for.
#[test]
fn a_batch_is_written_by_its_flush() {
    let writer = writer(1000);
    for _ in 0..40 {
        writer.push(&Bytes::from_static(b"x"));
    }
    assert!(writer.socket.taken.lock().is_empty());
    assert_eq!(writer.flush(), SendOutcome::Queued(0));
    assert_eq!(writer.socket.taken.lock().len(), 40);
}
