//! Removes data that no node can have written, or replaces it by a safe value.

use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::{HashesInterface, KeysInterface, SetsInterface, SortedSetsInterface};
use fred::types::SetOptions;

use super::key_kind::KeyKind;
use super::validator::{Validator, read_connection_field};
use super::{Doctor, Finding, FindingKind};
use crate::engine::EngineError;
use crate::engine::redis::scripts::unavailable;
use crate::ids::UserId;

impl Doctor {
    /// Removes the invalid data of the findings. Returns the users whose state must be derived again.
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
            match (finding.kind, finding.entry.clone()) {
                (FindingKind::WrongType | FindingKind::Misplaced, _) => {
                    self.replace(key, &known).await?
                }
                (FindingKind::UnreadableConnection | FindingKind::Unreadable, Some(entry)) => {
                    concerned.extend(self.remove(key, &known, entry).await?);
                }
                _ => {}
            }
            concerned.extend(finding.user);
        }
        Ok(concerned)
    }

    /// Deletes a key, or sets a safe value where deleting is not safe.
    async fn replace(&self, key: &str, known: &KeyKind) -> Result<(), EngineError> {
        let keys = match known {
            // A revision that starts over needs a new epoch, or nodes would confuse it with the old one.
            KeyKind::Epoch(partition) | KeyKind::Revision(partition) => vec![
                self.redis.keys.epoch(*partition),
                self.redis.keys.revision(*partition),
            ],
            // It is unknown which tokens were revoked, so all issued so far are.
            KeyKind::Revoked(_) => return self.set_to_now(key, self.revocation_ttl()).await,
            // Greater than any number assigned, so that none is assigned twice.
            KeyKind::Count => return self.set_to_now(key, None).await,
            _ => vec![key.to_owned()],
        };
        let commands = self.redis.servers.client_of(key)?;
        let _: u64 = commands.del(keys).await.map_err(unavailable)?;
        Ok(())
    }

    /// Removes an entry. Returns the user whose state must be derived again.
    async fn remove(
        &self,
        key: &str,
        known: &KeyKind,
        entry: Bytes,
    ) -> Result<Option<UserId>, EngineError> {
        let commands = self.redis.servers.client_of(key)?;
        let text = std::str::from_utf8(&entry).unwrap_or_default();
        let _: u64 = match known {
            KeyKind::Online(_) => return self.remove_online(key, entry).await,
            KeyKind::Registrations(_) | KeyKind::Members(_) => commands.srem(key, entry).await,
            // Valid users and matches with a wrong time are due now; the rest is removed.
            KeyKind::Pending | KeyKind::Timeouts if self.is_valid_but_for_time(known, text) => {
                let values = (0.0, entry);
                commands
                    .zadd(key, Some(SetOptions::XX), None, false, false, values)
                    .await
            }
            KeyKind::Leases
            | KeyKind::Leaving(_)
            | KeyKind::Queue
            | KeyKind::Ratings
            | KeyKind::Pending
            | KeyKind::Timeouts => commands.zrem(key, entry).await,
            // The repair script corrects the time.
            KeyKind::Connections(_) if read_connection_field(text).is_some() => Ok(0),
            // The whole update, or its revision would apply to another one.
            KeyKind::Profile(_) if let Some((kind, _)) = text.split_once('.') => {
                let parts = ["revision", "at", "public", "full"];
                let fields = parts.map(|part| format!("{kind}.{part}"));
                commands.hdel(key, fields.to_vec()).await
            }
            KeyKind::Connections(_)
            | KeyKind::Meta
            | KeyKind::Node
            | KeyKind::Profile(_)
            | KeyKind::Playing
            | KeyKind::Scan
            | KeyKind::Made
            | KeyKind::Requests => commands.hdel(key, entry).await,
            // Scripts ignore an incomplete one.
            KeyKind::Ticket(_) | KeyKind::Match => commands.del(key).await,
            KeyKind::Epoch(_)
            | KeyKind::Revision(_)
            | KeyKind::Server(_)
            | KeyKind::Revoked(_)
            | KeyKind::Count
            | KeyKind::Reply
            | KeyKind::Misplaced => return self.replace(key, known).await.map(|()| None),
        }
        .map_err(unavailable)?;
        Ok(None)
    }

    /// Nodes may show a user who is listed as online in the wrong place. The user is added in the right place, then
    /// taken offline there with an announcement.
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

    /// Whether an entry is valid but for the time.
    fn is_valid_but_for_time(&self, known: &KeyKind, entry: &str) -> bool {
        let validator = Validator {
            now_ms: 0,
            lease_ms: 0,
            partition_of: &|user| self.redis.partition_of(user),
        };
        validator.accepts(known, entry, "0")
    }

    async fn set_to_now(&self, key: &str, keep: Option<Duration>) -> Result<(), EngineError> {
        let now_ms = self.redis.now_ms().await?;
        let mut args = vec![now_ms.to_string()];
        if let Some(keep) = keep {
            args.extend(["PX".to_owned(), keep.as_millis().to_string()]);
        }
        self.redis.servers.call("SET", key.to_owned(), args).await
    }

    fn revocation_ttl(&self) -> Option<Duration> {
        let ttl_ms = u64::try_from(self.redis.revocation_ttl_ms).ok();
        ttl_ms.map(Duration::from_millis)
    }
}
