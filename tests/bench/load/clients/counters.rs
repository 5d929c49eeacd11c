//! Counters of all clients: their threads count, the scenario reads.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::ClientError;

/// How often a waiting scenario updates its progress bar.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Connections that reached the namespace.
    Connected,
    /// Acknowledgements received.
    Acks,
    Updates,
    /// Status events received.
    Statuses,
    /// Status events received by guests.
    Observed,
    /// Connections closed by the scenario.
    Closed,
    /// Connections closed by a node.
    Dropped,
}

/// Number of variants of [`Count`].
pub(super) const COUNTS: usize = 7;

#[derive(Default)]
struct AwaitedCount {
    count: AtomicU64,
    /// The value a scenario waits for; 0 when none does.
    wanted: AtomicU64,
}

/// Shared by the scenario and the threads.
pub(crate) struct Counters {
    begun: Instant,
    counts: [AwaitedCount; COUNTS],
    /// When each update was sent, in µs since `begun`; 0 when its latency does not count.
    sent_at_us: Vec<AtomicU64>,
    error: Mutex<Option<ClientError>>,
    changed: Notify,
}

impl Counters {
    pub(crate) fn new(updates: usize) -> Self {
        Self {
            begun: Instant::now(),
            counts: Default::default(),
            sent_at_us: (0..updates).map(|_| AtomicU64::new(0)).collect(),
            error: Mutex::new(None),
            changed: Notify::new(),
        }
    }

    pub(crate) fn record_sent(&self, number: usize) {
        if let Some(sent_at) = self.sent_at_us.get(number) {
            let us = self.begun.elapsed().as_micros() as u64;
            sent_at.store(us.max(1), SeqCst);
        }
    }

    /// The age of an update whose latency counts.
    pub(super) fn since_sent(&self, number: usize, now: Instant) -> Option<Duration> {
        let sent_at_us = self.sent_at_us.get(number)?.load(SeqCst);
        let sent_at = self.begun + Duration::from_micros(sent_at_us);
        (sent_at_us != 0).then(|| now.saturating_duration_since(sent_at))
    }

    /// Whether the run sends an update of this number.
    pub(super) fn expects(&self, number: usize) -> bool {
        number < self.sent_at_us.len()
    }

    /// Adds the counts of a thread and wakes the scenario when it has what it waits for.
    pub(super) fn add(&self, counts: &[u64; COUNTS]) {
        for (counter, &count) in self.counts.iter().zip(counts) {
            if count == 0 {
                continue;
            }
            let count = counter.count.fetch_add(count, SeqCst) + count;
            let wanted = counter.wanted.load(SeqCst);
            if wanted != 0 && count >= wanted {
                self.changed.notify_one();
            }
        }
    }

    pub(crate) fn count(&self, what: Count) -> u64 {
        self.counts[what as usize].count.load(SeqCst)
    }

    /// Records the error that ends the run; later ones are ignored.
    pub(super) fn fail(&self, error: ClientError) {
        self.error.lock().get_or_insert(error);
        self.changed.notify_one();
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        self.error.lock().take().map_or(Ok(()), Err)
    }

    /// Waits until a counter reaches `wanted`, and reports its value to `progress` now and then. Gives
    /// up when the value has not changed for `stall_timeout`; returns the value.
    pub(crate) async fn reach(
        &self,
        what: Count,
        wanted: u64,
        stall_timeout: Duration,
        progress: impl Fn(u64),
    ) -> Result<u64, ClientError> {
        let counter = &self.counts[what as usize];
        counter.wanted.store(wanted.max(1), SeqCst);
        let (mut last, mut changed_at) = (self.count(what), Instant::now());
        loop {
            self.check()?;
            let count = self.count(what);
            progress(count);
            if count != last {
                (last, changed_at) = (count, Instant::now());
            }
            if count >= wanted || changed_at.elapsed() >= stall_timeout {
                counter.wanted.store(0, SeqCst);
                return Ok(count);
            }
            // A timeout only updates the progress bar.
            let _ = timeout(PROGRESS_EVERY, self.changed.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_TIMEOUT: Duration = Duration::from_secs(10);

    fn updates(count: u64) -> [u64; COUNTS] {
        let mut counts = [0; COUNTS];
        counts[Count::Updates as usize] = count;
        counts
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_count_is_reached() {
        let counters = Counters::new(0);
        let waiting = counters.reach(Count::Updates, 5, STALL_TIMEOUT, |_| ());
        let counting = async {
            counters.add(&updates(2));
            tokio::task::yield_now().await;
            counters.add(&updates(3));
        };
        let (reached, ()) = tokio::join!(waiting, counting);
        assert_eq!(reached, Ok(5));
    }

    #[tokio::test]
    async fn a_wait_ends_when_nothing_changes() {
        let counters = Counters::new(0);
        counters.add(&updates(2));
        let reached = counters.reach(Count::Updates, 5, Duration::ZERO, |_| ());
        assert_eq!(reached.await, Ok(2));
    }

    #[tokio::test]
    async fn an_error_ends_a_wait() {
        let counters = Counters::new(0);
        let waiting = counters.reach(Count::Updates, 5, STALL_TIMEOUT, |_| ());
        let failing = async { counters.fail(ClientError::NoFiles) };
        let (reached, ()) = tokio::join!(waiting, failing);
        assert_eq!(reached, Err(ClientError::NoFiles));
    }

    #[test]
    fn only_updates_recorded_as_sent_have_a_latency() {
        let counters = Counters::new(2);
        counters.record_sent(1);
        let now = Instant::now();
        assert_eq!(counters.since_sent(0, now), None);
        assert!(counters.since_sent(1, now).is_some());
        assert_eq!(counters.since_sent(2, now), None);
    }
}
