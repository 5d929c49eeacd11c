//! The watchers of a user on this node, each with its current view.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::domain::delivery::{Recipients, Watchers};
use crate::domain::visibility::{self, View};
use crate::ids::{ConnectionId, UserId};

#[derive(Default)]
pub(super) struct WatcherSet {
    watchers: Watchers,
    /// Users behind signed-in watchers, whose view can change.
    viewers: HashMap<ConnectionId, UserId>,
}

impl WatcherSet {
    pub(super) fn watchers(&self) -> Watchers {
        self.watchers.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watchers.friends.is_empty() && self.watchers.strangers.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.watchers.friends.len() + self.watchers.strangers.len()
    }

    /// Whether the view of any watcher can change.
    pub(super) fn has_viewers(&self) -> bool {
        !self.viewers.is_empty()
    }

    /// Adds a connection of `viewer`; `None` for a guest.
    pub(super) fn enter(&mut self, connection: ConnectionId, viewer: Option<UserId>, view: View) {
        Arc::make_mut(self.with(view)).push(connection);
        if let Some(viewer) = viewer {
            self.viewers.insert(connection, viewer);
        }
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.viewers.remove(&connection);
        for list in [&mut self.watchers.friends, &mut self.watchers.strangers] {
            remove(list, connection);
        }
    }

    /// Reviews the view of each watcher of `user`. Returns the watchers promoted to the full view.
    pub(super) fn review(&mut self, user: UserId, friends: Option<&HashSet<UserId>>) -> Recipients {
        let may_see_all = |connection: &ConnectionId| {
            let viewer = self.viewers.get(connection).copied();
            visibility::view_of(user, viewer, friends) == View::Full
        };
        let (stay, leave) = split(&self.watchers.friends, may_see_all);
        let (rise, remain) = split(&self.watchers.strangers, may_see_all);
        if !leave.is_empty() || !rise.is_empty() {
            self.watchers = Watchers {
                friends: Arc::new([stay, rise.clone()].concat()),
                strangers: Arc::new([remain, leave].concat()),
            };
        }
        Arc::new(rise)
    }

    fn with(&mut self, view: View) -> &mut Recipients {
        match view {
            View::Full => &mut self.watchers.friends,
            View::Public => &mut self.watchers.strangers,
        }
    }
}

fn split(
    connections: &[ConnectionId],
    condition: impl Fn(&ConnectionId) -> bool,
) -> (Vec<ConnectionId>, Vec<ConnectionId>) {
    connections.iter().copied().partition(condition)
}

fn remove(recipients: &mut Recipients, connection: ConnectionId) {
    if let Some(at) = recipients.iter().position(|known| *known == connection) {
        Arc::make_mut(recipients).swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: ConnectionId = ConnectionId(1);
    const LAPTOP: ConnectionId = ConnectionId(2);
    const GUEST: ConnectionId = ConnectionId(3);

    fn user(id: u64) -> UserId {
        UserId::try_from(id).expect("a valid id")
    }

    #[test]
    fn a_friendship_changes_the_view_of_every_connection_of_the_friend() {
        let (ada, bob) = (user(1), user(2));
        let mut watching = WatcherSet::default();
        watching.enter(PHONE, Some(bob), View::Public);
        watching.enter(LAPTOP, Some(bob), View::Public);
        watching.enter(GUEST, None, View::Public);

        let friends = HashSet::from([bob]);
        assert_eq!(*watching.review(ada, Some(&friends)), [PHONE, LAPTOP]);
        assert!(
            watching.review(ada, Some(&friends)).is_empty(),
            "promoted once"
        );
        assert_eq!(*watching.watchers().strangers, [GUEST]);

        assert!(watching.review(ada, Some(&HashSet::new())).is_empty());
        assert_eq!(*watching.watchers().friends, []);
        assert_eq!(*watching.watchers().strangers, [GUEST, PHONE, LAPTOP]);
    }

    #[test]
    fn unknown_friendships_grant_no_full_view() {
        let (ada, bob) = (user(1), user(2));
        let mut watching = WatcherSet::default();
        watching.enter(PHONE, Some(bob), View::Full);
        assert!(watching.review(ada, None).is_empty());
        assert_eq!(*watching.watchers().strangers, [PHONE]);
    }

    #[test]
    fn removed_watchers_are_in_no_list() {
        let mut watching = WatcherSet::default();
        watching.enter(PHONE, Some(user(2)), View::Full);
        watching.enter(GUEST, None, View::Public);
        watching.remove(PHONE);
        watching.remove(GUEST);
        assert!(watching.is_empty() && !watching.has_viewers());
    }
}
