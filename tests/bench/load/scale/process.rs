//! Child processes: redis-server and nodes. The kernel ends each with this one, whatever way that goes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::BenchError;

const START_WITHIN: Duration = Duration::from_secs(20);

/// How often a child that starts is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lines of a log that an error shows.
const SHOWN_MAX: usize = 10;

/// A running program; killed when dropped.
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in `scratch`, with these settings of Vigie and no others. It writes to the file `name` there.
    pub(super) fn start(
        scratch: &Path,
        name: &str,
        program: &Path,
        words: &[String],
        env: &[(String, String)],
    ) -> Result<Self, BenchError> {
        let log = scratch.join(name);
        let spawn = || -> io::Result<Child> {
            let out = File::create(&log)?;
            // setpriv (util-linux) replaces itself by the program, so the child's id is the program's.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command.args(words).current_dir(scratch);
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("VIGIE_") {
                    command.env_remove(name);
                }
            }
            command.envs(env.iter().map(|(name, value)| (name, value)));
            command.stdin(Stdio::null()).stderr(out.try_clone()?);
            command.stdout(out).spawn()
        };
        let child = spawn().map_err(|error| {
            BenchError::Own(format!("setpriv (util-linux) starts nothing: {error}"))
        })?;
        Ok(Self {
            name: program.display().to_string(),
            child,
            log,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `condition` has an answer. Fails when the program has ended, or takes too long.
    pub(super) async fn until<T>(
        &mut self,
        mut condition: impl AsyncFnMut(&str) -> Option<T>,
    ) -> Result<T, BenchError> {
        let begun = Instant::now();
        loop {
            let ended = self.child.try_wait().ok().flatten();
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if ended.is_none()
                && let Some(answer) = condition(&log).await
            {
                return Ok(answer);
            }
            if ended.is_some() || begun.elapsed() > START_WITHIN {
                let lines: Vec<&str> = log.lines().collect();
                let shown = &lines[lines.len().saturating_sub(SHOWN_MAX)..];
                return Err(BenchError::NotStarted {
                    program: self.name.clone(),
                    outcome: ended
                        .map_or_else(|| "is not ready in time".to_owned(), |s| s.to_string()),
                    log: shown.join("\n"),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
