//! Asking who is online: what a call costs.

use clap::Args;

use super::clients::{Count, Question};
use super::error::BenchError;
use super::report::{Report, Unit};
use super::run::Setup;
use super::signin::SignedIn;
use super::{CONNECTIONS_MAX, UPDATES_MAX, say};

/// Those who ask at once.
const ASKING: usize = 10;

/// How many.
#[derive(Args)]
pub(super) struct OnlineArgs {
    /// Users that are online, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Calls, ten at a time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=UPDATES_MAX))]
    calls: u32,
}

/// Signs users in, has some of them ask, and has all of them leave.
pub(super) async fn run(setup: &Setup, args: &OnlineArgs) -> Result<Report, BenchError> {
    let (users, asking) = (
        args.connections as usize,
        ASKING.min(args.connections as usize),
    );
    let rounds = (args.calls as usize).div_ceil(asking);
    let calls = (rounds * asking) as u64;
    say(&format!(
        "online: users {} to {} sign in on {} node(s), ask {calls} times who is online, and leave",
        setup.first_user,
        setup.first_user + users as u64 - 1,
        setup.target.nodes.len()
    ));
    let mut run = SignedIn::prepare(setup, users)?;
    let signed_in = SignedIn::measure(&mut run, users).await?;

    // The guests have the first places.
    let asking = run.nodes()..run.nodes() + asking;
    run.ask(&asking, Question::OnlineUsers).await?;
    run.harvest(&(0..0)).await;
    let before = run.sample()?;
    for _ in 0..rounds {
        run.ask(&asking, Question::OnlineUsers).await?;
    }
    let used = run.since(&before)?;
    let harvest = run.harvest(&(0..0)).await;

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
    report.latencies("answer", "from the call to the answer", &harvest.answering);
    report.count(
        "ids_min",
        "users in the shortest answer",
        harvest.ids_min.unwrap_or(0),
    );
    report.count(
        "dropped",
        "closed by a node",
        run.tally.count(Count::Dropped),
    );
    SignedIn::leave(&run, users).await?;
    Ok(report)
}
