//! The Lua scripts: compiled in, called by hash, sent again if Redis does not know them.

use std::time::Instant;

use fred::types::{FromValue, Value};
use fred::util::sha1_hash;

use super::servers::{Servers, slot_of};
use crate::engine::{EngineError, ErrorReply};
use crate::telemetry::{Counter, Metrics, Times};

pub(crate) struct Script {
    source: &'static str,
    hash: String,
    times: Times,
    errors: Counter,
}

/// All scripts. The header of each documents its keys, arguments and answer.
pub(crate) struct Scripts {
    pub(crate) register: Script,
    pub(crate) release: Script,
    pub(crate) expire: Script,
    pub(crate) position: Script,
    pub(crate) pulse: Script,
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
    /// Durations and errors are recorded in `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let script = |name, source| Script::new(source, metrics, name);
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
            pulse: script(
                "presence/pulse",
                include_str!("../../../lua/presence/pulse.lua"),
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
    fn new(source: &'static str, metrics: &Metrics, name: &'static str) -> Self {
        Self {
            source,
            hash: sha1_hash(source),
            times: metrics.script_times(name),
            errors: metrics.redis_errors.clone(),
        }
    }

    /// Runs the script on the server of its keys, which share one hash tag.
    pub(crate) async fn call<R: FromValue>(
        &self,
        servers: &Servers,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<R, EngineError> {
        let begun = Instant::now();
        let slot = keys.first().map_or(0, |key| slot_of(key));
        let mut command = self.evalsha_args(keys, args);
        let mut answer = servers.send(slot, "EVALSHA", &command).await;
        if is_forgotten(&answer) {
            command[0] = self.source.to_owned();
            answer = servers.send(slot, "EVAL", &command).await;
        }
        self.observe(begun, answer.is_ok());
        answer
            .map_err(|error| servers.failure(error))?
            .convert()
            .map_err(bad_answer)
    }

    /// Runs the script without following redirects of a Cluster. With `with_source` Redis caches the script, so that
    /// calls sent after this one find it.
    pub(crate) async fn call_once(
        &self,
        servers: &Servers,
        keys: Vec<String>,
        args: Vec<String>,
        with_source: bool,
    ) -> Result<Value, fred::error::Error> {
        let begun = Instant::now();
        let slot = keys.first().map_or(0, |key| slot_of(key));
        let mut command = self.evalsha_args(keys, args);
        let mut answer = Ok(Value::Null);
        if !with_source {
            answer = servers.send_once(slot, "EVALSHA", &command).await;
        }
        if with_source || is_forgotten(&answer) {
            command[0] = self.source.to_owned();
            answer = servers.send_once(slot, "EVAL", &command).await;
        }
        self.observe(begun, answer.is_ok());
        answer
    }

    /// The arguments of `EVALSHA`.
    fn evalsha_args(&self, keys: Vec<String>, args: Vec<String>) -> Vec<String> {
        let mut command = Vec::with_capacity(2 + keys.len() + args.len());
        command.push(self.hash.clone());
        command.push(keys.len().to_string());
        command.extend(keys);
        command.extend(args);
        command
    }

    fn observe(&self, begun: Instant, is_ok: bool) {
        self.times.observe(begun.elapsed().as_secs_f64());
        if !is_ok {
            self.errors.inc();
        }
    }
}

/// Whether the server does not know the script.
fn is_forgotten(answer: &Result<Value, fred::error::Error>) -> bool {
    matches!(answer, Err(error) if error.details().starts_with("NOSCRIPT"))
}

/// Temporary error replies: a Cluster slot is migrating or its master is unavailable; a server is loading data or busy
/// with a script.
const NOT_NOW: [&str; 7] = [
    "MOVED ",
    "ASK ",
    "TRYAGAIN ",
    "CLUSTERDOWN ",
    "LOADING ",
    "MASTERDOWN ",
    "BUSY ",
];

/// Converts an error of fred's.
pub(crate) fn unavailable(error: fred::error::Error) -> EngineError {
    let details = error.details();
    if NOT_NOW.iter().any(|code| details.starts_with(code)) {
        return EngineError::NotNow(format!("redis does not serve the key yet ({details})"));
    }
    match ErrorReply::read(error.details()) {
        Some(refusal) => EngineError::Refused(refusal),
        None => EngineError::Unavailable(error.to_string()),
    }
}

/// An answer of an unexpected type.
pub(crate) fn bad_answer(error: fred::error::Error) -> EngineError {
    EngineError::Answer(error.to_string())
}
