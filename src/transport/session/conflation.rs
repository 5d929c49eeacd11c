//! Drops updates that are out of date while the fan-out cannot keep up: of several updates of one kind about one user
//! only the last is left, which says everything that the earlier ones said.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::domain::delivery::{Delivery, DeliveryStream};
use crate::transport::limits::CurrentLimits;

/// The fan-out lags when this many deliveries wait.
const LAG_MIN: usize = 512;

/// Lag tolerated before conflation, on top of `limits.stalled_write`: neither one slow reader nor a short burst may cost
/// the fast ones an update.
const LAG_MARGIN: Duration = Duration::from_secs(1);

/// The stream of deliveries, without outdated updates while the fan-out lags.
pub(super) struct Conflated {
    stream: DeliveryStream,
    limits: CurrentLimits,
    lagging_since: Option<Instant>,
    /// The rest of the deliveries that were drained from the stream; at most as many as fit into it.
    drained: VecDeque<Delivery>,
    dropped: Counter,
}

impl Conflated {
    /// Counts dropped updates in `dropped`.
    pub(super) fn new(stream: DeliveryStream, limits: CurrentLimits, dropped: Counter) -> Self {
        Self {
            stream,
            limits,
            lagging_since: None,
            drained: VecDeque::new(),
            dropped,
        }
    }

    /// Waits for deliveries and moves up to `limit` of them into `batch`. Returns how many; 0 at the end of the stream.
    /// Cancel safe.
    pub(super) async fn recv_many(&mut self, batch: &mut Vec<Delivery>, limit: usize) -> usize {
        self.check_lag(Instant::now());
        if self.drained.is_empty() {
            return self.stream.recv_many(batch, limit).await;
        }
        let count = limit.min(self.drained.len());
        batch.extend(self.drained.drain(..count));
        count
    }

    fn check_lag(&mut self, now: Instant) {
        if !self.drained.is_empty() {
            return;
        }
        if self.stream.len() < LAG_MIN {
            self.lagging_since = None;
            return;
        }
        let since = *self.lagging_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= tolerated_lag(&self.limits) {
            self.drain_and_conflate();
        }
    }

    fn drain_and_conflate(&mut self) {
        while self.drained.len() < self.stream.max_capacity()
            && let Ok(delivery) = self.stream.try_recv()
        {
            self.drained.push_back(delivery);
        }
        let dropped = drop_outdated(&mut self.drained);
        self.dropped.inc_by(dropped as u64);
    }
}

fn tolerated_lag(limits: &CurrentLimits) -> Duration {
    limits.get().stalled_write + LAG_MARGIN
}

/// Keeps the last update of each kind about each user, in its place, and everything that is not an update. Returns how
/// many deliveries it drops.
fn drop_outdated(deliveries: &mut VecDeque<Delivery>) -> usize {
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
            sender.reserve().await.send(delivery);
        }
        let dropped = Counter::default();
        let limits = CurrentLimits::new(Limits::sample());
        (Conflated::new(stream, limits, dropped.clone()), dropped)
    }

    /// After a lag that is no longer tolerated.
    async fn late(deliveries: impl IntoIterator<Item = Delivery>) -> (Conflated, Counter) {
        let (mut conflated, dropped) = conflated(deliveries).await;
        conflated.lagging_since = Instant::now().checked_sub(tolerated_lag(&conflated.limits));
        (conflated, dropped)
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
    async fn a_burst_is_delivered_whole() {
        let (conflated, dropped) = conflated(profiles(LAG_MIN)).await;
        assert_eq!(revisions(conflated).await.len(), LAG_MIN);
        assert_eq!(dropped.get(), 0);
    }

    #[tokio::test]
    async fn nothing_is_dropped_without_a_lag() {
        let (conflated, dropped) = late(profiles(LAG_MIN - 1)).await;
        assert_eq!(revisions(conflated).await.len(), LAG_MIN - 1);
        assert_eq!(dropped.get(), 0);
    }

    #[tokio::test]
    async fn of_what_falls_behind_the_last_update_is_left() {
        let about = |revision| match revision % 3 {
            0 => update(1, Kind::Profile, revision),
            1 => update(1, Kind::Stats, revision),
            _ => update(2, Kind::Profile, revision),
        };
        let last = LAG_MIN as u64;
        let (conflated, dropped) = late((1..=last).map(about)).await;
        assert_eq!(revisions(conflated).await, [last - 2, last - 1, last]);
        assert_eq!(dropped.get(), last - 3);
    }

    #[tokio::test]
    async fn other_deliveries_stay_in_their_place() {
        let mut deliveries: Vec<_> = profiles(LAG_MIN).collect();
        deliveries.insert(10, Delivery::StatusChanges(Vec::new()));
        deliveries.push(Delivery::StatusChanges(Vec::new()));
        let (mut conflated, _) = late(deliveries).await;
        let mut batch = Vec::new();
        assert_eq!(conflated.recv_many(&mut batch, LAG_MIN).await, 3);
        let is_update = |delivery: &Delivery| matches!(delivery, Delivery::Update { .. });
        let order: Vec<bool> = batch.iter().map(is_update).collect();
        assert_eq!(order, [false, true, false]);
    }
}
