//! The state that has to hold when all is quiet, derived from the connected clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use super::chaos::Actor;
use crate::harness::{Cluster, Record};

/// Everything under our prefix, as JSON: sets and lists as they are, hashes and sorted sets flat.
const DUMP: &str = "local all = {} \
    for _, key in ipairs(redis.call('KEYS', 'vigie:*')) do \
      local kind = redis.call('TYPE', key).ok \
      if kind == 'set' then all[key] = redis.call('SMEMBERS', key) \
      elseif kind == 'hash' then all[key] = redis.call('HGETALL', key) \
      elseif kind == 'zset' then all[key] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') \
      else all[key] = { redis.call('GET', key) } end \
    end \
    return cjson.encode(all)";

/// An update that a node has taken.
pub struct Told {
    pub user: u64,
    pub kind: &'static str,
    pub revision: u64,
    pub asked_at: Instant,
}

/// The truth.
pub struct Truth<'a> {
    actors: &'a [&'a Actor],
    told: &'a [Told],
    /// How many connections each user has on each node.
    connections: BTreeMap<(u64, String), usize>,
    online: BTreeSet<u64>,
}

/// The content of Redis.
struct Dump(BTreeMap<String, Vec<String>>);

impl<'a> Truth<'a> {
    /// Derives it from the connected clients.
    pub fn of(actors: &'a [&'a Actor], told: &'a [Told]) -> Self {
        let mut connections = BTreeMap::new();
        for actor in actors {
            if let Some(user) = actor.user {
                *connections
                    .entry((user, format!("n{}", actor.node)))
                    .or_insert(0) += 1;
            }
        }
        let online = actors.iter().filter_map(|actor| actor.user).collect();
        Self {
            actors,
            told,
            connections,
            online,
        }
    }

    /// Where Redis, the nodes and the clients differ from it.
    pub async fn differences(&self, cluster: &Cluster) -> Vec<String> {
        let dump = Dump::of(cluster).await;
        let mut differences = self.in_redis(&dump, cluster.len());
        for node in cluster.running() {
            let shown = shown_by(cluster, node).await;
            if shown != self.online {
                differences.push(format!(
                    "node {node} shows {shown:?}, online are {:?}",
                    self.online
                ));
            }
        }
        for actor in self.actors {
            differences.extend(self.in_client(actor, &dump));
        }
        differences
    }

    fn in_redis(&self, dump: &Dump, nodes: usize) -> Vec<String> {
        let mut differences = Vec::new();
        let mut expect = |what: &str, holds: bool, seen: String| {
            if !holds {
                differences.push(format!("Redis: {what}: {seen}"));
            }
        };
        let online = dump.online();
        expect("online", online == self.online, format!("{online:?}"));
        let connections = dump.connections();
        let seen = format!("{connections:?}, wanted {:?}", self.connections);
        expect("connections", connections == self.connections, seen);
        let owed = dump.owed();
        let wanted: usize = self.connections.values().sum();
        expect("owed", owed == wanted, format!("{owed}, wanted {wanted}"));
        let leaving: Vec<&String> = dump.like("}:leaving").flat_map(|(_, who)| who).collect();
        expect("leaving", leaving.is_empty(), format!("{leaving:?}"));
        let leases = dump.leases();
        let names: BTreeSet<&str> = leases
            .iter()
            .filter_map(|name| name.split('.').next())
            .collect();
        let all_there = leases.len() == nodes && names.len() == nodes;
        expect("leases", all_there, format!("{leases:?}"));
        let unknown: BTreeSet<String> = dump
            .incarnations()
            .into_iter()
            .filter(|name| !leases.contains(name))
            .collect();
        expect(
            "unknown incarnations",
            unknown.is_empty(),
            format!("{unknown:?}"),
        );
        expect(
            "meta",
            dump.0.contains_key("vigie:meta"),
            "missing".to_owned(),
        );
        differences
    }

    fn in_client(&self, actor: &Actor, dump: &Dump) -> Vec<String> {
        let mut differences = Vec::new();
        let roster = actor.client.roster();
        if roster.as_ref() != Some(&self.online) {
            differences.push(format!(
                "{actor} sees {roster:?}, online are {:?}",
                self.online
            ));
        }
        let heard = Heard::by(actor);
        for user in self.online.iter().chain(&actor.followed) {
            for kind in ["profile", "stats"] {
                let Some(stored) = dump.revision(*user, kind) else {
                    continue;
                };
                let last = heard.last.get(&(*user, kind)).copied();
                let must = actor.followed.contains(user)
                    || self.was_told_to_own(actor, *user, kind, stored);
                if must && last != Some(stored) {
                    differences.push(format!(
                        "{actor} has {last:?} of {user}'s {kind}, stored is {stored}"
                    ));
                }
            }
        }
        differences.extend(heard.disorder);
        differences
    }

    /// Whether the update was told after this connection of the user's own was there.
    fn was_told_to_own(&self, actor: &Actor, user: u64, kind: &str, revision: u64) -> bool {
        let since = actor.client.connected_since();
        let mut told = self.told.iter();
        actor.user == Some(user)
            && told.any(|told| {
                (told.user, told.kind, told.revision) == (user, kind, revision)
                    && since.is_some_and(|since| since < told.asked_at)
            })
    }
}

/// The updates that a client has received since its last CONNECT.
#[derive(Default)]
struct Heard {
    last: BTreeMap<(u64, &'static str), u64>,
    disorder: Vec<String>,
}

impl Heard {
    fn by(actor: &Actor) -> Self {
        let mut heard = Self::default();
        for record in &actor.client.events_so_far() {
            match record {
                // Updates from before belong to the previous connection.
                Record::Connect { .. } => heard.last.clear(),
                Record::Event { name, args } => {
                    let update = args.first().unwrap_or(&Value::Null);
                    let (user, kind) = match name.as_str() {
                        "profile-update" => (&update["user"]["userID"], "profile"),
                        "game-stats-update" => (&update["userId"], "stats"),
                        _ => continue,
                    };
                    heard.take_in(actor, user, kind, &update["revision"], |last, new| {
                        last < new
                    });
                }
                Record::Ack { event, args, .. } if event == "watch-profile" => {
                    let answer = args.first().unwrap_or(&Value::Null);
                    for kind in ["profile", "stats"] {
                        let revision = &answer["revisions"][kind];
                        heard.take_in(actor, &answer["userId"], kind, revision, |last, new| {
                            last <= new
                        });
                    }
                }
                _ => {}
            }
        }
        heard
    }

    fn take_in(
        &mut self,
        actor: &Actor,
        user: &Value,
        kind: &'static str,
        revision: &Value,
        follows: impl Fn(u64, u64) -> bool,
    ) {
        let (Some(user), Some(revision)) = (user.as_u64(), revision.as_u64()) else {
            return;
        };
        if let Some(last) = self.last.insert((user, kind), revision)
            && !follows(last, revision)
        {
            self.disorder.push(format!(
                "{actor} was told {revision} after {last} of {user}'s {kind}"
            ));
        }
    }
}

async fn shown_by(cluster: &Cluster, node: usize) -> BTreeSet<u64> {
    let mut shown = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/presence?limit=5&cursor={cursor}");
        let page = cluster.get(node, &path).await.json;
        let users = page["users"].as_array().expect("a page of users");
        shown.extend(users.iter().filter_map(Value::as_u64));
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return shown,
        }
    }
}

impl Dump {
    async fn of(cluster: &Cluster) -> Self {
        let mut all = BTreeMap::new();
        for server in cluster.servers().all() {
            if server.role().await != "master" {
                continue;
            }
            let text = server.cli(&["EVAL", DUMP, "0"]).await;
            let Ok(dump) = serde_json::from_str::<BTreeMap<_, _>>(&text) else {
                // cjson writes an empty table as an object.
                panic!("Redis holds {text}");
            };
            all.extend(dump);
        }
        Self(all)
    }

    fn like(&self, part: &str) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.0.iter().filter(move |(key, _)| key.contains(part))
    }

    fn online(&self) -> BTreeSet<u64> {
        let members = self.like("}:online").flat_map(|(_, users)| users);
        members.filter_map(|user| user.parse().ok()).collect()
    }

    fn connections(&self) -> BTreeMap<(u64, String), usize> {
        let mut connections = BTreeMap::new();
        for (key, fields) in self.like("}:conns:") {
            let user = key.rsplit(':').next().and_then(|user| user.parse().ok());
            for field in fields.iter().step_by(2) {
                let node = field.split('.').next().unwrap_or_default().to_owned();
                *connections.entry((user.expect("an id"), node)).or_insert(0) += 1;
            }
        }
        connections
    }

    fn owed(&self) -> usize {
        self.like("}:node:").map(|(_, owed)| owed.len()).sum()
    }

    fn leases(&self) -> BTreeSet<String> {
        let leases = self.0.get("vigie:nodes");
        let leases = leases
            .into_iter()
            .flat_map(|leases| leases.iter().step_by(2));
        leases.cloned().collect()
    }

    /// Every incarnation that any key is about.
    fn incarnations(&self) -> BTreeSet<String> {
        let mut incarnations = BTreeSet::new();
        for (key, values) in &self.0 {
            if let Some((_, incarnation)) = key.split_once(":node:") {
                incarnations.insert(incarnation.to_owned());
            } else if key.ends_with("}:nodes") {
                incarnations.extend(values.iter().cloned());
            } else if key.contains("}:conns:") {
                let fields = values.iter().step_by(2);
                let names = fields.filter_map(|field| field.split('/').next());
                incarnations.extend(names.map(str::to_owned));
            }
        }
        incarnations
    }

    fn revision(&self, user: u64, kind: &str) -> Option<u64> {
        let end = format!("}}:profile:{user}");
        let (_, fields) = self.0.iter().find(|(key, _)| key.ends_with(&end))?;
        let name = format!("{kind}.revision");
        let at = fields.iter().step_by(2).position(|field| *field == name)?;
        fields.get(at * 2 + 1)?.parse().ok()
    }
}
