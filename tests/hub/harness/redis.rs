//! A Redis of the test's own, on a free port, that keeps nothing.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::process;

/// A running `redis-server`; killed when dropped.
pub struct Redis {
    port: u16,
    child: Mutex<Child>,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        // The port is free when it is looked for and may be taken a moment later: then try another.
        for _ in 0..10 {
            if let Some(redis) = Self::start_on(free_port()).await {
                return redis;
            }
        }
        panic!("redis-server does not start; is it installed? (tests/run installs it)");
    }

    async fn start_on(port: u16) -> Option<Self> {
        let (directory, path) = process::scratch();
        let redis = Self {
            port,
            child: Mutex::new(spawn(port, &path)),
            directory,
        };
        redis.answers().await.then_some(redis)
    }

    /// Freezes it (SIGSTOP): connections stay open, and nobody answers.
    pub fn pause(&self) {
        process::signal(&self.child(), "STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        process::signal(&self.child(), "CONT");
    }

    /// Ends it without a word (SIGKILL); all that it held is lost.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it again, empty, on the same port, after [`kill`](Self::kill).
    pub async fn start_again(&self) {
        *self.child() = spawn(self.port, self.directory.path());
        assert!(self.answers().await, "redis-server does not start again");
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this very process answers; a stranger on the same port is not taken for it.
    async fn answers(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let (pid, ended) = {
                let mut child = self.child();
                (
                    child.id(),
                    child.try_wait().is_ok_and(|status| status.is_some()),
                )
            };
            if ended {
                return false;
            }
            let info = self.cli(&["INFO", "server"]).await;
            if info
                .lines()
                .any(|line| line.trim() == format!("process_id:{pid}"))
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs `redis-cli` as an operator would and returns what it printed, trimmed.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments);
        let output = process::run(command).await;
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The lines of an answer, in order of the text; empty for an empty one.
    pub async fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let answer = self.cli(arguments).await;
        let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.is_empty());
        lines.sort();
        lines
    }

    /// An answer that is a number.
    pub async fn number(&self, arguments: &[&str]) -> u64 {
        let answer = self.cli(arguments).await;
        answer
            .parse()
            .unwrap_or_else(|_| panic!("{arguments:?} answered {answer:?}"))
    }

    /// Which keys match a pattern.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        self.lines(&["KEYS", pattern]).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(port: u16, directory: &Path) -> Child {
    process::tethered("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--logfile", "redis.log", "--dir"])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) is installed")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}
