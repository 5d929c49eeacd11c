//! What one thing costs Redis and the nodes: a sign-in, an update, a topic; in time and in bytes.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::cluster::Cluster;
use super::crowd::{Crowd, Flow};
use super::spent::Spent;
use super::{Bench, BenchError};
use crate::clients::{Count, Query};
use crate::publish::Updates;
use crate::report::{Report, Unit, per};
use crate::run::{Role, Run, Size};

/// Users that sign in a second.
const SIGNINS_PER_SECOND: u32 = 250;

/// Concurrent requests of updates that nobody watches.
const REQUESTS: usize = 16;

pub(super) async fn measure(
    bench: &Bench,
    cluster: &Cluster,
    idle: &Spent,
    report: &mut Report,
) -> Result<(), BenchError> {
    sign_in(bench, cluster, idle, report).await?;
    update(bench, cluster, idle, report).await?;
    store(bench, cluster, report).await?;
    watch(bench, cluster, idle, report).await
}

fn bytes_each(report: &mut Report, name: &str, label: &str, (bytes, count): (i64, usize)) {
    report.add(name, label, Unit::Bytes, bytes as f64 / count as f64);
}

/// Users sign in for the first time, at a steady rate, and stay.
async fn sign_in(
    bench: &Bench,
    cluster: &Cluster,
    idle: &Spent,
    report: &mut Report,
) -> Result<(), BenchError> {
    let users = bench.amounts.signins;
    let mut crowd = Crowd::gather(&cluster.setup, cluster.shape.nodes, users)?;
    let before = cluster.sample().await?;
    let time = Duration::from_secs_f64(users as f64 / f64::from(SIGNINS_PER_SECOND));
    let flow = Flow::begin(SIGNINS_PER_SECOND, Duration::MAX);
    flow.run_for(&mut crowd, time).await?;
    crowd.settle().await?;
    let spent = cluster.since(&before).await?.beyond(idle);
    bench.settle().await;
    let grown = cluster.since(&before).await?;

    let count = crowd.counters.count(Count::Connected);
    let each = |time| per(time, count);
    let unit = Unit::Microseconds;
    report.add(
        "signin_redis",
        "first connection of a user: Redis",
        unit,
        each(spent.redis),
    );
    report.add(
        "signin_script",
        "first connection of a user: Redis, in scripts alone",
        unit,
        each(spent.script_time),
    );
    let count = count as usize;
    bytes_each(
        report,
        "redis_per_user",
        "a user online: memory of Redis",
        (grown.redis_data, count),
    );
    let label = "a user connected: resident memory of all nodes";
    bytes_each(report, "nodes_per_user", label, (grown.node_memory, count));
    crowd.disperse().await?;
    bench.settle().await;
    Ok(())
}

/// Updates of one user: with one node listening, one after the other and many at once; with all nodes, many at once.
async fn update(
    bench: &Bench,
    cluster: &Cluster,
    idle: &Spent,
    report: &mut Report,
) -> Result<(), BenchError> {
    let (setup, nodes, updates) = (&cluster.setup, cluster.shape.nodes, bench.amounts.updates);
    let warm = (updates / 10).max(2);
    let size = Size {
        updates: 3 * (warm + updates),
        ..Size::of_clients(1 + nodes)
    };
    let mut run = Run::prepare(setup, size)?;
    let mut watchers = 0;
    for (round, (name, label, listening)) in [
        ("update", "one update, one node listening", 1),
        (
            "update_busy",
            "one update of many at once, one node listening",
            1,
        ),
        (
            "update_everywhere",
            "one update of many at once, all nodes listening",
            nodes,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (busy, everywhere) = (round > 0, round == 2);
        if !busy || everywhere {
            let guests = run.open(listening, Role::Guest, listening).await?;
            run.query(&guests, Query::Watch(setup.first_user)).await?;
            watchers += guests.len();
        }
        let posted = Updates {
            user: setup.first_user,
            watchers: watchers as u64,
            timed: false,
        };
        let numbers = round * (warm + updates)..(round + 1) * (warm + updates);
        posted
            .back_to_back(&run, numbers.start..numbers.start + warm)
            .await?;
        let (before, numbers) = (cluster.sample().await?, numbers.start + warm..numbers.end);
        match busy {
            true => posted.at_full_speed(&run, numbers).await?,
            false => posted.back_to_back(&run, numbers).await?,
        }
        let spent = cluster.since(&before).await?.beyond(idle);
        let mut add = |what: &str, of: &str, time| {
            let each = per(time, updates as u64);
            report.add(
                &format!("{name}_{what}"),
                &format!("{label}: {of}"),
                Unit::Microseconds,
                each,
            );
        };
        add("redis", "Redis", spent.redis);
        add("script", "Redis, in scripts alone", spent.script_time);
        add("nodes", "all nodes", spent.nodes);
        // Those that are under way to the watchers would count as the next round's.
        run.wait_for_quiet(Count::Updates).await?;
    }
    run.disconnect(&(0..watchers)).await
}

/// Updates of many users, whom nobody watches.
async fn store(bench: &Bench, cluster: &Cluster, report: &mut Report) -> Result<(), BenchError> {
    let (setup, users) = (&cluster.setup, bench.amounts.stored);
    bench.settle().await;
    let before = cluster.sample().await?;
    // The first user's is stored already.
    let users_after_first = setup.first_user + 1..=setup.first_user + users as u64;
    stream::iter(users_after_first)
        .map(|user| setup.target.publish(user, 0))
        .buffer_unordered(REQUESTS)
        .try_collect::<()>()
        .await?;
    bench.settle().await;
    let grown = cluster.since(&before).await?.redis_data;
    bytes_each(
        report,
        "redis_per_update",
        "an update stored: memory of Redis",
        (grown, users),
    );
    Ok(())
}

/// Guests on the first node watch users whom nobody else watches, each as many as it may.
async fn watch(
    bench: &Bench,
    cluster: &Cluster,
    idle: &Spent,
    report: &mut Report,
) -> Result<(), BenchError> {
    /// `limits.watches` by default.
    const EACH: usize = 100;

    let guests = bench.amounts.watchers;
    let mut run = Run::prepare(&cluster.setup, Size::of_clients(guests))?;
    let guests = run.open(guests, Role::Guest, 1).await?;
    bench.settle().await;
    let before = cluster.sample().await?;
    for round in 0..EACH {
        // Not those of whom updates are stored: a topic then holds them, too.
        let first = cluster.setup.first_user + 1_000_000 + (round * guests.len()) as u64;
        run.query_each(&guests, |place| Query::Watch(first + place as u64))
            .await?;
    }
    let spent = cluster.since(&before).await?.beyond(idle);
    bench.settle().await;
    let grown = cluster.since(&before).await?;
    let topics = guests.len() * EACH;
    let each = per(spent.redis, topics as u64);
    report.add(
        "topic_redis",
        "first watcher of a user on a node: Redis",
        Unit::Microseconds,
        each,
    );
    let label = "a topic of a node: memory of Redis";
    bytes_each(
        report,
        "redis_per_topic",
        label,
        (grown.redis_memory, topics),
    );
    let label = "a topic: resident memory of the node";
    bytes_each(report, "node_per_topic", label, (grown.node_memory, topics));
    run.disconnect(&guests).await
}
