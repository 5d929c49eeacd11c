//! `vigie inspect`: shows what is in Redis.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vigie::app::inspect::{self, Queue, Ticket};
use vigie::clock::now_ms;
use vigie::settings::Settings;

use super::{EXIT_CONFIG, block_on, fail, print};

/// More than this nobody reads.
const LIMIT_MAX: i64 = 10_000;

/// What to show, and how.
#[derive(Args)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    what: What,
    /// Prints one JSON object instead of a table for people
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Those who wait for an opponent
    Queue {
        /// How many of them to show, the first first
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
        limit: u32,
    },
}

/// Shows it.
pub(super) fn run(settings: &Settings, args: &InspectArgs) -> ExitCode {
    let What::Queue { limit } = args.what;
    match block_on(inspect::queue(settings, limit), EXIT_CONFIG) {
        Ok(Ok(Some(queue))) if args.json => print(&format!("{}\n", as_json(&queue))),
        Ok(Ok(Some(queue))) => print(&as_table(&queue, now_ms())),
        Ok(Ok(None)) => fail(
            EXIT_CONFIG,
            "the memory engine keeps everything in its process; ask it with GET /api/v1/matchmaking",
        ),
        Ok(Err(error)) => fail(EXIT_CONFIG, error),
        Err(code) => code,
    }
}

fn as_table(queue: &Queue, now_ms: u64) -> String {
    let status = &queue.status;
    let mut text = format!(
        "{} waiting, the first for {}; {} matches in the last minute, {} not shown everywhere yet\n",
        status.queue_len,
        seconds(status.oldest_wait_ms),
        status.matches_per_minute,
        status.pending
    );
    if !queue.first.is_empty() {
        // A string to write into never fails.
        let _ = writeln!(text, "\n{:>16}  {:>8}  {:>10}", "user", "rating", "waiting");
    }
    for ticket in &queue.first {
        let waiting = seconds(now_ms.saturating_sub(ticket.joined_at_ms));
        let (user, rating) = (ticket.user, ticket.rating);
        let _ = writeln!(text, "{user:>16}  {rating:>8}  {waiting:>10}");
    }
    let more = status.queue_len.saturating_sub(queue.first.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    text
}

fn seconds(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

fn as_json(queue: &Queue) -> Value {
    let status = &queue.status;
    let first = queue.first.iter().map(ticket_as_json);
    json!({
        "queueLength": status.queue_len,
        "oldestWaitMs": status.oldest_wait_ms,
        "matchesPerMinute": status.matches_per_minute,
        "pendingMatches": status.pending,
        "first": first.collect::<Vec<_>>(),
    })
}

fn ticket_as_json(ticket: &Ticket) -> Value {
    json!({ "userId": ticket.user, "rating": ticket.rating, "joinedAt": ticket.joined_at_ms })
}

#[cfg(test)]
mod tests {
    use vigie::UserId;
    use vigie::app::inspect::QueueStatus;

    use super::*;

    fn queue(queue_len: u64) -> Queue {
        let ticket = Ticket {
            user: UserId::try_from(42).expect("a valid id"),
            rating: 1036,
            joined_at_ms: 1_000_000,
            version: 7,
        };
        let status = QueueStatus {
            queue_len,
            oldest_wait_ms: 61_000,
            pending: 1,
            matches_per_minute: 30,
        };
        let first = vec![ticket; queue_len.min(1) as usize];
        Queue { status, first }
    }

    #[test]
    fn people_read_a_table() {
        let text = as_table(&queue(3), 1_061_000);
        assert!(
            text.starts_with("3 waiting, the first for 1m 1s; 30 matches"),
            "{text}"
        );
        assert!(
            text.contains("              42      1036       1m 1s\nand 2 more\n"),
            "{text}"
        );
        assert!(!as_table(&queue(0), 0).contains("rating"));
    }

    #[test]
    fn programs_read_an_object() {
        let first = json!([{ "userId": 42, "rating": 1036, "joinedAt": 1_000_000 }]);
        assert_eq!(as_json(&queue(1))["first"], first);
        assert_eq!(as_json(&queue(1))["queueLength"], 1);
    }
}
