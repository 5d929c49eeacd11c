//! One hub process: its addresses, its log, the signals that a test sends it.

use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::eventually;
use super::process::{self, Transcript};

/// How many lines of a node's log a failing test prints.
const LOG_LINES_MAX: usize = 150;

/// The state into which a test has put a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Running,
    Paused,
    Ended,
}

/// A node of a cluster; killed when dropped, and checked for panics.
pub struct Node {
    /// Its place in the cluster.
    pub name: String,
    /// `http://127.0.0.1:PORT` of the public listener.
    pub public: String,
    /// The same of the internal listener.
    pub internal: String,
    life: Mutex<Life>,
    child: Mutex<Child>,
    said: Transcript,
    log: Transcript,
    readers: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts a node with these settings, and those of `file` below them, and waits until it listens. It may have so many
    /// files open, or as many as the test may.
    pub async fn start(
        name: String,
        env: Vec<(String, String)>,
        file: Option<&Path>,
        files: Option<u64>,
    ) -> Self {
        let file = file.map(|file| file.to_str().expect("a path that is text"));
        let arguments: Vec<&str> = file.map_or_else(Vec::new, |file| vec!["--config", file]);
        let mut command = match files {
            Some(files) => process::vigie_with_files(files, &arguments, &env),
            None => process::vigie(&arguments, &env),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) is installed");
        let (said, reads_said) = Transcript::of(child.stdout.take().expect("stdout is piped"));
        let (log, reads_log) = Transcript::of(child.stderr.take().expect("stderr is piped"));
        let mut node = Self {
            name,
            public: String::new(),
            internal: String::new(),
            life: Mutex::new(Life::Running),
            child: Mutex::new(child),
            said,
            log,
            readers: vec![reads_said, reads_log],
        };
        let line = eventually("the node says where it listens", async || {
            let ended = node
                .child()
                .try_wait()
                .expect("the child can be waited for");
            assert!(
                ended.is_none(),
                "node {} ended at once: {ended:?}",
                node.name
            );
            let said = node.said.text();
            let mut lines = said
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines
                .find(|line| line.starts_with("vigie listening "))
                .map(str::to_owned)
        })
        .await;
        node.public = field(&line, "public");
        node.internal = field(&line, "internal");
        node
    }

    /// Its log and output so far.
    pub fn log(&self) -> String {
        self.log.text() + &self.said.text()
    }

    /// Whether the test has stopped, killed or paused it.
    pub fn life(&self) -> Life {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says goodbye (SIGTERM) and waits for the end.
    pub async fn stop(&self) -> ExitStatus {
        self.terminate();
        eventually("the node ends after SIGTERM", async || self.ended()).await
    }

    /// Ends it without a word (SIGKILL).
    pub fn kill(&self) {
        self.set(Life::Ended);
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Says goodbye (SIGTERM) and waits for nothing.
    pub fn terminate(&self) {
        self.set(Life::Ended);
        process::signal(&self.child(), "TERM");
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child()
            .try_wait()
            .expect("the child can be waited for")
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Its resident memory, in bytes.
    pub fn resident_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child().id());
        let status = std::fs::read_to_string(path).expect("the node runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("kB");
        kib * 1024
    }

    /// The arguments of its process, as everybody on the machine sees them.
    pub fn command_line(&self) -> String {
        let path = format!("/proc/{}/cmdline", self.child().id());
        let bytes = std::fs::read(path).expect("the node runs");
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    /// How many files it has open, sockets among them.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child().id());
        std::fs::read_dir(path).expect("the node runs").count()
    }

    /// Has it read its settings again (SIGHUP).
    pub fn hang_up(&self) {
        process::signal(&self.child(), "HUP");
    }

    /// Freezes it (SIGSTOP).
    pub fn pause(&self) {
        self.set(Life::Paused);
        process::signal(&self.child(), "STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.set(Life::Running);
        process::signal(&self.child(), "CONT");
    }

    fn set(&self, life: Life) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
            eprintln!("---- log of node {}\n{}\n----", self.name, shown.join("\n"));
        } else {
            assert!(
                !log.contains("panicked"),
                "node {} panicked:\n{log}",
                self.name
            );
        }
    }
}

/// The value of `name=value` in the line that a node prints when it is ready.
fn field(line: &str, name: &str) -> String {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {name} in {line:?}"))
        .to_owned()
}
