//! Child processes that never outlive the test, whatever way it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The root of the project.
pub fn project_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command whose process the kernel kills when the thread that started it ends.
///
/// `setpriv` is in util-linux, which Debian always has; it replaces itself by the program, so the
/// child's id is the program's.
pub fn tethered(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// The binary under test, with none of the settings that the surroundings may hold.
pub fn vigie(arguments: &[&str], env: &[(String, String)]) -> Command {
    program(env!("CARGO_BIN_EXE_vigie"), arguments, env)
}

/// The load generator, in the same surroundings.
#[cfg(feature = "bench")]
pub fn vigie_bench(arguments: &[&str], env: &[(String, String)]) -> Command {
    program(env!("CARGO_BIN_EXE_vigie-bench"), arguments, env)
}

fn program(path: &str, arguments: &[&str], env: &[(String, String)]) -> Command {
    let mut command = tethered(path);
    command.args(arguments);
    // Not the project's directory: `config/vigie.toml` is looked for relative to the current one.
    command.current_dir(std::env::temp_dir());
    for (name, _) in std::env::vars() {
        if name.starts_with("VIGIE_") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command
}

/// The same, with so many open files at most, whatever it asks for.
pub fn vigie_with_files(files: u64, arguments: &[&str], env: &[(String, String)]) -> Command {
    let vigie = vigie(arguments, env);
    // `prlimit` is in util-linux, too, and replaces itself as well.
    let mut command = tethered("prlimit");
    command
        .arg(format!("--nofile={files}:{files}"))
        .arg(env!("CARGO_BIN_EXE_vigie"))
        .args(arguments)
        .current_dir(std::env::temp_dir());
    for (name, value) in vigie.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// How long a command may run.
pub(super) const RUNS_AT_MOST: Duration = Duration::from_secs(60);

/// Runs a command to its end; one that does not end by itself is killed and fails the test.
pub async fn run(command: Command) -> Output {
    run_within(RUNS_AT_MOST, command).await
}

/// The same for a command that may take longer.
pub async fn run_within(limit: Duration, mut command: Command) -> Output {
    command.stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let running = command.kill_on_drop(true).output();
    tokio::time::timeout(limit, running)
        .await
        .unwrap_or_else(|_| panic!("still running after {limit:?}: {command:?}"))
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Text that a child has written so far.
#[derive(Clone, Default)]
pub struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    /// Keeps what `source` says, line by line, from a thread of its own.
    pub fn of(source: impl Read + Send + 'static) -> (Self, std::thread::JoinHandle<()>) {
        let transcript = Self::default();
        let reader = transcript.and(source);
        (transcript, reader)
    }

    /// Keeps what another source says, too.
    pub fn and(&self, source: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        let kept = self.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                kept.lock().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        })
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a signal by name, as `kill` does.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id();
    // The shell's own `kill`: the program of that name may be missing.
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .expect("every system has a shell");
    assert!(status.success(), "cannot send {name} to {pid}");
}

/// A directory that every test may put things into, gone with the value.
pub fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let path = directory.path().to_owned();
    (directory, path)
}
