//! The Lua scripts: compiled in, called by hash, sent again if Redis does not know them.

use std::time::Instant;

use fred::error::{Error, ErrorKind};
use fred::types::{FromValue, Value};
use fred::util::sha1_hash;

use super::servers::{Servers, slot_of};
use crate::engine::{EngineError, ErrorReply};
use crate::telemetry::{Counter, Metrics, Times};

/// The text of a script: its fragments of `lua/shared/`, in this order, and its own file.
macro_rules! text {
    ($name:literal $($fragment:tt)*) => {
        concat!(
            $(include_str!(concat!("../../../lua/shared/", stringify!($fragment), ".lua")), "\n",)*
            include_str!(concat!("../../../lua/", $name, ".lua")),
        )
    };
}

/// Declares the scripts, each as `field = "folder/name" (fragments)`.
macro_rules! scripts {
    ($($field:ident = $name:literal ($($fragment:tt),*);)+) => {
        /// All scripts. The header of each documents its keys, arguments and answer.
        pub(crate) struct Scripts {
            $(pub(crate) $field: Script,)+
        }

        impl Scripts {
            /// Durations and errors are recorded in `metrics`.
            pub(crate) fn new(metrics: &Metrics) -> Self {
                Self {
                    $($field: Script::new(text!($name $($fragment)*), metrics, $name),)+
                }
            }
        }

        /// The text of a script, such as `presence/register`, as Redis gets it; `None` for an unknown name.
        pub fn script_text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(text!($name $($fragment)*)),)+
                _ => None,
            }
        }
    };
}

scripts! {
    claim = "meta/claim" ();
    probe = "meta/probe" ();

    begin_lease = "lease/begin" (clock, whole);
    renew_lease = "lease/renew" (clock, whole);
    expire_leases = "lease/expire" (clock, whole);

    register = "presence/register" (clock, whole, epoch, announce, deleted);
    register_many = "presence/register_many" (clock, whole, epoch, announce, deleted);
    release = "presence/release" (clock, whole);
    expire = "presence/expire" (clock, whole, epoch, announce, server);
    reap = "presence/reap" (clock, whole);
    repair = "presence/repair" (clock, whole, epoch, announce);
    position = "presence/position" (clock, epoch);
    pulse = "presence/pulse" (clock, whole, epoch, server);

    read = "profile/read" (clock, epoch);
    update = "profile/update" (clock, whole, epoch, once);
    publish = "topic/publish" (clock, whole, once, deleted);

    delete_account = "account/delete" (clock, whole);
    disconnect = "account/disconnect" (clock, whole, once, deleted, disconnect);
    revoke = "account/revoke" (clock, whole, once, deleted, disconnect);

    enqueue = "matchmaking/enqueue" (clock, whole, ticket, join, match);
    restore = "matchmaking/restore" (whole, ticket, join, match);
    cancel = "matchmaking/cancel" (ticket, match);
    drop_ticket = "matchmaking/drop" (ticket);
    expire_ticket = "matchmaking/expire" (ticket);
    pair = "matchmaking/pair" (clock, whole, ticket, made);
    due = "matchmaking/due" (clock, whole);
    notify = "matchmaking/notify" (match);
    confirm = "matchmaking/confirm" (match);
    requeue = "matchmaking/requeue" (whole, ticket, match);
    status = "matchmaking/status" (clock, made);
}

pub(crate) struct Script {
    name: &'static str,
    source: &'static str,
    hash: String,
    times: Times,
    errors: Counter,
}

impl Script {
    fn new(source: &'static str, metrics: &Metrics, name: &'static str) -> Self {
        Self {
            name,
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
            .map_err(|error| servers.failure(error))
            .and_then(|answer| self.decode(answer))
    }

    /// Decodes an answer of the script.
    pub(crate) fn decode<R: FromValue>(&self, answer: Value) -> Result<R, EngineError> {
        answer
            .convert()
            .map_err(|error| EngineError::Answer(format!("{}.lua: {error}", self.name)))
    }

    /// Runs the script without following redirects of a Cluster. With `with_source` Redis caches the script, so that
    /// calls sent after this one find it.
    pub(crate) async fn call_once(
        &self,
        servers: &Servers,
        keys: Vec<String>,
        args: Vec<String>,
        with_source: bool,
    ) -> Result<Value, Error> {
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

/// An answer that begins with a word, or is one: the word says how to read the rest.
pub(crate) struct Reply {
    word: String,
    rest: std::vec::IntoIter<Value>,
}

impl FromValue for Reply {
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut values = value.into_array().into_iter();
        Ok(Self {
            word: values.next().unwrap_or(Value::Null).convert()?,
            rest: values,
        })
    }
}

impl Reply {
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    /// Decodes the next part of the answer.
    pub(crate) fn next<R: FromValue>(&mut self) -> Result<R, Error> {
        self.rest.next().unwrap_or(Value::Null).convert()
    }

    /// Decodes all that is left of the answer.
    pub(crate) fn rest<R: FromValue>(self) -> Result<R, Error> {
        Value::Array(self.rest.collect()).convert()
    }

    /// The error for a word that the script does not answer.
    pub(crate) fn unknown(&self) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!("unknown answer {:?}", self.word),
        )
    }
}

/// Whether the server does not know the script.
fn is_forgotten(answer: &Result<Value, Error>) -> bool {
    matches!(answer, Err(error) if error.details().starts_with("NOSCRIPT"))
}

/// Temporary error replies: a Cluster slot is migrating (the last one: a script derives a key that has moved already) or its
/// master is unavailable; a server is loading data or busy with a script.
const NOT_NOW: [&str; 8] = [
    "MOVED ",
    "ASK ",
    "TRYAGAIN ",
    "CLUSTERDOWN ",
    "LOADING ",
    "MASTERDOWN ",
    "BUSY ",
    "ERR Script attempted to access a non local key",
];

/// Converts an error of fred's.
pub(crate) fn unavailable(error: Error) -> EngineError {
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
pub(crate) fn bad_answer(error: Error) -> EngineError {
    EngineError::Answer(error.to_string())
}
