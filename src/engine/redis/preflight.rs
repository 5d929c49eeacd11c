//! Checks whether the hub can work with a server: its version, its eviction policy, and whether it accepts each command
//! that the hub needs.

use futures_util::future::join_all;

use super::Redis;
use super::servers::Servers;
use crate::engine::{Denied, EngineError, ErrorReply, Examination, NOEVICTION, OpenError};

/// Permissions besides keys and channels; `tests/tidy/rights.rs` holds the documentation against it.
const RIGHTS: &str = "+@read +@write +@scripting +@pubsub +@connection +time -@dangerous +info";

/// The oldest versions with sharded pub/sub, and `INFO` and `SPUBLISH` in scripts.
const REDIS_MIN: Version = Version(7, 0);
const VALKEY_MIN: Version = Version(7, 2);

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.');
        let major = numbers.next()?.parse().ok()?;
        Some(Self(major, numbers.next()?.parse().ok()?))
    }
}

/// The server of a partition.
struct Preflight<'a> {
    redis: &'a Redis,
    partition: u32,
}

/// Commands that were refused, and why.
type RefusedCommands = Vec<(String, ErrorReply)>;

impl Redis {
    /// One preflight per server that holds a partition.
    fn preflights(&self) -> Vec<Preflight<'_>> {
        let mut chosen: Vec<u32> = Vec::new();
        for partition in 0..self.partitions() {
            let slot = self.keys.slot(partition);
            let is_known = |known: &u32| {
                let known = self.keys.slot(*known);
                self.servers.share_a_server(known, slot)
            };
            if !chosen.iter().any(is_known) {
                chosen.push(partition);
            }
        }
        chosen
            .into_iter()
            .map(|partition| Preflight {
                redis: self,
                partition,
            })
            .collect()
    }

    /// Fails for a server that is too old or refuses a required command. An unavailable master of a Cluster is examined
    /// later.
    pub(super) async fn check_servers(&self) -> Result<(), OpenError> {
        let preflights = self.preflights();
        let checked = join_all(preflights.iter().map(Preflight::check)).await;
        let is_any_fit = checked.iter().any(Result::is_ok);
        let is_away = |error: &OpenError| {
            self.servers.is_cluster() && matches!(error, OpenError::Unreachable { .. })
        };
        checked
            .into_iter()
            .filter_map(Result::err)
            .find(|error| !(is_any_fit && is_away(error)))
            .map_or(Ok(()), Err)
    }

    /// Which commands are refused, and the eviction policy, over all servers that answer.
    pub(in crate::engine) async fn examine(&self) -> Result<Examination, EngineError> {
        let preflights = self.preflights();
        let examined = join_all(preflights.iter().map(Preflight::examine)).await;
        let mut failure = None;
        let mut found: Option<Examination> = None;
        for examined in examined {
            match examined {
                Ok(one) => found = Some(found.map_or(one.clone(), |all| all.join(one))),
                Err(error) => failure = Some(error),
            }
        }
        found.ok_or_else(|| {
            failure.unwrap_or_else(|| EngineError::NotNow("no server is known".to_owned()))
        })
    }

    /// The eviction policy (`maxmemory-policy`); an evicting one if any server has one.
    pub(super) async fn eviction_policy(&self) -> Result<Option<String>, EngineError> {
        let mut found = None;
        for preflight in self.preflights() {
            let policy = preflight.eviction_policy().await?;
            if found.is_none() || policy.as_deref().is_some_and(|policy| policy != NOEVICTION) {
                found = policy;
            }
        }
        Ok(found)
    }
}

impl Preflight<'_> {
    async fn check(&self) -> Result<(), OpenError> {
        let server = self.servers().name_at(self.slot());
        match self.info("server").await {
            Ok(text) => {
                if let Some(found) = too_old(&text) {
                    return Err(OpenError::TooOld { server, found });
                }
            }
            // The permission for `INFO` is checked below.
            Err(EngineError::Refused(ErrorReply::NoPermission(_))) => {}
            // A migrating slot, or a server loading its data: the node starts and examines it later.
            Err(EngineError::NotNow(_)) => return Ok(()),
            Err(error) => return Err(open_error(server, error)),
        }
        match self.refused_at_start().await {
            Ok(refusals) => match self.denied(&refusals) {
                Some(denied) => Err(OpenError::Denied { server, denied }),
                None => match refusals.into_iter().next() {
                    Some((_, refusal)) => Err(OpenError::Refused { server, refusal }),
                    None => Ok(()),
                },
            },
            Err(EngineError::NotNow(_)) => Ok(()),
            Err(error) => Err(open_error(server, error)),
        }
    }

    async fn examine(&self) -> Result<Examination, EngineError> {
        let refusals = self.refused_commands().await?;
        let refused = match self.denied(&refusals) {
            Some(denied) => Some(denied.to_string()),
            None => refusals.first().map(|(_, refusal)| refusal.to_string()),
        };
        Ok(Examination {
            refused,
            is_partial: false,
            eviction_policy: self.eviction_policy().await.unwrap_or(None),
        })
    }

    /// All missing permissions are reported at once.
    async fn refused_at_start(&self) -> Result<RefusedCommands, EngineError> {
        let mut refusals = Vec::new();
        let (keys, no_args) = (self.scratch_keys(), Vec::new());
        let probe = &self.redis.scripts.probe;
        let answer = probe
            .call_once(self.servers(), keys, no_args, true)
            .await
            .map_err(|error| self.servers().failure(error));
        keep_refusal("EVAL", answer, &mut refusals)?;
        keep_refusal("INFO", self.info("server").await, &mut refusals)?;
        refusals.extend(self.refused_commands().await?);
        refusals.sort_by(|(a, _), (b, _)| a.cmp(b));
        refusals.dedup_by(|(a, _), (b, _)| a == b);
        Ok(refusals)
    }

    async fn refused_commands(&self) -> Result<RefusedCommands, EngineError> {
        let mut refusals = Vec::new();
        let (keys, no_args) = (self.scratch_keys(), Vec::new());
        let probe = &self.redis.scripts.probe;
        let answer: Result<Vec<String>, _> = probe.call(self.servers(), keys, no_args).await;
        let refused_inside = keep_refusal("EVALSHA", answer, &mut refusals)?;
        let mut pairs = refused_inside.unwrap_or_default().into_iter();
        while let (Some(command), Some(reply)) = (pairs.next(), pairs.next()) {
            let refusal = ErrorReply::read(&reply).unwrap_or(ErrorReply::Other(reply));
            refusals.push((command, refusal));
        }
        // Repeating is harmless. fred gets no reply to `SUNSUBSCRIBE`, so that one is not tried.
        let subscribed = self.servers().subscribe(vec![self.channel()]).await;
        keep_refusal("SSUBSCRIBE", subscribed, &mut refusals)?;
        Ok(refusals)
    }

    fn scratch_keys(&self) -> Vec<String> {
        let types = ["string", "hash", "set", "zset", "list"];
        let keys = types.map(|kind| self.redis.keys.probe(self.partition, kind));
        keys.into()
    }

    /// A channel for the trial; no node publishes on it.
    fn channel(&self) -> String {
        self.redis.keys.probe(self.partition, "channel")
    }

    fn servers(&self) -> &Servers {
        &self.redis.servers
    }

    fn slot(&self) -> u16 {
        self.redis.keys.slot(self.partition)
    }

    async fn info(&self, section: &str) -> Result<String, EngineError> {
        let args = [section.to_owned()];
        self.servers().call_at(self.slot(), "INFO", &args).await
    }

    /// Read from `INFO`, so that no permission for `CONFIG` is needed.
    async fn eviction_policy(&self) -> Result<Option<String>, EngineError> {
        let text = self.info("memory").await?;
        Ok(field(&text, "maxmemory_policy").map(str::to_owned))
    }

    fn denied(&self, refusals: &RefusedCommands) -> Option<Denied> {
        let user = self.servers().user();
        let mut denied = denied(refusals, user, &self.redis.keys.pattern())?;
        if self.servers().is_cluster() {
            denied.grant.push_str(" +cluster|nodes");
        }
        Some(denied)
    }
}

/// The error that prevents the hub from starting.
pub(super) fn open_error(server: String, error: EngineError) -> OpenError {
    match error {
        EngineError::Refused(refusal) => OpenError::Refused { server, refusal },
        EngineError::Unavailable(cause) => OpenError::Unreachable { server, cause },
        error @ (EngineError::NotNow(_) | EngineError::Answer(_)) => OpenError::Unreachable {
            server,
            cause: error.to_string(),
        },
    }
}

/// Collects an error reply; passes other errors on.
fn keep_refusal<T>(
    command: &str,
    outcome: Result<T, EngineError>,
    refusals: &mut RefusedCommands,
) -> Result<Option<T>, EngineError> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(EngineError::Refused(refusal)) => {
            refusals.push((command.to_owned(), refusal));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The missing permissions, if those are why commands are refused.
fn denied(refusals: &RefusedCommands, user: &str, pattern: &str) -> Option<Denied> {
    let (mut missing, mut rights) = (Vec::new(), Vec::new());
    for (command, refusal) in refusals {
        let ErrorReply::NoPermission(message) = refusal else {
            continue;
        };
        let (denied, right) = if message.contains("channel") {
            (format!("the channels {pattern}"), format!("&{pattern}"))
        } else if message.contains(" key") {
            (format!("the keys {pattern}"), format!("~{pattern}"))
        } else {
            (command.clone(), format!("+{}", command.to_lowercase()))
        };
        if !missing.contains(&denied) {
            missing.push(denied);
            rights.push(right);
        }
    }
    // Commands inside scripts could not be tried, so the hint grants all.
    let no_scripts = refusals
        .iter()
        .any(|(command, _)| command.starts_with("EVAL"));
    let rights = if no_scripts {
        format!("~{pattern} &{pattern} {RIGHTS}")
    } else {
        rights.join(" ")
    };
    (!missing.is_empty()).then(|| Denied {
        missing,
        grant: format!("ACL SETUSER {user} {rights}"),
    })
}

/// Name and version of a server that is too old. A server that does not report a version passes: the commands are tried
/// anyway.
fn too_old(info: &str) -> Option<String> {
    let (name, version, least) = match field(info, "valkey_version") {
        Some(version) => ("Valkey", version, VALKEY_MIN),
        None => ("Redis", field(info, "redis_version")?, REDIS_MIN),
    };
    (Version::parse(version)? < least).then(|| format!("{name} {version}"))
}

/// The value of a line `name:value` of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
mod tests;
