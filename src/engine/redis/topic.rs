//! The topics of users: subscriptions, and messages that are not stored (`lua/topic/`).

use std::sync::Arc;

use fred::error::Error;
use fred::types::{FromValue, Value};
use serde_json::value::RawValue;

use super::Redis;
use super::scripts::Reply;
use crate::engine::EngineError;
use crate::ids::{UserId, random_name};

impl Redis {
    pub(in crate::engine) async fn subscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        self.servers.subscribe(self.topics(users)).await
    }

    pub(in crate::engine) async fn unsubscribe(&self, users: &[UserId]) -> Result<(), EngineError> {
        self.servers.unsubscribe(self.topics(users)).await
    }

    fn topics(&self, users: &[UserId]) -> Vec<String> {
        users.iter().map(|user| self.keys.topic(*user)).collect()
    }

    pub(in crate::engine) async fn send_event(
        &self,
        user: UserId,
        event: &str,
        data: Arc<RawValue>,
    ) -> Result<Option<u64>, EngineError> {
        let event = serde_json::Value::from(event);
        let message = format!(
            r#"{{"kind":"event","event":{event},"data":{}}}"#,
            data.get()
        );
        self.publish_message(user, message).await
    }

    pub(super) async fn publish_message(
        &self,
        user: UserId,
        message: String,
    ) -> Result<Option<u64>, EngineError> {
        let keys = self.request_keys(user);
        let args = vec![message, self.keys.topic(user), random_name()];
        let Sent(nodes) = self.scripts.publish.call(&self.servers, keys, args).await?;
        Ok(nodes)
    }

    /// The keys for the answers to requests, and the key that tells whether the account was deleted.
    pub(super) fn request_keys(&self, user: UserId) -> Vec<String> {
        let [even, odd] = self.keys.requests(self.partition_of(user));
        vec![even, odd, self.keys.profile(user)]
    }
}

/// The number of nodes that received a message; `None` for a deleted account.
pub(super) struct Sent(pub(super) Option<u64>);

impl FromValue for Sent {
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut reply = Reply::from_value(value)?;
        match reply.word() {
            "sent" => Ok(Self(Some(reply.next()?))),
            "deleted" => Ok(Self(None)),
            _ => Err(reply.unknown()),
        }
    }
}
