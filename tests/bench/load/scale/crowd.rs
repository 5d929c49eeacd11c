//! Users who come, stay and leave in the order in which they came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::BenchError;
use crate::clients::{Count, Counters, Load, Opening, Users};
use crate::run::Setup;

/// How finely comings and goings are spread.
const TICK: Duration = Duration::from_millis(5);

/// A wait ends after this long without progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients that are still opening cannot leave; they are asked again this often.
const LEAVE_ATTEMPTS: usize = 5;

pub(super) struct Crowd<'a> {
    pub(super) counters: Arc<Counters>,
    setup: &'a Setup,
    load: Load,
    nodes: usize,
    came: usize,
    left: usize,
}

impl<'a> Crowd<'a> {
    /// Nobody yet. Users will be spread over the first `nodes` nodes, so many of them at once at most.
    pub(super) fn gather(
        setup: &'a Setup,
        nodes: usize,
        at_once: usize,
    ) -> Result<Self, BenchError> {
        let counters = Arc::new(Counters::new(0));
        // Status events are counted, not checked for duplicates: that would take memory for each client and user.
        let users = Users {
            first: setup.first_user,
            count: 0,
        };
        let load = Load::start(
            (at_once, setup.threads, setup.target.nodes.len()),
            users,
            &counters,
        )?;
        Ok(Self {
            counters,
            setup,
            load,
            nodes,
            came: 0,
            left: 0,
        })
    }

    fn arrive(&mut self, count: usize) -> Result<(), BenchError> {
        let openings = (self.came..self.came + count)
            .map(|place| {
                let node = place % self.nodes;
                Ok(Opening {
                    node,
                    address: self.setup.target.nodes[node],
                    token: Some(self.setup.token(place)?),
                })
            })
            .collect::<Result<Vec<_>, BenchError>>()?;
        if count > 0 {
            self.load.open(openings.into_iter());
        }
        self.came += count;
        Ok(())
    }

    fn leave(&mut self, count: usize) {
        if count > 0 {
            self.load.disconnect(&(self.left..self.left + count));
        }
        self.left += count;
    }

    /// Waits until everybody who came is connected.
    pub(super) async fn settle(&self) -> Result<(), BenchError> {
        let wanted = self.came as u64;
        let reached = self
            .counters
            .reach(Count::Connected, wanted, STALL_TIMEOUT, |_| ());
        self.all("signing in", reached.await?)
    }

    /// Disconnects everybody and waits until the nodes have closed all connections.
    pub(super) async fn disperse(&mut self) -> Result<(), BenchError> {
        let mut closed = 0;
        for _ in 0..LEAVE_ATTEMPTS {
            self.load.disconnect(&(0..self.came));
            let dropped = self.counters.count(Count::Dropped);
            let wanted = (self.came as u64).saturating_sub(dropped);
            let second = Duration::from_secs(1);
            let reached = self.counters.reach(Count::Closed, wanted, second, |_| ());
            closed = reached.await? + dropped;
            if closed >= self.came as u64 {
                break;
            }
        }
        self.all("leaving", closed)
    }

    fn all(&self, doing: &'static str, reached: u64) -> Result<(), BenchError> {
        let of = self.came as u64;
        if reached < of {
            return Err(BenchError::Stuck { doing, reached, of });
        }
        Ok(())
    }
}

/// A steady rate of comings, each followed by a going.
pub(super) struct Flow {
    begun: Instant,
    /// A second.
    rate: f64,
    stay: Duration,
}

impl Flow {
    /// Nobody leaves who stays for [`Duration::MAX`].
    pub(super) fn begin(rate: u32, stay: Duration) -> Self {
        Self {
            begun: Instant::now(),
            rate: rate.into(),
            stay,
        }
    }

    /// Lets users come and go for `time`.
    pub(super) async fn run_for(
        &self,
        crowd: &mut Crowd<'_>,
        time: Duration,
    ) -> Result<(), BenchError> {
        let end = Instant::now() + time;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while Instant::now() < end {
            ticks.tick().await;
            crowd.counters.check()?;
            let (came, left) = self.due(self.begun.elapsed());
            crowd.arrive(came.saturating_sub(crowd.came))?;
            crowd.leave(left.saturating_sub(crowd.left));
        }
        Ok(())
    }

    /// How many have come and how many have left, `passed` after the beginning.
    fn due(&self, passed: Duration) -> (usize, usize) {
        let due = |time: Duration| (time.as_secs_f64() * self.rate) as usize;
        (due(passed), passed.checked_sub(self.stay).map_or(0, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_leaves_after_the_same_time() {
        let flow = Flow::begin(200, Duration::from_secs(2));
        let due = [1_000, 2_000, 3_505].map(|ms| flow.due(Duration::from_millis(ms)));
        assert_eq!(due, [(200, 0), (400, 0), (701, 301)]);
        let staying = Flow::begin(10, Duration::MAX);
        assert_eq!(staying.due(Duration::from_secs(60)), (600, 0));
    }
}
