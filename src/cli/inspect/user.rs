//! One user.

use crate::app::inspect::{RegisteredConnection, UserReport};
use crate::ids::node_of;
use serde_json::{Map, Value, json};

use super::{Rendered, several, span};
use crate::cli::table::{Align, FAINT, GOOD, NOTABLE, Table, styled};

pub(super) fn show(report: &UserReport) -> Rendered {
    Rendered {
        text: text(report),
        json: json(report),
    }
}

fn text(report: &UserReport) -> String {
    let ago = |at_ms: u64| format!("{} ago", span(report.now_ms.saturating_sub(at_ms)));
    let mut lines = vec![status(report)];
    lines.extend(
        [
            report
                .deleted_at_ms
                .map(|at_ms| format!("the account was deleted {}", ago(at_ms))),
            report
                .revoked_before_ms
                .map(|before_ms| format!("tokens from before {} are refused", ago(before_ms))),
            report
                .disconnected_at_ms
                .map(|at_ms| format!("a back end closed all connections {}", ago(at_ms))),
            report.ticket.map(|ticket| {
                let waited = span(report.now_ms.saturating_sub(ticket.joined_at_ms));
                format!(
                    "waits for an opponent for {waited}, rating {}",
                    ticket.rating
                )
            }),
            report
                .match_id
                .as_ref()
                .map(|id| format!("is being told of match {id}")),
            Some(format!(
                "{} to the topic",
                match report.listeners {
                    1 => "1 node listens".to_owned(),
                    nodes => format!("{nodes} nodes listen"),
                }
            )),
            Some(format!("keys have the hash tag {{{}}}", report.tag)),
        ]
        .into_iter()
        .flatten(),
    );
    let mut text = lines.join("\n") + "\n";
    if !report.connections.is_empty() {
        text += &format!("\n{}", connections(report));
    }
    let more = report
        .refcount
        .saturating_sub(report.connections.len() as u64);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    if !report.updates.is_empty() {
        text += &format!("\n{}", updates(report));
    }
    text
}

fn status(report: &UserReport) -> String {
    let (style, status) = match (report.online, report.leaving_at_ms) {
        (true, Some(at_ms)) => {
            let left = span(at_ms.saturating_sub(report.now_ms));
            (NOTABLE, format!("leaving, offline in {left}"))
        }
        (true, None) => (GOOD, "online".to_owned()),
        (false, _) => (FAINT, "offline".to_owned()),
    };
    let connections = several(report.refcount, "connection");
    format!(
        "user {}: {style}{status}{style:#}, {connections}",
        report.user
    )
}

fn connections(report: &UserReport) -> Table {
    let mut table = Table::new([
        ("node", Align::Left),
        ("connection", Align::Right),
        ("for", Align::Right),
        ("incarnation", Align::Left),
    ]);
    for connection in &report.connections {
        let held_ms = report.now_ms.saturating_sub(connection.connected_at_ms);
        table.row([
            node_of(&connection.incarnation).into(),
            connection.connection.as_str().into(),
            span(held_ms).into(),
            styled(&connection.incarnation, FAINT),
        ]);
    }
    table
}

fn updates(report: &UserReport) -> Table {
    let mut table = Table::new([
        ("last update", Align::Left),
        ("revision", Align::Right),
        ("stored", Align::Right),
    ]);
    for update in &report.updates {
        let ago_ms = report.now_ms.saturating_sub(update.at_ms);
        table.row([
            update.kind.into_str().into(),
            update.revision.into(),
            format!("{} ago", span(ago_ms)).into(),
        ]);
    }
    table
}

fn json(report: &UserReport) -> Value {
    let updates: Map<String, Value> = report
        .updates
        .iter()
        .map(|update| {
            let entry = json!({ "revision": update.revision, "at": update.at_ms });
            (update.kind.into_str().to_owned(), entry)
        })
        .collect();
    let ticket = report
        .ticket
        .map(|ticket| json!({ "rating": ticket.rating, "joinedAt": ticket.joined_at_ms }));
    json!({
        "userId": report.user,
        "tag": report.tag,
        "status": if report.online { "online" } else { "offline" },
        "leavingAt": report.leaving_at_ms,
        "connectionCount": report.refcount,
        "connections": report.connections.iter().map(connection_json).collect::<Vec<_>>(),
        "updates": updates,
        "listeningNodes": report.listeners,
        "ticket": ticket,
        "matchId": report.match_id,
        "deletedAt": report.deleted_at_ms,
        "revokedBefore": report.revoked_before_ms,
        "disconnectedAt": report.disconnected_at_ms,
    })
}

fn connection_json(connection: &RegisteredConnection) -> Value {
    json!({
        "id": connection.connection,
        "node": node_of(&connection.incarnation),
        "incarnation": connection.incarnation,
        "since": connection.connected_at_ms,
    })
}
