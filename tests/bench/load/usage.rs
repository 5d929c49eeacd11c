//! Processor time and resident memory of the nodes, of Redis and of this process.

use std::fs;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no process {pid} to read the use of; {flag} takes the id of a running one")]
pub(super) struct NoProcess {
    pid: i32,
    flag: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    /// The nodes, in the order of the command line; empty without `--pid`.
    pub(super) nodes: Vec<i32>,
    pub(super) redis: Option<i32>,
}

pub(super) struct Sample {
    at: Instant,
    nodes: Vec<Duration>,
    /// The nodes' time in the kernel; in steps of 10 ms.
    system: Duration,
    redis: Option<Duration>,
    load: Duration,
    /// Resident memory of each node, in bytes.
    pub(super) memory: Vec<u64>,
}

/// Usage between two samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Used {
    pub(super) elapsed: Duration,
    /// User and system time of each node.
    pub(super) nodes: Vec<Duration>,
    /// The nodes' time in the kernel.
    pub(super) system: Duration,
    pub(super) redis: Option<Duration>,
    pub(super) load: Duration,
    /// Growth of the nodes' resident memory, in bytes.
    pub(super) memory: i64,
}

impl Used {
    /// Processor time of all nodes; `None` without `--pid`.
    pub(super) fn all_nodes(&self) -> Option<Duration> {
        (!self.nodes.is_empty()).then(|| self.nodes.iter().sum())
    }
}

impl Processes {
    pub(super) fn sample(&self) -> Result<Sample, NoProcess> {
        let mut sample = Sample {
            at: Instant::now(),
            nodes: Vec::new(),
            system: Duration::ZERO,
            redis: None,
            load: load_time(),
            memory: Vec::new(),
        };
        for &pid in &self.nodes {
            let gone = NoProcess { pid, flag: "--pid" };
            let (time, system, memory) = time(pid)
                .zip(system_time(pid))
                .zip(resident_memory(pid))
                .map(|((time, system), memory)| (time, system, memory))
                .ok_or(gone)?;
            sample.nodes.push(time);
            sample.system += system;
            sample.memory.push(memory);
        }
        if let Some(pid) = self.redis {
            let flag = "--redis-pid";
            sample.redis = Some(time(pid).ok_or(NoProcess { pid, flag })?);
        }
        Ok(sample)
    }

    pub(super) fn since(&self, before: &Sample) -> Result<Used, NoProcess> {
        let now = self.sample()?;
        let nodes = now.nodes.iter().zip(&before.nodes);
        let memory = |sample: &Sample| sample.memory.iter().map(|&bytes| bytes as i64).sum::<i64>();
        Ok(Used {
            elapsed: now.at - before.at,
            nodes: nodes
                .map(|(now, before)| now.saturating_sub(*before))
                .collect(),
            system: now.system.saturating_sub(before.system),
            redis: now
                .redis
                .zip(before.redis)
                .map(|(now, before)| now.saturating_sub(before)),
            load: now.load.saturating_sub(before.load),
            memory: memory(&now) - memory(before),
        })
    }
}

/// User and system time of a process, as in `/proc/<pid>/stat` but without its rounding to 10 ms.
fn time(pid: i32) -> Option<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?;
    clock.now().ok().map(Duration::from)
}

fn load_time() -> Duration {
    let now = ClockId::CLOCK_PROCESS_CPUTIME_ID.now();
    now.map_or(Duration::ZERO, Duration::from)
}

fn system_time(pid: i32) -> Option<Duration> {
    /// Fixed since Linux 2.6, whatever the kernel's own clock rate.
    const TICKS_PER_SECOND: u64 = 100;

    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may contain anything; the third field follows its last parenthesis.
    let fields = stat.rsplit_once(')')?.1;
    let ticks: u64 = fields.split_whitespace().nth(12)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// In bytes.
fn resident_memory(pid: i32) -> Option<u64> {
    // `smaps_rollup` is exact; `status` lags behind, but is readable without privileges.
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let exact = exact.ok().and_then(|text| kib(&text, "Rss:"));
    let kib = exact.or_else(|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        kib(&status, "VmRSS:")
    })?;
    Some(kib * 1024)
}

fn kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_pid() -> i32 {
        Pid::this().as_raw()
    }

    #[test]
    fn the_use_of_a_process_is_read() {
        let processes = Processes {
            nodes: vec![own_pid()],
            redis: Some(own_pid()),
        };
        let before = processes.sample().expect("this process is there");
        // Touched memory is resident, and touching it takes time.
        let touched = vec![1_u8; 32 * 1024 * 1024];
        assert!(touched.iter().map(|&byte| u64::from(byte)).sum::<u64>() > 0);
        let used = processes.since(&before).expect("this process is there");
        assert!(used.nodes[0] > Duration::ZERO);
        assert!(used.redis > Some(Duration::ZERO));
        assert!(used.load > Duration::ZERO);
        assert!(used.elapsed > Duration::ZERO);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let processes = Processes {
            nodes: vec![i32::MAX],
            redis: None,
        };
        let error = processes.sample().err().expect("nobody has that id");
        let said = error.to_string();
        assert!(
            said.contains("2147483647") && said.contains("--pid"),
            "{said}"
        );
    }

    #[test]
    fn fields_of_the_kernel_are_read() {
        let text = "Name:\tx\nVmRSS:\t    1234 kB\nRss:   7 kB\n";
        assert_eq!(kib(text, "VmRSS:"), Some(1234));
        assert_eq!(kib(text, "Rss:"), Some(7));
        assert_eq!(kib(text, "Pss:"), None);
        assert!(system_time(own_pid()).is_some());
        assert!(resident_memory(own_pid()).is_some_and(|bytes| bytes > 0));
    }
}
