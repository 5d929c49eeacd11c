//! How many pairs a second of Redis's time makes, of a queue of 100,000 tickets.
//!
//!     cargo bench --bench matchmaking
//!
//! Starts a private `redis-server`, fills the queue with the scripts that nodes use, and works it off in the batches that
//! nodes use. What is reported is the processor time that Redis itself says it has used (`INFO cpu`), so it hardly
//! depends on what else the machine does.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fred::interfaces::ClientLike;
use fred::prelude::{Builder, Client, Config};
use fred::types::{ClusterHash, CustomCommand, FromValue, InfoKind};
use fred::util::sha1_hash;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vigie::internals::script_text;

const TICKETS: u64 = 100_000;
/// Tickets that a node examines in one call.
const BATCH: &str = "100";
const TICKETS_PREFIX: &str = "vigie:{mm}:ticket:";
const MATCHES: &str = "vigie:{mm}:match:";
/// Calls on their way at once, as of several nodes.
const PIPELINE: usize = 64;

const ENQUEUE: &str = "matchmaking/enqueue";
const PAIR: &str = "matchmaking/pair";
const DUE: &str = "matchmaking/due";
const NOTIFY: &str = "matchmaking/notify";
const CONFIRM: &str = "matchmaking/confirm";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:<10} {:<22} {:>9} {:>12} {:>14}",
        "ratings", "work", "count", "Redis time", "a second of it"
    );
    for (name, ratings) in [
        ("equal", 1..=1),
        ("600..1400", 600..=1400),
        ("±1000000", -1_000_000..=1_000_000),
    ] {
        let redis = Redis::start().await;
        redis.fill(ratings).await;
        redis.empty(name).await;
    }
}

/// A private server, which ends with this.
struct Redis {
    process: Child,
    client: Client,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a free port").port().to_string();
        let process = Command::new("redis-server")
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (./tests/run installs it)");
        let config = Config::from_url(&format!("redis://127.0.0.1:{port}")).expect("a URL");
        let deadline = Instant::now() + Duration::from_secs(10);
        let client = loop {
            let client = Builder::from_config(config.clone())
                .build()
                .expect("a client");
            match client.init().await {
                Ok(_) => break client,
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "redis-server does not answer: {error}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self { process, client }
    }

    async fn call<R: FromValue>(&self, script: &str, names: &[&str], args: &[String]) -> R {
        let script = script_text(script).expect("a script of the hub");
        let mut words = vec![sha1_hash(script), names.len().to_string()];
        words.extend(names.iter().map(|name| format!("vigie:{{mm}}:{name}")));
        words.extend_from_slice(args);
        let answer: Result<fred::types::Value, _> =
            self.client.custom(evaluate("EVALSHA"), words.clone()).await;
        let answer = match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                script.clone_into(&mut words[0]);
                self.client.custom(evaluate("EVAL"), words).await
            }
            answer => answer,
        };
        answer
            .and_then(fred::types::Value::convert)
            .expect("the script answers")
    }

    /// Processor time used so far, of all threads.
    async fn cpu(&self) -> Duration {
        let info: String = self
            .client
            .info(Some(InfoKind::Cpu))
            .await
            .expect("INFO answers");
        let used = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|seconds| seconds.trim().parse::<f64>().ok())
                .expect("INFO tells it")
        };
        Duration::from_secs_f64(used("used_cpu_sys:") + used("used_cpu_user:"))
    }

    async fn fill(&self, ratings: std::ops::RangeInclusive<i64>) {
        let mut rng = StdRng::seed_from_u64(1);
        let users: Vec<u64> = (1..=TICKETS).collect();
        for batch in users.chunks(PIPELINE) {
            let calls = batch.iter().map(|user| {
                let rating = rng.random_range(ratings.clone());
                let args = [user.to_string(), rating.to_string(), MATCHES.to_owned()];
                let ticket = format!("ticket:{user}");
                async move {
                    let names = ["queue", "ratings", &ticket, "playing", "timeouts", "count"];
                    self.call::<(String, u64)>(ENQUEUE, &names, &args).await
                }
            });
            join_all(calls).await;
        }
    }

    async fn empty(&self, ratings: &str) {
        let names = [
            "queue", "ratings", "playing", "pending", "count", "scan", "made",
        ];
        // The window takes in everybody: where it does not, a call looks at tickets and makes no pairs.
        let args = [BATCH, "1000000000", "0", "1000", TICKETS_PREFIX, MATCHES].map(str::to_owned);
        let before = self.cpu().await;
        let mut pairs = 0;
        loop {
            let (made, _, more, _): (u64, u64, String, Vec<u64>) =
                self.call(PAIR, &names, &args).await;
            pairs += made;
            if more == "done" {
                break;
            }
        }
        report(ratings, "pairs made", pairs, self.cpu().await - before);
        let before = self.cpu().await;
        let told = self.tell_all().await;
        report(
            ratings,
            "pairs told, confirmed",
            told,
            self.cpu().await - before,
        );
    }

    /// The queue's part of announcing matches; the nodes find and notify the players.
    async fn tell_all(&self) -> u64 {
        let mut told = 0;
        loop {
            let args = [
                PIPELINE.to_string(),
                "600000".to_owned(),
                MATCHES.to_owned(),
            ];
            let (due, _, _): (Vec<String>, Vec<String>, u64) =
                self.call(DUE, &["pending", "timeouts"], &args).await;
            if due.is_empty() {
                return told;
            }
            told += (due.len() / 3) as u64;
            join_all(
                due.chunks_exact(3)
                    .map(|found| self.tell(&found[0], &found[1], &found[2])),
            )
            .await;
        }
    }

    async fn tell(&self, id: &str, a: &str, b: &str) {
        let found = format!("match:{id}");
        let names = [found.as_str(), "pending", "playing"];
        let node = "node.0123456789abc";
        let args = [id.to_owned(), format!("{a}@{node} {b}@{node}")];
        let _: Vec<String> = self.call(NOTIFY, &names, &args).await;
        for user in [a, b] {
            let args = [id, user, node].map(str::to_owned);
            let _: String = self.call(CONFIRM, &names, &args).await;
        }
    }
}

fn evaluate(command: &'static str) -> CustomCommand {
    CustomCommand::new_static(command, ClusterHash::FirstKey, false)
}

fn report(ratings: &str, work: &str, count: u64, used: Duration) {
    let per_second = count as f64 / used.as_secs_f64();
    println!(
        "{ratings:<10} {work:<22} {count:>9} {:>10.2} s {per_second:>14.0}",
        used.as_secs_f64()
    );
}
