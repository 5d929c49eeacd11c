//! Resident memory of a node per user who is online on other nodes.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::plan::{Audience, Shape};
use super::redis::command;
use super::{Bench, BenchError};
use crate::report::{Report, Unit};

/// Users that one command adds.
const BATCH: usize = 1_000;

const READ_WITHIN: Duration = Duration::from_secs(30);

/// Compares a node that started before these users were online with one that started afterwards. Nobody signs in: the
/// users are put into Redis, because the same number of connections would not fit into one machine.
pub(super) async fn measure(
    bench: &Bench,
    vigie: &std::path::Path,
    audience: Audience,
    report: &mut Report,
) -> Result<(), BenchError> {
    let shape = Shape {
        nodes: 1,
        partitions: 1,
        audience,
        // On a Cluster it is not the first that holds them; nodes keep the same of them.
        masters: 1,
    };
    let mut cluster = Cluster::start(bench, vigie, shape).await?;
    let users = bench.amounts.elsewhere;
    let ids: Vec<String> = (0..users)
        .map(|place| (bench.first_user + place as u64).to_string())
        .collect();
    for batch in ids.chunks(BATCH) {
        let add = format!("SADD vigie:{{0}}:online {}", batch.join(" "));
        command::<i64>(cluster.redis.client(), &add).await?;
    }
    cluster.add_nodes(bench, vigie, 1).await?;
    // Without a replica a node has nothing to read.
    if audience == Audience::Everyone {
        wait_for_online(&cluster, users).await?;
    }
    bench.settle().await;
    let memory = cluster.setup.processes.sample()?.memory;
    let label = "a user online elsewhere: resident memory of each node";
    let grown = memory[1] as f64 - memory[0] as f64;
    report.add(
        "node_per_user_elsewhere",
        label,
        Unit::Bytes,
        grown / users as f64,
    );
    Ok(())
}

/// Waits until the second node sees so many users online.
async fn wait_for_online(cluster: &Cluster, users: usize) -> Result<(), BenchError> {
    let begun = Instant::now();
    while cluster.setup.target.online_users(1).await != Some(users as u64) {
        if begun.elapsed() > READ_WITHIN {
            return Err(BenchError::Own(format!(
                "a node does not see {users} users online"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
