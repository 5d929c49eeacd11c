//! Opening connections: what one costs the nodes, in processor time and in memory.

use std::time::Duration;

use clap::Args;

use super::clients::{Count, Results};
use super::error::BenchError;
use super::report::{Report, Unit};
use super::run::{Role, Run, Setup, Size};
use super::usage::Used;
use super::{CONNECTIONS_MAX, print_status};

/// Time for memory to settle.
const REST: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(super) struct ConnectArgs {
    /// Guests that connect, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
}

pub(super) async fn run(setup: &Setup, args: &ConnectArgs) -> Result<Report, BenchError> {
    let connections = args.connections as usize;
    print_status(&format!(
        "connect: {connections} guests connect to {} node(s), and leave",
        setup.target.nodes.len()
    ));
    let mut run = Run::prepare(setup, Size::of_clients(connections))?;
    let opened = Opened::measure(&mut run, connections).await?;
    run.disconnect(&(0..connections)).await?;
    let mut report = run.report("connect", connections);
    opened.describe(&mut report);
    report.count(
        "dropped",
        "closed by a node",
        run.counters.count(Count::Dropped),
    );
    Ok(report)
}

pub(super) struct Opened {
    count: usize,
    used: Used,
    memory: i64,
    results: Results,
}

impl Opened {
    /// The first fifth warms the nodes up and is not measured.
    pub(super) async fn measure(run: &mut Run<'_>, connections: usize) -> Result<Self, BenchError> {
        let (warm, nodes) = (connections / 5, run.nodes());
        run.open(warm, Role::Guest, nodes).await?;
        run.hold(REST, "resting").await?;
        run.results(&(0..0)).await;
        let before = run.sample()?;
        run.open(connections - warm, Role::Guest, nodes).await?;
        let used = run.since(&before)?;
        run.hold(REST, "resting").await?;
        Ok(Self {
            count: connections - warm,
            used,
            memory: run.since(&before)?.memory,
            results: run.results(&(0..0)).await,
        })
    }

    pub(super) fn describe(&self, report: &mut Report) {
        let count = self.count as u64;
        report.count("opened", "connections opened and measured", count);
        report.add(
            "opened",
            "connections opened",
            Unit::PerSecond,
            count as f64 / self.used.elapsed.as_secs_f64(),
        );
        report.cost(&self.used, (count, "connection"));
        report.add(
            "memory_per_connection",
            "resident memory of the nodes per connection",
            Unit::Kibibytes,
            self.used
                .all_nodes()
                .map(|_| self.memory as f64 / 1024.0 / self.count as f64),
        );
        let opening = &self.results.opening;
        report.latencies("opening", "from TCP to being connected", opening);
    }
}
