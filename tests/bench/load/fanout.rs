//! Updates of one user to many watchers: what a delivery costs, and how long it takes.

use clap::Args;

use super::clients::{Count, Query};
use super::error::BenchError;
use super::publish::{Updates, describe};
use super::report::{Report, Unit};
use super::run::{Role, Run, Setup, Size};
use super::{CONNECTIONS_MAX, RATE_MAX, SECONDS_MAX, UPDATES_MAX, print_status};

#[derive(Args)]
pub(super) struct FanoutArgs {
    /// Guests that watch, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Updates posted, the next when everybody has received the one before
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=UPDATES_MAX))]
    updates: u32,
    /// Updates posted per second instead, whatever becomes of them
    #[arg(long, value_name = "N", conflicts_with = "updates", value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 10, requires = "rate", value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: u32,
    /// How many of the nodes have watchers, the first first [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    interested: Option<u16>,
}

impl FanoutArgs {
    fn updates(&self) -> usize {
        self.rate.map_or(self.updates, |rate| rate * self.seconds) as usize
    }

    /// Updates posted before the measurement.
    fn warm_up(&self) -> usize {
        (self.updates() / 10).clamp(2, 50)
    }

    fn pace(&self) -> String {
        match self.rate {
            Some(rate) => format!("{rate} a second"),
            None => "one after the other".to_owned(),
        }
    }
}

pub(super) async fn run(setup: &Setup, args: &FanoutArgs) -> Result<Report, BenchError> {
    let (connections, updates) = (args.connections as usize, args.updates());
    let nodes = setup.target.nodes.len();
    let interested = args.interested.map_or(nodes, |of| nodes.min(of.into()));
    let user = setup.first_user;
    print_status(&format!(
        "fanout: {connections} guests on {interested} of {nodes} node(s) watch user {user}; {updates} updates are posted \
         to {}, {}",
        setup.target.base_url(),
        args.pace()
    ));
    let warm = args.warm_up();
    let size = Size {
        updates: warm + updates,
        ..Size::of_clients(connections)
    };
    let mut run = Run::prepare(setup, size)?;
    let watchers = run.open(connections, Role::Guest, interested).await?;
    run.query(&watchers, Query::Watch(user)).await?;

    let mut posted = Updates {
        user,
        watchers: connections as u64,
        timed: false,
    };
    posted.back_to_back(&run, 0..warm).await?;
    posted.timed = true;
    let (before, already) = (run.sample()?, run.counters.count(Count::Updates));
    let numbers = warm..warm + updates;
    match args.rate {
        Some(rate) => posted.at_rate(&run, numbers, rate).await?,
        None => posted.back_to_back(&run, numbers).await?,
    }
    let all = (connections * (warm + updates)) as u64;
    let arrived = run.wait_for(Count::Updates, all, "arriving").await?;
    let used = run.since(&before)?;
    let deliveries = arrived - already;

    let results = run.results(&watchers).await;
    let mut report = run.report("fanout", connections);
    report.count("updates", "updates", updates as u64);
    report.count("deliveries", "deliveries", deliveries);
    report.add(
        "deliveries",
        "deliveries",
        Unit::PerSecond,
        deliveries as f64 / used.elapsed.as_secs_f64(),
    );
    report.cost(&used, (deliveries, "delivery"));
    report.redis(&used, (updates as u64, "update"));
    describe(
        &run,
        &mut report,
        &results,
        (&watchers, interested),
        size.updates,
    );
    run.disconnect(&watchers).await?;
    Ok(report)
}
