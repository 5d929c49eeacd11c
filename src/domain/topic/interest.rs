//! Guards that keep a topic in the table, and its subscription open.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Topics;
use crate::domain::delivery::{Delivery, ReplyTo};
use crate::domain::visibility::view_of;
use crate::engine::{EngineError, TopicMessage};
use crate::ids::{ConnectionId, UserId};

/// How long a caller waits for a subscription while Redis is unstable.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// Keeps a topic subscribed during a call. A connection then [joins](Self::join) or [watches](Self::watch) the topic.
pub(crate) struct Interest {
    topics: Arc<Topics>,
    user: UserId,
}

/// A connection's membership in a topic; ends when dropped.
pub(crate) struct Membership {
    topics: Arc<Topics>,
    user: UserId,
    connection: ConnectionId,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Own,
    Watcher,
}

/// The partition's interruptions when one of the user's own connections joined.
#[derive(Clone, Copy)]
pub(crate) struct JoinedAt {
    interruptions: u64,
}

impl Topics {
    /// Subscribes to the topic of `user`. Returns once the subscription is confirmed.
    pub(crate) async fn interest(self: &Arc<Self>, user: UserId) -> Result<Interest, EngineError> {
        let (interest, confirmed) = self.begin_interest(user);
        if let Some(confirmed) = confirmed {
            let confirmed = tokio::time::timeout(CONFIRMED_WITHIN, confirmed).await;
            let stopping = || EngineError::NotNow("the node is stopping".to_owned());
            let late = || EngineError::NotNow("subscribing to a topic takes too long".to_owned());
            confirmed.map_err(|_| late())?.map_err(|_| stopping())??;
        }
        Ok(interest)
    }

    fn begin_interest(
        self: &Arc<Self>,
        user: UserId,
    ) -> (Interest, Option<oneshot::Receiver<Result<(), EngineError>>>) {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let topic = table.topics.entry(user).or_default();
        topic.interests += 1;
        let confirmed = (!topic.confirmed).then(|| {
            let (sender, receiver) = oneshot::channel();
            topic.waiting.push(sender);
            receiver
        });
        if confirmed.is_some() {
            self.request_reconcile(table, user);
        }
        let topics = Arc::clone(self);
        (Interest { topics, user }, confirmed)
    }
}

impl Interest {
    /// Adds one of the user's own connections, which from now on receives messages on the topic.
    pub(crate) fn join(self, connection: ConnectionId) -> (Membership, JoinedAt) {
        // Read first, so that an interruption in between is counted.
        let interruptions = self.topics.table.lock().partition(self.user).interruptions;
        let topics = &self.topics;
        topics.edit(self.user, |topic| topic.state.add_own(connection));
        (
            self.member(connection, Role::Own),
            JoinedAt { interruptions },
        )
    }

    /// Adds a watching connection of `viewer` (`None` for a guest) and replies with the last updates. A connection that
    /// `watches_already`, or is the user's own, only gets the reply; the former keeps its membership.
    pub(crate) async fn watch(
        self,
        to: ReplyTo,
        viewer: Option<UserId>,
        watches_already: bool,
    ) -> Result<Option<Membership>, EngineError> {
        self.load().await?;
        let slot = self.topics.deliveries.reserve().await;
        let mut table = self.topics.table.lock();
        // The interest keeps the topic in the table.
        let enters = !watches_already && viewer != Some(self.user);
        table.watchers += usize::from(enters);
        let topic = table.topics.entry(self.user).or_default();
        // While Postgres is unavailable, a friendship may have ended unnoticed.
        let certain = !self.topics.accounts.are_away();
        let friends = topic.state.friends.as_ref().filter(|_| certain);
        let view = view_of(self.user, viewer, friends);
        if enters {
            topic.state.watching.enter(to.connection, viewer, view);
        }
        slot.send(Delivery::Watching {
            to,
            view,
            last: topic.state.last.clone(),
        });
        drop(table);
        Ok((!watches_already).then(|| self.member(to.connection, Role::Watcher)))
    }

    fn member(&self, connection: ConnectionId, role: Role) -> Membership {
        Membership {
            topics: Arc::clone(&self.topics),
            user: self.user,
            connection,
            role,
        }
    }

    /// Reads the stored updates unless they are known. Any that is newer than the last delivered is delivered to all:
    /// its message may have been missed.
    pub(crate) async fn load(&self) -> Result<(), EngineError> {
        let Some(interruptions) = self.unless_loaded() else {
            return Ok(());
        };
        let known = self.topics.accounts.load(self.user).await?;
        for (kind, views, _) in known.stored.updates {
            self.topics
                .deliver(self.user, TopicMessage::Update(kind, views))
                .await;
        }
        let mut table = self.topics.table.lock();
        let still_valid = table.partition(self.user).interruptions == interruptions;
        if let Some(topic) = table.topics.get_mut(&self.user) {
            topic.loaded = topic.confirmed && still_valid && known.certain;
            topic.state.complete = true;
        }
        Ok(())
    }

    fn unless_loaded(&self) -> Option<u64> {
        let mut table = self.topics.table.lock();
        let loaded = table
            .topics
            .get(&self.user)
            .is_some_and(|topic| topic.loaded);
        (!loaded).then(|| table.partition(self.user).interruptions)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.topics.edit(self.user, |topic| topic.interests -= 1);
    }
}

impl Membership {
    /// Records when the connection was registered, in ms on the engine's clock. If messages may have been missed since
    /// it joined, the topic catches up once more: a disconnect may have been read before the connection counted.
    pub(crate) fn registered_at(&self, since_ms: u64, joined: JoinedAt) {
        let (topics, user) = (&self.topics, self.user);
        topics.edit(user, |topic| {
            topic.state.set_registered_at(self.connection, since_ms);
        });
        if topics.table.lock().partition(user).interruptions != joined.interruptions {
            topics.edit(user, |topic| topic.behind = true);
            topics.resubscribe(user);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.topics.edit(self.user, |topic| match self.role {
            Role::Own => topic.state.remove_own(self.connection),
            Role::Watcher => topic.state.watching.remove(self.connection),
        });
    }
}
