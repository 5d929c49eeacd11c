//! The Node process that runs the official client (`tests/client/bridge.mjs`).
//!
//! One line of JSON a command, one line of JSON a record. A thread reads the records, so that they
//! are taken in even while a test computes, and hands each to its socket's log.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::client::Record;
use super::process;

/// The events of one socket, in order; grows only.
#[derive(Default)]
pub struct Log {
    records: Mutex<Vec<Record>>,
    /// When each of them was taken in.
    times: Mutex<Vec<Instant>>,
    length: watch::Sender<usize>,
}

impl Log {
    /// All records so far.
    pub fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the record at `place` was taken in.
    pub fn time_of(&self, place: usize) -> Instant {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)[place]
    }

    /// Tells how long the log is, and when it grows.
    pub fn length(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }

    fn push(&self, record: Record) {
        let length = {
            let mut records = self.records();
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(Instant::now());
            records.push(record);
            records.len()
        };
        self.length.send_replace(length);
    }
}

#[derive(Default)]
struct Desk {
    logs: Mutex<HashMap<u64, Arc<Log>>>,
    calls: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// A running bridge; ends when dropped.
pub struct Bridge {
    child: Mutex<Child>,
    stdin: Mutex<ChildStdin>,
    desk: Arc<Desk>,
    numbers: AtomicU64,
}

impl Bridge {
    /// Starts the Node process.
    pub fn start() -> Arc<Self> {
        let directory = process::project_root().join("tests/client");
        assert!(
            directory.join("node_modules/socket.io-client").is_dir(),
            "the npm packages are missing: run tests/run, or `npm ci` in tests/client"
        );
        let mut child = process::tethered("node")
            .arg("bridge.mjs")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) is installed");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let desk = Arc::new(Desk::default());
        let reader = Arc::clone(&desk);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                reader.take_in(&line);
            }
        });
        Arc::new(Self {
            child: Mutex::new(child),
            stdin: Mutex::new(stdin),
            desk,
            numbers: AtomicU64::new(1),
        })
    }

    /// A number that nothing else of this bridge has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The log that the records of socket `socket` go to.
    pub fn log_of(&self, socket: u64) -> Arc<Log> {
        let mut logs = self
            .desk
            .logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(logs.entry(socket).or_default())
    }

    /// Sends a command.
    pub fn send(&self, command: &Value) {
        self.try_send(command)
            .expect("the bridge lives as long as the test");
    }

    /// Sends a command to a bridge that may have ended.
    pub fn try_send(&self, command: &Value) -> std::io::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        stdin.write_all(format!("{command}\n").as_bytes())?;
        stdin.flush()
    }

    /// Sends a command and waits until it has been carried out.
    pub async fn call(&self, mut command: Value) {
        let call = self.number();
        let (done, wait) = oneshot::channel();
        self.desk
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(call, done);
        command["call"] = json!(call);
        self.send(&command);
        tokio::time::timeout(super::DEADLINE * 4, wait)
            .await
            .unwrap_or_else(|_| panic!("the bridge is still busy with {command}"))
            .expect("the bridge answers each call");
    }
}

impl Desk {
    fn take_in(&self, line: &str) {
        let record: Value = serde_json::from_str(line).expect("the bridge writes JSON");
        if let Some(socket) = record["socket"].as_u64() {
            let log = {
                let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(logs.entry(socket).or_default())
            };
            log.push(Record::from(record));
        } else if let Some(call) = record["call"].as_u64() {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(done) = calls.remove(&call) {
                let _ = done.send(());
            }
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
