//! Matchmaking in Redis: typed calls of `lua/matchmaking/`.
//!
//! The queue has a hash tag of its own, so its scripts cannot see who is online: callers check that first.

use std::sync::Arc;
use std::time::Duration;

use fred::error::Error;
use fred::types::{FromValue, Value};
use serde_json::value::RawValue;

use super::Redis;
use super::scripts::{Reply, Script};
use super::servers::slot_of;
use crate::engine::EngineError;
use crate::engine::matchmaking::{
    Due, Enqueued, NotifyOutcome, Paired, PairingRules, PendingMatch, QueueStats, Ticket, Unmatched,
};
use crate::ids::{MatchId, UserId};

impl Redis {
    pub(in crate::engine) async fn enqueue(
        &self,
        user: UserId,
        rating: i64,
    ) -> Result<Enqueued, EngineError> {
        let args = vec![
            user.to_string(),
            rating.to_string(),
            self.keys.matches_prefix(),
        ];
        let script = &self.scripts.enqueue;
        script.call(&self.servers, self.join_keys(user), args).await
    }

    pub(in crate::engine) async fn restore(
        &self,
        user: UserId,
        rating: i64,
        joined_at_ms: u64,
    ) -> Result<Enqueued, EngineError> {
        let args = vec![
            user.to_string(),
            rating.to_string(),
            joined_at_ms.to_string(),
            self.keys.matches_prefix(),
        ];
        let script = &self.scripts.restore;
        script.call(&self.servers, self.join_keys(user), args).await
    }

    fn join_keys(&self, user: UserId) -> Vec<String> {
        let at = &self.keys;
        vec![
            at.queue(),
            at.ratings(),
            at.ticket(user),
            at.playing(),
            at.timeouts(),
            at.count(),
        ]
    }

    pub(in crate::engine) async fn cancel(&self, user: UserId) -> Result<bool, EngineError> {
        let at = &self.keys;
        let keys = vec![
            at.queue(),
            at.ratings(),
            at.ticket(user),
            at.playing(),
            at.pending(),
            at.timeouts(),
        ];
        let args = vec![user.to_string(), at.matches_prefix()];
        let YesNo(cancelled) = self.scripts.cancel.call(&self.servers, keys, args).await?;
        Ok(cancelled)
    }

    pub(in crate::engine) async fn drop_ticket(
        &self,
        user: UserId,
        version: u64,
    ) -> Result<(), EngineError> {
        let at = &self.keys;
        let keys = vec![at.queue(), at.ratings(), at.ticket(user)];
        let args = vec![user.to_string(), version.to_string()];
        let script = &self.scripts.drop_ticket;
        let YesNo(_dropped) = script.call(&self.servers, keys, args).await?;
        Ok(())
    }

    pub(in crate::engine) async fn expire_ticket(
        &self,
        user: UserId,
        version: u64,
    ) -> Result<(), EngineError> {
        let at = &self.keys;
        let keys = vec![at.queue(), at.ratings(), at.ticket(user), at.timeouts()];
        let args = vec![user.to_string(), version.to_string()];
        let script = &self.scripts.expire_ticket;
        let YesNo(_expired) = script.call(&self.servers, keys, args).await?;
        Ok(())
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
            at.playing(),
            at.pending(),
            at.count(),
            at.scan(),
            at.made(),
        ];
        let args = vec![
            batch_max.to_string(),
            rules.rating_window.to_string(),
            rules.widen_per_second.to_string(),
            rest.as_millis().to_string(),
            at.tickets_prefix(),
            at.matches_prefix(),
        ];
        self.call_owner(&self.scripts.pair, keys, args).await
    }

    pub(in crate::engine) async fn due(
        &self,
        batch_max: u32,
        keep: Duration,
    ) -> Result<Due, EngineError> {
        let at = &self.keys;
        let keys = vec![at.pending(), at.timeouts()];
        let args = vec![
            batch_max.to_string(),
            keep.as_millis().to_string(),
            at.matches_prefix(),
        ];
        self.call_owner(&self.scripts.due, keys, args).await
    }

    /// Runs a script that derives keys from a prefix. While a slot is migrating, only its owner is asked: elsewhere the
    /// derived keys may be missing although they exist.
    async fn call_owner<R: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<R, EngineError> {
        let slot = slot_of(&self.keys.queue());
        let call = || script.call_once(&self.servers, keys.clone(), args.clone(), false);
        let mut answer = call().await;
        if let Err(error) = &answer
            && self.servers.record_move(slot, error)
        {
            answer = call().await;
        }
        script.decode(answer.map_err(|error| self.servers.failure(error))?)
    }

    pub(in crate::engine) async fn begin_notify(
        &self,
        id: &MatchId,
        nodes: &[(UserId, String)],
    ) -> Result<NotifyOutcome, EngineError> {
        let nodes: Vec<String> = nodes
            .iter()
            .map(|(user, incarnation)| player_at(*user, incarnation))
            .collect();
        let args = vec![id.to_string(), nodes.join(" ")];
        let script = &self.scripts.notify;
        script.call(&self.servers, self.match_keys(id), args).await
    }

    fn match_keys(&self, id: &MatchId) -> Vec<String> {
        let at = &self.keys;
        vec![at.pending_match(id.as_str()), at.pending(), at.playing()]
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
        let args = vec![
            id.to_string(),
            user.to_string(),
            self.incarnation().to_string(),
        ];
        let script = &self.scripts.confirm;
        let YesNo(over) = script
            .call(&self.servers, self.match_keys(id), args)
            .await?;
        Ok(over)
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
            at.pending_match(id.as_str()),
            at.playing(),
            at.pending(),
            at.count(),
            at.scan(),
        ];
        let online: Vec<String> = online.iter().map(UserId::to_string).collect();
        let args = vec![id.to_string(), online.join(" "), at.tickets_prefix()];
        self.call_owner(&self.scripts.requeue, keys, args).await
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
        // All have one slot, so one pipeline reads them.
        let fields = ["rating", "joined", "version"];
        let reads: Vec<(&'static str, Vec<String>)> = users
            .iter()
            .map(|user| {
                let mut args = vec![self.keys.ticket(*user)];
                args.extend(fields.map(str::to_owned));
                ("HMGET", args)
            })
            .collect();
        let found = self
            .servers
            .call_together(&self.keys.queue(), &reads)
            .await?;
        let tickets = users.iter().zip(found);
        Ok(tickets
            .filter_map(|(user, fields)| ticket(*user, fields))
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
        let keys = vec![at.queue(), at.pending(), at.made()];
        let args = vec![at.tickets_prefix()];
        let (queue_len, oldest_wait_ms, pending, matches_per_minute) =
            self.scripts.status.call(&self.servers, keys, args).await?;
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

/// Decodes the fields `rating`, `joined` and `version` of a ticket; `None` where there is none.
fn ticket(user: UserId, fields: Value) -> Option<Ticket> {
    let (rating, joined_at_ms, version) = fields.convert().ok()?;
    Some(Ticket {
        user,
        rating,
        joined_at_ms,
        version,
    })
}

impl FromValue for Enqueued {
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut reply = Reply::from_value(value)?;
        match reply.word() {
            "queued" => Ok(Self::Queued {
                since_ms: reply.next()?,
            }),
            "already_queued" => Ok(Self::AlreadyQueued {
                since_ms: reply.next()?,
            }),
            "matched" => Ok(Self::Matched),
            _ => Err(reply.unknown()),
        }
    }
}

/// The answer of a script that did something or did not.
struct YesNo(bool);

impl FromValue for YesNo {
    fn from_value(value: Value) -> Result<Self, Error> {
        let reply = Reply::from_value(value)?;
        match reply.word() {
            "cancelled" | "dropped" | "expired" | "over" => Ok(Self(true)),
            "nothing" | "kept" | "pending" => Ok(Self(false)),
            _ => Err(reply.unknown()),
        }
    }
}

impl FromValue for Paired {
    fn from_value(value: Value) -> Result<Self, Error> {
        let (matches, queue_len, rest, waiting): (u64, u64, Reply, Vec<u64>) = value.convert()?;
        let read = |words: &[u64]| {
            Some(Unmatched {
                user: UserId::try_from(words[0]).ok()?,
                version: words[1],
                waited: Duration::from_millis(words[2]),
            })
        };
        let more = match rest.word() {
            "more" => true,
            "done" => false,
            _ => return Err(rest.unknown()),
        };
        Ok(Self {
            matches,
            queue_len,
            more,
            waiting: waiting.chunks_exact(3).filter_map(read).collect(),
        })
    }
}

impl FromValue for Due {
    fn from_value(value: Value) -> Result<Self, Error> {
        let (matches, expired, now_ms): (Vec<String>, Vec<String>, u64) = value.convert()?;
        let pending = |words: &[String]| {
            Some(PendingMatch {
                id: MatchId::new(&words[0]),
                users: [words[1].parse().ok()?, words[2].parse().ok()?],
            })
        };
        Ok(Self {
            matches: matches.chunks_exact(3).filter_map(pending).collect(),
            expired: users(&expired),
            now_ms,
        })
    }
}

impl FromValue for NotifyOutcome {
    fn from_value(value: Value) -> Result<Self, Error> {
        let reply = Reply::from_value(value)?;
        match reply.word() {
            "notify" => Ok(Self::Users(users(&reply.rest::<Vec<String>>()?))),
            "cancelled" => Ok(Self::Cancelled),
            "over" => Ok(Self::Over),
            _ => Err(reply.unknown()),
        }
    }
}
