//! Matchmaking in this process: the rules of the scripts in `lua/matchmaking/`, which document them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::Memory;
use crate::clock::now_ms;
use crate::engine::matchmaking::{
    Due, Enqueued, NotifyOutcome, Paired, PairingRules, PendingMatch, QueueStats, Ticket, Unmatched,
};
use crate::engine::{EngineError, TopicMessage};
use crate::ids::{MatchId, UserId, random_name};

/// Period over which matches are counted, in seconds.
const SECONDS: u64 = 60;

/// Consecutive calls that scan new tickets while others are due for another scan.
const FRESH_CALLS_MAX: u32 = 8;

#[derive(Default)]
pub(super) struct MatchmakingState {
    tickets: HashMap<UserId, QueuedTicket>,
    queue: BTreeMap<i64, UserId>,
    /// The queue by rating, then place.
    ratings: BTreeMap<(i64, i64), UserId>,
    /// Pending matches of users.
    playing: HashMap<UserId, MatchId>,
    matches: HashMap<MatchId, MatchState>,
    /// Users whose ticket expired, and when that is announced next (ms).
    timeouts: HashMap<UserId, u64>,
    /// The last number assigned, for places and versions.
    count: u64,
    scan: ScanCursor,
    /// Matches made, by second.
    made_per_second: BTreeMap<u64, u64>,
}

/// How far tickets have been scanned.
#[derive(Default)]
struct ScanCursor {
    fresh: i64,
    again: Option<i64>,
    next_ms: u64,
    /// Consecutive calls that scanned new tickets.
    streak: u32,
}

#[derive(Clone, Copy)]
struct QueuedTicket {
    place: i64,
    ticket: Ticket,
}

/// A pending match.
struct MatchState {
    tickets: [Ticket; 2],
    acked_users: HashSet<UserId>,
    /// Users who left after the match was announced.
    withdrawn: HashSet<UserId>,
    notified: bool,
    cancelled: bool,
    due_ms: u64,
}

impl MatchState {
    fn users(&self) -> [UserId; 2] {
        self.tickets.map(|ticket| ticket.user)
    }

    fn is_complete(&self) -> bool {
        self.users()
            .iter()
            .all(|user| self.acked_users.contains(user))
    }
}

impl MatchmakingState {
    fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn insert(&mut self, place: i64, ticket: Ticket) {
        self.queue.insert(place, ticket.user);
        self.ratings.insert((ticket.rating, place), ticket.user);
        self.tickets
            .insert(ticket.user, QueuedTicket { place, ticket });
    }

    /// Adds a user to the queue, or renews the ticket.
    fn join(&mut self, user: UserId, rating: i64, joined_at_ms: u64) -> Enqueued {
        self.playing.remove(&user);
        let version = self.next_number();
        if let Some(queued) = self.tickets.get_mut(&user) {
            queued.ticket.version = version;
            let since_ms = queued.ticket.joined_at_ms;
            return Enqueued::AlreadyQueued { since_ms };
        }
        self.timeouts.remove(&user);
        let ticket = Ticket {
            user,
            rating,
            joined_at_ms,
            version,
        };
        self.insert(version as i64, ticket);
        Enqueued::Queued {
            since_ms: joined_at_ms,
        }
    }

    fn match_of(&mut self, user: UserId) -> Option<&mut MatchState> {
        let id = self.playing.get(&user)?;
        self.matches.get_mut(id)
    }

    fn remove(&mut self, user: UserId) -> Option<Ticket> {
        let QueuedTicket { place, ticket } = self.tickets.remove(&user)?;
        self.queue.remove(&place);
        self.ratings.remove(&(ticket.rating, place));
        Some(ticket)
    }

    /// Removes the ticket if it still has this version. Returns whether it had.
    fn remove_version(&mut self, user: UserId, version: u64) -> bool {
        let queued = self.tickets.get(&user);
        queued.is_some_and(|queued| queued.ticket.version == version) && self.remove(user).is_some()
    }

    /// Users to scan, and whether more are due.
    fn batch(&mut self, now_ms: u64, batch_max: usize, rest: Duration) -> (Vec<UserId>, bool) {
        let is_round = now_ms >= self.scan.next_ms;
        let others_due = is_round && self.scan.streak >= FRESH_CALLS_MAX;
        if !others_due {
            let fresh: Vec<(i64, UserId)> = self
                .queue
                .range(self.scan.fresh + 1..)
                .take(batch_max)
                .map(|(place, user)| (*place, *user))
                .collect();
            if let Some((last, _)) = fresh.last() {
                self.scan.fresh = *last;
                self.scan.streak += 1;
                return (fresh.into_iter().map(|(_, user)| user).collect(), true);
            }
        }
        if !is_round {
            return (Vec::new(), false);
        }
        let from = self.scan.again.map_or(i64::MIN, |again| again + 1);
        let again: Vec<(i64, UserId)> = self
            .queue
            .range(from..)
            .take(batch_max)
            .map(|(place, user)| (*place, *user))
            .collect();
        let has_more = again.len() == batch_max;
        self.scan.again = again.last().filter(|_| has_more).map(|(place, _)| *place);
        self.scan.streak = 0;
        if !has_more {
            self.scan.next_ms = now_ms + rest.as_millis() as u64;
        }
        let more = others_due || has_more;
        (again.into_iter().map(|(_, user)| user).collect(), more)
    }

    /// Users with a rating from `low` to `high`, by rating and then place.
    fn rated(
        &self,
        low: i64,
        high: i64,
    ) -> impl DoubleEndedIterator<Item = (&(i64, i64), &UserId)> {
        // `BTreeMap::range` panics on an inverted range.
        let range = (low, i64::MIN)..=(high.max(low), i64::MAX);
        self.ratings.range(range).filter(move |_| low <= high)
    }

    /// The user with the closest rating within `reach`; the oldest of several.
    fn closest(&self, waiting: &QueuedTicket, reach: i64) -> Option<UserId> {
        let (rating, place) = (waiting.ticket.rating, waiting.place);
        let equal = self
            .rated(rating, rating)
            .find(|((_, other), _)| *other != place);
        let above = self.rated(rating + 1, rating.saturating_add(reach)).next();
        let below = self
            .rated(rating.saturating_sub(reach), rating - 1)
            .next_back()
            .and_then(|((below, _), _)| self.rated(*below, *below).next());
        let near = [equal, above, below].into_iter().flatten();
        near.min_by_key(|((other, place), _)| ((other - rating).abs(), *place))
            .map(|(_, user)| *user)
    }

    /// Creates a match of two users.
    fn make_match(&mut self, user: UserId, opponent: UserId) {
        let (Some(ticket), Some(other)) = (self.remove(user), self.remove(opponent)) else {
            return;
        };
        let id = MatchId::new(&random_name());
        for user in [user, opponent] {
            self.playing.insert(user, id.clone());
        }
        let found = MatchState {
            tickets: [ticket, other],
            acked_users: HashSet::new(),
            withdrawn: HashSet::new(),
            notified: false,
            cancelled: false,
            due_ms: 0,
        };
        self.matches.insert(id, found);
    }

    /// Removes a match. Returns the tickets of players who have no newer match.
    fn remove_match(&mut self, id: &MatchId) -> Vec<Ticket> {
        let Some(found) = self.matches.remove(id) else {
            return Vec::new();
        };
        let mut claimed = Vec::new();
        for ticket in found.tickets {
            if self.playing.get(&ticket.user) == Some(id) {
                self.playing.remove(&ticket.user);
                claimed.push(ticket);
            }
        }
        claimed
    }
}

impl Memory {
    pub(in crate::engine) fn enqueue(
        &self,
        user: UserId,
        rating: i64,
    ) -> Result<Enqueued, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        if let Some(found) = matchmaking.match_of(user)
            && !found.acked_users.contains(&user)
        {
            found.withdrawn.remove(&user);
            return Ok(Enqueued::Matched);
        }
        Ok(matchmaking.join(user, rating, now_ms()))
    }

    pub(in crate::engine) fn restore(
        &self,
        user: UserId,
        rating: i64,
        joined_at_ms: u64,
    ) -> Result<Enqueued, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        if matchmaking.match_of(user).is_some() {
            return Ok(Enqueued::Matched);
        }
        Ok(matchmaking.join(user, rating, joined_at_ms))
    }

    pub(in crate::engine) fn cancel(&self, user: UserId) -> Result<bool, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        if matchmaking.remove(user).is_some() {
            return Ok(true);
        }
        let had_expired = matchmaking.timeouts.remove(&user).is_some();
        let Some(found) = matchmaking.match_of(user) else {
            return Ok(had_expired);
        };
        if found.notified {
            found.withdrawn.insert(user);
            return Ok(had_expired);
        }
        (found.cancelled, found.due_ms) = (true, 0);
        matchmaking.playing.remove(&user);
        Ok(true)
    }

    pub(in crate::engine) fn drop_ticket(
        &self,
        user: UserId,
        version: u64,
    ) -> Result<(), EngineError> {
        self.matchmaking.lock().remove_version(user, version);
        Ok(())
    }

    pub(in crate::engine) fn expire_ticket(
        &self,
        user: UserId,
        version: u64,
    ) -> Result<(), EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        if matchmaking.remove_version(user, version) {
            matchmaking.timeouts.insert(user, 0);
        }
        Ok(())
    }

    pub(in crate::engine) fn pair(
        &self,
        rules: PairingRules,
        batch_max: u32,
        rest: Duration,
    ) -> Result<Paired, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        let now_ms = now_ms();
        let (batch, more) = matchmaking.batch(now_ms, batch_max as usize, rest);
        let mut paired = Paired {
            more,
            ..Paired::default()
        };
        for user in batch {
            let Some(waiting) = matchmaking.tickets.get(&user).copied() else {
                continue;
            };
            let waited_ms = now_ms.saturating_sub(waiting.ticket.joined_at_ms);
            let widened = u64::from(rules.widen_per_second) * waited_ms / 1000;
            let reach = (u64::from(rules.rating_window) + widened) as i64;
            match matchmaking.closest(&waiting, reach) {
                Some(opponent) => {
                    matchmaking.make_match(user, opponent);
                    paired.matches += 1;
                }
                None => paired.waiting.push(Unmatched {
                    user,
                    version: waiting.ticket.version,
                    waited: Duration::from_millis(waited_ms),
                }),
            }
        }
        // A user without a match may have been chosen since by another with a wider window.
        paired
            .waiting
            .retain(|unmatched| matchmaking.tickets.contains_key(&unmatched.user));
        paired.queue_len = matchmaking.queue.len() as u64;
        let second = now_ms / 1000;
        if paired.matches > 0 {
            *matchmaking.made_per_second.entry(second).or_default() += paired.matches;
        }
        matchmaking
            .made_per_second
            .retain(|made_per_second, _| made_per_second + SECONDS > second);
        Ok(paired)
    }

    pub(in crate::engine) fn due(
        &self,
        batch_max: u32,
        keep: Duration,
    ) -> Result<Due, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        let now_ms = now_ms();
        let again_ms = now_ms + keep.as_millis() as u64;
        let matches = matchmaking
            .matches
            .iter_mut()
            .filter(|(_, found)| found.due_ms <= now_ms)
            .take(batch_max as usize)
            .map(|(id, found)| {
                found.due_ms = again_ms;
                PendingMatch {
                    id: id.clone(),
                    users: found.users(),
                }
            })
            .collect();
        let expired = matchmaking
            .timeouts
            .iter_mut()
            .filter(|(_, due_ms)| **due_ms <= now_ms)
            .take(batch_max as usize)
            .map(|(user, due_ms)| {
                *due_ms = again_ms;
                *user
            })
            .collect();
        Ok(Due {
            matches,
            expired,
            now_ms,
        })
    }

    /// With one node, a user has confirmed a match everywhere or nowhere.
    pub(in crate::engine) fn begin_notify(
        &self,
        id: &MatchId,
        _nodes: &[(UserId, String)],
    ) -> Result<NotifyOutcome, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        let Some(found) = matchmaking.matches.get_mut(id) else {
            return Ok(NotifyOutcome::Over);
        };
        if found.cancelled {
            return Ok(NotifyOutcome::Cancelled);
        }
        found.notified = true;
        let users = found.users().into_iter();
        let to_notify = users.filter(|user| !found.acked_users.contains(user));
        Ok(NotifyOutcome::Users(to_notify.collect()))
    }

    pub(in crate::engine) fn publish_match(
        &self,
        user: UserId,
        id: &MatchId,
        opponent: Arc<RawValue>,
    ) -> Result<(), EngineError> {
        let id = id.clone();
        self.send_to_account(user, TopicMessage::MatchFound { id, opponent });
        Ok(())
    }

    pub(in crate::engine) fn confirm(
        &self,
        id: &MatchId,
        user: UserId,
    ) -> Result<bool, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        let Some(found) = matchmaking.matches.get_mut(id) else {
            return Ok(true);
        };
        found.acked_users.insert(user);
        if !found.is_complete() {
            return Ok(false);
        }
        matchmaking.remove_match(id);
        Ok(true)
    }

    pub(in crate::engine) fn requeue(
        &self,
        id: &MatchId,
        online: &[UserId],
    ) -> Result<u64, EngineError> {
        let mut matchmaking = self.matchmaking.lock();
        let mut sent_back = 0;
        let found = matchmaking.matches.get(id);
        let takes_place = found.is_some_and(MatchState::is_complete);
        let withdrawn = found.map_or_else(HashSet::new, |found| found.withdrawn.clone());
        for ticket in matchmaking.remove_match(id) {
            if takes_place || withdrawn.contains(&ticket.user) {
                continue;
            }
            let waits = matchmaking.tickets.contains_key(&ticket.user);
            if waits || !online.contains(&ticket.user) {
                continue;
            }
            let version = matchmaking.next_number();
            let first = matchmaking.queue.first_key_value();
            let place = first.map_or(version as i64, |(place, _)| *place) - 1;
            matchmaking.insert(place, Ticket { version, ..ticket });
            sent_back += 1;
        }
        matchmaking.scan.next_ms = 0;
        Ok(sent_back)
    }

    pub(in crate::engine) fn publish_timeout(
        &self,
        user: UserId,
        before_ms: u64,
    ) -> Result<u64, EngineError> {
        let nodes = self.send_to_account(user, TopicMessage::MatchTimeout { before_ms });
        Ok(nodes.unwrap_or(0))
    }

    pub(in crate::engine) fn publish_left(&self, user: UserId) -> Result<(), EngineError> {
        self.send_to_account(user, TopicMessage::MatchLeft);
        Ok(())
    }

    pub(in crate::engine) fn end_timeout(&self, user: UserId) -> Result<(), EngineError> {
        self.matchmaking.lock().timeouts.remove(&user);
        Ok(())
    }

    pub(in crate::engine) fn tickets(&self, users: &[UserId]) -> Result<Vec<Ticket>, EngineError> {
        let matchmaking = self.matchmaking.lock();
        let waiting = users
            .iter()
            .filter_map(|user| matchmaking.tickets.get(user));
        Ok(waiting.map(|waiting| waiting.ticket).collect())
    }

    pub(in crate::engine) fn first_tickets(&self, count: u32) -> Result<Vec<Ticket>, EngineError> {
        let first: Vec<UserId> = {
            let matchmaking = self.matchmaking.lock();
            let users = matchmaking.queue.values().take(count as usize);
            users.copied().collect()
        };
        self.tickets(&first)
    }

    pub(in crate::engine) fn queue_stats(&self) -> Result<QueueStats, EngineError> {
        let matchmaking = self.matchmaking.lock();
        let now_ms = now_ms();
        let joined_at_ms = matchmaking
            .queue
            .values()
            .next()
            .and_then(|user| matchmaking.tickets.get(user))
            .map_or(now_ms, |waiting| waiting.ticket.joined_at_ms);
        let recent = matchmaking
            .made_per_second
            .iter()
            .filter(|(second, _)| *second + SECONDS > now_ms / 1000);
        Ok(QueueStats {
            queue_len: matchmaking.queue.len() as u64,
            oldest_wait_ms: now_ms.saturating_sub(joined_at_ms),
            pending: matchmaking.matches.len() as u64,
            matches_per_minute: recent.map(|(_, matches)| matches).sum(),
        })
    }
}
