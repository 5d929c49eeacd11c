//! Nodes × partitions × coming and going on a private Redis: what each costs, beside another build.
//!
//! Unlike the other scenarios this one starts what it measures: for each cell of its plan, and for each build, a Redis
//! and nodes of its own, one after the other. All of it ends with the run.

mod churn;
mod cluster;
mod crowd;
mod elsewhere;
mod floor;
mod info;
mod plan;
mod process;
mod reckon;
mod redis;
mod spent;
mod table;
mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::cluster::Cluster;
use self::plan::{Audience, Cell, cells};
use self::reckon::Reckoning;
use self::table::Measured;
use super::error::BenchError;
use super::report::{Report, Unit};
use super::{Options, SECONDS_MAX, print_status};

#[derive(Args)]
pub(super) struct ScaleArgs {
    /// Build of vigie to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    vigie: Option<PathBuf>,
    /// Another build, measured in turn with it and shown beside it
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Masters; more than one form a Redis Cluster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    masters: u8,
    /// Numbers of nodes. This and the next two options replace the default plan by their combinations
    #[arg(long = "nodes", value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    node_counts: Vec<u32>,
    /// Numbers of partitions
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: Vec<u32>,
    /// Comings and goings a second; idle is measured in any case
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=2_000))]
    churn: Vec<u32>,
    /// Recipients of user-status-change in these combinations [default: everyone]
    #[arg(long)]
    audience: Option<Audience>,
    /// For how long idle, and each rate, are measured [default: 20, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: Option<u32>,
    /// Small numbers: shows that all of it works; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Also reckons 1 and 10 million users online from the figures of the default plan
    #[arg(long, conflicts_with_all = ["node_counts", "partitions", "churn", "audience"])]
    reckon: bool,
}

impl ScaleArgs {
    fn is_grid(&self) -> bool {
        let lists = [&self.node_counts, &self.partitions, &self.churn];
        lists.iter().any(|list| !list.is_empty()) || self.audience.is_some()
    }
}

/// How much of each is measured.
struct Amounts {
    time: Duration,
    /// Until nodes are quiet: they have begun their leases and found their partitions, everybody who left is offline,
    /// memory is given back. Longer than a heartbeat (2 s).
    settle: Duration,
    /// Users who sign in. With audience everyone each sees all others come.
    signins: usize,
    /// Updates of one user.
    updates: usize,
    /// Users of whom an update is stored.
    stored: usize,
    /// Guests, each of whom watches a hundred users.
    watchers: usize,
    /// Users online elsewhere.
    elsewhere: usize,
    /// Plain commands.
    floor: usize,
}

impl Amounts {
    fn of(args: &ScaleArgs) -> Self {
        let (seconds, settle, times) = if args.quick { (3, 1, 1) } else { (20, 4, 100) };
        Self {
            time: Duration::from_secs(args.seconds.unwrap_or(seconds).into()),
            settle: Duration::from_secs(settle),
            signins: 10 * times,
            updates: 20 * times,
            stored: 10 * times,
            watchers: times,
            elsewhere: 2_000 * times,
            floor: 200 * times,
        }
    }
}

/// Amounts, keys and folders that all clusters of a run share.
struct Bench {
    /// Holds a folder for each cluster.
    scratch: TempDir,
    amounts: Amounts,
    threads: usize,
    first_user: u64,
    /// Keys of this run, which nodes find in their environment.
    api_key: String,
    secret: String,
}

impl Bench {
    async fn settle(&self) {
        tokio::time::sleep(self.amounts.settle).await;
    }
}

/// The result of a run.
pub(super) struct Scale {
    masters: usize,
    cells: Vec<Measured>,
    reckoning: Option<Reckoning>,
}

impl Scale {
    pub(super) fn table(&self) -> String {
        let reckoned = self.reckoning.as_ref().map(Reckoning::markdown);
        let reckoned = reckoned.map(|text| format!("\n{text}")).unwrap_or_default();
        format!("{}{reckoned}", table::markdown(&self.cells))
    }

    /// `{"scenario": "scale", "masters": 1, "cells": […]}`
    pub(super) fn json(&self) -> Value {
        let mut object = json!({
            "scenario": "scale",
            "masters": self.masters,
            "cells": table::json(&self.cells),
        });
        if let Some(reckoning) = &self.reckoning {
            object["reckoning"] = reckoning.json();
        }
        object
    }
}

pub(super) async fn run(args: &ScaleArgs, options: &Options) -> Result<Scale, BenchError> {
    if options.names_nodes() {
        return Err(BenchError::OwnNodes);
    }
    let vigie = match &args.vigie {
        Some(file) => absolute(file)?,
        None => beside()?,
    };
    let before = args.before.as_deref().map(absolute).transpose()?;
    let key = || {
        let bytes: [u8; 32] = rand::random();
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let scratch = tempfile::Builder::new().prefix("vigie-bench-").tempdir();
    let bench = Bench {
        scratch: scratch.map_err(|error| BenchError::Own(error.to_string()))?,
        amounts: Amounts::of(args),
        threads: options.threads.into(),
        first_user: options.first_user,
        api_key: key(),
        secret: key(),
    };
    let plan = cells(args);
    let mut measured = Vec::new();
    for (place, cell) in plan.iter().enumerate() {
        let step = format!("scale: {} of {}: {}", place + 1, plan.len(), cell.shape);
        let now = async || {
            print_status(&step);
            cell.measure(&bench, &vigie).await
        };
        let earlier = async || match &before {
            Some(before) => {
                print_status(&format!("{step}, before"));
                cell.measure(&bench, before).await.map(Some)
            }
            None => Ok(None),
        };
        // Each build is the first in half of the cells.
        let (before, now) = if place % 2 == 0 {
            let before = earlier().await?;
            (before, now().await?)
        } else {
            let now = now().await?;
            (earlier().await?, now)
        };
        measured.push(Measured {
            shape: Some(cell.shape),
            now,
            before,
        });
    }
    // At a lower rate, looking for departures costs as much, and finds fewer.
    let rate = plan.iter().flat_map(|cell| &cell.churn).max();
    let reckoning = match rate.filter(|_| args.reckon) {
        Some(rate) => Some(
            Reckoning::of(&measured, *rate)
                .ok_or_else(|| BenchError::Own("a figure to reckon with is missing".to_owned()))?,
        ),
        None => None,
    };
    print_status("scale: plain commands");
    measured.push(Measured {
        shape: None,
        now: floor::measure(&bench).await?,
        before: None,
    });
    Ok(Scale {
        masters: args.masters.into(),
        cells: measured,
        reckoning,
    })
}

impl Cell {
    async fn measure(&self, bench: &Bench, vigie: &Path) -> Result<Report, BenchError> {
        let mut report = Report::new("scale");
        let cluster = Cluster::start(bench, vigie, self.shape).await?;
        let before = cluster.sample().await?;
        tokio::time::sleep(bench.amounts.time).await;
        let idle = cluster.since(&before).await?;
        let nodes = self.shape.nodes as f64;
        let label = "idle: Redis, of one core";
        report.add("idle_redis", label, Unit::Percent, idle.share(idle.redis));
        let label = "idle: each node, of one core";
        report.add(
            "idle_node",
            label,
            Unit::Percent,
            idle.share(idle.nodes) / nodes,
        );
        let label = "idle: script calls";
        report.add(
            "idle_scripts",
            label,
            Unit::PerSecond,
            idle.per_second(idle.scripts),
        );
        let label = "idle: commands, those in scripts included";
        report.add(
            "idle_commands",
            label,
            Unit::PerSecond,
            idle.per_second(idle.commands),
        );
        let clients = before.redis.clients as f64 / nodes / self.shape.masters as f64;
        let label = "connections of each node to each master";
        report.add("redis_clients_per_node", label, Unit::Ratio, clients);
        for &rate in &self.churn {
            churn::measure(bench, &cluster, rate, &idle, &mut report).await?;
            bench.settle().await;
        }
        if self.units {
            units::measure(bench, &cluster, &idle, &mut report).await?;
            drop(cluster);
            elsewhere::measure(bench, vigie, self.shape.audience, &mut report).await?;
        }
        Ok(report)
    }
}

/// Nodes run in another directory.
fn absolute(file: &Path) -> Result<PathBuf, BenchError> {
    file.canonicalize().map_err(|error| BenchError::NoBuild {
        file: file.to_owned(),
        error,
    })
}

fn beside() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(|error| BenchError::Own(error.to_string()))?;
    absolute(&own.with_file_name("vigie"))
}
