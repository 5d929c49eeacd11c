//! Holding connections that do nothing but answer the nodes' pings.

use std::time::Duration;

use clap::Args;

use super::clients::Count;
use super::connect::Opened;
use super::error::BenchError;
use super::report::{Report, Unit};
use super::run::{Run, Setup, Size};
use super::{CONNECTIONS_MAX, SECONDS_MAX, print_status};

#[derive(Args)]
pub(super) struct IdleArgs {
    /// Guests that connect, spread over the nodes
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// How long they stay; nodes ping each of them every 25 seconds, so take a multiple of that
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: u32,
}

pub(super) async fn run(setup: &Setup, args: &IdleArgs) -> Result<Report, BenchError> {
    let (connections, seconds) = (args.connections as usize, args.seconds);
    print_status(&format!(
        "idle: {connections} guests connect to {} node(s), do nothing for {seconds} s, and leave",
        setup.target.nodes.len()
    ));
    let mut run = Run::prepare(setup, Size::of_clients(connections))?;
    let opened = Opened::measure(&mut run, connections).await?;
    let before = run.sample()?;
    run.hold(Duration::from_secs(seconds.into()), "idle")
        .await?;
    let used = run.since(&before)?;
    let dropped = run.counters.count(Count::Dropped);
    run.disconnect(&(0..connections)).await?;

    let share = |time: Duration| 100.0 * time.as_secs_f64() / used.elapsed.as_secs_f64();
    let mut report = run.report("idle", connections);
    opened.describe(&mut report);
    report.add(
        "idle_cpu",
        "processor time of the nodes while idle, of one core",
        Unit::Percent,
        used.all_nodes().map(share),
    );
    report.add(
        "idle_redis_cpu",
        "processor time of Redis while idle, of one core",
        Unit::Percent,
        used.redis.map(share),
    );
    report.count("dropped", "closed by a node", dropped);
    Ok(report)
}
