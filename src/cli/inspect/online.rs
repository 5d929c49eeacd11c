//! Online users, a page at a time.

use crate::app::inspect::{OnlinePage, OnlineUser};
use serde_json::{Value, json};

use super::{Rendered, several};
use crate::cli::table::{Align, NOTABLE, Table, styled};

pub(super) fn show(page: &OnlinePage) -> Rendered {
    let mut table = Table::new([("user", Align::Right), ("connections", Align::Right)]);
    for user in &page.users {
        let connections = match user.connections {
            0 => styled("leaving", NOTABLE),
            connections => connections.into(),
        };
        table.row([user.user.into(), connections]);
    }
    Rendered {
        text: page_text(page, &several(page.online, "user"), " online", &table),
        json: page_json(
            page,
            |user| json!({ "userId": user.user, "connections": user.connections }),
        ),
    }
}

/// A heading, a page, and how to get the next one.
pub(super) fn page_text(page: &OnlinePage, what: &str, rest: &str, table: &Table) -> String {
    let mut text = format!("{what}{rest}\n");
    if !page.users.is_empty() {
        text += &format!("\n{table}");
    }
    if let Some(next) = &page.next {
        text += &format!("\nmore with --cursor {next}\n");
    }
    text
}

pub(super) fn page_json(page: &OnlinePage, user: fn(&OnlineUser) -> Value) -> Value {
    json!({
        "online": page.online,
        "users": page.users.iter().map(user).collect::<Vec<_>>(),
        "cursor": page.next.as_ref().map(ToString::to_string),
    })
}
