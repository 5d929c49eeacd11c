//! The state of one topic: the user's own connections, the watchers, and the last updates delivered. Pure: messages and
//! ids in, deliveries out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::watcher_set::WatcherSet;
use crate::domain::delivery::{Delivery, LastUpdates, Recipients};
use crate::engine::{Kind, Stored, TopicMessage, Update, Views};
use crate::ids::{ConnectionId, MatchId, UserId};

/// Matches remembered per user. A repeated announcement is rarely older than the one after the next.
const MATCHES_MAX: usize = 8;

#[derive(Default)]
pub(super) struct TopicState {
    /// `last` contains every update stored when the topic was loaded.
    pub(super) complete: bool,
    /// The account was deleted, and the connections were notified.
    deleted: bool,
    own: Vec<Own>,
    pub(super) watching: WatcherSet,
    /// The user's friends; `None` while unknown.
    pub(super) friends: Option<HashSet<UserId>>,
    pub(super) last: LastUpdates,
    /// The last matches found for the user, and the connections notified: an announcement may be repeated.
    matches: VecDeque<(MatchId, HashSet<ConnectionId>)>,
}

/// One of the user's own connections.
struct Own {
    id: ConnectionId,
    /// When it was registered, in ms on the engine's clock; `u64::MAX` before that.
    since_ms: u64,
}

impl TopicState {
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.watching.is_empty()
    }

    pub(super) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    pub(super) fn is_own(&self, connection: ConnectionId) -> bool {
        self.own.iter().any(|own| own.id == connection)
    }

    pub(super) fn own_ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.own.iter().map(|own| own.id)
    }

    fn own(&self) -> Recipients {
        Arc::new(self.own_ids().collect())
    }

    /// The user's own connections registered by `before_ms`.
    fn own_before(&self, before_ms: u64) -> Recipients {
        let own = self.own.iter();
        let counted = own.filter(|own| own.since_ms <= before_ms);
        Arc::new(counted.map(|own| own.id).collect())
    }

    pub(super) fn add_own(&mut self, id: ConnectionId) {
        let since_ms = u64::MAX;
        self.own.push(Own { id, since_ms });
    }

    pub(super) fn set_registered_at(&mut self, id: ConnectionId, since_ms: u64) {
        if let Some(own) = self.own.iter_mut().find(|own| own.id == id) {
            own.since_ms = since_ms;
        }
    }

    pub(super) fn remove_own(&mut self, id: ConnectionId) {
        if let Some(at) = self.own.iter().position(|own| own.id == id) {
            self.own.swap_remove(at);
        }
    }

    /// The delivery that a message causes; `None` for a repetition.
    pub(super) fn receive(&mut self, user: UserId, message: TopicMessage) -> Option<Delivery> {
        match message {
            TopicMessage::Update(kind, views) => {
                if !self.accept(kind, &views) {
                    return None;
                }
                if kind == Kind::Friendships {
                    return self.set_friends(user, &views);
                }
                Some(Delivery::Update {
                    user,
                    kind,
                    views,
                    own: self.own(),
                    watchers: self.watching.watchers(),
                })
            }
            TopicMessage::Event { event, data } => Some(Delivery::Event {
                event,
                data,
                own: self.own(),
            }),
            TopicMessage::Disconnect { before_ms } => Some(Delivery::Disconnect {
                own: before_ms.map_or_else(|| self.own(), |before_ms| self.own_before(before_ms)),
            }),
            TopicMessage::AccountDeleted => {
                self.last.clear();
                self.friends = None;
                let was_deleted = std::mem::replace(&mut self.deleted, true);
                (!was_deleted).then(|| Delivery::AccountDeleted {
                    user,
                    own: self.own(),
                    watchers: self.watching.watchers(),
                })
            }
            TopicMessage::MatchFound { id, opponent } => {
                let own = self.first_delivery_of(&id);
                (!own.is_empty()).then_some(Delivery::MatchFound { id, opponent, own })
            }
            TopicMessage::MatchTimeout { .. } => Some(Delivery::MatchTimeout { own: self.own() }),
            // Concerns nodes only, not connections.
            TopicMessage::MatchLeft => None,
        }
    }

    fn set_friends(&mut self, user: UserId, views: &Views) -> Option<Delivery> {
        // Invalid content counts as no friends.
        self.friends = serde_json::from_str(views.full.get()).ok();
        self.review(user)
    }

    /// Reviews the view of each watcher. New friends get the last updates that strangers do not see; the rest reaches
    /// them with the next update.
    pub(super) fn review(&mut self, user: UserId) -> Option<Delivery> {
        let to = self.watching.review(user, self.friends.as_ref());
        let decided_by = self
            .last
            .get(&Kind::Friendships)
            .map(|views| views.revision);
        let hidden = |(kind, views): &(&Kind, &Views)| match kind {
            Kind::Friendships => false,
            // A friend list older than the friendships is about to be replaced.
            Kind::Friends if Some(views.revision) < decided_by => false,
            _ => views.public.is_none(),
        };
        let last: LastUpdates = self
            .last
            .iter()
            .filter(hidden)
            .map(|(kind, views)| (*kind, views.clone()))
            .collect();
        let disclosure = !to.is_empty() && !last.is_empty();
        disclosure.then_some(Delivery::Disclosure { user, last, to })
    }

    /// The user's own connections not notified of the match yet; marks them as notified.
    fn first_delivery_of(&mut self, id: &MatchId) -> Recipients {
        if !self.matches.iter().any(|(known, _)| known == id) {
            self.matches.truncate(MATCHES_MAX - 1);
            self.matches.push_front((id.clone(), HashSet::new()));
        }
        let known = self.matches.iter_mut().find(|(known, _)| known == id);
        let Some((_, notified)) = known else {
            return Recipients::default();
        };
        let own = self.own.iter().map(|own| own.id);
        Arc::new(
            own.filter(|connection| notified.insert(*connection))
                .collect(),
        )
    }

    /// The stored updates that this node may not have delivered. If it has delivered none of a kind, it missed one
    /// stored after one of the user's own connections was registered.
    pub(super) fn missed(&self, stored: Stored) -> Vec<TopicMessage> {
        if stored.deleted {
            return vec![TopicMessage::AccountDeleted];
        }
        let registered_at = self.own.iter().map(|own| own.since_ms);
        let oldest_ms = registered_at.min().unwrap_or(u64::MAX);
        let mut missed = Vec::new();
        if stored.disconnected_at_ms >= oldest_ms {
            let before_ms = Some(stored.disconnected_at_ms);
            missed.push(TopicMessage::Disconnect { before_ms });
        }
        for (kind, views, at_ms) in stored.updates {
            if self.last.contains_key(&kind) || self.complete || at_ms >= oldest_ms {
                missed.push(TopicMessage::Update(kind, views));
            }
        }
        missed
    }

    /// Delivered updates newer than the stored ones of the same epoch: the engine came back with old data.
    pub(super) fn lost(&self, user: UserId, stored: &Stored) -> Vec<Update> {
        if stored.deleted {
            return Vec::new();
        }
        let is_lost = |(kind, last): &(&Kind, &Views)| {
            let mut updates = stored.updates.iter();
            let known = updates.find(|(known, ..)| known == *kind);
            last.epoch == stored.epoch
                && known.is_none_or(|(_, known, _)| known.revision < last.revision)
        };
        let lost = self.last.iter().filter(is_lost);
        lost.map(|(kind, last)| Update {
            user,
            kind: *kind,
            revision: Some(last.revision),
            public: last.public.clone(),
            full: last.full.clone(),
        })
        .collect()
    }

    /// Records an update; `false` if it is not newer. A new epoch starts the order over.
    fn accept(&mut self, kind: Kind, views: &Views) -> bool {
        if self.deleted {
            return false;
        }
        let newer = self
            .last
            .get(&kind)
            .is_none_or(|last| last.epoch != views.epoch || last.revision < views.revision);
        if newer {
            self.last.insert(kind, views.clone());
        }
        newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;
    use serde_json::value::RawValue;

    const PHONE: ConnectionId = ConnectionId(1);
    const LAPTOP: ConnectionId = ConnectionId(2);

    fn ada() -> UserId {
        UserId::try_from(42).unwrap()
    }

    fn views(epoch: &str, revision: u64) -> Views {
        let full = RawValue::from_string("{}".to_owned()).unwrap();
        Views {
            epoch: epoch.to_owned(),
            revision: Revision(revision),
            public: None,
            full: full.into(),
        }
    }

    fn stored(epoch: &str, revision: u64, at_ms: u64) -> Stored {
        Stored {
            epoch: epoch.to_owned(),
            updates: vec![(Kind::Stats, views(epoch, revision), at_ms)],
            ..Stored::default()
        }
    }

    fn update(state: &mut TopicState, epoch: &str, revision: u64) -> bool {
        let message = TopicMessage::Update(Kind::Stats, views(epoch, revision));
        state.receive(ada(), message).is_some()
    }

    #[test]
    fn an_update_is_delivered_once_and_in_order() {
        let mut state = TopicState::default();
        assert!(update(&mut state, "a", 2));
        assert!(!update(&mut state, "a", 2));
        assert!(!update(&mut state, "a", 1));
        assert!(update(&mut state, "a", 3));
        assert!(update(&mut state, "b", 1), "another epoch starts over");
    }

    #[test]
    fn a_disconnect_reaches_connections_that_counted_at_its_time() {
        let mut state = TopicState::default();
        state.add_own(PHONE);
        state.add_own(LAPTOP);
        state.set_registered_at(PHONE, 1_000);
        let mut disconnected =
            |before_ms| match state.receive(ada(), TopicMessage::Disconnect { before_ms }) {
                Some(Delivery::Disconnect { own }) => own.to_vec(),
                other => panic!("{other:?}"),
            };
        assert_eq!(disconnected(Some(999)), []);
        assert_eq!(
            disconnected(Some(1_000)),
            [PHONE],
            "the laptop counts later"
        );
        assert_eq!(disconnected(None), [PHONE, LAPTOP]);
    }

    #[test]
    fn each_connection_is_notified_of_a_match_once() {
        let mut state = TopicState::default();
        let mut notified = |joins: Option<ConnectionId>| {
            joins.into_iter().for_each(|id| state.add_own(id));
            let id = MatchId::new("m");
            let opponent = RawValue::from_string("{}".to_owned()).unwrap().into();
            match state.receive(ada(), TopicMessage::MatchFound { id, opponent }) {
                Some(Delivery::MatchFound { own, .. }) => own.to_vec(),
                None => Vec::new(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(notified(Some(PHONE)), [PHONE]);
        assert_eq!(notified(None), []);
        assert_eq!(notified(Some(LAPTOP)), [LAPTOP]);
    }

    #[test]
    fn an_update_stored_before_a_connection_counted_was_not_missed() {
        let mut state = TopicState::default();
        state.add_own(PHONE);
        state.set_registered_at(PHONE, 1_000);
        assert!(state.missed(stored("a", 1, 999)).is_empty());
        assert_eq!(state.missed(stored("a", 1, 1_000)).len(), 1);
        state.remove_own(PHONE);
        assert!(state.missed(stored("a", 1, 1_000)).is_empty());
    }

    #[test]
    fn an_older_stored_update_of_the_same_epoch_is_lost() {
        let mut state = TopicState::default();
        update(&mut state, "a", 5);
        assert_eq!(state.lost(ada(), &stored("a", 4, 0)).len(), 1);
        assert!(state.lost(ada(), &stored("a", 5, 0)).is_empty());
        assert!(state.lost(ada(), &stored("b", 1, 0)).is_empty());
    }
}
