//! Whether the hub can work with a server: its version, its eviction policy, and whether it carries out each command
//! that the hub needs.

use futures_util::future::join_all;

use super::Redis;
use super::servers::Servers;
use crate::engine::{Denied, EngineError, Examination, KEEPS_EVERYTHING, OpenError, Refusal};

/// What a user needs besides keys and channels; `tests/tidy/documentation.rs` holds README against it.
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
type Refusals = Vec<(String, Refusal)>;

impl Redis {
    /// One for each server that holds a partition.
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
        let preflights = chosen.into_iter();
        preflights
            .map(|partition| Preflight {
                redis: self,
                partition,
            })
            .collect()
    }

    /// Refuses to work with a server that is too old, or that refuses a command which the hub needs. A master of a
    /// Cluster that is away is examined when it is back.
    pub(super) async fn check_servers(&self) -> Result<(), OpenError> {
        let preflights = self.preflights();
        let checked = join_all(preflights.iter().map(Preflight::check)).await;
        let is_any_fit = checked.iter().any(Result::is_ok);
        let is_away = |error: &OpenError| {
            self.servers.is_cluster() && matches!(error, OpenError::Unreachable { .. })
        };
        let unfit = checked.into_iter().filter_map(Result::err);
        let mut unfit = unfit.filter(|error| !(is_any_fit && is_away(error)));
        unfit.next().map_or(Ok(()), Err)
    }

    /// Which commands are refused at the moment, and which eviction policy holds, of all servers that answer.
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

    /// Which keys the servers drop when their memory is full (`maxmemory-policy`); one that drops any, if there is one.
    pub(super) async fn eviction_policy(&self) -> Result<Option<String>, EngineError> {
        let mut found = None;
        for preflight in self.preflights() {
            let policy = preflight.eviction_policy().await?;
            if found.is_none()
                || policy
                    .as_deref()
                    .is_some_and(|policy| policy != KEEPS_EVERYTHING)
            {
                found = policy;
            }
        }
        Ok(found)
    }
}

impl Preflight<'_> {
    /// Refuses a server that is too old, or that refuses a command which the hub needs.
    async fn check(&self) -> Result<(), OpenError> {
        let server = self.servers().name_at(self.slot());
        match self.info("server").await {
            Ok(text) => {
                if let Some(found) = too_old(&text) {
                    return Err(OpenError::TooOld { server, found });
                }
            }
            // The right to ask is among those that are checked below.
            Err(EngineError::Refused(Refusal::NoPermission(_))) => {}
            Err(error) => return Err(open_error(server, error)),
        }
        match self.refusals_at_start().await {
            Ok(refusals) => match self.denied(&refusals) {
                Some(denied) => Err(OpenError::Denied { server, denied }),
                None => match refusals.into_iter().next() {
                    Some((_, refusal)) => Err(OpenError::Refused { server, refusal }),
                    None => Ok(()),
                },
            },
            Err(error) => Err(open_error(server, error)),
        }
    }

    /// The same while the node runs.
    async fn examine(&self) -> Result<Examination, EngineError> {
        let refusals = self.refusals().await?;
        let refused = match self.denied(&refusals) {
            Some(denied) => Some(denied.to_string()),
            None => refusals.first().map(|(_, refusal)| refusal.to_string()),
        };
        Ok(Examination {
            refused,
            eviction_policy: self.eviction_policy().await.unwrap_or(None),
        })
    }

    /// What a user lacks is named as a whole, so a node asks for everything at once.
    async fn refusals_at_start(&self) -> Result<Refusals, EngineError> {
        let mut refusals = Vec::new();
        let (keys, no_args) = (self.scratch_keys(), Vec::new());
        let probe = &self.redis.scripts.probe;
        let answer = probe.call_once(self.servers(), keys, no_args, true).await;
        let answer = answer.map_err(|error| self.servers().failure(error));
        note("EVAL", answer, &mut refusals)?;
        note("INFO", self.info("server").await, &mut refusals)?;
        refusals.extend(self.refusals().await?);
        refusals.sort_by(|(a, _), (b, _)| a.cmp(b));
        refusals.dedup_by(|(a, _), (b, _)| a == b);
        Ok(refusals)
    }

    async fn refusals(&self) -> Result<Refusals, EngineError> {
        let mut refusals = Vec::new();
        let (keys, no_args) = (self.scratch_keys(), Vec::new());
        let probe = &self.redis.scripts.probe;
        let inside: Result<Vec<String>, _> = probe.call(self.servers(), keys, no_args).await;
        let inside = note("EVALSHA", inside, &mut refusals)?;
        let mut words = inside.unwrap_or_default().into_iter();
        while let (Some(command), Some(reply)) = (words.next(), words.next()) {
            let refusal = Refusal::read(&reply).unwrap_or(Refusal::Other(reply));
            refusals.push((command, refusal));
        }
        // Twice is as good as once. fred has no answer to `SUNSUBSCRIBE`, so that one is not tried.
        let subscribed = self.servers().subscribe(vec![self.channel()]).await;
        note("SSUBSCRIBE", subscribed, &mut refusals)?;
        Ok(refusals)
    }

    fn scratch_keys(&self) -> Vec<String> {
        let types = ["string", "hash", "set", "zset", "list"];
        let keys = types.map(|kind| self.redis.keys.probe(self.partition, kind));
        keys.into()
    }

    /// The channel that is subscribed to; no node publishes on it.
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
        let words = [section.to_owned()];
        self.servers().call_at(self.slot(), "INFO", &words).await
    }

    /// The policy is not among what `CONFIG` alone says, so no right to `CONFIG` is needed.
    async fn eviction_policy(&self) -> Result<Option<String>, EngineError> {
        let text = self.info("memory").await?;
        Ok(field(&text, "maxmemory_policy").map(str::to_owned))
    }

    fn denied(&self, refusals: &Refusals) -> Option<Denied> {
        let user = self.servers().user();
        denied(refusals, user, &self.redis.keys.pattern())
    }
}

/// Why the hub cannot work with a server that answers like this.
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

/// Keeps a refusal; any other error says nothing about rights.
fn note<T>(
    command: &str,
    outcome: Result<T, EngineError>,
    refusals: &mut Refusals,
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

/// What the user may not do, if that is why anything is refused.
fn denied(refusals: &Refusals, user: &str, pattern: &str) -> Option<Denied> {
    let (mut what, mut rights) = (Vec::new(), Vec::new());
    for (command, refusal) in refusals {
        let Refusal::NoPermission(message) = refusal else {
            continue;
        };
        let (denied, right) = if message.contains("channel") {
            (format!("the channels {pattern}"), format!("&{pattern}"))
        } else if message.contains(" key") {
            (format!("the keys {pattern}"), format!("~{pattern}"))
        } else {
            (command.clone(), format!("+{}", command.to_lowercase()))
        };
        if !what.contains(&denied) {
            what.push(denied);
            rights.push(right);
        }
    }
    // Commands inside scripts could not be tried, so the line grants all of them.
    let no_scripts = refusals
        .iter()
        .any(|(command, _)| command.starts_with("EVAL"));
    let rights = match no_scripts {
        true => format!("~{pattern} &{pattern} {RIGHTS}"),
        false => rights.join(" "),
    };
    (!what.is_empty()).then(|| Denied {
        what,
        grant: format!("ACL SETUSER {user} {rights}"),
    })
}

/// Name and version of a server that lacks what the hub needs. A server that does not say passes: the commands are
/// tried anyway.
fn too_old(info: &str) -> Option<String> {
    let (name, version, least) = match field(info, "valkey_version") {
        Some(version) => ("Valkey", version, VALKEY_MIN),
        None => ("Redis", field(info, "redis_version")?, REDIS_MIN),
    };
    (Version::parse(version)? < least).then(|| format!("{name} {version}"))
}

/// A line `name:value` of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_named() {
        let redis = |version: &str| {
            format!("# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n")
        };
        let valkey = |version: &str| {
            format!(
                "{}server_name:valkey\r\nvalkey_version:{version}\r\n",
                redis("7.2.4")
            )
        };
        for (info, found) in [
            (redis("6.2.14"), Some("Redis 6.2.14")),
            (redis("5.0"), Some("Redis 5.0")),
            (redis("7.0.0"), None),
            (redis("7.0.15"), None),
            (redis("8.2.1"), None),
            (redis("10.0.0"), None),
            (redis("255.255.255"), None),
            (valkey("7.1.9"), Some("Valkey 7.1.9")),
            (valkey("7.2.5"), None),
            (valkey("8.0.1"), None),
            (redis("unstable"), None),
            ("# Server\r\n".to_owned(), None),
        ] {
            assert_eq!(too_old(&info).as_deref(), found, "{info}");
        }
    }

    fn grant(refused: &[(&str, &str)]) -> Option<String> {
        let refusal = |(command, reply): &(&str, &str)| {
            (
                (*command).to_owned(),
                Refusal::read(reply).expect("a reply"),
            )
        };
        let refusals = refused.iter().map(refusal).collect();
        denied(&refusals, "vigie", "v:*").map(|denied| denied.grant)
    }

    #[test]
    fn what_is_denied_comes_with_the_command_that_grants_it() {
        let in_script = "ERR The user executing the script can't run this command or subcommand";
        let channel = "ERR The user executing the script can't publish to the channel mentioned in the command";
        let keys =
            "NOPERM this user has no permissions to access one of the keys used as arguments";
        assert_eq!(grant(&[]), None);
        assert_eq!(grant(&[("SET", "OOM command not allowed")]), None);
        assert_eq!(
            grant(&[
                ("HSET", in_script),
                ("SPUBLISH", channel),
                ("SSUBSCRIBE", channel)
            ])
            .as_deref(),
            Some("ACL SETUSER vigie +hset &v:*")
        );
        let all = format!("ACL SETUSER vigie ~v:* &v:* {RIGHTS}");
        assert_eq!(grant(&[("EVAL", keys)]), Some(all));
    }
}
