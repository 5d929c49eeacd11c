//! The units of the reckoning, from the figures of the plan's cells.

use super::super::plan::Audience;
use super::super::table::Measured;
use super::fit::{Line, fit};

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

impl Units {
    /// `None` when a figure is missing.
    pub(super) fn of(cells: &[Measured]) -> Option<Self> {
        let mut idle = Vec::new();
        let (mut departures, mut updates) = (Vec::new(), Vec::new());
        let mut node_times = Vec::new();
        for cell in cells {
            let (Some(shape), value) = (cell.shape, |name: &str| cell.now.value(name)) else {
                continue;
            };
            if shape.audience == Audience::Watchers {
                continue;
            }
            let nodes = shape.nodes as f64;
            if let Some(percent) = value("idle_redis_percent") {
                idle.push((nodes, nodes * f64::from(shape.partitions), percent * 1e4));
            }
            updates.extend(value("update_busy_redis_us").map(|us| (1.0, 1.0, us)));
            updates.extend(value("update_everywhere_redis_us").map(|us| (1.0, nodes, us)));
            for figure in cell.now.figures() {
                let Some(churn) = figure
                    .name
                    .strip_suffix("_redis_beyond_idle_per_departure_us")
                else {
                    continue;
                };
                departures.push((1.0, nodes, figure.value));
                let time = value(&format!("{churn}_nodes_beyond_idle_per_departure_us"))?;
                let events = value(&format!("{churn}_events_per_departure"))?;
                node_times.push((nodes, events, time));
            }
        }
        let with_units = |audience: Audience| {
            let measured = cells.iter().filter(move |cell| {
                let units = cell.now.value("signin_redis_us").is_some();
                units && cell.shape.is_some_and(|shape| shape.audience == audience)
            });
            // The smallest: there the least disturbs.
            measured.min_by_key(|cell| cell.shape.map(|shape| shape.nodes))
        };
        let (small, watchers) = (
            with_units(Audience::Everyone)?,
            with_units(Audience::Watchers)?,
        );
        let value = |name: &str| small.now.value(name);
        let churned = |end: &str| {
            let mut figures = watchers.now.figures();
            figures
                .find(|figure| figure.name.ends_with(end))
                .map(|figure| figure.value)
        };
        let watchers_node = churned("_nodes_beyond_idle_per_departure_us")?;
        // With audience watchers nobody gets an event: on as many nodes, the events make the difference.
        let same = watchers.shape?.nodes as f64;
        let same = node_times.iter().filter(|(nodes, ..)| *nodes == same);
        let same: Vec<_> = same
            .map(|(_, events, time)| (*events, 0.0, time - watchers_node))
            .collect();
        let node_per_event = fit(&same).base.max(0.0);
        let rest =
            |(nodes, events, time): &(f64, f64, f64)| (1.0, *nodes, time - events * node_per_event);
        let rest: Vec<_> = node_times.iter().map(rest).collect();
        Some(Self {
            idle: fit(&idle),
            everyone_departure: fit(&departures),
            watchers_departure: churned("_redis_beyond_idle_per_departure_us")?,
            update: fit(&updates),
            topic: value("topic_redis_us")?,
            redis_per_user: value("redis_per_user_bytes")?,
            redis_per_update: value("redis_per_update_bytes")?,
            redis_per_topic: value("redis_per_topic_bytes")?,
            redis_clients: value("redis_clients_per_node")?,
            node_per_event,
            everyone_node: fit(&rest),
            watchers_node,
            node_per_update: value("update_busy_nodes_us")?,
            node_per_user: value("nodes_per_user_bytes")?,
            node_per_topic: value("node_per_topic_bytes")?,
            everyone_elsewhere: value("node_per_user_elsewhere_bytes")?,
            watchers_elsewhere: watchers.now.value("node_per_user_elsewhere_bytes")?,
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
