//! Updates at full speed: what one costs all nodes, and whether any is lost.

use clap::Args;

use super::clients::{Count, Query};
use super::error::BenchError;
use super::publish::{Updates, describe};
use super::report::{Report, Unit};
use super::run::{Role, Run, Setup, Size};
use super::{CONNECTIONS_MAX, UPDATES_MAX, print_status};

#[derive(Args)]
pub(super) struct BurstArgs {
    /// Guests that watch, spread over the nodes [default: one for each node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: Option<u32>,
    /// Updates posted
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=UPDATES_MAX))]
    updates: u32,
}

pub(super) async fn run(setup: &Setup, args: &BurstArgs) -> Result<Report, BenchError> {
    let (nodes, user) = (setup.target.nodes.len(), setup.first_user);
    let connections = args.connections.map_or(nodes, |count| count as usize);
    let updates = args.updates as usize;
    print_status(&format!(
        "burst: {connections} guests on {nodes} node(s) watch user {user}; {updates} updates are posted to {}, as fast as \
         it takes them",
        setup.target.base_url()
    ));
    let warm = (updates / 10).max(2);
    let size = Size {
        updates: warm + updates,
        ..Size::of_clients(connections)
    };
    let mut run = Run::prepare(setup, size)?;
    let watchers = run.open(connections, Role::Guest, nodes).await?;
    run.query(&watchers, Query::Watch(user)).await?;

    let mut posted = Updates {
        user,
        watchers: connections as u64,
        timed: false,
    };
    posted.back_to_back(&run, 0..warm).await?;
    posted.timed = true;
    let skipped_before = skipped(&run).await;
    let before = run.sample()?;
    posted.at_full_speed(&run, warm..warm + updates).await?;
    let posting = run.since(&before)?.elapsed;
    let all = (connections * (warm + updates)) as u64;
    run.wait_for(Count::Updates, all, "arriving").await?;
    let skipped = skipped(&run).await.saturating_sub(skipped_before);
    let used = run.since(&before)?;

    let results = run.results(&watchers).await;
    let mut report = run.report("burst", connections);
    report.count("updates", "updates", updates as u64);
    report.add(
        "updates",
        "updates posted",
        Unit::PerSecond,
        updates as f64 / posting.as_secs_f64(),
    );
    report.cost(&used, (updates as u64, "update"));
    describe(
        &run,
        &mut report,
        &results,
        (&watchers, nodes),
        size.updates,
    );
    let label = "updates that nodes skipped for a newer one; they count as not arrived";
    report.count("skipped", label, skipped);
    run.disconnect(&watchers).await?;
    Ok(report)
}

async fn skipped(run: &Run<'_>) -> u64 {
    let mut sum = 0;
    for node in 0..run.nodes() {
        sum += run.target.conflated(node).await.unwrap_or_default();
    }
    sum
}
