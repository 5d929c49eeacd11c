//! The Lua scripts: compiled in, called by hash, sent again when Redis has forgotten them.

use std::time::Instant;

use fred::interfaces::ClientLike;
use fred::prelude::Client;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use fred::util::{redis_keyslot, sha1_hash};

use super::entry::Entry;
use crate::engine::{EngineError, Refusal};
use crate::telemetry::{Counter, Metrics, Times};

/// One script, with the hash by which Redis knows it.
pub(crate) struct Script {
    source: &'static str,
    hash: String,
    times: Times,
    errors: Counter,
    entry: Entry,
}

/// Every script of the hub. The header of each says what goes in and out.
pub(crate) struct Scripts {
    pub(crate) register: Script,
    pub(crate) release: Script,
    pub(crate) expire: Script,
    pub(crate) position: Script,
    pub(crate) update: Script,
    pub(crate) read: Script,
    pub(crate) publish: Script,
    pub(crate) delete_account: Script,
    pub(crate) disconnect: Script,
    pub(crate) revoke: Script,
    pub(crate) begin: Script,
    pub(crate) renew: Script,
    pub(crate) bury: Script,
    pub(crate) reap: Script,
    pub(crate) repair: Script,
    pub(crate) claim: Script,
    pub(crate) probe: Script,
    pub(crate) enqueue: Script,
    pub(crate) cancel: Script,
    pub(crate) pair: Script,
    pub(crate) due: Script,
    pub(crate) tell: Script,
    pub(crate) confirm: Script,
    pub(crate) requeue: Script,
    pub(crate) status: Script,
}

impl Scripts {
    /// How long each takes, and what failed, is noted in `metrics`.
    pub(crate) fn new(metrics: &Metrics, entry: &Entry) -> Self {
        let script = |name, source| Script::new(source, metrics, entry, name);
        Self {
            register: script(
                "presence/register",
                include_str!("../../../lua/presence/register.lua"),
            ),
            release: script(
                "presence/release",
                include_str!("../../../lua/presence/release.lua"),
            ),
            expire: script(
                "presence/expire",
                include_str!("../../../lua/presence/expire.lua"),
            ),
            position: script(
                "presence/position",
                include_str!("../../../lua/presence/position.lua"),
            ),
            update: script(
                "profile/update",
                include_str!("../../../lua/profile/update.lua"),
            ),
            read: script(
                "profile/read",
                include_str!("../../../lua/profile/read.lua"),
            ),
            publish: script(
                "topic/publish",
                include_str!("../../../lua/topic/publish.lua"),
            ),
            delete_account: script(
                "account/delete",
                include_str!("../../../lua/account/delete.lua"),
            ),
            disconnect: script(
                "account/disconnect",
                include_str!("../../../lua/account/disconnect.lua"),
            ),
            revoke: script(
                "account/revoke",
                include_str!("../../../lua/account/revoke.lua"),
            ),
            begin: script("lease/begin", include_str!("../../../lua/lease/begin.lua")),
            bury: script("lease/bury", include_str!("../../../lua/lease/bury.lua")),
            reap: script(
                "presence/reap",
                include_str!("../../../lua/presence/reap.lua"),
            ),
            repair: script(
                "presence/repair",
                include_str!("../../../lua/presence/repair.lua"),
            ),
            renew: script("lease/renew", include_str!("../../../lua/lease/renew.lua")),
            claim: script("meta/claim", include_str!("../../../lua/meta/claim.lua")),
            probe: script("meta/probe", include_str!("../../../lua/meta/probe.lua")),
            enqueue: script(
                "matchmaking/enqueue",
                include_str!("../../../lua/matchmaking/enqueue.lua"),
            ),
            cancel: script(
                "matchmaking/cancel",
                include_str!("../../../lua/matchmaking/cancel.lua"),
            ),
            pair: script(
                "matchmaking/pair",
                include_str!("../../../lua/matchmaking/pair.lua"),
            ),
            due: script(
                "matchmaking/due",
                include_str!("../../../lua/matchmaking/due.lua"),
            ),
            tell: script(
                "matchmaking/tell",
                include_str!("../../../lua/matchmaking/tell.lua"),
            ),
            confirm: script(
                "matchmaking/confirm",
                include_str!("../../../lua/matchmaking/confirm.lua"),
            ),
            requeue: script(
                "matchmaking/requeue",
                include_str!("../../../lua/matchmaking/requeue.lua"),
            ),
            status: script(
                "matchmaking/status",
                include_str!("../../../lua/matchmaking/status.lua"),
            ),
        }
    }
}

impl Script {
    fn new(source: &'static str, metrics: &Metrics, entry: &Entry, name: &'static str) -> Self {
        Self {
            source,
            hash: sha1_hash(source),
            times: metrics.script_times(name),
            errors: metrics.redis_errors.clone(),
            entry: entry.clone(),
        }
    }

    /// Runs the script. All `keys` have one hash tag.
    pub(crate) async fn call<R: FromValue>(
        &self,
        client: &Client,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<R, EngineError> {
        let begun = Instant::now();
        let by_hash = self.send(client, "EVALSHA", &self.hash, &keys, &args).await;
        match by_hash {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                self.call_with_source(client, keys, args).await
            }
            answer => self.understand(answer, begun),
        }
    }

    /// Runs the script and has Redis remember it, so that calls sent after this one find it.
    pub(crate) async fn call_with_source<R: FromValue>(
        &self,
        client: &Client,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<R, EngineError> {
        let begun = Instant::now();
        let answer = self.send(client, "EVAL", self.source, &keys, &args).await;
        self.understand(answer, begun)
    }

    fn understand<R: FromValue>(
        &self,
        answer: Result<Value, fred::error::Error>,
        begun: Instant,
    ) -> Result<R, EngineError> {
        self.times.observe(begun.elapsed().as_secs_f64());
        if answer.is_err() {
            self.errors.inc();
        }
        answer
            .map_err(|error| self.entry.explain(unavailable(error)))?
            .convert()
            .map_err(not_understood)
    }

    /// A custom command, because fred pipelines those: with its own `evalsha` every call on a connection
    /// waits for the answer to the one before.
    async fn send(
        &self,
        client: &Client,
        command: &'static str,
        script: &str,
        keys: &[String],
        args: &[String],
    ) -> Result<Value, fred::error::Error> {
        let slot = keys.first().map_or(0, |key| redis_keyslot(key.as_bytes()));
        let command = CustomCommand::new_static(command, ClusterHash::Custom(slot), false);
        let mut words = Vec::with_capacity(2 + keys.len() + args.len());
        words.push(script.to_owned());
        words.push(keys.len().to_string());
        words.extend(keys.iter().chain(args).cloned());
        client.custom(command, words).await
    }
}

/// A call that Redis refused, or whose answer was lost.
pub(crate) fn unavailable(error: fred::error::Error) -> EngineError {
    match Refusal::read(error.details()) {
        Some(refusal) => EngineError::Refused(refusal),
        None => EngineError::Unavailable(error.to_string()),
    }
}

/// An answer of another type than the script's header says.
pub(crate) fn not_understood(error: fred::error::Error) -> EngineError {
    EngineError::Answer(error.to_string())
}
