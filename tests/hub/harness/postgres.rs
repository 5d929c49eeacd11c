//! A Postgres of the tests' own, on a free port, that is gone with them.
//!
//! Starting one takes seconds, so one server serves all tests that do it no harm, each in a database of its own.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use vigie::internals::{PostgresOptions, Profiles};

use super::certificates::Certificate;
use super::process;

/// The settings of every server, besides its directory and port.
const SETTINGS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    // Nothing has to survive the machine; what was committed survives the server.
    "fsync=off",
    "full_page_writes=off",
    // Other kinds of shared memory outlive a server that is killed.
    "dynamic_shared_memory_type=mmap",
    "max_connections=300",
    "shared_buffers=64MB",
];

/// The database that others are copied from: it has the schema and nothing else.
const TEMPLATE: &str = "migrated";

/// Waits until the test program is gone, whatever way it went, and clears up after it.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || pid=
if [ -n "$pid" ] && tr "\0" " " <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1"; then
  for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do kill -CONT "$child" 2>/dev/null; done
  kill -CONT "$pid" 2>/dev/null
  kill -QUIT "$pid" 2>/dev/null
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

/// A database on a running server.
pub struct Postgres {
    server: Arc<Server>,
    database: String,
}

impl Postgres {
    /// A database with the schema, on the server that the tests share.
    pub async fn start() -> Self {
        Self::on(shared().await, TEMPLATE).await
    }

    /// A database without anything, on the server that the tests share.
    pub async fn start_empty() -> Self {
        Self::on(shared().await, "template0").await
    }

    /// A database with the schema, on a server of the test's own: for tests that do something to it.
    pub async fn start_alone() -> Self {
        Self::on(Arc::new(Server::start().await), TEMPLATE).await
    }

    async fn on(server: Arc<Server>, template: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("test{number}");
        // Copies of one template wait for each other anyway, and give up when they wait for long.
        let copying = server.copying.lock().await;
        let sql = format!("CREATE DATABASE {database} TEMPLATE {template}");
        server
            .psql("postgres", &sql)
            .await
            .expect("a database is created");
        drop(copying);
        Self { server, database }
    }

    /// `postgres://postgres@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self) -> String {
        self.server.url(&self.database)
    }

    /// The profiles in it, as a node has them.
    pub fn profiles(&self) -> Profiles {
        profiles(&self.url())
    }

    /// Runs SQL as an operator would and returns what was printed: values separated by `|`, a line for each row.
    pub async fn psql(&self, sql: &str) -> String {
        let printed = self.try_psql(sql).await;
        printed.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same for what may be refused; an error is what Postgres said.
    pub async fn try_psql(&self, sql: &str) -> Result<String, String> {
        self.server.psql(&self.database, sql).await
    }

    /// Runs SQL that takes minutes.
    pub async fn patiently(&self, sql: &str) {
        let mut command = self.server.psql_command(&self.database, sql);
        let status = tokio::task::spawn_blocking(move || command.status()).await;
        let status = status.expect("no panic").expect("psql is installed");
        assert!(status.success(), "{sql}");
    }

    /// Has the server take encrypted connections, too, and present this certificate; only with
    /// [`start_alone`](Self::start_alone).
    pub async fn encrypt(&self, certificate: &Certificate) {
        self.write("server.crt", &certificate.chain).await;
        self.write("server.key", &certificate.key).await;
        self.psql("ALTER SYSTEM SET ssl = on").await;
        self.reload().await;
    }

    /// Has the server ask everybody but its operator for a password, and makes a role that has one; only with
    /// [`start_alone`](Self::start_alone).
    pub async fn demand_password(&self, role: &str, password: &str) {
        let create = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'");
        self.psql(&create).await;
        let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256";
        self.write("pg_hba.conf", rules).await;
        self.reload().await;
    }

    /// Has the server read its configuration again; connections that are opened on return meet the new one.
    async fn reload(&self) {
        let loaded = async || self.psql("SELECT pg_conf_load_time()").await;
        let before = loaded().await;
        self.psql("SELECT pg_reload_conf()").await;
        super::eventually("postgres has read its configuration", async || {
            (loaded().await != before).then_some(())
        })
        .await;
    }

    /// Has the server write a file into its data directory, readable by itself alone. No line may have what `COPY`
    /// escapes.
    async fn write(&self, name: &str, text: &str) {
        let lines = text.trim_end().lines().map(|line| format!("('{line}')"));
        let lines = lines.collect::<Vec<_>>().join(",");
        // The server's programs run in its data directory. It takes no key that others can read.
        let program = format!("umask 077; cat >{name}");
        self.psql(&format!("COPY (VALUES {lines}) TO PROGRAM '{program}'"))
            .await;
    }

    /// The server's log since its last start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.server.directory.join("log")).expect("the server has a log")
    }

    /// Ends the server without a word (SIGKILL).
    pub async fn kill(&self) {
        self.server.end("KILL").await;
    }

    /// Ends the server properly (SIGINT): connections are closed.
    pub async fn stop(&self) {
        self.server.end("INT").await;
    }

    /// Starts it again, with its data, on the same port.
    pub async fn start_again(&self) {
        let child = spawn(self.server.port, &self.server.directory);
        self.server.keep(child);
        assert!(self.server.answers().await, "postgres does not start again");
    }

    /// Freezes the server (SIGSTOP): connections stay open, and nobody answers.
    pub fn pause(&self) {
        self.server.signal_all("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.server.signal_all("CONT");
    }
}

/// The profiles behind a URL, as a node has them.
pub fn profiles(url: &str) -> Profiles {
    let options = PostgresOptions {
        url: url.to_owned(),
        pool: 8,
        timeout: Duration::from_secs(5),
    };
    Profiles::new(&options).expect("the URL is one")
}

/// The server that tests share; it ends with the test program.
async fn shared() -> Arc<Server> {
    static SHARED: OnceCell<Arc<Server>> = OnceCell::const_new();
    SHARED
        .get_or_init(async || Arc::new(Server::start().await))
        .await
        .clone()
}

struct Server {
    port: u16,
    directory: PathBuf,
    child: Mutex<Child>,
    copying: tokio::sync::Mutex<()>,
    /// Closed when the test program ends, or when this is dropped.
    guard: Mutex<(Option<ChildStdin>, Child)>,
}

impl Server {
    /// Makes a cluster, starts it, and prepares the template.
    async fn start() -> Self {
        let (directory, guard) = guarded_directory();
        init(&directory).await;
        let port = free_port();
        let mut server = Self {
            port,
            child: Mutex::new(spawn(port, &directory)),
            directory,
            copying: tokio::sync::Mutex::default(),
            guard: Mutex::new(guard),
        };
        // The port is free when it is looked for and may be taken a moment later: then try another.
        for _ in 0..10 {
            if server.answers().await {
                server.prepare_template().await;
                return server;
            }
            server.port = free_port();
            server.keep(spawn(server.port, &server.directory));
        }
        let log = std::fs::read_to_string(server.directory.join("log")).unwrap_or_default();
        panic!("postgres does not start\n{log}");
    }

    async fn prepare_template(&self) {
        let created = self
            .psql("postgres", &format!("CREATE DATABASE {TEMPLATE}"))
            .await;
        created.expect("a new server takes databases");
        let migrated = profiles(&self.url(TEMPLATE)).migrate().await;
        migrated.expect("a new database takes the schema");
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    async fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = process::run(self.psql_command(database, sql)).await;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn psql_command(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-d", &self.url(database), "-c", sql])
            .env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Waits until this very process answers; a stranger on the same port is not taken for it.
    async fn answers(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        let ours = self.directory.join("data").display().to_string();
        while Instant::now() < deadline {
            if self.child().try_wait().is_ok_and(|status| status.is_some()) {
                return false;
            }
            if self
                .psql("postgres", "SHOW data_directory")
                .await
                .as_deref()
                == Ok(ours.as_str())
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        false
    }

    async fn end(&self, signal: &str) {
        let workers = self.workers();
        process::signal(&self.child(), signal);
        let gone = async || self.child().try_wait().ok().flatten();
        super::eventually("postgres ends", gone).await;
        // Workers notice that the server was killed, each in its time.
        let alive = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
        super::eventually("its workers end", async || {
            (!workers.iter().any(alive)).then_some(())
        })
        .await;
    }

    fn keep(&self, child: Child) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
    }

    fn signal_all(&self, name: &str) {
        let server = self.child().id();
        for pid in [server].into_iter().chain(self.workers()) {
            // One that ended meanwhile is no failure.
            let _ = Command::new("sh")
                .args(["-c", &format!("kill -{name} {pid} 2>/dev/null")])
                .status();
        }
    }

    /// The processes that serve one connection each, and the like.
    fn workers(&self) -> Vec<u32> {
        let pid = self.child().id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (stdin, guard) = &mut *self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        drop(stdin.take());
        let _ = self.child().wait();
        let _ = guard.wait();
    }
}

/// A directory that the server may write to, and the process that removes it in the end.
fn guarded_directory() -> (PathBuf, (Option<ChildStdin>, Child)) {
    let directory = tempfile::Builder::new().prefix("vigie-postgres-").tempdir();
    let directory = directory
        .expect("the temporary directory is writable")
        .keep();
    if let Some((user, group)) = unprivileged() {
        std::os::unix::fs::chown(&directory, Some(user), Some(group)).expect("root gives away");
    }
    let mut guard = Command::new("sh")
        .args(["-c", GUARD, "guard"])
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not among those whom a terminal tells to end.
        .process_group(0)
        .spawn()
        .expect("every system has a shell");
    let stdin = guard.stdin.take();
    (directory, (stdin, guard))
}

async fn init(directory: &Path) {
    let mut command = as_nobody("initdb");
    command
        .args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata",
        ])
        .arg(directory.join("data"))
        .current_dir(directory);
    let output = process::run(command).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "initdb: {said} (tests/run installs postgres)"
    );
}

/// Starts the server. Not tethered to the thread: a test's thread may end before the others.
fn spawn(port: u16, directory: &Path) -> Child {
    let log = std::fs::File::create(directory.join("log")).expect("the directory is ours");
    let mut command = as_nobody("postgres");
    command
        .arg("-D")
        .arg(directory.join("data"))
        .args(["-p", &port.to_string()]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
        .current_dir(directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("setpriv (util-linux) is installed")
}

/// A program of Postgres's, as somebody who is not root: it refuses root.
fn as_nobody(name: &str) -> Command {
    let program = program(name);
    let Some((user, group)) = unprivileged() else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            &user.to_string(),
            "--regid",
            &group.to_string(),
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

/// User and group to become where this is root: the owner of nothing.
fn unprivileged() -> Option<(u32, u32)> {
    let me = std::fs::metadata("/proc/self")
        .expect("Linux has /proc")
        .uid();
    (me == 0).then_some((65534, 65534))
}

/// Where a program of Postgres's is: the servers' are not in the path on Debian.
fn program(name: &str) -> PathBuf {
    let told = Command::new("pg_config").arg("--bindir").output();
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let mut folders: Vec<PathBuf> = told.into_iter().map(PathBuf::from).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    let has_server =
        |folder: &&PathBuf| folder.join("postgres").exists() && folder.join(name).exists();
    folders
        .iter()
        .find(has_server)
        .map_or(PathBuf::from(name), |folder| folder.join(name))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}
