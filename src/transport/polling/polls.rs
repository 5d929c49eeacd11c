//! Long polls, where the library leaves something to do: it does not notice that a client aborts a poll, and adds to an
//! answer whatever arrives while it writes it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::pin::pin;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};

/// Bytes of a session's id.
const SID_LEN: usize = 16;

/// How long a client that aborted a poll has for its next request.
const FOLLOW_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Locks that all sessions share. A lock is held for microseconds.
const LOCKS: usize = 64;

/// The polls of all sessions.
pub(crate) struct Polls {
    /// Sessions whose last poll was aborted, and when. Each leaves after [`FOLLOW_UP_TIMEOUT`].
    aborted: Mutex<HashMap<String, Instant>>,
    queue_locks: [Mutex<()>; LOCKS],
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            aborted: Mutex::default(),
            queue_locks: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Polls {
    /// Locks the library's queue of one session: while an answer takes packets out, none are added.
    pub(super) fn lock_queue(&self, sid: &str) -> MutexGuard<'_, ()> {
        let index = FixedState::default().hash_one(sid) as usize % LOCKS;
        self.queue_locks[index].lock()
    }

    /// Runs the answer to a poll.
    pub(crate) async fn run<T>(&self, sid: &str, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        std::future::poll_fn(|context| {
            let _lock = self.lock_queue(sid);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// The client of a session has aborted a poll.
    pub(crate) fn abort(&self, sid: &str) {
        if sid.len() == SID_LEN {
            let now = Instant::now();
            self.aborted.lock().insert(sid.to_owned(), now);
        }
    }

    /// The client of a session has sent a request, so it is there.
    pub(crate) fn follow_up(&self, sid: &str) {
        self.aborted.lock().remove(sid);
    }

    /// Takes the sessions whose client has aborted a poll and sent no request for [`FOLLOW_UP_TIMEOUT`].
    pub(super) fn take_abandoned(&self, now: Instant) -> Vec<String> {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= FOLLOW_UP_TIMEOUT;
        let mut aborted = self.aborted.lock();
        let abandoned = aborted.extract_if(|_, since| is_over(since));
        abandoned.map(|(sid, _)| sid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_poll_is_remembered_until_the_next_request() {
        let polls = Polls::default();
        let [followed, abandoned] = ["followed________", "abandoned_______"];
        for sid in [followed, abandoned, "made up"] {
            polls.abort(sid);
        }
        polls.follow_up(followed);
        let now = Instant::now();
        assert!(polls.take_abandoned(now).is_empty(), "there is time left");
        let later = now + FOLLOW_UP_TIMEOUT;
        assert_eq!(polls.take_abandoned(later), [abandoned]);
        assert!(polls.take_abandoned(later).is_empty(), "it is taken once");
    }

    #[tokio::test]
    async fn the_queue_is_locked_while_an_answer_takes_packets() {
        let polls = Polls::default();
        let locked = || polls.queue_locks.iter().filter(|lock| lock.is_locked());
        let while_it_runs = polls.run("sid", async { locked().count() }).await;
        assert_eq!((while_it_runs, locked().count()), (1, 0));
    }
}
