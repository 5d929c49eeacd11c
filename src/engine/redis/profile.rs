//! Last updates in Redis: typed calls of `lua/profile/`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fred::error::Error;
use fred::types::{FromValue, Value};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use strum::IntoEnumIterator;

use super::Redis;
use super::scripts::Reply;
use super::servers::Servers;
use crate::engine::{EngineError, Kind, PublishOutcome, Stored, Update, Views};
use crate::ids::{Revision, UserId, random_name};

/// The keys and arguments of a script.
type ScriptCall = (Vec<String>, Vec<String>);

impl Redis {
    pub(in crate::engine) async fn publish(
        &self,
        updates: Vec<Update>,
    ) -> Vec<Result<PublishOutcome, EngineError>> {
        // Issued together they leave in one batch, and Redis runs them in order. The first in each partition carries
        // the script's source, since each may be on its own server: were the script unknown there, updates sent again
        // would run after later ones.
        let several = updates.len() > 1;
        let calls: Vec<ScriptCall> = updates
            .iter()
            .map(|update| self.update_call(update))
            .collect();
        let mut partitions_sent = HashSet::new();
        let published = updates.iter().zip(&calls).map(|(update, call)| {
            let is_first = partitions_sent.insert(self.partition_of(update.user));
            self.publish_once(call, several && is_first)
        });
        let mut outcomes = join_all(published).await;
        // Redirected updates are repeated one by one, in order, under the same request id: one that was executed after
        // all is not repeated.
        let mut failed_partitions = HashSet::new();
        for (index, outcome) in outcomes.iter_mut().enumerate() {
            let partition = self.partition_of(updates[index].user);
            if !matches!(outcome, Err(UpdateError::Redirected))
                || failed_partitions.contains(&partition)
            {
                continue;
            }
            *outcome = self
                .publish_one(&calls[index])
                .await
                .map_err(UpdateError::Failed);
            if outcome.is_err() {
                failed_partitions.insert(partition);
            }
        }
        let outcomes = outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.map_err(EngineError::from))
            .collect()
    }

    async fn publish_one(&self, (keys, args): &ScriptCall) -> Result<PublishOutcome, EngineError> {
        let (keys, args) = (keys.clone(), args.clone());
        self.scripts.update.call(&self.servers, keys, args).await
    }

    /// Publishes without following redirects: a redirected update was not executed.
    async fn publish_once(
        &self,
        (keys, args): &ScriptCall,
        with_source: bool,
    ) -> Result<PublishOutcome, UpdateError> {
        let script = &self.scripts.update;
        let answer = script
            .call_once(&self.servers, keys.clone(), args.clone(), with_source)
            .await;
        match answer {
            Ok(answer) => script.decode(answer).map_err(UpdateError::Failed),
            Err(error) if Servers::is_redirected(&error) => Err(UpdateError::Redirected),
            Err(error) => Err(UpdateError::Failed(self.servers.failure(error))),
        }
    }

    fn update_call(&self, update: &Update) -> ScriptCall {
        let partition = self.partition_of(update.user);
        let [even, odd] = self.keys.requests(partition);
        let keys = vec![
            self.keys.profile(update.user),
            self.keys.epoch(partition),
            even,
            odd,
        ];
        let args = vec![
            update.kind.into_str().to_owned(),
            update
                .revision
                .map_or_else(String::new, |revision| revision.0.to_string()),
            update
                .public
                .as_ref()
                .map_or("null", |view| view.get())
                .to_owned(),
            update.full.get().to_owned(),
            self.profile_ttl_ms.to_string(),
            self.keys.topic(update.user),
            random_name(),
        ];
        (keys, args)
    }

    pub(in crate::engine) async fn stored(&self, user: UserId) -> Result<Stored, EngineError> {
        let keys = vec![
            self.keys.profile(user),
            self.keys.epoch(self.partition_of(user)),
        ];
        let (epoch, fields): (String, Vec<String>) = self
            .scripts
            .read
            .call(&self.servers, keys, Vec::new())
            .await?;
        let fields = pairs(fields);
        let number = |name: &str| {
            fields
                .get(name)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let read = |kind: Kind| {
            let views = stored_views(&fields, kind, &epoch)?;
            Some((kind, views, number(&format!("{}.at", kind.into_str()))))
        };
        Ok(Stored {
            updates: Kind::iter().filter_map(read).collect(),
            epoch: epoch.clone(),
            deleted: fields.contains_key("deleted"),
            disconnected_at_ms: number("disconnected"),
        })
    }

    pub(in crate::engine) async fn forget_updates(
        &self,
        user: UserId,
    ) -> Result<bool, EngineError> {
        // Keeps the fields about deletion and disconnection.
        let of_kind = |kind: Kind| {
            let parts = ["revision", "at", "public", "full"];
            parts.map(|part| format!("{}.{part}", kind.into_str()))
        };
        let mut fields: Vec<String> = Kind::iter().flat_map(of_kind).collect();
        fields.push("expires".to_owned());
        let profile = self.keys.profile(user);
        let removed: u64 = self.servers.call("HDEL", profile, fields).await?;
        Ok(removed > 0)
    }
}

enum UpdateError {
    /// The slot is served elsewhere or migrating: the update was not executed.
    Redirected,
    Failed(EngineError),
}

impl From<UpdateError> for EngineError {
    fn from(attempt: UpdateError) -> Self {
        match attempt {
            UpdateError::Redirected => Self::NotNow("the slot is migrating".to_owned()),
            UpdateError::Failed(error) => error,
        }
    }
}

impl FromValue for PublishOutcome {
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut reply = Reply::from_value(value)?;
        match reply.word() {
            "ok" => Ok(Self::Stored {
                revision: Revision(reply.next()?),
                nodes: reply.next()?,
            }),
            "stale" => Ok(Self::Stale {
                revision: Revision(reply.next()?),
            }),
            "deleted" => Ok(Self::AccountDeleted),
            _ => Err(reply.unknown()),
        }
    }
}

pub(super) fn pairs(flat: Vec<String>) -> HashMap<String, String> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
}

fn stored_views(fields: &HashMap<String, String>, kind: Kind, epoch: &str) -> Option<Views> {
    let field = |name: &str| fields.get(&format!("{}.{name}", kind.into_str()));
    let json = |text: &String| Some(Arc::from(RawValue::from_string(text.clone()).ok()?));
    Some(Views {
        epoch: epoch.to_owned(),
        revision: Revision(field("revision")?.parse().ok()?),
        public: field("public")
            .filter(|text| *text != "null")
            .and_then(json),
        full: field("full").and_then(json)?,
    })
}
