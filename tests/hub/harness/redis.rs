//! A Redis of the test's own, on a free port, that keeps nothing unless it is told to `SAVE`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::certificates::Certificate;
use super::process;

/// The Sentinels' name of the Redis that they watch.
pub const SERVICE: &str = "vigie-tests";

/// A running `redis-server`; killed when dropped.
pub struct Redis {
    port: u16,
    options: Vec<String>,
    child: Mutex<Child>,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with these options.
    pub async fn start_with(options: &[&str]) -> Self {
        // The port is free when it is looked for and may be taken a moment later: then try another.
        for _ in 0..10 {
            if let Some(redis) = Self::start_on(free_port(), options).await {
                return redis;
            }
        }
        panic!("redis-server does not start; is it installed? (tests/run installs it)");
    }

    /// Starts one that also takes encrypted connections, on a port of their own, and presents this certificate.
    pub async fn start_encrypted(certificate: &Certificate) -> Self {
        for _ in 0..10 {
            let (directory, path) = process::scratch();
            certificate.write_to(&path);
            let (port, encrypted) = (free_port(), free_port().to_string());
            // The authority is for clients' certificates, of which there are none, and has to be some file.
            let options = [
                ["--tls-port", &encrypted],
                ["--tls-cert-file", "server.crt"],
                ["--tls-key-file", "server.key"],
                ["--tls-ca-cert-file", "server.crt"],
                ["--tls-auth-clients", "no"],
            ];
            let options = options.concat();
            if let Some(redis) = Self::start_in((directory, path), port, &options).await {
                return redis;
            }
        }
        panic!("redis-server does not start with TLS; was it built with it?");
    }

    async fn start_on(port: u16, options: &[&str]) -> Option<Self> {
        Self::start_in(process::scratch(), port, options).await
    }

    async fn start_in(
        (directory, path): (tempfile::TempDir, PathBuf),
        port: u16,
        options: &[&str],
    ) -> Option<Self> {
        let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
        let redis = Self {
            port,
            child: Mutex::new(spawn(port, &path, &options)),
            options,
            directory,
        };
        redis.answers().await.then_some(redis)
    }

    /// Starts a Sentinel that watches over `primary` under the name [`SERVICE`], alone.
    pub async fn start_sentinel(primary: &Self) -> Self {
        for _ in 0..10 {
            let (directory, path) = process::scratch();
            let port = free_port();
            // Sentinel writes into its configuration.
            let file = path.join("sentinel.conf");
            let text = format!(
                "sentinel monitor {SERVICE} 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds {SERVICE} 1000\n\
                 sentinel failover-timeout {SERVICE} 5000\n",
                primary.port
            );
            std::fs::write(&file, text).expect("the temporary directory is writable");
            let child = process::tethered("redis-server")
                .arg(&file)
                .args(["--sentinel", "--port", &port.to_string()])
                .args(["--bind", "127.0.0.1", "--logfile", "redis.log", "--dir"])
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("setpriv (util-linux) is installed");
            let sentinel = Self {
                port,
                options: Vec::new(),
                child: Mutex::new(child),
                directory,
            };
            if sentinel.answers().await {
                return sentinel;
            }
        }
        panic!("no Sentinel starts");
    }

    /// Freezes it (SIGSTOP): connections stay open, and nobody answers.
    pub fn pause(&self) {
        process::signal(&self.child(), "STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        process::signal(&self.child(), "CONT");
    }

    /// Ends it without a word (SIGKILL); what it held since the last `SAVE` is lost.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it again on the same port, after [`kill`](Self::kill): empty, or as it was at the last `SAVE`.
    pub async fn start_again(&self) {
        *self.child() = spawn(self.port, self.directory.path(), &self.options);
        assert!(self.answers().await, "redis-server does not start again");
    }

    /// The id of its process.
    #[cfg(feature = "bench")]
    pub fn pid(&self) -> u32 {
        self.child().id()
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

    /// Where it takes encrypted connections.
    pub fn encrypted_port(&self) -> &str {
        let mut options = self.options.iter();
        options.find(|option| *option == "--tls-port");
        options.next().expect("it was started encrypted")
    }

    /// Where it listens, as options of Redis name it.
    pub fn port(&self) -> String {
        self.port.to_string()
    }

    /// Runs `redis-cli` as an operator would and returns what it printed, trimmed. In a cluster it asks whom it
    /// is referred to.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        self.cli_within(process::RUNS_AT_MOST, arguments).await
    }

    /// The same for what may take long.
    pub async fn cli_within(&self, limit: Duration, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command
            .args(["-c", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments);
        let output = process::run_within(limit, command).await;
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

fn spawn(port: u16, directory: &Path, options: &[String]) -> Child {
    process::tethered("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--logfile", "redis.log", "--dir"])
        .arg(directory)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) is installed")
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}
