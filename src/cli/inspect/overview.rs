//! The hub as a whole.

use crate::app::inspect::{NodeInfo, Overview};
use serde_json::json;

use super::{Rendered, nodes, queue, several};

pub(super) fn show(overview: &Overview) -> Rendered {
    Rendered {
        text: text(overview),
        json: json!({
            "server": overview.server,
            "prefix": overview.prefix,
            "layout": overview.layout,
            "partitions": overview.partitions,
            "online": overview.online,
            "leaving": overview.leaving,
            "connections": sum(overview, |node| node.connections),
            "guests": sum(overview, |node| node.guests),
            "topics": sum(overview, |node| node.topics),
            "nodes": nodes::json(&overview.nodes),
            "queue": queue::status_json(&overview.queue),
        }),
    }
}

fn text(overview: &Overview) -> String {
    let partitions = several(overview.partitions.into(), "partition");
    let (online, leaving) = (overview.online, overview.leaving);
    let mut text = format!(
        "redis    {} under {:?}, layout {}, {partitions}\n\
         users    {online} online, {leaving} of them leaving\n\
         sockets  {}, {}, {}\n\
         queue    {}\n\
         nodes    {}\n",
        overview.server,
        overview.prefix,
        overview.layout,
        several(sum(overview, |node| node.connections), "connection"),
        several(sum(overview, |node| node.guests), "guest"),
        several(sum(overview, |node| node.topics), "topic"),
        queue::status_text(&overview.queue),
        overview.nodes.nodes.len(),
    );
    if !overview.nodes.nodes.is_empty() {
        text += &format!("\n{}", nodes::table(&overview.nodes));
    }
    text
}

fn sum(overview: &Overview, of: fn(&NodeInfo) -> u64) -> u64 {
    overview.nodes.nodes.iter().map(|node| of(&node.info)).sum()
}
