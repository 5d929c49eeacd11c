//! Takes away what no node can have written, or puts in its place what harms nobody.

use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::{HashesInterface, KeysInterface, SetsInterface, SortedSetsInterface};
use fred::types::SetOptions;

use super::known::Known;
use super::readable::{Judge, read_registered};
use super::{Doctor, Finding, Problem};
use crate::engine::EngineError;
use crate::engine::redis::scripts::unavailable;
use crate::ids::UserId;

impl Doctor {
    /// Removes what the findings say that no node can have written. Returns the users about whom something else has to be
    /// said then.
    pub(super) async fn remove_unreadable(
        &self,
        findings: &[Finding],
    ) -> Result<Vec<UserId>, EngineError> {
        let mut concerned = Vec::new();
        for finding in findings {
            let Some(key) = finding.key.as_deref() else {
                continue;
            };
            let Some(known) = self.known.of(key) else {
                continue;
            };
            match (finding.problem, finding.entry.clone()) {
                (Problem::WrongType | Problem::Misplaced, _) => self.replace(key, &known).await?,
                (Problem::UnreadableConnection | Problem::Unreadable, Some(entry)) => {
                    concerned.extend(self.remove(key, &known, entry).await?);
                }
                _ => {}
            }
            concerned.extend(finding.user);
        }
        Ok(concerned)
    }

    /// Has a key hold nothing, or what is safe where nothing is not.
    async fn replace(&self, key: &str, known: &Known) -> Result<(), EngineError> {
        let keys = match known {
            // A number that begins again needs a life of its own, or nodes would take it for one that they know.
            Known::Epoch(partition) | Known::Revision(partition) => vec![
                self.redis.keys.epoch(*partition),
                self.redis.keys.revision(*partition),
            ],
            // Nobody knows any more which tokens were revoked: all that were issued so far.
            Known::Revoked(_) => return self.set_to_now(key, self.revocation_ttl()).await,
            // Greater than any number that was given, so that none is given twice.
            Known::Count => return self.set_to_now(key, None).await,
            _ => vec![key.to_owned()],
        };
        let commands = self.redis.servers.client_of(key)?;
        let _: u64 = commands.del(keys).await.map_err(unavailable)?;
        Ok(())
    }

    /// Removes an entry. Returns the user about whom something else has to be said then.
    async fn remove(
        &self,
        key: &str,
        known: &Known,
        entry: Bytes,
    ) -> Result<Option<UserId>, EngineError> {
        let commands = self.redis.servers.client_of(key)?;
        let text = std::str::from_utf8(&entry).unwrap_or_default();
        let _: u64 = match known {
            Known::Online(_) => return self.remove_online(key, entry).await,
            Known::Owed(_) | Known::Members(_) => commands.srem(key, entry).await,
            // Users and matches that are told too late are told now; the rest is nobody's.
            Known::Pending | Known::Timeouts if self.is_told(known, text) => {
                let values = (0.0, entry);
                commands
                    .zadd(key, Some(SetOptions::XX), None, false, false, values)
                    .await
            }
            Known::Leases
            | Known::Leaving(_)
            | Known::Queue
            | Known::Ratings
            | Known::Pending
            | Known::Timeouts => commands.zrem(key, entry).await,
            // The script that derives what is said about a user puts the time right.
            Known::Connections(_) if read_registered(text).is_some() => Ok(0),
            // All of an update, or its revision would be that of another one.
            Known::Profile(_) if let Some((kind, _)) = text.split_once('.') => {
                let parts = ["revision", "at", "public", "full"];
                let fields = parts.map(|part| format!("{kind}.{part}"));
                commands.hdel(key, fields.to_vec()).await
            }
            Known::Connections(_)
            | Known::Meta
            | Known::Node
            | Known::Profile(_)
            | Known::Tickets
            | Known::Playing
            | Known::Matches
            | Known::Looked
            | Known::Made => commands.hdel(key, entry).await,
            Known::Epoch(_)
            | Known::Revision(_)
            | Known::Server(_)
            | Known::Revoked(_)
            | Known::Count
            | Known::Request
            | Known::Reply
            | Known::Misplaced => return self.replace(key, known).await.map(|()| None),
        }
        .map_err(unavailable)?;
        Ok(None)
    }

    /// A user who is said to be online where no node looks may be shown by nodes. Online in the right place, the user is
    /// taken offline there, and everybody is told.
    async fn remove_online(&self, key: &str, entry: Bytes) -> Result<Option<UserId>, EngineError> {
        let text = std::str::from_utf8(&entry).unwrap_or_default();
        let user: Option<UserId> = text.parse().ok();
        if let Some(user) = user {
            let own = self.redis.keys.online(self.redis.partition_of(user));
            let user = vec![user.to_string()];
            let _: u64 = self.redis.servers.call("SADD", own, user).await?;
        }
        let commands = self.redis.servers.client_of(key)?;
        let _: u64 = commands.srem(key, entry).await.map_err(unavailable)?;
        Ok(user)
    }

    /// Whether an entry is right but for the time.
    fn is_told(&self, known: &Known, entry: &str) -> bool {
        let judge = Judge {
            now_ms: 0,
            lease_ms: 0,
            partition_of: &|user| self.redis.partition_of(user),
        };
        judge.accepts(known, entry, "0")
    }

    async fn set_to_now(&self, key: &str, keep: Option<Duration>) -> Result<(), EngineError> {
        let now_ms = self.redis.now_ms().await?;
        let mut words = vec![now_ms.to_string()];
        if let Some(keep) = keep {
            words.extend(["PX".to_owned(), keep.as_millis().to_string()]);
        }
        self.redis.servers.call("SET", key.to_owned(), words).await
    }

    fn revocation_ttl(&self) -> Option<Duration> {
        let ttl_ms = u64::try_from(self.redis.revocation_ttl_ms).ok();
        ttl_ms.map(Duration::from_millis)
    }
}
