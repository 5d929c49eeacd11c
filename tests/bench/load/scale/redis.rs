//! A private Redis on free ports of loopback: one server, or a Cluster of masters.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use fred::interfaces::ClientLike;
use fred::prelude::{Builder, Client, Config};
use fred::types::{ClusterHash, CustomCommand, FromValue};

use super::BenchError;
use super::info::RedisUse;
use super::process::Process;

/// Hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// A port that is free when it is looked for may be taken a moment later.
const ATTEMPTS: usize = 5;

const CLUSTER_WITHIN: Duration = Duration::from_secs(20);

/// Ends when dropped.
pub(super) struct Redis {
    masters: Vec<Server>,
}

struct Server {
    client: Client,
    port: u16,
    /// Where the other masters reach it.
    bus_port: u16,
    _process: Process,
}

impl Redis {
    pub(super) async fn start(scratch: &Path, masters: usize) -> Result<Self, BenchError> {
        let mut started = Vec::new();
        for place in 0..masters {
            started.push(Server::start(scratch, place, masters > 1).await?);
        }
        let redis = Self { masters: started };
        if masters > 1 {
            redis.join().await?;
        }
        Ok(redis)
    }

    /// Has the masters form a Cluster, each with as many slots as the others.
    async fn join(&self) -> Result<(), BenchError> {
        let of = self.masters.len();
        for (place, master) in self.masters.iter().enumerate() {
            let first = SLOTS * place / of;
            let last = SLOTS * (place + 1) / of - 1;
            let slots = format!("CLUSTER ADDSLOTSRANGE {first} {last}");
            master.command::<()>(&slots).await?;
            if place > 0 {
                let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", master.port, master.bus_port);
                self.masters[0].command::<()>(&meet).await?;
            }
        }
        let known = format!("cluster_known_nodes:{of}");
        let begun = Instant::now();
        for master in &self.masters {
            loop {
                let info: String = master.command("CLUSTER INFO").await?;
                let has = |wanted: &str| info.lines().any(|line| line.trim() == wanted);
                if has("cluster_state:ok") && has(&known) {
                    break;
                }
                if begun.elapsed() > CLUSTER_WITHIN {
                    return Err(BenchError::Own(
                        "the Redis Cluster does not form".to_owned(),
                    ));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The `redis.url` of nodes.
    pub(super) fn url(&self) -> String {
        let address = |server: &Server| format!("127.0.0.1:{}", server.port);
        match &self.masters[..] {
            [first, others @ ..] if !others.is_empty() => {
                let others: Vec<String> = others
                    .iter()
                    .map(|other| format!("node={}", address(other)))
                    .collect();
                format!("redis-cluster://{}?{}", address(first), others.join("&"))
            }
            masters => masters
                .iter()
                .map(|only| format!("redis://{}", address(only)))
                .collect(),
        }
    }

    /// A client of the first master.
    pub(super) fn client(&self) -> &Client {
        &self.masters[0].client
    }

    /// Another connection to the first master.
    pub(super) async fn connect(&self) -> Result<Client, BenchError> {
        connect(self.masters[0].port).await
    }

    /// The sum over all masters.
    pub(super) async fn used(&self) -> Result<RedisUse, BenchError> {
        let mut all = RedisUse::default();
        for master in &self.masters {
            let info: String = master
                .command("INFO cpu commandstats memory clients")
                .await?;
            let mut used = RedisUse::parse(&info);
            // This program's own.
            used.clients = used.clients.saturating_sub(1);
            all.add(&used);
        }
        Ok(all)
    }
}

impl Server {
    async fn start(scratch: &Path, place: usize, cluster: bool) -> Result<Self, BenchError> {
        let mut attempt = 1;
        loop {
            match Self::try_start(scratch, &format!("redis-{place}-{attempt}"), cluster).await {
                Err(BenchError::NotStarted { .. }) if attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_start(scratch: &Path, name: &str, cluster: bool) -> Result<Self, BenchError> {
        let (port, bus_port) = (free_port()?, free_port()?);
        let words = format!("--port {port} --bind 127.0.0.1 --appendonly no --save");
        let mut words: Vec<String> = split(&words);
        words.push(String::new());
        if cluster {
            let more = format!(
                "--cluster-enabled yes --cluster-port {bus_port} --cluster-config-file {name}.conf"
            );
            words.extend(split(&more));
        }
        let mut process = Process::start(scratch, name, Path::new("redis-server"), &words, &[])?;
        let pid = process.pid();
        let client = process.until(async |_| {
            let client = connect(port).await.ok()?;
            let info: String = command(&client, "INFO server").await.ok()?;
            // A stranger on the same port is not taken for it.
            let own = format!("process_id:{pid}");
            info.lines()
                .any(|line| line.trim() == own)
                .then_some(client)
        });
        Ok(Self {
            client: client.await?,
            port,
            bus_port,
            _process: process,
        })
    }

    async fn command<R: FromValue>(&self, words: &str) -> Result<R, BenchError> {
        command(&self.client, words).await
    }
}

fn split(words: &str) -> Vec<String> {
    words.split(' ').map(str::to_owned).collect()
}

/// Carries out a command whose words have no spaces.
pub(super) async fn command<R: FromValue>(client: &Client, words: &str) -> Result<R, BenchError> {
    let mut words = words.split(' ').map(str::to_owned);
    let name = words.next().unwrap_or_default();
    let command = CustomCommand::new(name, ClusterHash::Random, false);
    let answer: Result<R, _> = client.custom(command, words.collect()).await;
    Ok(answer?)
}

async fn connect(port: u16) -> Result<Client, BenchError> {
    let config = Config::from_url(&format!("redis://127.0.0.1:{port}"))?;
    let client = Builder::from_config(config).build()?;
    client.init().await?;
    Ok(client)
}

fn free_port() -> Result<u16, BenchError> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = listener.and_then(|listener| listener.local_addr());
    let address =
        address.map_err(|error| BenchError::Own(format!("there is no free port: {error}")))?;
    Ok(address.port())
}
