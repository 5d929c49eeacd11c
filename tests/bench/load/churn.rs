//! Users come and go before observers: what an event costs.

use clap::Args;

use super::clients::Count;
use super::error::BenchError;
use super::report::{Report, Unit};
use super::run::{Role, Run, Setup, Size};
use super::{CONNECTIONS_MAX, print_status};

#[derive(Args)]
pub(super) struct ChurnArgs {
    /// Guests that observe, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Users that come and go, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    users: u32,
}

pub(super) async fn run(setup: &Setup, args: &ChurnArgs) -> Result<Report, BenchError> {
    let (observers, users) = (args.connections as usize, args.users as usize);
    let nodes = setup.target.nodes.len();
    print_status(&format!(
        "churn: users {} to {} come and go on {nodes} node(s), before {observers} guests and each other",
        setup.first_user,
        setup.first_user + users as u64 - 1
    ));
    let size = Size {
        users,
        ..Size::of_clients(observers + users)
    };
    let mut run = Run::prepare(setup, size)?;
    let guests = run.open(observers, Role::Guest, nodes).await?;

    let before = run.sample()?;
    let comings = (observers * users) as u64;
    let came = run.open(users, Role::User, nodes).await?;
    run.wait_for(Count::Observed, comings, "coming").await?;
    run.disconnect(&came).await?;
    run.wait_for(Count::Observed, 2 * comings, "going").await?;
    let events = run.wait_for_quiet(Count::Statuses).await?;
    let used = run.since(&before)?;

    let results = run.results(&guests).await;
    let mut report = run.report("churn", observers);
    report.count("users", "users that came and went", users as u64);
    report.count("events", "events delivered", events);
    report.add(
        "events",
        "events delivered",
        Unit::PerSecond,
        events as f64 / used.elapsed.as_secs_f64(),
    );
    report.cost(&used, (events, "event"));
    report.redis(&used, (2 * users as u64, "change"));
    report.count(
        "lost",
        "events that guests did not receive",
        (2 * comings).saturating_sub(results.totals.statuses),
    );
    report.count("duplicates", "received twice", results.duplicates);
    report.count(
        "dropped",
        "closed by a node",
        run.counters.count(Count::Dropped),
    );
    run.disconnect(&guests).await?;
    Ok(report)
}
