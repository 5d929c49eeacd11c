//! Makes matches and tells them: what any node does, whoever put the players in the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Matchmaking, Streams};
use crate::engine::matchmaking::{Meant, Paired, PendingMatch, Telling};
use crate::engine::{EngineError, Kind, TopicMessage, Views};
use crate::ids::{MatchId, UserId};
use crate::telemetry::warn_seldom;

/// Tickets looked at by one call of the script: a few milliseconds of Redis's time at most.
const PAIR_BATCH_MAX: u32 = 100;

/// Matches, and users whose ticket ran out, told together.
const TELL_BATCH_MAX: u32 = 64;

/// How often a node looks for matches to make and to tell.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long those who found nobody rest until somebody looks at them again.
const REST: Duration = Duration::from_secs(1);

/// How long a match is left to the node that tells it before it is told again, by whichever node: nodes confirm within
/// milliseconds, unless a connection closed at that moment, or its node did.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A node that took so long stood still: others have told the match since, or called it off.
const LATE_AFTER: Duration = Duration::from_secs(2);

/// Confirmations sent together.
const CONFIRM_BATCH_MAX: usize = 64;

/// Pause before what failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

impl Matchmaking {
    /// Makes matches and tells them.
    pub(crate) async fn run_matching(self: Arc<Self>) {
        loop {
            let pause = match self.match_all().await {
                Ok(true) => TELL_AGAIN_AFTER,
                Ok(false) => INTERVAL,
                Err(error) => {
                    warn_seldom!(%error, "could not look for matches; trying again");
                    RETRY_DELAY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// Returns whether there was anybody to tell, who may have to be told again.
    async fn match_all(&self) -> Result<bool, EngineError> {
        let mut told = false;
        loop {
            let paired = self.pair().await?;
            // Asking the engine about those alone whom this node does not see online costs next to nothing.
            let unseen = paired.waiting.into_iter();
            let unseen = unseen.filter(|(user, _)| !self.presence.may_be_online(*user));
            if let Err(error) = self.drop_if_offline(unseen).await {
                // Others are told all the same.
                tracing::debug!(%error, "could not see who is offline; trying again");
            }
            told |= self.tell_due().await?;
            if !paired.more {
                return Ok(told);
            }
        }
    }

    /// Confirms matches that were shown, and handles messages that were held back.
    pub(crate) async fn run_match_tasks(self: Arc<Self>, streams: Streams) {
        tokio::join!(
            self.run_confirmations(streams.shown),
            self.run_held_back(streams.held_back)
        );
    }

    /// Takes those who went offline out of the queue.
    pub(crate) async fn run_queue_cleanup(
        self: Arc<Self>,
        mut offline: mpsc::Receiver<Vec<UserId>>,
    ) {
        while let Some(users) = offline.recv().await {
            if let Err(error) = self.drop_offline(&users).await {
                warn_seldom!(%error, "could not take users out of the queue; whoever looks at them next does");
            }
        }
    }

    /// Handles messages that were held back until joining was answered.
    async fn run_held_back(&self, mut held_back: mpsc::Receiver<(UserId, TopicMessage)>) {
        while let Some((user, message)) = held_back.recv().await {
            self.receive(user, message).await;
        }
    }

    /// Confirms to the engine which matches this node has shown.
    async fn run_confirmations(&self, mut shown: mpsc::Receiver<(MatchId, UserId)>) {
        let mut batch = Vec::new();
        while shown.recv_many(&mut batch, CONFIRM_BATCH_MAX).await > 0 {
            let confirmed = batch
                .iter()
                .map(|(id, user)| self.engine.confirm(id, *user));
            for error in join_all(confirmed)
                .await
                .into_iter()
                .filter_map(Result::err)
            {
                warn_seldom!(%error, "could not confirm a match; it is told again");
            }
            batch.clear();
        }
    }

    async fn pair(&self) -> Result<Paired, EngineError> {
        let paired = self.engine.pair(self.rules, PAIR_BATCH_MAX, REST).await?;
        self.metrics.matches_made.inc_by(paired.matches);
        let queue_len = i64::try_from(paired.queue_len).unwrap_or(i64::MAX);
        self.metrics.matchmaking_queue.set(queue_len);
        Ok(paired)
    }

    /// Tells whom there is to tell. Returns whether there was anybody.
    async fn tell_due(&self) -> Result<bool, EngineError> {
        let mut told = false;
        loop {
            let due = self.engine.due(TELL_BATCH_MAX, TELL_AGAIN_AFTER).await?;
            let longest = due.matches.len().max(due.ran_out.len());
            told |= longest > 0;
            // One that cannot be told holds up no other.
            let asked_at = Instant::now();
            let matches = due.matches.iter();
            let matches = matches.map(|pending| self.tell(pending, asked_at));
            let matches = join_all(matches).await;
            let before_ms = due.now_ms - (self.rules.max_wait.as_millis() as u64).min(due.now_ms);
            let timeouts = due.ran_out.iter();
            let timeouts = timeouts.map(|user| self.tell_timeout(*user, before_ms));
            let timeouts = join_all(timeouts).await;
            matches
                .into_iter()
                .chain(timeouts)
                .collect::<Result<(), _>>()?;
            if longest < TELL_BATCH_MAX as usize {
                return Ok(told);
            }
        }
    }

    /// Who has no connection at the moment is told later, if the user comes back.
    async fn tell_timeout(&self, user: UserId, before_ms: u64) -> Result<(), EngineError> {
        let (online, connections) = self.engine.connections_of(user).await?;
        if online && connections.is_empty() {
            return Ok(());
        }
        if online && self.engine.tell_timeout(user, before_ms).await? == 0 {
            return Ok(());
        }
        self.metrics.match_timeouts.inc();
        self.engine.end_timeout(user).await
    }

    /// Tells both players once both are there.
    async fn tell(&self, pending: &PendingMatch, asked_at: Instant) -> Result<(), EngineError> {
        let [a, b] = pending.users;
        let (of_a, of_b) =
            tokio::try_join!(self.engine.connections_of(a), self.engine.connections_of(b))?;
        let both = [(a, of_a), (b, of_b)];
        let online = both.iter().filter(|(_, (online, _))| *online);
        let there: Vec<UserId> = online.map(|(user, _)| *user).collect();
        let is_late = || asked_at.elapsed() >= LATE_AFTER;
        if is_late() {
            return Ok(());
        }
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
            Telling::Tell(_) if is_late() => Ok(()),
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

    /// Takes out of the queue those of `users` who are offline and have not asked again since.
    async fn drop_offline(&self, users: &[UserId]) -> Result<(), EngineError> {
        let tickets = self.engine.tickets(users).await?;
        let versions = tickets.iter().map(|ticket| (ticket.user, ticket.version));
        self.drop_if_offline(versions).await
    }

    async fn drop_if_offline(
        &self,
        tickets: impl Iterator<Item = (UserId, u64)>,
    ) -> Result<(), EngineError> {
        let dropped = tickets.map(async |(user, version)| {
            let (online, _) = self.engine.connections_of(user).await?;
            if !online {
                self.engine.cancel(user, Meant::Version(version)).await?;
            }
            Ok(())
        });
        join_all(dropped).await.into_iter().collect()
    }
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
