//! Skips what is out of date before it is told: where more is to be told than can be written, of several updates of one
//! kind about one user only the last is left. It says all that those before it said.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::domain::delivery::{Delivery, DeliveryStream};
use crate::transport::limits::CurrentLimits;

/// So many deliveries wait only where writing does not keep up.
const BEHIND: usize = 512;

/// How much longer they may than a connection that does not read may hold up the others (`limits.stalled_write`): who keeps
/// up loses nothing by one that does not, and what comes in a burst is told whole.
const BEHIND_MARGIN: Duration = Duration::from_secs(1);

/// The stream of deliveries, without updates that are out of date where writing has fallen behind.
pub(super) struct Conflated {
    stream: DeliveryStream,
    limits: CurrentLimits,
    /// Since when too many wait.
    behind_since: Option<Instant>,
    /// Taken out of the stream to be looked through: at most as many as fit into it.
    waiting: VecDeque<Delivery>,
    skipped: Counter,
}

impl Conflated {
    /// Counts updates that are skipped in `skipped`.
    pub(super) fn new(stream: DeliveryStream, limits: CurrentLimits, skipped: Counter) -> Self {
        Self {
            stream,
            limits,
            behind_since: None,
            waiting: VecDeque::new(),
            skipped,
        }
    }

    /// Waits for deliveries and puts up to `limit` of them into `batch`. Returns how many; 0 where no more will come.
    /// Nothing is lost where this is dropped before it is done.
    pub(super) async fn recv_many(&mut self, batch: &mut Vec<Delivery>, limit: usize) -> usize {
        self.look(Instant::now());
        if self.waiting.is_empty() {
            return self.stream.recv_many(batch, limit).await;
        }
        let count = limit.min(self.waiting.len());
        batch.extend(self.waiting.drain(..count));
        count
    }

    /// Sees whether writing has fallen behind, once what was taken out before is told.
    fn look(&mut self, now: Instant) {
        if !self.waiting.is_empty() {
            return;
        }
        if self.stream.len() < BEHIND {
            self.behind_since = None;
            return;
        }
        let since = *self.behind_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= behind_for(&self.limits) {
            self.take_in();
        }
    }

    /// Takes everything out of the stream but what is out of date.
    fn take_in(&mut self) {
        while self.waiting.len() < self.stream.max_capacity()
            && let Ok(delivery) = self.stream.try_recv()
        {
            self.waiting.push_back(delivery);
        }
        let skipped = skip_outdated(&mut self.waiting);
        self.skipped.inc_by(skipped as u64);
    }
}

fn behind_for(limits: &CurrentLimits) -> Duration {
    limits.get().stalled_write + BEHIND_MARGIN
}

/// Leaves the last update of each kind about each user, where it is, and everything that is no update. Returns how
/// many are gone.
fn skip_outdated(deliveries: &mut VecDeque<Delivery>) -> usize {
    let count = deliveries.len();
    let mut newer = HashSet::new();
    let mut is_current: Vec<bool> = deliveries
        .iter()
        .rev()
        .map(|delivery| match delivery {
            Delivery::Update { user, kind, .. } => newer.insert((*user, *kind)),
            _ => true,
        })
        .collect();
    deliveries.retain(|_| is_current.pop().unwrap_or(true));
    count - deliveries.len()
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::domain::delivery::{Deliveries, Watchers};
    use crate::domain::update::{Kind, Views};
    use crate::ids::{Revision, UserId};
    use crate::transport::limits::Limits;

    fn update(user: u64, kind: Kind, revision: u64) -> Delivery {
        Delivery::Update {
            user: UserId::try_from(user).expect("valid"),
            kind,
            views: Views {
                epoch: "x".to_owned(),
                revision: Revision(revision),
                public: None,
                full: to_raw_value(&revision).expect("JSON").into(),
            },
            own: Default::default(),
            watchers: Watchers::default(),
        }
    }

    async fn conflated(deliveries: impl IntoIterator<Item = Delivery>) -> (Conflated, Counter) {
        let (sender, stream) = Deliveries::new();
        for delivery in deliveries {
            sender.place().await.put(delivery);
        }
        let skipped = Counter::default();
        let limits = CurrentLimits::new(Limits::sample());
        (Conflated::new(stream, limits, skipped.clone()), skipped)
    }

    /// So late that it has been behind for too long.
    async fn late(deliveries: impl IntoIterator<Item = Delivery>) -> (Conflated, Counter) {
        let (mut conflated, skipped) = conflated(deliveries).await;
        conflated.behind_since = Instant::now().checked_sub(behind_for(&conflated.limits));
        (conflated, skipped)
    }

    async fn revisions(mut conflated: Conflated) -> Vec<u64> {
        let mut batch = Vec::new();
        while conflated.recv_many(&mut batch, 7).await > 0 {}
        let revision = |delivery: &Delivery| match delivery {
            Delivery::Update { views, .. } => Some(views.revision.0),
            _ => None,
        };
        batch.iter().filter_map(revision).collect()
    }

    fn profiles(count: usize) -> impl Iterator<Item = Delivery> {
        (1..=count as u64).map(|revision| update(1, Kind::Profile, revision))
    }

    #[tokio::test]
    async fn a_burst_is_told_whole() {
        let (conflated, skipped) = conflated(profiles(BEHIND)).await;
        assert_eq!(revisions(conflated).await.len(), BEHIND);
        assert_eq!(skipped.get(), 0);
    }

    #[tokio::test]
    async fn what_keeps_up_is_told_whole() {
        let (conflated, skipped) = late(profiles(BEHIND - 1)).await;
        assert_eq!(revisions(conflated).await.len(), BEHIND - 1);
        assert_eq!(skipped.get(), 0);
    }

    #[tokio::test]
    async fn of_what_falls_behind_the_last_is_told() {
        let about = |revision| match revision % 3 {
            0 => update(1, Kind::Profile, revision),
            1 => update(1, Kind::Stats, revision),
            _ => update(2, Kind::Profile, revision),
        };
        let last = BEHIND as u64;
        let (conflated, skipped) = late((1..=last).map(about)).await;
        assert_eq!(revisions(conflated).await, [last - 2, last - 1, last]);
        assert_eq!(skipped.get(), last - 3);
    }

    #[tokio::test]
    async fn what_is_no_update_stays_in_its_place() {
        let mut deliveries: Vec<_> = profiles(BEHIND).collect();
        deliveries.insert(10, Delivery::StatusChanges(Vec::new()));
        deliveries.push(Delivery::StatusChanges(Vec::new()));
        let (mut conflated, _) = late(deliveries).await;
        let mut batch = Vec::new();
        assert_eq!(conflated.recv_many(&mut batch, BEHIND).await, 3);
        let is_update = |delivery: &Delivery| matches!(delivery, Delivery::Update { .. });
        let order: Vec<bool> = batch.iter().map(is_update).collect();
        assert_eq!(order, [false, true, false]);
    }
}
