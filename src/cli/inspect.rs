//! `vigie inspect`: shows what is in Redis, for people and for programs.

mod nodes;
mod online;
mod overview;
mod queue;
mod topics;
mod user;

use std::process::ExitCode;
use std::time::Duration;

use crate::app::StartError;
use crate::app::inspect::{self, Cursor, Inspector};
use crate::clock::now_ms;
use crate::engine::EngineError;
use crate::ids::UserId;
use crate::settings::Settings;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{EXIT_CONFIG, block_on, fail, print, print_styled};

/// More than this nobody reads at once.
const LIMIT_MAX: i64 = 10_000;

/// Where to look when there is nothing outside the process.
const MEMORY: &str = "the memory engine keeps everything in its process; ask the node on its internal listener: GET \
                      /api/v1/nodes, /api/v1/presence, /api/v1/matchmaking, /metrics";

/// What to show, and how.
#[derive(Args)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Prints one JSON object instead of tables for people
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// The nodes that are alive: what is left of their leases, connections, users
    Nodes,
    /// Who is online, a page at a time
    Online(PageArgs),
    /// How many topics each node listens to, and how many nodes to each online user's
    Topics(PageArgs),
    /// All that is known about one user: connections, last updates, what is refused
    User {
        /// The user's id
        id: UserId,
    },
    /// Those who wait for an opponent
    Queue {
        /// How many of them to show, the first first
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
        limit: u32,
    },
}

/// Which page.
#[derive(Args)]
struct PageArgs {
    /// How many users to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
    limit: u32,
    /// Where to go on: what the page before ended with
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Cursor>,
}

/// What is shown, both ways.
struct Shown {
    text: String,
    json: Value,
}

/// Shows it.
pub(super) fn run(settings: &Settings, args: &InspectArgs) -> ExitCode {
    match block_on(show(settings, args.what.as_ref()), EXIT_CONFIG) {
        Ok(Ok(Some(shown))) if args.json => print(&format!("{}\n", shown.json)),
        Ok(Ok(Some(shown))) => print_styled(&shown.text),
        Ok(Ok(None)) => fail(EXIT_CONFIG, MEMORY),
        Ok(Err(error)) => fail(EXIT_CONFIG, error),
        Err(code) => code,
    }
}

async fn show(settings: &Settings, what: Option<&What>) -> Result<Option<Shown>, StartError> {
    let Some(inspector) = inspect::open(settings).await? else {
        return Ok(None);
    };
    Ok(Some(look(&inspector, what).await?))
}

async fn look(inspector: &Inspector, what: Option<&What>) -> Result<Shown, EngineError> {
    Ok(match what {
        None => overview::show(&inspector.overview().await?),
        Some(What::Nodes) => nodes::show(&inspector.nodes().await?),
        Some(What::Online(page)) => online::show(&page.read(inspector).await?),
        Some(What::Topics(page)) => {
            topics::show(&inspector.nodes().await?, &page.read(inspector).await?)
        }
        Some(What::User { id }) => user::show(&inspector.user(*id).await?),
        Some(What::Queue { limit }) => queue::show(&inspector.queue(*limit).await?, now_ms()),
    })
}

impl PageArgs {
    async fn read(&self, inspector: &Inspector) -> Result<inspect::OnlinePage, EngineError> {
        inspector.online(self.cursor, self.limit).await
    }
}

/// A time span in its two largest units, `3h 12m`; below a minute in seconds.
fn span(ms: u64) -> String {
    let whole = humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

/// `1 user`, `2 users`.
fn several(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        assert_eq!(span(61_999), "1m 1s");
        assert_eq!(span(3_723_000), "1h 2m");
        assert_eq!(span(900), "0s");
    }
}
