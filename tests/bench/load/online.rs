//! Asking who is online: what a call costs.

use clap::Args;

use super::clients::{Count, Query};
use super::error::BenchError;
use super::report::{Report, Unit};
use super::run::Setup;
use super::signin::SignedIn;
use super::{CONNECTIONS_MAX, UPDATES_MAX, print_status};

/// Clients that ask at the same time.
const ASKING: usize = 10;

#[derive(Args)]
pub(super) struct OnlineArgs {
    /// Users that are online, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Calls, ten at a time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=UPDATES_MAX))]
    calls: u32,
}

pub(super) async fn run(setup: &Setup, args: &OnlineArgs) -> Result<Report, BenchError> {
    let (users, asking) = (
        args.connections as usize,
        ASKING.min(args.connections as usize),
    );
    let rounds = (args.calls as usize).div_ceil(asking);
    let calls = (rounds * asking) as u64;
    print_status(&format!(
        "online: users {} to {} sign in on {} node(s), ask {calls} times who is online, and leave",
        setup.first_user,
        setup.first_user + users as u64 - 1,
        setup.target.nodes.len()
    ));
    let mut run = SignedIn::prepare(setup, users)?;
    let signed_in = SignedIn::measure(&mut run, users).await?;

    // The guests have the first indices.
    let asking = run.nodes()..run.nodes() + asking;
    run.query(&asking, Query::OnlineUsers).await?;
    run.results(&(0..0)).await;
    let before = run.sample()?;
    for _ in 0..rounds {
        run.query(&asking, Query::OnlineUsers).await?;
    }
    let used = run.since(&before)?;
    let results = run.results(&(0..0)).await;

    let mut report = run.report("online", users);
    signed_in.describe(&mut report);
    report.count("calls", "calls", calls);
    report.add(
        "calls",
        "calls",
        Unit::PerSecond,
        calls as f64 / used.elapsed.as_secs_f64(),
    );
    report.cost(&used, (calls, "call"));
    report.latencies("answer", "from the call to the answer", &results.acks);
    report.count(
        "ids_min",
        "users in the shortest answer",
        results.ids_min.unwrap_or(0),
    );
    report.count(
        "dropped",
        "closed by a node",
        run.counters.count(Count::Dropped),
    );
    SignedIn::disconnect(&run, users).await?;
    Ok(report)
}
