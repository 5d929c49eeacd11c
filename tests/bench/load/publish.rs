//! Posts updates to the first node: one after the other, so many a second, or as fast as it goes.

use std::ops::Range;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::clients::{Count, Harvest};
use super::error::BenchError;
use super::report::Report;
use super::run::{ARRIVES_WITHIN, Run, bar};

/// After so many lost updates it is not worth going on one after the other.
const LOST_MAX: usize = 10;

/// Requests under way at once, at full speed.
const REQUESTS_MAX: usize = 64;

/// Whose updates are posted, and to how many clients.
#[derive(Clone, Copy)]
pub(super) struct Updates {
    /// The user.
    pub(super) user: u64,
    /// How many clients receive each update.
    pub(super) watchers: u64,
    /// Whether it is noted when they are sent, so that latencies count.
    pub(super) timed: bool,
}

impl Updates {
    async fn post(self, run: &Run<'_>, number: usize) -> Result<(), BenchError> {
        if self.timed {
            run.tally.note_sent(number);
        }
        Ok(run.target.publish(self.user, number).await?)
    }

    /// Posts the next one when every watcher has received the one before.
    ///
    /// # Errors
    /// When the node does not answer, or too many are lost.
    pub(super) async fn back_to_back(
        self,
        run: &Run<'_>,
        numbers: Range<usize>,
    ) -> Result<(), BenchError> {
        let bar = bar("updating", numbers.len() as u64);
        let mut lost = 0;
        for number in numbers {
            let wanted = run.tally.count(Count::Updates) + self.watchers;
            self.post(run, number).await?;
            let reached = run
                .tally
                .reach(Count::Updates, wanted, ARRIVES_WITHIN, |_| ())
                .await?;
            lost += usize::from(reached < wanted);
            if lost > LOST_MAX {
                return Err(BenchError::Lost {
                    updates: number + 1,
                });
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Posts `rate` of them a second, whatever becomes of them.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(super) async fn at_rate(
        self,
        run: &Run<'_>,
        numbers: Range<usize>,
        rate: u32,
    ) -> Result<(), BenchError> {
        let bar = bar("updating", numbers.len() as u64);
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in numbers {
            ticks.tick().await;
            self.post(run, number).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Posts them as fast as the node takes them.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(super) async fn at_full_speed(
        self,
        run: &Run<'_>,
        numbers: Range<usize>,
    ) -> Result<(), BenchError> {
        let bar = bar("updating", numbers.len() as u64);
        stream::iter(numbers)
            .map(|number| self.post(run, number))
            .buffer_unordered(REQUESTS_MAX)
            .try_for_each(|()| {
                bar.inc(1);
                std::future::ready(Ok(()))
            })
            .await?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// Adds what became of so many updates on their way to these watchers, who are spread over so many nodes.
pub(super) fn describe(
    run: &Run<'_>,
    report: &mut Report,
    harvest: &Harvest,
    (watchers, interested): (&Range<usize>, usize),
    updates: usize,
) {
    // The same spreading as of those that were opened.
    let lost = |node: usize| {
        let watchers = (0..watchers.len()).filter(|place| place % interested == node);
        let expected = (watchers.count() * updates) as u64;
        expected.saturating_sub(harvest.received.updates[node])
    };
    let elsewhere: u64 = (1..interested).map(lost).sum();
    report.count(
        "lost",
        "deliveries that did not arrive",
        lost(0) + elsewhere,
    );
    report.count("lost_elsewhere", "of which on the other nodes", elsewhere);
    report.count("duplicates", "received twice", harvest.duplicates);
    let label = "received after a newer one";
    report.count("out_of_order", label, harvest.out_of_order);
    let dropped = run.tally.count(Count::Dropped);
    report.count("dropped", "closed by a node", dropped);
    let (here, others) = harvest.latencies();
    report.latencies(
        "latency",
        "from the request to the receipt on the first node",
        &here,
    );
    let label = "from the request to the receipt on the others";
    report.latencies("latency_elsewhere", label, &others);
}
