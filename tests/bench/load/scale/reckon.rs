//! Reckons from measured units how far a site of a given size is from what gives out first.

mod fit;
mod units;

use std::fmt::Write;

use serde_json::{Value, json};

use self::units::Units;
use super::plan::Audience;
use super::table::{Measured, significant};

const ONLINE: [f64; 2] = [1e6, 1e7];
const NODES: [f64; 3] = [10.0, 100.0, 1_000.0];
const MASTERS: [f64; 3] = [3.0, 6.0, 16.0];

/// How users behave. `tests/bench/README.md` shows these, too.
const STAY_S: f64 = 600.0;
const UPDATE_EVERY_S: f64 = 300.0;
/// Users that a connection watches; so each is watched by as many, on other nodes.
const WATCHED: f64 = 3.0;

/// The resources of a node and of a master.
const PARTITIONS: f64 = 64.0;
const NODE_CORES: f64 = 4.0;
const MEMORY: f64 = 16.0 * 1024.0 * 1024.0 * 1024.0;
/// `limits.connections` by default.
const NODE_CONNECTIONS: f64 = 100_000.0;
/// `maxclients` of Redis by default.
const REDIS_CLIENTS: f64 = 10_000.0;

pub(super) struct Reckoning(Units);

impl Reckoning {
    /// From the cells in which `rate` users came and went a second; `None` when a figure is missing.
    pub(super) fn of(cells: &[Measured], rate: u32) -> Option<Self> {
        Units::of(cells, rate).map(Self)
    }

    pub(super) fn markdown(&self) -> String {
        let units = &self.0;
        let mut text = "| unit | of | |\n|---|---|---|\n".to_owned();
        for (name, label, value, unit) in units.list() {
            // A string to write into never fails.
            let _ = writeln!(
                text,
                "| `{name}` | {label} | {} {unit} |",
                significant(value)
            );
        }
        for audience in [Audience::Everyone, Audience::Watchers] {
            let masters: Vec<String> = MASTERS
                .iter()
                .map(|masters| format!("{masters} masters"))
                .collect();
            let _ = writeln!(
                text,
                "\n| audience {} | {} |\n|---|---|---|---|",
                audience.name(),
                masters.join(" | ")
            );
            for (online, nodes) in sites() {
                let firsts = MASTERS.map(|masters| {
                    let (name, used) = units.first(audience, online, nodes, masters);
                    format!("{name} {} %", significant(100.0 * used))
                });
                let millions = online / 1e6;
                let _ = writeln!(
                    text,
                    "| {millions} million online, {nodes} nodes | {} |",
                    firsts.join(" | ")
                );
            }
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let units = self
            .0
            .list()
            .map(|(name, _, value, _)| (name.to_owned(), json!(value)));
        let mut reckoned = Vec::new();
        for audience in [Audience::Everyone, Audience::Watchers] {
            for (online, nodes) in sites() {
                for masters in MASTERS {
                    let (first, used) = self.0.first(audience, online, nodes, masters);
                    reckoned.push(json!({
                        "audience": audience.name(), "online": online, "nodes": nodes, "masters": masters,
                        "first": first, "used_percent": 100.0 * used,
                    }));
                }
            }
        }
        json!({ "units": Value::Object(units.collect()), "sites": reckoned })
    }
}

fn sites() -> impl Iterator<Item = (f64, f64)> {
    ONLINE
        .into_iter()
        .flat_map(|online| NODES.map(|nodes| (online, nodes)))
}

impl Units {
    /// The name of what gives out first, and how much of it is used: more than 1 is too much.
    fn first(
        &self,
        audience: Audience,
        online: f64,
        nodes: f64,
        masters: f64,
    ) -> (&'static str, f64) {
        let going = online / STAY_S;
        let updates = online / UPDATE_EVERY_S;
        let here = online / nodes;
        let listening = nodes.min(1.0 + WATCHED);
        // A node listens to its own users and to those whom they watch.
        let topics = online.min(here * (1.0 + WATCHED));
        // Of Redis and of all nodes together, for one coming and one going.
        let (departure, node_departure, elsewhere) = match audience {
            Audience::Everyone => {
                let node = self.everyone_node.at(nodes) + 2.0 * online * self.node_per_event;
                (
                    self.everyone_departure.at(nodes),
                    node,
                    self.everyone_elsewhere,
                )
            }
            Audience::Watchers => {
                // Two transitions, each told to the nodes that are interested.
                let departure =
                    self.watchers_departure + 2.0 * (listening - 1.0) * self.update.each;
                (departure, self.watchers_node, self.watchers_elsewhere)
            }
        };
        // Leases are on one master, all else is spread.
        let spread = nodes * PARTITIONS * self.idle.each
            + going * (departure + WATCHED * self.topic)
            + updates * self.update.at(listening);
        let redis = (nodes * self.idle.base + spread / masters) / 1e6;
        let redis_memory = (online * (self.redis_per_user + self.redis_per_update)
            + nodes * topics * self.redis_per_topic)
            / masters;
        let node =
            (going * node_departure + updates * self.node_per_update * listening) / nodes / 1e6;
        let node_memory =
            here * self.node_per_user + topics * self.node_per_topic + online * elsewhere;
        let used = [
            ("Redis CPU", redis),
            ("Redis memory", redis_memory / MEMORY),
            ("Redis clients", nodes * self.redis_clients / REDIS_CLIENTS),
            ("node CPU", node / NODE_CORES),
            ("node memory", node_memory / MEMORY),
            ("node connections", here / NODE_CONNECTIONS),
        ];
        used.into_iter().fold(
            used[0],
            |most, next| if next.1 > most.1 { next } else { most },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::fit::Line;
    use super::*;

    fn units() -> Units {
        let line = |base, each| Line { base, each };
        Units {
            idle: line(200.0, 1.0),
            everyone_departure: line(100.0, 2.0),
            watchers_departure: 100.0,
            update: line(25.0, 2.0),
            topic: 30.0,
            redis_per_user: 400.0,
            redis_per_update: 600.0,
            redis_per_topic: 200.0,
            redis_clients: 2.0,
            node_per_event: 1.0,
            everyone_node: line(100.0, 20.0),
            watchers_node: 300.0,
            node_per_update: 100.0,
            node_per_user: 6_000.0,
            node_per_topic: 1_000.0,
            everyone_elsewhere: 40.0,
            watchers_elsewhere: 0.0,
        }
    }

    #[test]
    fn what_gives_out_first_is_named() {
        let units = units();
        // 100,000 connections on each node, 3,333 transitions a second to each of them: 333 s of work a second.
        let (first, used) = units.first(Audience::Everyone, 1e6, 10.0, 3.0);
        assert_eq!(first, "node CPU");
        assert!((used - 333.3 / 4.0).abs() < 1.0, "{used}");
        let (first, used) = units.first(Audience::Watchers, 1e6, 10.0, 3.0);
        assert_eq!((first, used), ("node connections", 1.0));
        // (1,000 · 64 + 1,667 · (112 + 90) + 3,333 · 33) / 3 + 1,000 · 200, in µs a second
        let (first, used) = units.first(Audience::Watchers, 1e6, 1_000.0, 3.0);
        assert_eq!(first, "Redis CPU");
        assert!((used - 0.370).abs() < 0.001, "{used}");
    }
}
