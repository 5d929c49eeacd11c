//! The matchmaking queue.

use crate::app::inspect::{QueueReport, QueueStats, Ticket};
use serde_json::{Value, json};

use super::{Rendered, span};
use crate::cli::table::{Align, Table};

pub(super) fn show(queue: &QueueReport, now_ms: u64) -> Rendered {
    Rendered {
        text: text(queue, now_ms),
        json: json(queue),
    }
}

/// A one-line summary.
pub(super) fn status_text(status: &QueueStats) -> String {
    format!(
        "{} waiting, the first for {}; {} matches in the last minute, {} not shown everywhere yet",
        status.queue_len,
        span(status.oldest_wait_ms),
        status.matches_per_minute,
        status.pending
    )
}

pub(super) fn status_json(status: &QueueStats) -> Value {
    json!({
        "queueLength": status.queue_len,
        "oldestWaitMs": status.oldest_wait_ms,
        "matchesPerMinute": status.matches_per_minute,
        "pendingMatches": status.pending,
    })
}

fn text(queue: &QueueReport, now_ms: u64) -> String {
    let mut text = status_text(&queue.status) + "\n";
    if !queue.first.is_empty() {
        text += &format!("\n{}", table(&queue.first, now_ms));
    }
    let more = queue
        .status
        .queue_len
        .saturating_sub(queue.first.len() as u64);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text
}

fn table(first: &[Ticket], now_ms: u64) -> Table {
    let mut table = Table::new([
        ("user", Align::Right),
        ("rating", Align::Right),
        ("waiting", Align::Right),
    ]);
    for ticket in first {
        let waiting_ms = now_ms.saturating_sub(ticket.joined_at_ms);
        table.row([
            ticket.user.into(),
            ticket.rating.into(),
            span(waiting_ms).into(),
        ]);
    }
    table
}

fn json(queue: &QueueReport) -> Value {
    let mut json = status_json(&queue.status);
    json["first"] = queue.first.iter().map(ticket_json).collect();
    json
}

fn ticket_json(ticket: &Ticket) -> Value {
    json!({ "userId": ticket.user, "rating": ticket.rating, "joinedAt": ticket.joined_at_ms })
}

#[cfg(test)]
mod tests {
    use crate::ids::UserId;

    use super::*;

    fn queue(queue_len: u64) -> QueueReport {
        let ticket = Ticket {
            user: UserId::try_from(42).expect("a valid id"),
            rating: 1036,
            joined_at_ms: 1_000_000,
            version: 7,
        };
        let status = QueueStats {
            queue_len,
            oldest_wait_ms: 61_000,
            pending: 1,
            matches_per_minute: 30,
        };
        let first = vec![ticket; queue_len.min(1) as usize];
        QueueReport { status, first }
    }

    fn plain(queue: &QueueReport, now_ms: u64) -> String {
        anstream::adapter::strip_str(&text(queue, now_ms)).to_string()
    }

    #[test]
    fn people_read_a_table() {
        let text = plain(&queue(3), 1_061_000);
        assert!(
            text.starts_with("3 waiting, the first for 1m 1s; 30 matches"),
            "{text}"
        );
        assert!(
            text.ends_with("\n  42    1036    1m 1s\nand 2 more\n"),
            "{text}"
        );
        assert!(!plain(&queue(0), 0).contains("rating"));
    }

    #[test]
    fn programs_read_an_object() {
        let first = json!([{ "userId": 42, "rating": 1036, "joinedAt": 1_000_000 }]);
        assert_eq!(json(&queue(1))["first"], first);
        assert_eq!(json(&queue(1))["queueLength"], 1);
    }
}
