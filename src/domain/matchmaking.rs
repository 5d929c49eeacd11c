//! Matchmaking: one queue for all nodes, worked off by whichever node comes next.
//!
//! Making a match and telling its players are two steps, because the queue does not know who is online. A match that was
//! made is given out to be told until every node of both players has shown it, or one of them turns out to be gone: then
//! the other goes back to the front. So a node may die at any point, and the others go on from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};

use super::Hub;
use super::connection::Connection;
use crate::engine::matchmaking::{
    Enqueued, Meant, Paired, PairingRules, PendingMatch, QueueStatus, Telling, Ticket,
};
use crate::engine::{Engine, EngineError, Kind, TopicMessage, Views};
use crate::ids::{MatchId, UserId};
use crate::telemetry::Metrics;

/// The rating of who has not played, and of everybody where nobody knows better.
pub const RATING_DEFAULT: i64 = 1000;

/// Ratings are from minus this to this.
pub const RATING_MAX: i64 = 1_000_000;

/// Tickets looked at by one call of the script: a few milliseconds of Redis's time at most.
const PAIR_BATCH_MAX: u32 = 100;

/// Matches, and users whose ticket ran out, told together.
const TELL_BATCH_MAX: u32 = 64;

/// How often a node looks for matches to make and to tell.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long those who found nobody rest until somebody looks at them again.
const REST: Duration = Duration::from_secs(1);

/// How long a match is left to the node that tells it before another one does.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Confirmations that wait. One that finds no room is not lost: the match is told again.
const CONFIRMATIONS_MAX: usize = 1024;

/// Matches of one user that wait until joining is answered. One beyond is told again.
const HELD_BACK_MAX: usize = 8;

/// Confirmations sent together.
const CONFIRM_BATCH_MAX: usize = 64;

/// Tickets asked for again together.
const ASK_AGAIN_BATCH_MAX: usize = 256;

/// Pause before what failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Why somebody does not wait for an opponent.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A guest cannot.
    #[error("only a user can wait for an opponent; sign in by connecting with a token")]
    NotSignedIn,
    /// Only who is online can.
    #[error("the user is not online")]
    NotOnline,
    /// The engine cannot be reached.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Matchmaking on this node.
pub(crate) struct Matchmaking {
    engine: Engine,
    metrics: Arc<Metrics>,
    rules: PairingRules,
    /// Whether ratings are to be had from statistics.
    rated: bool,
    waiting: Mutex<HashMap<UserId, Waiting>>,
    wanted: Notify,
    confirmations: mpsc::Sender<(MatchId, UserId)>,
    held_back: mpsc::Sender<(UserId, TopicMessage)>,
}

/// What matchmaking has for the hub's tasks.
pub(crate) struct Streams {
    /// Matches that this node has shown, and to whom.
    shown: mpsc::Receiver<(MatchId, UserId)>,
    /// Messages on users' topics that had to wait, in order.
    held_back: mpsc::Receiver<(UserId, TopicMessage)>,
}

/// What a user on this node asked for. The engine has it, too, but may lose it.
struct Waiting {
    /// Connections that are about to be answered.
    joining: usize,
    /// When the user asked first.
    asked_at: Instant,
    /// Rating, and since when the user waits; absent while the engine has not answered.
    ticket: Option<(i64, u64)>,
    /// Matches that were found meanwhile.
    held_back: Vec<TopicMessage>,
}

/// A user is about to be told that the user waits. Until this is dropped nothing is told of a match.
pub struct Joined {
    matchmaking: Arc<Matchmaking>,
    user: UserId,
    /// The user waited already.
    pub already: bool,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut waiting = self.matchmaking.waiting();
        if let Some(entry) = waiting.get_mut(&self.user) {
            entry.joining = entry.joining.saturating_sub(1);
            if entry.joining > 0 {
                return;
            }
            for message in entry.held_back.drain(..) {
                // Where there is no room the match is told again.
                let _ = self.matchmaking.held_back.try_send((self.user, message));
            }
            if entry.ticket.is_none() {
                waiting.remove(&self.user);
            }
        }
    }
}

impl Matchmaking {
    /// Returns it with what it has for [`Hub::keep_showing`].
    pub(crate) fn new(
        engine: Engine,
        metrics: Arc<Metrics>,
        rules: PairingRules,
        rated: bool,
    ) -> (Arc<Self>, Streams) {
        let (confirmations, shown) = mpsc::channel(CONFIRMATIONS_MAX);
        let (late, held_back) = mpsc::channel(CONFIRMATIONS_MAX);
        let matchmaking = Self {
            engine,
            metrics,
            rules,
            rated,
            waiting: Mutex::default(),
            wanted: Notify::new(),
            confirmations,
            held_back: late,
        };
        (Arc::new(matchmaking), Streams { shown, held_back })
    }

    /// No call leaves it half changed, so a poisoned lock is as good as any.
    fn waiting(&self) -> MutexGuard<'_, HashMap<UserId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a user of this node in the queue.
    async fn join_here(self: &Arc<Self>, user: UserId) -> Result<Joined, EngineError> {
        let mut joined = {
            // Remembered first: a match may be found before the engine's answer is here.
            let mut waiting = self.waiting();
            let entry = waiting.entry(user).or_insert_with(|| Waiting {
                joining: 0,
                asked_at: Instant::now(),
                ticket: None,
                held_back: Vec::new(),
            });
            entry.joining += 1;
            Joined {
                matchmaking: Arc::clone(self),
                user,
                already: false,
            }
        };
        let rating = self.rating_of(user).await?;
        let enqueued = self.enqueue(user, rating).await?;
        joined.already = enqueued.already;
        if enqueued.since_ms > 0
            && let Some(entry) = self.waiting().get_mut(&user)
        {
            entry.ticket = Some((rating, enqueued.since_ms));
        }
        Ok(joined)
    }

    async fn enqueue(&self, user: UserId, rating: i64) -> Result<Enqueued, EngineError> {
        let enqueued = self.engine.enqueue(user, rating, None).await?;
        if !enqueued.already {
            self.metrics.matchmaking_joins.inc();
        }
        self.wanted.notify_one();
        Ok(enqueued)
    }

    async fn leave(&self, user: UserId) -> Result<bool, EngineError> {
        self.forget(user);
        let left = self.engine.cancel(user, Meant::Any).await?;
        if left {
            self.wanted.notify_one();
        }
        Ok(left)
    }

    /// Nobody on this node waits for an opponent of `user` any more.
    pub(crate) fn forget(&self, user: UserId) {
        let mut waiting = self.waiting();
        if let Some(entry) = waiting.get_mut(&user) {
            entry.ticket = None;
            if entry.joining == 0 {
                waiting.remove(&user);
            }
        }
    }

    /// What of a message on a user's topic is to be heard now.
    pub(crate) fn let_through(&self, user: UserId, message: TopicMessage) -> Option<TopicMessage> {
        let mut waiting = self.waiting();
        let Some(entry) = waiting.get_mut(&user) else {
            return Some(message);
        };
        match &message {
            // The answer to joining comes first.
            TopicMessage::MatchFound { .. } if entry.joining > 0 => {
                if entry.held_back.len() < HELD_BACK_MAX {
                    entry.held_back.push(message);
                }
                None
            }
            // It is about an earlier ticket than the one that the user has by now.
            TopicMessage::MatchTimeout
                if entry.asked_at.elapsed() < self.rules.max_wait.mul_f32(0.9) =>
            {
                None
            }
            TopicMessage::MatchFound { .. }
            | TopicMessage::MatchTimeout
            | TopicMessage::Update(..)
            | TopicMessage::Event { .. }
            | TopicMessage::Disconnect { .. }
            | TopicMessage::AccountDeleted => Some(message),
        }
    }

    /// A message was shown to the user's own connections on this node.
    pub(crate) fn shown(&self, user: UserId, id: Option<MatchId>) {
        self.forget(user);
        if let Some(id) = id {
            // Where there is no room the match is told again.
            let _ = self.confirmations.try_send((id, user));
        }
    }

    /// Asks again for whoever waits here: the engine may have lost it.
    pub(crate) async fn ask_again(&self) -> Result<(), EngineError> {
        let tickets: Vec<(UserId, i64, u64)> = {
            let waiting = self.waiting();
            let with_ticket = waiting
                .iter()
                .filter_map(|(user, entry)| Some((*user, entry.ticket?)));
            with_ticket
                .map(|(user, (rating, since_ms))| (user, rating, since_ms))
                .collect()
        };
        for batch in tickets.chunks(ASK_AGAIN_BATCH_MAX) {
            let asked = batch
                .iter()
                .map(|(user, rating, since_ms)| self.ask_again_for(*user, *rating, *since_ms));
            try_join_all(asked).await?;
        }
        Ok(())
    }

    async fn ask_again_for(
        &self,
        user: UserId,
        rating: i64,
        since_ms: u64,
    ) -> Result<(), EngineError> {
        self.engine.enqueue(user, rating, Some(since_ms)).await?;
        // Whoever left meanwhile, or was told of a match, left before the ticket was asked for again.
        let still_waits = self.waiting().contains_key(&user);
        if !still_waits {
            self.engine.cancel(user, Meant::Any).await?;
        }
        Ok(())
    }

    /// How good a user is, by the statistics that are known: with Postgres they say who won how often.
    async fn rating_of(&self, user: UserId) -> Result<i64, EngineError> {
        if !self.rated {
            return Ok(RATING_DEFAULT);
        }
        let stored = self.engine.stored(user).await?;
        let mut updates = stored.updates.iter();
        let stats = updates.find(|(kind, ..)| *kind == Kind::Stats);
        let record = stats.and_then(|(_, views, _)| serde_json::from_str(views.full.get()).ok());
        Ok(record.map_or(RATING_DEFAULT, rating))
    }

    /// What the other player is told about `user`: what everybody may see.
    async fn opponent(&self, user: UserId) -> Result<Arc<RawValue>, EngineError> {
        let stored = self.engine.stored(user).await?;
        let mut updates = stored.updates.iter();
        let profile = updates.find(|(kind, ..)| *kind == Kind::Profile);
        let shown = profile.and_then(|(_, views, _)| described(views));
        let Described { username, avatar } = shown.unwrap_or_default();
        let opponent = json!({ "userId": user, "username": username, "avatar": avatar });
        serde_json::value::to_raw_value(&opponent)
            .map(Arc::from)
            .map_err(|error| EngineError::Answer(error.to_string()))
    }

    async fn pair(&self) -> Result<Paired, EngineError> {
        let paired = self.engine.pair(self.rules, PAIR_BATCH_MAX, REST).await?;
        self.metrics.matches_made.inc_by(paired.matches);
        let queue_len = i64::try_from(paired.queue_len).unwrap_or(i64::MAX);
        self.metrics.matchmaking_queue.set(queue_len);
        Ok(paired)
    }

    /// Tells whom there is to tell.
    async fn tell_due(&self) -> Result<(), EngineError> {
        loop {
            let due = self.engine.due(TELL_BATCH_MAX, TELL_AGAIN_AFTER).await?;
            let is_last = due.matches.len().max(due.ran_out.len()) < TELL_BATCH_MAX as usize;
            let matches = due.matches.iter().map(|pending| self.tell(pending));
            try_join_all(matches).await?;
            let timeouts = due.ran_out.iter().map(|user| self.tell_timeout(*user));
            try_join_all(timeouts).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn tell_timeout(&self, user: UserId) -> Result<(), EngineError> {
        self.metrics.match_timeouts.inc();
        self.engine.tell_timeout(user).await
    }

    /// Tells both players once both are there.
    async fn tell(&self, pending: &PendingMatch) -> Result<(), EngineError> {
        let [a, b] = pending.users;
        let (of_a, of_b) =
            tokio::try_join!(self.engine.connections_of(a), self.engine.connections_of(b))?;
        let both = [(a, of_a), (b, of_b)];
        let online = both.iter().filter(|(_, (online, _))| *online);
        let there: Vec<UserId> = online.map(|(user, _)| *user).collect();
        if there.len() < both.len() {
            return self.call_off(&pending.id, &there).await;
        }
        // Whoever has no connection at the moment may be back before the grace is over.
        if both
            .iter()
            .any(|(_, (_, connections))| connections.is_empty())
        {
            return Ok(());
        }
        let mut nodes: Vec<(UserId, String)> = Vec::new();
        for (user, (_, connections)) in both {
            nodes.extend(connections.into_iter().map(|own| (user, own.incarnation)));
        }
        nodes.sort();
        nodes.dedup();
        match self.engine.begin_telling(&pending.id, &nodes).await? {
            Telling::Tell(users) => {
                let told = users.into_iter().map(|user| {
                    let other = if user == a { b } else { a };
                    self.tell_one(&pending.id, user, other)
                });
                try_join_all(told).await.map(|_| ())
            }
            Telling::Left => self.call_off(&pending.id, &[a, b]).await,
            Telling::Over => Ok(()),
        }
    }

    async fn tell_one(
        &self,
        id: &MatchId,
        user: UserId,
        opponent: UserId,
    ) -> Result<(), EngineError> {
        let opponent = self.opponent(opponent).await?;
        self.engine.tell_match(user, id, opponent).await
    }

    async fn call_off(&self, id: &MatchId, there: &[UserId]) -> Result<(), EngineError> {
        let sent_back = self.engine.requeue(id, there).await?;
        self.metrics.matchmaking_requeued.inc_by(sent_back);
        if sent_back > 0 {
            self.wanted.notify_one();
        }
        Ok(())
    }

    /// Takes out of the queue those of `users` who are offline and have not asked again since.
    pub(crate) async fn drop_offline(&self, users: &[UserId]) -> Result<(), EngineError> {
        let tickets = self.engine.tickets(users).await?;
        let versions = tickets.iter().map(|ticket| (ticket.user, ticket.version));
        self.drop_if_offline(versions).await
    }

    async fn drop_if_offline(
        &self,
        tickets: impl Iterator<Item = (UserId, u64)>,
    ) -> Result<(), EngineError> {
        for (user, version) in tickets {
            let (online, _) = self.engine.connections_of(user).await?;
            if !online {
                self.engine.cancel(user, Meant::Version(version)).await?;
            }
        }
        Ok(())
    }
}

impl Hub {
    /// Puts a user in the queue, for a back end. Without a rating the user gets the one that is known. Returns whether
    /// the user waited already.
    ///
    /// # Errors
    /// When the user is not online, or the engine cannot be reached.
    pub async fn join_matchmaking(
        &self,
        user: UserId,
        rating: Option<i64>,
    ) -> Result<bool, JoinError> {
        let (online, _) = self.engine().connections_of(user).await?;
        if !online {
            return Err(JoinError::NotOnline);
        }
        let matchmaking = self.matchmaking();
        let rating = match rating {
            Some(rating) => rating.clamp(-RATING_MAX, RATING_MAX),
            None => matchmaking.rating_of(user).await?,
        };
        Ok(matchmaking.enqueue(user, rating).await?.already)
    }

    /// Takes a user out of the queue. Returns whether the user was in it.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn leave_matchmaking(&self, user: UserId) -> Result<bool, EngineError> {
        self.matchmaking().leave(user).await
    }

    /// How the queue is.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn queue_status(&self) -> Result<QueueStatus, EngineError> {
        self.engine().queue_status().await
    }

    /// The first `count` of those who wait.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn first_tickets(&self, count: u32) -> Result<Vec<Ticket>, EngineError> {
        self.engine().first_tickets(count).await
    }

    /// Makes matches and tells them, for ever.
    pub(crate) async fn keep_matching(&self) {
        loop {
            if let Err(error) = self.match_all().await {
                tracing::debug!(%error, "could not look for matches; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.matchmaking().wanted.notified() => {}
            }
        }
    }

    async fn match_all(&self) -> Result<(), EngineError> {
        let matchmaking = self.matchmaking();
        loop {
            let paired = matchmaking.pair().await?;
            // Asking the engine about those alone whom this node does not see online costs next to nothing.
            let unseen = paired.waiting.into_iter();
            let unseen = unseen.filter(|(user, _)| !self.presence().may_be_online(*user));
            matchmaking.drop_if_offline(unseen).await?;
            matchmaking.tell_due().await?;
            if !paired.more {
                return Ok(());
            }
        }
    }

    /// Does what is left to do about matches that were told, for ever.
    pub(crate) async fn keep_showing(&self, streams: Streams) {
        let Streams { shown, held_back } = streams;
        tokio::join!(
            self.keep_confirming(shown),
            self.keep_hearing_late(held_back)
        );
    }

    /// Hears what had to wait.
    async fn keep_hearing_late(&self, mut held_back: mpsc::Receiver<(UserId, TopicMessage)>) {
        while let Some((user, message)) = held_back.recv().await {
            self.hear(user, message).await;
        }
    }

    /// Says what this node has shown.
    async fn keep_confirming(&self, mut shown: mpsc::Receiver<(MatchId, UserId)>) {
        let mut batch = Vec::new();
        while shown.recv_many(&mut batch, CONFIRM_BATCH_MAX).await > 0 {
            let confirmed = batch
                .iter()
                .map(|(id, user)| self.engine().confirm(id, *user));
            for error in join_all(confirmed)
                .await
                .into_iter()
                .filter_map(Result::err)
            {
                tracing::debug!(%error, "could not confirm a match; it is told again");
            }
            batch.clear();
        }
    }
}

impl Connection {
    /// Puts the connection's user in the queue. The answer is sent before what comes of it is dropped.
    ///
    /// # Errors
    /// When it is a guest's, or the engine cannot be reached.
    pub async fn join_matchmaking(&self) -> Result<Joined, JoinError> {
        let user = self.user().ok_or(JoinError::NotSignedIn)?;
        Ok(self.hub().matchmaking().join_here(user).await?)
    }

    /// Takes the connection's user out of the queue.
    ///
    /// # Errors
    /// When it is a guest's, or the engine cannot be reached.
    pub async fn leave_matchmaking(&self) -> Result<(), JoinError> {
        let user = self.user().ok_or(JoinError::NotSignedIn)?;
        self.hub().leave_matchmaking(user).await?;
        Ok(())
    }
}

/// How often somebody won and lost, as `game-stats-update` tells it.
#[derive(Clone, Copy, Deserialize)]
struct GameRecord {
    #[serde(default)]
    wins: u64,
    #[serde(default)]
    losses: u64,
}

/// The algorithm of 400: the average opponent's rating, plus 400 times wins minus losses over games. Ten drawn games
/// on top keep newcomers in the middle until they have played some.
fn rating(record: GameRecord) -> i64 {
    let (wins, losses) = (record.wins as f64, record.losses as f64);
    RATING_DEFAULT + (400.0 * (wins - losses) / (wins + losses + 10.0)) as i64
}

/// What a profile says of somebody, as everybody may see it.
#[derive(Default)]
struct Described {
    username: Option<String>,
    avatar: Option<String>,
}

fn described(views: &Views) -> Option<Described> {
    let public = views.public.as_ref()?;
    let fields: HashMap<String, serde_json::Value> = serde_json::from_str(public.get()).ok()?;
    let text = |name: &str| Some(fields.get(name)?.as_str()?.to_owned());
    Some(Described {
        username: text("username"),
        avatar: text("avatar"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wins_more_is_rated_higher() {
        let of = |wins, losses| rating(GameRecord { wins, losses });
        assert_eq!(of(0, 0), RATING_DEFAULT);
        assert_eq!(of(7, 7), RATING_DEFAULT);
        assert_eq!(of(1, 0), 1036);
        assert_eq!(of(0, 1), 964);
        assert_eq!(of(90, 0), 1360);
        assert!(of(u64::MAX, 0) <= RATING_DEFAULT + 400);
        assert!(of(0, u64::MAX) >= RATING_DEFAULT - 400);
    }
}
