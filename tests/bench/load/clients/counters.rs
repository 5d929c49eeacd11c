//! What all clients have lived through so far: counted by the threads that hold them, read by the scenario.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::ClientError;

/// Longer than anything here may take, in µs.
const LATENCY_MAX_US: u64 = 600_000_000;

/// How often whoever waits looks up, to show how far things are.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Connections opened.
    Joined,
    /// Answers received.
    Answers,
    /// Updates received.
    Updates,
    /// Events about coming and going received.
    Statuses,
    /// Of which by guests.
    Observed,
    /// Connections closed because the scenario wanted it.
    Closed,
    /// Open connections that the node closed.
    Dropped,
}

/// How many there are of the above.
pub(super) const COUNTS: usize = 7;

/// Latencies in µs, with three digits.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Self(histogram.expect("the bounds are in order, and three digits are few"))
    }

    /// Adds one.
    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us.clamp(1, LATENCY_MAX_US));
    }

    /// Adds all of another.
    pub(super) fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        added.expect("all of them have the same bounds");
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// What this part of them, from 0 to 1, does not exceed, in µs.
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }
}

#[derive(Default)]
struct Counter {
    count: AtomicU64,
    /// How many somebody waits for; 0 where nobody does.
    wanted: AtomicU64,
}

/// What scenario and threads share.
pub(crate) struct Tally {
    begun: Instant,
    counters: [Counter; COUNTS],
    /// When each update was sent, in µs since the beginning; 0 where its latency does not count.
    sent_at_us: Vec<AtomicU64>,
    trouble: Mutex<Option<ClientError>>,
    changed: Notify,
}

impl Tally {
    /// Nothing yet, with room for the times of so many updates.
    pub(crate) fn new(updates: usize) -> Self {
        Self {
            begun: Instant::now(),
            counters: Default::default(),
            sent_at_us: (0..updates).map(|_| AtomicU64::new(0)).collect(),
            trouble: Mutex::new(None),
            changed: Notify::new(),
        }
    }

    /// Notes that an update is sent now.
    pub(crate) fn note_sent(&self, number: usize) {
        if let Some(sent_at) = self.sent_at_us.get(number) {
            let us = self.begun.elapsed().as_micros() as u64;
            sent_at.store(us.max(1), SeqCst);
        }
    }

    /// How long ago an update was sent, if that counts.
    pub(super) fn since_sent(&self, number: usize, now: Instant) -> Option<Duration> {
        let sent_at_us = self.sent_at_us.get(number)?.load(SeqCst);
        let sent_at = self.begun + Duration::from_micros(sent_at_us);
        (sent_at_us != 0).then(|| now.saturating_duration_since(sent_at))
    }

    /// Whether this is one of the updates that are sent.
    pub(super) fn expects(&self, number: usize) -> bool {
        number < self.sent_at_us.len()
    }

    /// Adds what a thread has counted; whoever waits for it is woken.
    pub(super) fn add(&self, counts: &[u64; COUNTS]) {
        for (counter, &count) in self.counters.iter().zip(counts) {
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

    /// How many there are.
    pub(crate) fn count(&self, what: Count) -> u64 {
        self.counters[what as usize].count.load(SeqCst)
    }

    /// Notes what ends the run; the first of it counts.
    pub(super) fn fail(&self, error: ClientError) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert(error);
        drop(trouble);
        self.changed.notify_one();
    }

    fn check(&self) -> Result<(), ClientError> {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.take().map_or(Ok(()), Err)
    }

    /// Waits until there are `wanted` of something, and tells `progress` now and then how many there are. Gives
    /// up when nothing has changed for `patience`; returns how many there are then.
    ///
    /// # Errors
    /// As soon as a client is in trouble.
    pub(crate) async fn reach(
        &self,
        what: Count,
        wanted: u64,
        patience: Duration,
        progress: impl Fn(u64),
    ) -> Result<u64, ClientError> {
        let counter = &self.counters[what as usize];
        counter.wanted.store(wanted.max(1), SeqCst);
        let (mut last, mut changed_at) = (self.count(what), Instant::now());
        loop {
            self.check()?;
            let count = self.count(what);
            progress(count);
            if count != last {
                (last, changed_at) = (count, Instant::now());
            }
            if count >= wanted || changed_at.elapsed() >= patience {
                counter.wanted.store(0, SeqCst);
                return Ok(count);
            }
            // It only ends the wait for a look at how far things are.
            let _ = timeout(LOOK_UP, self.changed.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn updates(count: u64) -> [u64; COUNTS] {
        let mut counts = [0; COUNTS];
        counts[Count::Updates as usize] = count;
        counts
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_last_one() {
        let tally = Tally::new(0);
        let waiting = tally.reach(Count::Updates, 5, PATIENCE, |_| ());
        let counting = async {
            tally.add(&updates(2));
            tokio::task::yield_now().await;
            tally.add(&updates(3));
        };
        let (reached, ()) = tokio::join!(waiting, counting);
        assert_eq!(reached, Ok(5));
    }

    #[tokio::test]
    async fn what_does_not_come_is_not_waited_for() {
        let tally = Tally::new(0);
        tally.add(&updates(2));
        let reached = tally.reach(Count::Updates, 5, Duration::ZERO, |_| ());
        assert_eq!(reached.await, Ok(2));
    }

    #[tokio::test]
    async fn trouble_ends_a_wait() {
        let tally = Tally::new(0);
        let waiting = tally.reach(Count::Updates, 5, PATIENCE, |_| ());
        let failing = async { tally.fail(ClientError::NoFiles) };
        let (reached, ()) = tokio::join!(waiting, failing);
        assert_eq!(reached, Err(ClientError::NoFiles));
    }

    #[test]
    fn only_updates_that_were_noted_have_a_latency() {
        let tally = Tally::new(2);
        tally.note_sent(1);
        let now = Instant::now();
        assert_eq!(tally.since_sent(0, now), None);
        assert!(tally.since_sent(1, now).is_some());
        assert_eq!(tally.since_sent(2, now), None);
    }

    #[test]
    fn latencies_add_up() {
        let (mut some, mut more) = (Latencies::new(), Latencies::new());
        some.record(Duration::from_micros(10));
        more.record(Duration::from_micros(30));
        more.record(Duration::from_secs(10_000));
        some.add(&more);
        assert_eq!(some.len(), 3);
        assert_eq!(some.quantile_us(0.5), 30);
        assert!(some.quantile_us(1.0) >= LATENCY_MAX_US);
    }
}
