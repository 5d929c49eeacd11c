//! `vigie inspect`: shows the data in Redis, as tables or JSON.

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

const LIMIT_MAX: i64 = 10_000;

/// The answer when the data is inside a node.
const MEMORY: &str = "the memory engine keeps everything in its process; ask the node on its internal listener: GET \
                      /api/v1/nodes, /api/v1/presence, /api/v1/matchmaking, /metrics";

#[derive(Args)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    view: Option<InspectView>,
    /// Prints one JSON object instead of tables
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum InspectView {
    /// Live nodes: time left of their leases, connections, users
    Nodes,
    /// Online users, a page at a time
    Online(PageArgs),
    /// Topics by node, and subscribed nodes by online user
    Topics(PageArgs),
    /// One user: connections, last updates, revocations
    User {
        /// The user's id
        id: UserId,
    },
    /// The matchmaking queue
    Queue {
        /// Number of tickets to show, oldest first
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
        limit: u32,
    },
}

#[derive(Args)]
struct PageArgs {
    /// Number of users to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=LIMIT_MAX))]
    limit: u32,
    /// Cursor printed by the previous page
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Cursor>,
}

/// A view in both formats.
struct Rendered {
    text: String,
    json: Value,
}

pub(super) fn run(settings: &Settings, args: &InspectArgs) -> ExitCode {
    match block_on(show(settings, args.view.as_ref()), EXIT_CONFIG) {
        Ok(Ok(Some(shown))) if args.json => print(&format!("{}\n", shown.json)),
        Ok(Ok(Some(shown))) => print_styled(&shown.text),
        Ok(Ok(None)) => fail(EXIT_CONFIG, MEMORY),
        Ok(Err(error)) => fail(EXIT_CONFIG, error),
        Err(code) => code,
    }
}

async fn show(
    settings: &Settings,
    view: Option<&InspectView>,
) -> Result<Option<Rendered>, StartError> {
    let Some(inspector) = inspect::open(settings).await? else {
        return Ok(None);
    };
    Ok(Some(render(&inspector, view).await?))
}

async fn render(
    inspector: &Inspector,
    view: Option<&InspectView>,
) -> Result<Rendered, EngineError> {
    Ok(match view {
        None => overview::show(&inspector.overview().await?),
        Some(InspectView::Nodes) => nodes::show(&inspector.nodes().await?),
        Some(InspectView::Online(page)) => online::show(&page.read(inspector).await?),
        Some(InspectView::Topics(page)) => {
            topics::show(&inspector.nodes().await?, &page.read(inspector).await?)
        }
        Some(InspectView::User { id }) => user::show(&inspector.user(*id).await?),
        Some(InspectView::Queue { limit }) => {
            queue::show(&inspector.queue(*limit).await?, now_ms())
        }
    })
}

impl PageArgs {
    async fn read(&self, inspector: &Inspector) -> Result<inspect::OnlinePage, EngineError> {
        inspector.online(self.cursor, self.limit).await
    }
}

/// A duration in its two largest units, such as `3h 12m`; below a minute in seconds.
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
