//! Posts updates to the first node: sequentially, at a rate, or at full speed.

use std::ops::Range;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::clients::{Count, Results};
use super::error::BenchError;
use super::report::Report;
use super::run::{ARRIVES_WITHIN, Run, bar};

/// Sequential posting gives up after this many lost updates.
const LOST_MAX: usize = 10;

/// Concurrent requests at full speed.
const REQUESTS_MAX: usize = 64;

#[derive(Clone, Copy)]
pub(super) struct Updates {
    pub(super) user: u64,
    pub(super) watchers: u64,
    /// Whether latencies count.
    pub(super) timed: bool,
}

impl Updates {
    async fn post(self, run: &Run<'_>, number: usize) -> Result<(), BenchError> {
        if self.timed {
            run.counters.record_sent(number);
        }
        Ok(run.target.publish(self.user, number).await?)
    }

    /// Posts the next update when every watcher has received the previous one.
    pub(super) async fn back_to_back(
        self,
        run: &Run<'_>,
        numbers: Range<usize>,
    ) -> Result<(), BenchError> {
        let bar = bar("updating", numbers.len() as u64);
        let mut lost = 0;
        for number in numbers {
            let wanted = run.counters.count(Count::Updates) + self.watchers;
            self.post(run, number).await?;
            let reached = run
                .counters
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

    /// Posts `rate` updates a second, whether or not they arrive.
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

/// Adds what became of `updates` updates to these watchers, spread over `interested` nodes.
pub(super) fn describe(
    run: &Run<'_>,
    report: &mut Report,
    results: &Results,
    (watchers, interested): (&Range<usize>, usize),
    updates: usize,
) {
    // Watchers are spread as `Run::open` spreads clients.
    let lost = |node: usize| {
        let watchers = (0..watchers.len()).filter(|place| place % interested == node);
        let expected = (watchers.count() * updates) as u64;
        expected.saturating_sub(results.totals.updates[node])
    };
    let elsewhere: u64 = (1..interested).map(lost).sum();
    report.count(
        "lost",
        "deliveries that did not arrive",
        lost(0) + elsewhere,
    );
    report.count("lost_elsewhere", "of which on the other nodes", elsewhere);
    report.count("duplicates", "received twice", results.duplicates);
    let label = "received after a newer one";
    report.count("out_of_order", label, results.out_of_order);
    let dropped = run.counters.count(Count::Dropped);
    report.count("dropped", "closed by a node", dropped);
    let (here, others) = results.latencies();
    report.latencies(
        "latency",
        "from the request to the receipt on the first node",
        &here,
    );
    let label = "from the request to the receipt on the others";
    report.latencies("latency_elsewhere", label, &others);
}
