//! Users sign in at once before each other: what an event costs.

use clap::Args;

use super::clients::Count;
use super::error::BenchError;
use super::report::{Report, Unit};
use super::run::{Role, Run, Setup, Size};
use super::usage::Used;
use super::{CONNECTIONS_MAX, print_status};

#[derive(Args)]
pub(super) struct SigninArgs {
    /// Users that sign in, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
}

pub(super) async fn run(setup: &Setup, args: &SigninArgs) -> Result<Report, BenchError> {
    let users = args.connections as usize;
    print_status(&format!(
        "signin: users {} to {} sign in on {} node(s), and leave",
        setup.first_user,
        setup.first_user + users as u64 - 1,
        setup.target.nodes.len()
    ));
    let mut run = SignedIn::prepare(setup, users)?;
    let signed_in = SignedIn::measure(&mut run, users).await?;
    let mut report = run.report("signin", users);
    signed_in.describe(&mut report);
    report.count(
        "dropped",
        "closed by a node",
        run.counters.count(Count::Dropped),
    );
    SignedIn::disconnect(&run, users).await?;
    Ok(report)
}

pub(super) struct SignedIn {
    used: Used,
    events: u64,
    lost: u64,
    duplicates: u64,
    users: u64,
}

impl SignedIn {
    /// Prepares for `users` users, and one guest per node that observes them.
    pub(super) fn prepare(setup: &Setup, users: usize) -> Result<Run<'_>, BenchError> {
        let guests = setup.target.nodes.len();
        let size = Size {
            users,
            ..Size::of_clients(guests + users)
        };
        Run::prepare(setup, size)
    }

    /// Signs the users in. The guests have the first indices.
    pub(super) async fn measure(run: &mut Run<'_>, users: usize) -> Result<Self, BenchError> {
        let nodes = run.nodes();
        let guests = run.open(nodes, Role::Guest, nodes).await?;
        let before = run.sample()?;
        run.open(users, Role::User, nodes).await?;
        let observed = (nodes * users) as u64;
        run.wait_for(Count::Observed, observed, "seeing").await?;
        let events = run.wait_for_quiet(Count::Statuses).await?;
        let used = run.since(&before)?;
        let results = run.results(&guests).await;
        Ok(Self {
            used,
            events,
            lost: observed.saturating_sub(results.totals.statuses),
            duplicates: results.duplicates,
            users: users as u64,
        })
    }

    pub(super) fn describe(&self, report: &mut Report) {
        report.count("events", "events delivered", self.events);
        report.add(
            "events",
            "events delivered",
            Unit::PerSecond,
            self.events as f64 / self.used.elapsed.as_secs_f64(),
        );
        report.cost(&self.used, (self.events, "event"));
        report.redis(&self.used, (self.users, "signin"));
        report.count("lost", "events that guests did not receive", self.lost);
        report.count("duplicates", "received twice", self.duplicates);
    }

    /// Disconnects the users and waits until the guests know, so that the next run finds nobody online.
    pub(super) async fn disconnect(run: &Run<'_>, users: usize) -> Result<(), BenchError> {
        let nodes = run.nodes();
        let already = run.counters.count(Count::Observed);
        run.disconnect(&(nodes..nodes + users)).await?;
        let all = already + (nodes * users) as u64;
        run.wait_for(Count::Observed, all, "leaving").await?;
        run.disconnect(&(0..nodes)).await
    }
}
