//! Updates that matter to the first node alone: what they cost the others.

use std::time::Duration;

use clap::Args;

use super::clients::Query;
use super::error::BenchError;
use super::publish::{Updates, describe};
use super::report::{Report, Unit, per};
use super::run::{Role, Run, Setup, Size};
use super::usage::Used;
use super::{CONNECTIONS_MAX, UPDATES_MAX, print_status};

/// How long the idle usage of the nodes is measured.
const CALM: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct SelectiveArgs {
    /// Guests that watch, all on the first node
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Updates posted, the next when everybody has received the one before
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=UPDATES_MAX))]
    updates: u32,
}

pub(super) async fn run(setup: &Setup, args: &SelectiveArgs) -> Result<Report, BenchError> {
    let (connections, updates) = (args.connections as usize, args.updates as usize);
    let (nodes, user) = (setup.target.nodes.len(), setup.first_user);
    if nodes < 2 {
        return Err(BenchError::OneNode);
    }
    print_status(&format!(
        "selective: {connections} guests on the first of {nodes} nodes watch user {user}; {updates} updates are posted \
         to it, one after the other"
    ));
    let warm = (updates / 10).max(2);
    let size = Size {
        updates: warm + updates,
        ..Size::of_clients(connections)
    };
    let mut run = Run::prepare(setup, size)?;
    let watchers = run.open(connections, Role::Guest, 1).await?;
    run.query(&watchers, Query::Watch(user)).await?;
    let mut posted = Updates {
        user,
        watchers: connections as u64,
        timed: false,
    };
    posted.back_to_back(&run, 0..warm).await?;

    let before = run.sample()?;
    run.hold(CALM, "calm").await?;
    let calm = run.since(&before)?;
    posted.timed = true;
    // Reading the metric costs time, too, so it is outside of the measurement.
    let messages_before = messages_elsewhere(&run).await;
    let before = run.sample()?;
    posted.back_to_back(&run, warm..warm + updates).await?;
    let used = run.since(&before)?;
    let messages = messages_elsewhere(&run).await.zip(messages_before);

    let results = run.results(&watchers).await;
    let mut report = run.report("selective", connections);
    let updates = updates as u64;
    report.count("updates", "updates", updates);
    describe_elsewhere(&mut report, &used, &calm, updates);
    report.add(
        "messages_elsewhere",
        "messages about users that the other nodes received",
        Unit::Count,
        messages.map(|(now, before)| (now - before) as f64),
    );
    report.cost(&used, (updates, "update"));
    describe(&run, &mut report, &results, (&watchers, 1), size.updates);
    run.disconnect(&watchers).await?;
    Ok(report)
}

/// Adds what an update cost a node without watchers: in total, and without the node's idle usage.
fn describe_elsewhere(report: &mut Report, used: &Used, calm: &Used, updates: u64) {
    let others = used.nodes.len().saturating_sub(1);
    if others == 0 {
        return;
    }
    let elsewhere = |used: &Used| used.nodes[1..].iter().sum::<Duration>() / others as u32;
    let all = elsewhere(used);
    let share = elsewhere(calm).as_secs_f64() / calm.elapsed.as_secs_f64();
    let without = all.saturating_sub(used.elapsed.mul_f64(share));
    report.add(
        "elsewhere_cpu_per_update",
        "processor time of each other node per update",
        Unit::Microseconds,
        per(without, updates),
    );
    report.add(
        "elsewhere_all_cpu_per_update",
        "the same with what it uses when nothing happens",
        Unit::Microseconds,
        per(all, updates),
    );
}

async fn messages_elsewhere(run: &Run<'_>) -> Option<u64> {
    let mut sum = 0;
    for node in 1..run.nodes() {
        sum += run.target.topic_messages(node).await?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(seconds: u64, ms: &[u64]) -> Used {
        Used {
            elapsed: Duration::from_secs(seconds),
            nodes: ms.iter().map(|&ms| Duration::from_millis(ms)).collect(),
            ..Used::default()
        }
    }

    #[test]
    fn what_a_calm_node_uses_is_taken_off() {
        let mut report = Report::new("selective");
        // The others used 30 ms each in 10 s, of which 20 ms is idle usage.
        let (busy, calm) = (used(10, &[500, 20, 40]), used(5, &[5, 10, 10]));
        describe_elsewhere(&mut report, &busy, &calm, 1000);
        let figures = report.json();
        assert_eq!(figures["elsewhere_all_cpu_per_update_us"], 30.0);
        assert_eq!(figures["elsewhere_cpu_per_update_us"], 10.0);
    }

    #[test]
    fn without_processes_there_are_no_figures() {
        let mut report = Report::new("selective");
        describe_elsewhere(&mut report, &used(1, &[]), &used(1, &[]), 10);
        assert_eq!(report.json().as_object().map(serde_json::Map::len), Some(1));
    }
}
