//! Accounts in Redis: typed calls of `lua/account/`, and which tokens are valid.

use super::Redis;
use crate::engine::{AccountStatus, EngineError, Revoked};
use crate::ids::UserId;

impl Redis {
    pub(in crate::engine) async fn disconnect(
        &self,
        user: UserId,
    ) -> Result<Option<u64>, EngineError> {
        let keys = self.request_keys(user);
        let args = vec![self.profile_ttl_ms.to_string(), self.keys.topic(user)];
        let nodes: i64 = self
            .scripts
            .disconnect
            .call(&self.servers, keys, args)
            .await?;
        Ok(u64::try_from(nodes).ok())
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
        ];
        let (nodes, before_ms): (i64, u64) =
            self.scripts.revoke.call(&self.servers, keys, args).await?;
        let nodes = u64::try_from(nodes).ok();
        Ok(nodes.map(|nodes| Revoked { nodes, before_ms }))
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
