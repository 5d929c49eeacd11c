//! Skips what is out of date before it is told: where more deliveries wait than can be written for now, of several
//! updates of one kind about one user only the last is left. It says all that those before it said.

use std::collections::{HashSet, VecDeque};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc::error::TryRecvError;

use crate::domain::delivery::{Delivery, DeliveryStream};

/// So many deliveries do not wait where writing keeps up. Below it every update is told.
const BEHIND: usize = 256;

/// The stream of deliveries, without updates that are out of date where it has fallen behind.
pub(super) struct Conflated {
    stream: DeliveryStream,
    /// Taken out of the stream to be looked through: at most as many as fit into it.
    waiting: VecDeque<Delivery>,
    skipped: Counter,
}

impl Conflated {
    /// Counts updates that are skipped in `skipped`.
    pub(super) fn new(stream: DeliveryStream, skipped: Counter) -> Self {
        Self {
            stream,
            waiting: VecDeque::new(),
            skipped,
        }
    }

    /// Waits for deliveries and puts up to `limit` of them into `batch`. Returns how many; 0 where no more will come.
    /// Nothing is lost where this is dropped before it is done.
    pub(super) async fn recv_many(&mut self, batch: &mut Vec<Delivery>, limit: usize) -> usize {
        if !self.take_in() {
            return self.stream.recv_many(batch, limit).await;
        }
        let count = limit.min(self.waiting.len());
        batch.extend(self.waiting.drain(..count));
        count
    }

    /// The next delivery, if there is one.
    ///
    /// # Errors
    /// When there is none now, or none will come.
    pub(super) fn try_recv(&mut self) -> Result<Delivery, TryRecvError> {
        self.take_in();
        match self.waiting.pop_front() {
            Some(delivery) => Ok(delivery),
            None => self.stream.try_recv(),
        }
    }

    /// Takes everything out of a stream that has fallen behind. Returns whether anything waits here.
    fn take_in(&mut self) -> bool {
        if self.waiting.is_empty() && self.stream.len() >= BEHIND {
            while self.waiting.len() < self.stream.max_capacity()
                && let Ok(delivery) = self.stream.try_recv()
            {
                self.waiting.push_back(delivery);
            }
            let skipped = skip_outdated(&mut self.waiting);
            self.skipped.inc_by(skipped as u64);
        }
        !self.waiting.is_empty()
    }
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
    use crate::engine::{Kind, Views};
    use crate::ids::{Revision, UserId};

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

    async fn conflated(deliveries: Vec<Delivery>) -> (Conflated, Counter) {
        let (sender, stream) = Deliveries::new();
        for delivery in deliveries {
            sender.place().await.put(delivery);
        }
        let skipped = Counter::default();
        (Conflated::new(stream, skipped.clone()), skipped)
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

    #[tokio::test]
    async fn what_keeps_up_is_told_whole() {
        let updates = (1..BEHIND as u64).map(|revision| update(1, Kind::Profile, revision));
        let (conflated, skipped) = conflated(updates.collect()).await;
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
        let (conflated, skipped) = conflated((1..=last).map(about).collect()).await;
        assert_eq!(revisions(conflated).await, [last - 2, last - 1, last]);
        assert_eq!(skipped.get(), last - 3);
    }

    #[tokio::test]
    async fn what_is_no_update_stays_in_its_place() {
        let mut deliveries: Vec<_> = (0..BEHIND as u64)
            .map(|revision| update(1, Kind::Profile, revision))
            .collect();
        deliveries.insert(10, Delivery::StatusChanges(Vec::new()));
        deliveries.push(Delivery::StatusChanges(Vec::new()));
        let (mut conflated, _) = conflated(deliveries).await;
        let first = conflated.try_recv().expect("there");
        assert!(matches!(first, Delivery::StatusChanges(_)));
        let second = conflated.try_recv().expect("there");
        assert!(matches!(second, Delivery::Update { .. }));
        let third = conflated.try_recv().expect("there");
        assert!(matches!(third, Delivery::StatusChanges(_)));
        assert!(conflated.try_recv().is_err());
    }
}
