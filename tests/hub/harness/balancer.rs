//! The real nginx and HAProxy in front of the nodes of a cluster, each with the project's own file of `config/`.
//!
//! Of a file only addresses and paths are replaced, which have to differ here; times are those of the file.
//! Each replacement has to hit as often as is said, so a file that changes its shape fails the tests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use super::cluster::Cluster;
use super::process::{self, Transcript};
use super::redis::free_port;
use super::{DEADLINE, eventually};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Haproxy,
}

/// A running balancer; killed when dropped.
pub struct Balancer {
    address: SocketAddr,
    child: Child,
    said: Transcript,
    readers: Vec<JoinHandle<()>>,
    /// Its file and its log.
    directory: tempfile::TempDir,
}

impl Balancer {
    /// Starts one in front of the first two nodes, and waits until it answers.
    pub async fn start(program: Program, cluster: &Cluster) -> Self {
        Self::start_edited(program, cluster, |text| text).await
    }

    /// The same with its file changed by `edit`, as an operator may have done.
    pub async fn start_edited(
        program: Program,
        cluster: &Cluster,
        edit: impl Fn(String) -> String,
    ) -> Self {
        let nodes = [cluster.public_address(0), cluster.public_address(1)];
        // The port is free when it is looked for and may be taken a moment later: then try another.
        for _ in 0..10 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            if let Some(balancer) = Self::start_on(program, address, nodes, &edit).await {
                return balancer;
            }
        }
        panic!("{program:?} does not start; is it installed? (tests/run installs it)");
    }

    async fn start_on(
        program: Program,
        address: SocketAddr,
        nodes: [SocketAddr; 2],
        edit: &impl Fn(String) -> String,
    ) -> Option<Self> {
        let (directory, path) = process::scratch();
        let file = path.join("balancer.conf");
        std::fs::write(&file, edit(program.text_for(address, nodes, &path)))
            .expect("the directory is ours");
        let mut child = program
            .command(&file, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) is installed");
        let (said, reads_said) = Transcript::of(child.stdout.take().expect("stdout is piped"));
        // Both are kept in one, in the order in which they come.
        let reads_errors = said.and(child.stderr.take().expect("stderr is piped"));
        let mut balancer = Self {
            address,
            child,
            said,
            readers: vec![reads_said, reads_errors],
            directory,
        };
        balancer.answers().await.then_some(balancer)
    }

    async fn answers(&mut self) -> bool {
        let client = reqwest::Client::new();
        let url = format!("http://{}/", self.address);
        eventually("the balancer answers, or has ended", async || {
            if self
                .child
                .try_wait()
                .expect("it can be waited for")
                .is_some()
            {
                return Some(false);
            }
            let answer = client.get(&url).timeout(DEADLINE).send().await;
            answer.is_ok().then_some(true)
        })
        .await
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let log = |name| std::fs::read_to_string(self.directory.path().join(name));
            let logs = [log("access.log"), log("error.log")].map(Result::unwrap_or_default);
            eprintln!(
                "---- the balancer\n{}{}----",
                self.said.text(),
                logs.concat()
            );
        }
    }
}

impl Program {
    /// The project's file for it, as it stands.
    pub fn file(self) -> &'static str {
        match self {
            Self::Nginx => "config/nginx.conf",
            Self::Haproxy => "config/haproxy.cfg",
        }
    }

    /// Its content.
    pub fn text(self) -> String {
        let text = std::fs::read_to_string(process::project_root().join(self.file()));
        text.expect("the project has the file")
    }

    /// Runs its own check of a file.
    pub fn check(self, file: &Path, scratch: &Path) -> Command {
        let mut command = self.command(file, scratch);
        command.arg(match self {
            Self::Nginx => "-t",
            Self::Haproxy => "-c",
        });
        command
    }

    /// The project's file with paths under `scratch` instead of the system's, and a port that not only root may have.
    pub fn text_for_a_check(self, scratch: &Path) -> String {
        let text = self.text_with_paths(scratch);
        match self {
            Self::Nginx => {
                let listen = format!(" listen unix:{}/nginx.sock;", scratch.display());
                replace(&text, " listen 80;", 1, &listen)
            }
            Self::Haproxy => text,
        }
    }

    fn text_with_paths(self, scratch: &Path) -> String {
        let text = self.text();
        let scratch = scratch.to_str().expect("a plain path");
        match self {
            Self::Nginx => {
                // Where it would keep bodies that are large, for each way in which it could pass them on.
                let ways = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let kept = ways.map(|way| format!("{way}_temp_path {scratch}/{way};"));
                let text = replace(&text, "http {", 1, &format!("http {{ {}", kept.concat()));
                replace(&text, "/var/log/nginx/", 2, &format!("{scratch}/"))
            }
            Self::Haproxy => text,
        }
    }

    fn text_for(self, address: SocketAddr, nodes: [SocketAddr; 2], scratch: &Path) -> String {
        let text = self.text_with_paths(scratch);
        // Node 0's port may be the one that is looked for next, so both are replaced in one go.
        let text = replace(&text, "127.0.0.1:8181", 2, "FIRST");
        let text = replace(&text, "127.0.0.1:8281", 2, "SECOND");
        let text = replace(&text, "FIRST", 2, &nodes[0].to_string());
        let text = replace(&text, "SECOND", 2, &nodes[1].to_string());
        match self {
            Self::Nginx => replace(&text, " listen 80;", 1, &format!(" listen {address};")),
            Self::Haproxy => {
                // Not only root runs the tests.
                let text = replace(&text, "    user haproxy\n    group haproxy\n", 1, "");
                replace(&text, " bind :80\n", 1, &format!(" bind {address}\n"))
            }
        }
    }

    fn command(self, file: &Path, scratch: &Path) -> Command {
        let (name, flag) = match self {
            Self::Nginx => ("nginx", "-c"),
            Self::Haproxy => ("haproxy", "-f"),
        };
        let mut command = process::tethered(name);
        // Debian keeps both where only root looks for programs.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin"));
        command.arg(flag).arg(file);
        if self == Self::Nginx {
            // One process, which ends with the test; workers would stay behind where their master is killed.
            let scratch = scratch.display();
            command.args([
                "-e",
                "stderr",
                "-g",
                &format!("daemon off; master_process off; pid {scratch}/nginx.pid;"),
            ]);
        }
        command
    }
}

/// Replaces what has to be there so many times.
fn replace(text: &str, from: &str, times: usize, to: &str) -> String {
    let found = text.matches(from).count();
    assert_eq!(found, times, "how often {from:?} is in the file");
    text.replace(from, to)
}
