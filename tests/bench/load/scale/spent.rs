//! What a cluster used between two samples, and what is left of it without the idle share.

use std::time::{Duration, Instant};

use super::BenchError;
use super::cluster::Cluster;
use super::info::RedisUse;
use crate::usage;

pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) redis: RedisUse,
    pub(super) nodes: usage::Sample,
}

/// Sums over all masters and all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spent {
    pub(super) elapsed: Duration,
    /// Processor time of Redis.
    pub(super) redis: Duration,
    /// Of which in scripts.
    pub(super) script_time: Duration,
    pub(super) scripts: u64,
    pub(super) commands: u64,
    /// Processor time of the nodes.
    pub(super) nodes: Duration,
    /// Growth of the memory that Redis uses, in bytes.
    pub(super) redis_memory: i64,
    /// The same without what clients take.
    pub(super) redis_data: i64,
    /// Growth of the nodes' resident memory, in bytes.
    pub(super) node_memory: i64,
}

impl Spent {
    /// Of one core, in percent.
    pub(super) fn share(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }

    /// Times without what was used while nothing happened, for as long.
    pub(super) fn beyond(&self, idle: &Self) -> Self {
        let times = self.elapsed.as_secs_f64() / idle.elapsed.as_secs_f64();
        let without = |time: Duration, idle: Duration| time.saturating_sub(idle.mul_f64(times));
        Self {
            redis: without(self.redis, idle.redis),
            script_time: without(self.script_time, idle.script_time),
            nodes: without(self.nodes, idle.nodes),
            ..*self
        }
    }
}

impl Cluster {
    pub(super) async fn since(&self, before: &Sample) -> Result<Spent, BenchError> {
        let nodes = self.setup.processes.since(&before.nodes)?;
        let redis = self.redis.used().await?;
        let scripts = redis.scripts().since(before.redis.scripts());
        Ok(Spent {
            elapsed: before.at.elapsed(),
            redis: redis.cpu.saturating_sub(before.redis.cpu),
            script_time: scripts.time,
            scripts: scripts.count,
            commands: redis.commands().saturating_sub(before.redis.commands()),
            nodes: nodes.nodes.iter().sum(),
            redis_data: redis.data() as i64 - before.redis.data() as i64,
            redis_memory: redis.memory as i64 - before.redis.memory as i64,
            node_memory: nodes.memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_share_is_taken_off() {
        let ms = Duration::from_millis;
        let idle = Spent {
            elapsed: ms(10_000),
            redis: ms(1_000),
            script_time: ms(500),
            nodes: ms(200),
            ..Spent::default()
        };
        let busy = Spent {
            elapsed: ms(5_000),
            redis: ms(900),
            script_time: ms(300),
            nodes: ms(50),
            scripts: 100,
            ..Spent::default()
        };
        let left = busy.beyond(&idle);
        assert_eq!((left.redis, left.script_time), (ms(400), ms(50)));
        assert_eq!((left.nodes, left.scripts), (Duration::ZERO, 100));
        assert_eq!(
            (busy.share(busy.redis), busy.per_second(busy.scripts)),
            (18.0, 20.0)
        );
    }
}
