//! The units of the reckoning, from the figures of the plan's cells.

use super::super::plan::{Audience, Shape};
use super::super::table::Measured;
use super::fit::{Line, fit};
use crate::report::Report;

/// Times in µs, memory in bytes.
#[derive(Debug)]
pub(super) struct Units {
    /// Redis, a second: for each node, and for each node and partition.
    pub(super) idle: Line,
    /// Redis: one coming and one going, by nodes.
    pub(super) everyone_departure: Line,
    /// Redis: the same, told to one node.
    pub(super) watchers_departure: f64,
    /// Redis: an update, by nodes listening.
    pub(super) update: Line,
    /// Redis: the first watcher of a user on a node.
    pub(super) topic: f64,
    pub(super) redis_per_user: f64,
    pub(super) redis_per_update: f64,
    pub(super) redis_per_topic: f64,
    pub(super) redis_clients: f64,
    /// Nodes: an event delivered to one user.
    pub(super) node_per_event: f64,
    /// Nodes: one coming and one going without those events, by nodes.
    pub(super) everyone_node: Line,
    pub(super) watchers_node: f64,
    pub(super) node_per_update: f64,
    pub(super) node_per_user: f64,
    pub(super) node_per_topic: f64,
    pub(super) everyone_elsewhere: f64,
    pub(super) watchers_elsewhere: f64,
}

/// The figures of a cell in which users come and go at the rate that is reckoned with.
struct Churned {
    nodes: f64,
    /// Of Redis, per departure and beyond idle, in µs.
    redis: f64,
    /// The same of all nodes.
    time: f64,
    events: f64,
}

impl Churned {
    fn of((shape, report): &Cell<'_>, rate: u32) -> Option<Self> {
        let value = |name: &str| report.value(&format!("churn{rate}_{name}"));
        Some(Self {
            nodes: shape.nodes as f64,
            redis: value("redis_beyond_idle_per_departure_us")?,
            time: value("nodes_beyond_idle_per_departure_us")?,
            events: value("events_per_departure")?,
        })
    }
}

type Cell<'a> = (Shape, &'a Report);

/// The cell with the fewest nodes among those with every figure: there the least disturbs.
fn smallest<'a>(cells: &[Cell<'a>]) -> Option<Cell<'a>> {
    let complete = cells
        .iter()
        .filter(|(_, report)| report.value("signin_redis_us").is_some());
    complete.min_by_key(|(shape, _)| shape.nodes).copied()
}

impl Units {
    /// From the cells in which `rate` users came and went a second; `None` when a figure is missing.
    pub(super) fn of(cells: &[Measured], rate: u32) -> Option<Self> {
        let cells = cells
            .iter()
            .filter_map(|cell| Some((cell.shape?, &cell.now)));
        let (watchers, everyone): (Vec<Cell<'_>>, Vec<Cell<'_>>) =
            cells.partition(|(shape, _)| shape.audience == Audience::Watchers);
        let (small, watchers) = (smallest(&everyone)?, smallest(&watchers)?);
        let quiet = Churned::of(&watchers, rate)?;
        let churned: Vec<_> = everyone
            .iter()
            .filter_map(|cell| Churned::of(cell, rate))
            .collect();

        // With audience watchers nobody gets an event: on as many nodes, the events make the difference.
        let same = churned.iter().filter(|cell| cell.nodes == quiet.nodes);
        let same: Vec<_> = same
            .map(|cell| (cell.events, 0.0, cell.time - quiet.time))
            .collect();
        let node_per_event = fit(&same).base.max(0.0);
        let without_events = churned
            .iter()
            .map(|cell| (1.0, cell.nodes, cell.time - cell.events * node_per_event));
        let departures = churned.iter().map(|cell| (1.0, cell.nodes, cell.redis));

        let value = |name: &str| small.1.value(name);
        Some(Self {
            idle: idle(&everyone),
            everyone_departure: fit(&departures.collect::<Vec<_>>()),
            watchers_departure: quiet.redis,
            update: updates(&everyone),
            topic: value("topic_redis_us")?,
            redis_per_user: value("redis_per_user_bytes")?,
            redis_per_update: value("redis_per_update_bytes")?,
            redis_per_topic: value("redis_per_topic_bytes")?,
            redis_clients: value("redis_clients_per_node")?,
            node_per_event,
            everyone_node: fit(&without_events.collect::<Vec<_>>()),
            watchers_node: quiet.time,
            node_per_update: value("update_busy_nodes_us")?,
            node_per_user: value("nodes_per_user_bytes")?,
            node_per_topic: value("node_per_topic_bytes")?,
            everyone_elsewhere: value("node_per_user_elsewhere_bytes")?,
            watchers_elsewhere: watchers.1.value("node_per_user_elsewhere_bytes")?,
        })
    }

    /// Name, meaning, value and unit of measurement of each; `tests/bench/README.md` has formulas with these names.
    pub(super) fn list(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, f64, &'static str)> {
        [
            (
                "idle_node",
                "Redis, idle, for each node",
                self.idle.base,
                "µs/s",
            ),
            (
                "idle_partition",
                "Redis, idle, for each node and partition",
                self.idle.each,
                "µs/s",
            ),
            (
                "going",
                "Redis, a coming and going, audience everyone",
                self.everyone_departure.base,
                "µs",
            ),
            (
                "told",
                "the same, for each node",
                self.everyone_departure.each,
                "µs",
            ),
            (
                "going_w",
                "Redis, a coming and going, audience watchers, one node interested",
                self.watchers_departure,
                "µs",
            ),
            ("update", "Redis, an update", self.update.base, "µs"),
            (
                "heard",
                "the same, for each node that listens",
                self.update.each,
                "µs",
            ),
            (
                "topic",
                "Redis, the first watcher of a user on a node",
                self.topic,
                "µs",
            ),
            (
                "user_bytes",
                "Redis, a user online",
                self.redis_per_user,
                "B",
            ),
            (
                "update_bytes",
                "Redis, an update stored",
                self.redis_per_update,
                "B",
            ),
            (
                "topic_bytes",
                "Redis, a topic of a node",
                self.redis_per_topic,
                "B",
            ),
            (
                "clients",
                "connections of a node to each master",
                self.redis_clients,
                "",
            ),
            (
                "node_event",
                "a node, an event delivered to one user",
                self.node_per_event,
                "µs",
            ),
            (
                "node_going",
                "all nodes, a coming and going without those events, audience everyone",
                self.everyone_node.base,
                "µs",
            ),
            (
                "node_told",
                "the same, each node",
                self.everyone_node.each,
                "µs",
            ),
            (
                "node_going_w",
                "all nodes, a coming and going, audience watchers",
                self.watchers_node,
                "µs",
            ),
            (
                "node_update",
                "nodes, an update and its delivery",
                self.node_per_update,
                "µs",
            ),
            (
                "node_user",
                "a node, a user connected",
                self.node_per_user,
                "B",
            ),
            ("node_topic", "a node, a topic", self.node_per_topic, "B"),
            (
                "elsewhere",
                "a node, a user online elsewhere, audience everyone",
                self.everyone_elsewhere,
                "B",
            ),
            (
                "elsewhere_w",
                "the same, audience watchers",
                self.watchers_elsewhere,
                "B",
            ),
        ]
        .into_iter()
    }
}

/// Of Redis, in µs a second: for each node, and for each node and partition.
fn idle(cells: &[Cell<'_>]) -> Line {
    let point = |(shape, report): &Cell<'_>| {
        let nodes = shape.nodes as f64;
        let us = 1e4 * report.value("idle_redis_percent")?;
        Some((nodes, nodes * f64::from(shape.partitions), us))
    };
    fit(&cells.iter().filter_map(point).collect::<Vec<_>>())
}

/// Of Redis, in µs, by nodes listening.
fn updates(cells: &[Cell<'_>]) -> Line {
    let points = cells.iter().flat_map(|(shape, report)| {
        let one = report
            .value("update_busy_redis_us")
            .map(|us| (1.0, 1.0, us));
        let all = report
            .value("update_everywhere_redis_us")
            .map(|us| (1.0, shape.nodes as f64, us));
        one.into_iter().chain(all)
    });
    fit(&points.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Unit;

    fn measured(nodes: usize, audience: Audience, figures: &[(&str, Unit, f64)]) -> Measured {
        let mut report = Report::new("scale");
        for (name, unit, value) in figures {
            report.add(name, "", *unit, *value);
        }
        Measured {
            shape: Some(Shape {
                nodes,
                partitions: 16,
                audience,
                masters: 1,
            }),
            now: report,
            before: None,
        }
    }

    fn churned(redis: f64, nodes: f64, events: f64) -> [(&'static str, Unit, f64); 3] {
        [
            (
                "churn200_redis_beyond_idle_per_departure",
                Unit::Microseconds,
                redis,
            ),
            (
                "churn200_nodes_beyond_idle_per_departure",
                Unit::Microseconds,
                nodes,
            ),
            ("churn200_events_per_departure", Unit::Count, events),
        ]
    }

    /// What one thing costs, everywhere the same.
    const COSTS: [(&str, Unit, f64); 11] = [
        ("idle_redis", Unit::Percent, 1.0),
        ("signin_redis", Unit::Microseconds, 50.0),
        ("topic_redis", Unit::Microseconds, 30.0),
        ("redis_per_user", Unit::Bytes, 400.0),
        ("redis_per_update", Unit::Bytes, 900.0),
        ("redis_per_topic", Unit::Bytes, 200.0),
        ("redis_clients_per_node", Unit::Ratio, 2.0),
        ("update_busy_nodes", Unit::Microseconds, 100.0),
        ("nodes_per_user", Unit::Bytes, 5_000.0),
        ("node_per_topic", Unit::Bytes, 1_000.0),
        ("node_per_user_elsewhere", Unit::Bytes, 40.0),
    ];

    #[test]
    fn units_are_told_apart() {
        use Audience::{Everyone, Watchers};
        let cells = [
            measured(4, Everyone, &churned(180.0, 1_300.0, 300.0)),
            measured(16, Everyone, &churned(420.0, 2_500.0, 300.0)),
            measured(1, Everyone, &COSTS),
            measured(
                4,
                Watchers,
                &[&COSTS[..], &churned(120.0, 700.0, 0.0)].concat(),
            ),
        ];
        let units = Units::of(&cells, 200).expect("nothing is missing");
        let line = |base, each| Line { base, each };
        assert_eq!(units.everyone_departure, line(100.0, 20.0));
        assert_eq!(units.watchers_departure, 120.0);
        // 600 µs more for 300 events.
        assert_eq!((units.node_per_event, units.watchers_node), (2.0, 700.0));
        assert_eq!(units.everyone_node, line(300.0, 100.0));
        assert!(
            Units::of(&cells, 20).is_none(),
            "nobody came and went at that rate"
        );
        assert!(
            Units::of(&cells[..3], 200).is_none(),
            "no cell has audience watchers"
        );
    }
}
