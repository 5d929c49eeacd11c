//! Long polls, where the library leaves something to do: it does not notice that a client breaks one off, and puts into
//! an answer whatever comes while it writes it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

/// Bytes of a session's id. Whatever else a request names is none.
const SID_LEN: usize = 16;

/// How long a client that broke off a poll has for its next request.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);

/// Locks that sessions share. A lock is held for microseconds.
const TURNS: usize = 64;

/// The polls of all sessions.
pub(super) struct Polls {
    /// Sessions whose last poll was broken off, and when. Each leaves after [`FOLLOWED_WITHIN`].
    broken_off: Mutex<HashMap<String, Instant>>,
    turns: [Mutex<()>; TURNS],
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            broken_off: Mutex::default(),
            turns: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Polls {
    fn broken_off(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.broken_off
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of one session at the library's queue: while an answer takes packets out, nobody puts more in.
    pub(super) fn turn(&self, sid: &str) -> MutexGuard<'_, ()> {
        let place = FixedState::default().hash_one(sid) as usize % TURNS;
        self.turns[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a poll.
    pub(super) async fn run<T>(&self, sid: &str, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        std::future::poll_fn(|context| {
            let _turn = self.turn(sid);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// A poll of a session was broken off.
    pub(super) fn break_off(&self, sid: &str) {
        if sid.len() == SID_LEN {
            let now = Instant::now();
            self.broken_off().insert(sid.to_owned(), now);
        }
    }

    /// The client of a session is there: it has sent a request.
    pub(super) fn followed(&self, sid: &str) {
        self.broken_off().remove(sid);
    }

    /// Takes those that were broken off some time before `now`, and not followed by another request.
    pub(super) fn take_abandoned(&self, now: Instant) -> Vec<String> {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= FOLLOWED_WITHIN;
        let mut broken_off = self.broken_off();
        let abandoned = broken_off.extract_if(|_, since| is_over(since));
        abandoned.map(|(sid, _)| sid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_is_broken_off_is_remembered_until_another_request_comes() {
        let polls = Polls::default();
        let [followed, abandoned] = ["followed________", "abandoned_______"];
        for sid in [followed, abandoned, "made up"] {
            polls.break_off(sid);
        }
        polls.followed(followed);
        let now = Instant::now();
        assert!(polls.take_abandoned(now).is_empty(), "there is time left");
        let later = now + FOLLOWED_WITHIN;
        assert_eq!(polls.take_abandoned(later), [abandoned]);
        assert!(polls.take_abandoned(later).is_empty(), "it is taken once");
    }

    #[tokio::test]
    async fn nobody_has_the_turn_of_a_session_while_an_answer_takes_packets() {
        let polls = Polls::default();
        let taken = || polls.turns.iter().filter(|turn| turn.try_lock().is_err());
        let while_it_runs = polls.run("sid", async { taken().count() }).await;
        assert_eq!((while_it_runs, taken().count()), (1, 0));
    }
}
