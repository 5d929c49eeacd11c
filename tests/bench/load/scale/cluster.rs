//! What one measurement runs on: a Redis and nodes of one build, nobody else's, and what they use.

use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;
use vigie::Settings;

use super::plan::Shape;
use super::process::Process;
use super::redis::Redis;
use super::spent::Sample;
use super::{Bench, BenchError};
use crate::remote::Remote;
use crate::run::Setup;
use crate::usage::Processes;

/// How long users without connections stay online: short, so that departures happen within a measurement.
const GRACE: &str = "1s";

/// Ends when dropped.
pub(super) struct Cluster {
    // Fields are dropped in order: nodes before their Redis.
    nodes: Vec<Process>,
    pub(super) redis: Redis,
    pub(super) setup: Setup,
    pub(super) shape: Shape,
    /// Logs, and the files of a Redis Cluster.
    scratch: TempDir,
}

impl Cluster {
    /// Starts everything, and waits until the nodes are ready and quiet.
    pub(super) async fn start(
        bench: &Bench,
        vigie: &Path,
        shape: Shape,
    ) -> Result<Self, BenchError> {
        let scratch = tempfile::tempdir_in(bench.scratch.path());
        let scratch = scratch.map_err(|error| BenchError::Own(error.to_string()))?;
        let redis = Redis::start(scratch.path(), shape.masters).await?;
        let file = scratch.path().join("vigie.toml");
        // Without it, nodes would read the one in the current directory.
        std::fs::write(&file, "").map_err(|error| BenchError::Own(error.to_string()))?;
        let settings = bench.settings(&redis.url(), shape);
        let settings = Settings::load(Some(&file), settings);
        let settings = settings.map_err(|error| BenchError::Own(error.to_string()))?;
        let mut cluster = Self {
            nodes: Vec::new(),
            redis,
            setup: Setup {
                target: Remote::at(&[], &[], String::new())?,
                processes: Processes::default(),
                auth: settings.auth,
                threads: bench.threads,
                first_user: bench.first_user,
            },
            shape,
            scratch,
        };
        cluster.add_nodes(bench, vigie, shape.nodes).await?;
        bench.settle().await;
        Ok(cluster)
    }

    /// Starts more nodes, and waits until all are ready.
    pub(super) async fn add_nodes(
        &mut self,
        bench: &Bench,
        vigie: &Path,
        count: usize,
    ) -> Result<(), BenchError> {
        let first = self.nodes.len();
        let words = ["--config".to_owned(), "vigie.toml".to_owned()];
        for place in first..first + count {
            let mut env = bench.settings(&self.redis.url(), self.shape);
            env.push(("VIGIE_NODE__ID".to_owned(), format!("node-{place}")));
            let name = format!("node-{place}");
            self.nodes.push(Process::start(
                self.scratch.path(),
                &name,
                vigie,
                &words,
                &env,
            )?);
        }
        let (mut public, mut internal) = (Vec::new(), Vec::new());
        for node in &mut self.nodes {
            let (its_public, its_internal) = node.until(async |log| listeners(log)).await?;
            public.push(its_public);
            internal.push(its_internal);
        }
        self.setup.target = Remote::at(&public, &internal, bench.api_key.clone())?;
        for (place, node) in self.nodes.iter_mut().enumerate() {
            let target = &self.setup.target;
            let ready = node.until(async |_| target.is_ready(place).await.then_some(()));
            ready.await?;
        }
        self.setup.processes.nodes = self
            .nodes
            .iter()
            .map(|node| node.pid().cast_signed())
            .collect();
        Ok(())
    }

    pub(super) async fn sample(&self) -> Result<Sample, BenchError> {
        Ok(Sample {
            at: Instant::now(),
            redis: self.redis.used().await?,
            nodes: self.setup.processes.sample()?,
        })
    }
}

/// The listeners that a node names once it listens.
fn listeners(log: &str) -> Option<(String, String)> {
    let mut lines = log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let line = lines.find(|line| line.starts_with("vigie listening "))?;
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name))
    };
    Some((field("public=")?.to_owned(), field("internal=")?.to_owned()))
}

impl Bench {
    /// The settings of a node, without its name.
    fn settings(&self, redis: &str, shape: Shape) -> Vec<(String, String)> {
        let partitions = shape.partitions.to_string();
        let settings = [
            ("ENGINE", "redis"),
            ("REDIS__URL", redis),
            ("REDIS__PARTITIONS", &partitions),
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("INTERNAL__LISTEN", "127.0.0.1:0"),
            ("INTERNAL__API_KEY", &self.api_key),
            ("AUTH__SECRET", &self.secret),
            ("PRESENCE__OFFLINE_GRACE", GRACE),
            ("PRESENCE__AUDIENCE", shape.audience.name()),
            ("LOG__LEVEL", "warn"),
        ];
        let named = settings.iter();
        named
            .map(|(name, value)| (format!("VIGIE_{name}"), (*value).to_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_once_the_line_is_whole() {
        let line = "vigie listening public=http://127.0.0.1:1 internal=http://127.0.0.1:2 node=a engine=redis";
        assert_eq!(listeners(line), None);
        let said = listeners(&format!("warning: x\n{line}\n"));
        let listeners = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
        assert_eq!(said, Some(listeners.into()));
    }
}
