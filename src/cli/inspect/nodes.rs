//! Live nodes, as of their last heartbeats.

use crate::app::inspect::{LiveNode, NodeInfo, NodeList};
use serde_json::{Value, json};

use super::{Rendered, span};
use crate::cli::table::{Align, Cell, FAINT, GOOD, NOTABLE, Table, styled};

/// Leases with less time left are highlighted; nodes renew theirs well before.
const LEASE_SHORT_MS: u64 = 2_000;

pub(super) fn show(nodes: &NodeList) -> Rendered {
    Rendered {
        text: if nodes.nodes.is_empty() {
            "no node is alive\n".to_owned()
        } else {
            table(nodes).to_string()
        },
        json: json!({ "nodes": json(nodes) }),
    }
}

pub(super) fn table(nodes: &NodeList) -> Table {
    let mut table = Table::new([
        ("node", Align::Left),
        ("lease left", Align::Right),
        ("up for", Align::Right),
        ("connections", Align::Right),
        ("guests", Align::Right),
        ("users", Align::Right),
        ("topics", Align::Right),
        ("not heard", Align::Left),
        ("version", Align::Left),
        ("incarnation", Align::Left),
    ]);
    for node in &nodes.nodes {
        let left_ms = left_ms(node, nodes.now_ms);
        let lease = if left_ms < LEASE_SHORT_MS {
            NOTABLE
        } else {
            GOOD
        };
        let info = &node.info;
        let up_ms = nodes.now_ms.saturating_sub(info.started_at);
        table.row([
            info.id.as_str().into(),
            styled(format_args!("{:.1}s", left_ms as f64 / 1000.0), lease),
            span(up_ms).into(),
            info.connections.into(),
            info.guests.into(),
            info.users.into(),
            info.topics.into(),
            not_heard(info),
            info.version.as_str().into(),
            styled(&info.incarnation, FAINT),
        ]);
    }
    table
}

pub(super) fn json(nodes: &NodeList) -> Value {
    let one = |node: &LiveNode| {
        let info = &node.info;
        json!({
            "id": info.id,
            "incarnation": info.incarnation,
            "version": info.version,
            "startedAt": info.started_at,
            "leaseEndsAt": node.lease_ends_at_ms,
            "leaseLeftMs": left_ms(node, nodes.now_ms),
            "connections": info.connections,
            "guests": info.guests,
            "users": info.users,
            "topics": info.topics,
            "notHeard": info.not_heard,
        })
    };
    nodes.nodes.iter().map(one).collect()
}

/// The partitions whose messages do not reach the node.
fn not_heard(info: &NodeInfo) -> Cell {
    if info.not_heard.is_empty() {
        return styled("–", FAINT);
    }
    let partitions: Vec<String> = info.not_heard.iter().map(u32::to_string).collect();
    styled(partitions.join(","), NOTABLE)
}

fn left_ms(node: &LiveNode, now_ms: u64) -> u64 {
    node.lease_ends_at_ms.saturating_sub(now_ms)
}
