//! Matchmaking in Redis: typed calls of `lua/matchmaking/`.
//!
//! The queue has a hash tag of its own, so its scripts cannot see who is online: callers check that first.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::Redis;
use crate::engine::EngineError;
use crate::engine::matchmaking::{
    Due, Enqueued, NotifyOutcome, Paired, PairingRules, PendingMatch, QueueStats, Ticket,
    TicketSelector,
};
use crate::ids::{MatchId, UserId};

impl Redis {
    pub(in crate::engine) async fn enqueue(
        &self,
        user: UserId,
        rating: i64,
        joined_at_ms: Option<u64>,
    ) -> Result<Enqueued, EngineError> {
        let at = &self.keys;
        let keys = vec![
            at.queue(),
            at.ratings(),
            at.tickets(),
            at.playing(),
            at.matches(),
            at.timeouts(),
            at.count(),
        ];
        let args = vec![
            user.to_string(),
            rating.to_string(),
            joined_at_ms.unwrap_or(0).to_string(),
        ];
        let (status, since_ms): (String, u64) =
            self.scripts.enqueue.call(&self.servers, keys, args).await?;
        let already = match status.as_str() {
            "queued" => false,
            "already_queued" => true,
            _ => return Err(EngineError::Answer("enqueue.lua".to_owned())),
        };
        Ok(Enqueued { already, since_ms })
    }

    pub(in crate::engine) async fn cancel(
        &self,
        user: UserId,
        selector: TicketSelector,
    ) -> Result<bool, EngineError> {
        let at = &self.keys;
        let keys = vec![
            at.queue(),
            at.ratings(),
            at.tickets(),
            at.playing(),
            at.matches(),
            at.pending(),
            at.timeouts(),
        ];
        let version = match selector {
            TicketSelector::Any => 0,
            TicketSelector::Version(version) => version,
        };
        let args = vec![user.to_string(), version.to_string()];
        let taken_out: u64 = self.scripts.cancel.call(&self.servers, keys, args).await?;
        Ok(taken_out > 0)
    }

    pub(in crate::engine) async fn pair(
        &self,
        rules: PairingRules,
        batch_max: u32,
        rest: Duration,
    ) -> Result<Paired, EngineError> {
        let at = &self.keys;
        let keys = vec![
            at.queue(),
            at.ratings(),
            at.tickets(),
            at.playing(),
            at.matches(),
            at.pending(),
            at.timeouts(),
            at.count(),
            at.looked(),
            at.made(),
        ];
        let args = vec![
            batch_max.to_string(),
            rules.rating_window.to_string(),
            rules.widen_per_second.to_string(),
            rules.max_wait.as_millis().to_string(),
            rest.as_millis().to_string(),
        ];
        let (matches, expired, queue_len, more, waiting): (u64, u64, u64, u64, Vec<u64>) =
            self.scripts.pair.call(&self.servers, keys, args).await?;
        let waiting = waiting.chunks_exact(2);
        Ok(Paired {
            matches,
            expired,
            queue_len,
            more: more > 0,
            waiting: waiting
                .filter_map(|pair| Some((UserId::try_from(pair[0]).ok()?, pair[1])))
                .collect(),
        })
    }

    pub(in crate::engine) async fn due(
        &self,
        batch_max: u32,
        keep: Duration,
    ) -> Result<Due, EngineError> {
        let at = &self.keys;
        let keys = vec![at.pending(), at.matches(), at.timeouts()];
        let args = vec![batch_max.to_string(), keep.as_millis().to_string()];
        let (matches, expired, now_ms): (Vec<String>, Vec<String>, u64) =
            self.scripts.due.call(&self.servers, keys, args).await?;
        let pending = |words: &[String]| {
            Some(PendingMatch {
                id: MatchId::new(&words[0]),
                users: [words[1].parse().ok()?, words[2].parse().ok()?],
            })
        };
        Ok(Due {
            matches: matches.chunks_exact(3).filter_map(pending).collect(),
            expired: users(&expired),
            now_ms,
        })
    }

    pub(in crate::engine) async fn begin_notify(
        &self,
        id: &MatchId,
        nodes: &[(UserId, String)],
    ) -> Result<NotifyOutcome, EngineError> {
        let at = &self.keys;
        let keys = vec![at.matches(), at.pending(), at.playing()];
        let nodes: Vec<String> = nodes
            .iter()
            .map(|(user, incarnation)| player_at(*user, incarnation))
            .collect();
        let args = vec![id.to_string(), nodes.join(" ")];
        let answer: Vec<String> = self.scripts.tell.call(&self.servers, keys, args).await?;
        match answer.split_first() {
            Some((status, players)) if status == "told" => Ok(NotifyOutcome::Users(users(players))),
            Some((status, _)) if status == "left" => Ok(NotifyOutcome::Withdrawn),
            Some((status, _)) if status == "over" => Ok(NotifyOutcome::Over),
            Some(_) | None => Err(EngineError::Answer("tell.lua".to_owned())),
        }
    }

    pub(in crate::engine) async fn publish_match(
        &self,
        user: UserId,
        id: &MatchId,
        opponent: Arc<RawValue>,
    ) -> Result<(), EngineError> {
        let id = serde_json::Value::from(id.as_str());
        let message = format!(
            r#"{{"kind":"match-found","matchId":{id},"opponent":{}}}"#,
            opponent.get()
        );
        self.publish_message(user, message).await.map(|_| ())
    }

    pub(in crate::engine) async fn confirm(
        &self,
        id: &MatchId,
        user: UserId,
    ) -> Result<bool, EngineError> {
        let at = &self.keys;
        let keys = vec![at.matches(), at.pending(), at.playing()];
        let args = vec![
            id.to_string(),
            user.to_string(),
            self.incarnation().to_string(),
        ];
        let over: u64 = self.scripts.confirm.call(&self.servers, keys, args).await?;
        Ok(over > 0)
    }

    pub(in crate::engine) async fn requeue(
        &self,
        id: &MatchId,
        online: &[UserId],
    ) -> Result<u64, EngineError> {
        let at = &self.keys;
        let keys = vec![
            at.queue(),
            at.ratings(),
            at.tickets(),
            at.playing(),
            at.matches(),
            at.pending(),
            at.count(),
            at.looked(),
        ];
        let online: Vec<String> = online.iter().map(UserId::to_string).collect();
        let args = vec![id.to_string(), online.join(" ")];
        self.scripts.requeue.call(&self.servers, keys, args).await
    }

    pub(in crate::engine) async fn publish_timeout(
        &self,
        user: UserId,
        before_ms: u64,
    ) -> Result<u64, EngineError> {
        let message = format!(r#"{{"kind":"match-timeout","beforeMs":{before_ms}}}"#);
        Ok(self.publish_message(user, message).await?.unwrap_or(0))
    }

    pub(in crate::engine) async fn publish_left(&self, user: UserId) -> Result<(), EngineError> {
        let message = r#"{"kind":"match-left"}"#.to_owned();
        self.publish_message(user, message).await.map(|_| ())
    }

    pub(in crate::engine) async fn end_timeout(&self, user: UserId) -> Result<(), EngineError> {
        let timeouts = self.keys.timeouts();
        let user = vec![user.to_string()];
        let _: u64 = self.servers.call("ZREM", timeouts, user).await?;
        Ok(())
    }

    pub(in crate::engine) async fn tickets(
        &self,
        users: &[UserId],
    ) -> Result<Vec<Ticket>, EngineError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let fields: Vec<String> = users.iter().map(UserId::to_string).collect();
        let found: Vec<Option<String>> = self
            .servers
            .call("HMGET", self.keys.tickets(), fields)
            .await?;
        Ok(users
            .iter()
            .zip(found)
            .filter_map(|(user, text)| ticket(*user, &text?))
            .collect())
    }

    pub(in crate::engine) async fn first_tickets(
        &self,
        count: u32,
    ) -> Result<Vec<Ticket>, EngineError> {
        if count == 0 {
            // To Redis, "up to -1" means all of them.
            return Ok(Vec::new());
        }
        let range = vec!["0".to_owned(), (count - 1).to_string()];
        let first: Vec<String> = self
            .servers
            .call("ZRANGE", self.keys.queue(), range)
            .await?;
        self.tickets(&users(&first)).await
    }

    pub(in crate::engine) async fn queue_stats(&self) -> Result<QueueStats, EngineError> {
        let at = &self.keys;
        let keys = vec![at.queue(), at.tickets(), at.pending(), at.made()];
        let (queue_len, oldest_wait_ms, pending, matches_per_minute) = self
            .scripts
            .status
            .call(&self.servers, keys, Vec::new())
            .await?;
        Ok(QueueStats {
            queue_len,
            oldest_wait_ms,
            pending,
            matches_per_minute,
        })
    }
}

/// A player on a node, in the scripts' notation.
fn player_at(user: UserId, incarnation: &str) -> String {
    format!("{user}@{incarnation}")
}

fn users(words: &[String]) -> Vec<UserId> {
    words.iter().filter_map(|word| word.parse().ok()).collect()
}

/// Parses `<place> <rating> <joined at> <version>`.
fn ticket(user: UserId, text: &str) -> Option<Ticket> {
    let mut words = text.split(' ').skip(1);
    Some(Ticket {
        user,
        rating: words.next()?.parse().ok()?,
        joined_at_ms: words.next()?.parse().ok()?,
        version: words.next()?.parse().ok()?,
    })
}
