//! Subscriptions: topics by node, and nodes by topic.

use crate::app::inspect::{NodeList, OnlinePage};
use serde_json::json;

use super::online::{page_json, page_text};
use super::{Rendered, several};
use crate::cli::table::{Align, NOTABLE, Table, styled};

pub(super) fn show(nodes: &NodeList, page: &OnlinePage) -> Rendered {
    let mut by_node = Table::new([("node", Align::Left), ("topics", Align::Right)]);
    for node in &nodes.nodes {
        by_node.row([node.info.id.as_str().into(), node.info.topics.into()]);
    }
    let mut by_topic = Table::new([("topic of user", Align::Right), ("nodes", Align::Right)]);
    for user in &page.users {
        let listeners = match user.listeners {
            0 => styled(0, NOTABLE),
            listeners => listeners.into(),
        };
        by_topic.row([user.user.into(), listeners]);
    }
    let online = format!("\n{}", several(page.online, "user"));
    let mut json = page_json(
        page,
        |user| json!({ "userId": user.user, "nodes": user.listeners }),
    );
    let of_nodes = nodes.nodes.iter().map(|node| &node.info);
    json["nodes"] = of_nodes
        .map(|node| json!({ "id": node.id, "topics": node.topics }))
        .collect();
    Rendered {
        text: format!(
            "{by_node}{}",
            page_text(page, &online, " online", &by_topic)
        ),
        json,
    }
}
