//! Accounts in Redis: typed calls of `lua/account/`, and which tokens are valid.

use fred::error::Error;
use fred::types::{FromValue, Value};

use super::Redis;
use super::scripts::Reply;
use super::topic::Sent;
use crate::engine::{AccountStatus, EngineError, Revoked};
use crate::ids::{UserId, random_name};

impl Redis {
    pub(in crate::engine) async fn disconnect(
        &self,
        user: UserId,
    ) -> Result<Option<u64>, EngineError> {
        let keys = self.request_keys(user);
        let args = vec![
            self.profile_ttl_ms.to_string(),
            self.keys.topic(user),
            random_name(),
        ];
        let script = &self.scripts.disconnect;
        let Sent(nodes) = script.call(&self.servers, keys, args).await?;
        Ok(nodes)
    }

    pub(in crate::engine) async fn revoke(
        &self,
        user: UserId,
    ) -> Result<Option<Revoked>, EngineError> {
        let mut keys = self.request_keys(user);
        keys.push(self.keys.revoked(user));
        let args = vec![
            self.profile_ttl_ms.to_string(),
            self.revocation_ttl_ms.to_string(),
            self.keys.topic(user),
            random_name(),
        ];
        let Revocation(revoked) = self.scripts.revoke.call(&self.servers, keys, args).await?;
        Ok(revoked)
    }

    pub(in crate::engine) async fn account_status(
        &self,
        user: UserId,
    ) -> Result<AccountStatus, EngineError> {
        // Independent, so sent in one round trip.
        let (profile, revoked) = (self.keys.profile(user), self.keys.revoked(user));
        let deleted = self
            .servers
            .call("HEXISTS", profile, vec!["deleted".to_owned()]);
        let revoked_before_ms = self.servers.call("GET", revoked, Vec::new());
        let (deleted, revoked_before_ms): (bool, Option<u64>) =
            tokio::try_join!(deleted, revoked_before_ms)?;
        Ok(AccountStatus {
            deleted,
            revoked_before_ms: revoked_before_ms.unwrap_or(0),
        })
    }

    pub(in crate::engine) async fn delete_account(&self, user: UserId) -> Result<u64, EngineError> {
        let keys = vec![self.keys.profile(user)];
        let args = vec![self.keys.topic(user)];
        self.scripts
            .delete_account
            .call(&self.servers, keys, args)
            .await
    }
}

/// The answer of `account/revoke.lua`; `None` for a deleted account.
struct Revocation(Option<Revoked>);

impl FromValue for Revocation {
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut reply = Reply::from_value(value)?;
        match reply.word() {
            "sent" => Ok(Self(Some(Revoked {
                nodes: reply.next()?,
                before_ms: reply.next()?,
            }))),
            "deleted" => Ok(Self(None)),
            _ => Err(reply.unknown()),
        }
    }
}
