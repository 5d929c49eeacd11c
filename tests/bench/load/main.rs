//! `vigie-bench`: puts load on running nodes and reports what it cost them. The server neither contains
//! nor needs it.

mod burst;
mod churn;
mod clients;
mod connect;
mod error;
mod fanout;
mod idle;
mod online;
mod publish;
mod remote;
mod report;
mod run;
mod scale;
mod selective;
mod signin;
mod socket_io;
mod target;
mod usage;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tikv_jemallocator::Jemalloc;
use tokio::runtime::Builder;
use vigie::Settings;

use self::error::BenchError;
use self::remote::{FIRST_SYNTHETIC_USER, Remote};
use self::report::Report;
use self::run::Setup;
use self::usage::Processes;

/// The server's allocator: it keeps `load_cpu_per_…` comparable with earlier runs, when both were one program.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The run has no figures.
const EXIT_FAILURE: u8 = 2;

/// More than one machine can open.
const CONNECTIONS_MAX: i64 = 100_000;
const UPDATES_MAX: i64 = 1_000_000;
/// More than sequential requests reach.
const RATE_MAX: i64 = 10_000;
/// Default first user of a run.
const FIRST_USER: u64 = FIRST_SYNTHETIC_USER + 1_000_000;
/// Leaves room for the other users of a run below the largest id.
const FIRST_USER_MAX: u64 = 9_007_000_000_000_000;
const SECONDS_MAX: i64 = 600;

/// Puts load on running nodes of Vigie and reports what it cost them.
#[derive(Parser)]
#[command(name = "vigie-bench", version)]
struct Cli {
    #[command(subcommand)]
    work: Work,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Work {
    #[command(flatten)]
    OnNodes(Scenario),
    /// Starts nodes on a Redis of its own: what departures, sign-ins, updates and idling cost by nodes and partitions
    Scale(scale::ScaleArgs),
}

/// The scenarios on nodes that run already.
#[derive(Subcommand)]
enum Scenario {
    /// Opens connections as fast as the nodes take them: what one costs, and how much memory
    Connect(connect::ConnectArgs),
    /// Holds connections that do nothing: what that costs
    Idle(idle::IdleArgs),
    /// Updates of one user to many watchers: what a delivery costs, and how long it takes
    Fanout(fanout::FanoutArgs),
    /// Updates of one user as fast as they are taken: what one costs, and whether any is lost
    Burst(burst::BurstArgs),
    /// Updates that matter to the first node alone: what they cost the others
    Selective(selective::SelectiveArgs),
    /// Users come and go before observers: what an event costs
    Churn(churn::ChurnArgs),
    /// Users sign in at once before each other: what an event costs
    Signin(signin::SigninArgs),
    /// Signs users in, then asks who is online: what a call costs
    Online(online::OnlineArgs),
}

#[derive(Args)]
#[command(next_help_heading = "What is measured")]
struct Options {
    /// Settings file to read instead of config/vigie.toml; keys and default addresses come from the settings
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Public listener of a node; once for each node [default: the one of these settings]
    #[arg(long = "node", value_name = "URL", global = true)]
    nodes: Vec<String>,
    /// Internal listener of a node, in the same order; updates are posted to the first one
    #[arg(long, value_name = "URL", global = true)]
    internal: Vec<String>,
    /// Process of a node, in the same order, to measure its processor time and memory
    #[arg(long = "pid", value_name = "PID", global = true)]
    pids: Vec<i32>,
    /// Process of Redis, to measure its processor time
    #[arg(long, value_name = "PID", global = true)]
    redis_pid: Option<i32>,
    /// Minimum number of client threads; more start when the limit on open files requires it
    #[arg(long, value_name = "N", default_value_t = 1, global = true, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Id of the first user of the run; the others follow. No account has such ids
    #[arg(long, value_name = "ID", default_value_t = FIRST_USER, global = true, value_parser = clap::value_parser!(u64).range(FIRST_SYNTHETIC_USER..=FIRST_USER_MAX))]
    first_user: u64,
    /// Prints one JSON object instead of a table for people
    #[arg(long, global = true)]
    json: bool,
}

impl Options {
    /// Whether they say what to measure, or how it is configured.
    fn names_nodes(&self) -> bool {
        let lists = [&self.nodes, &self.internal];
        lists.iter().any(|list| !list.is_empty())
            || !self.pids.is_empty()
            || self.redis_pid.is_some()
            || self.config.is_some()
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(output) => print(&output),
        Err(error) => fail(error),
    }
}

/// Runs the command to its end; returns what to print.
fn run(cli: Cli) -> Result<String, Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (json, table) = match cli.work {
        Work::OnNodes(scenario) => {
            let settings = Settings::load(cli.options.config.as_deref(), environment())?;
            let setup = setup(settings, &cli.options)?;
            let report = runtime.block_on(scenario.run_and_tidy(&setup))?;
            (report.json(), report.table())
        }
        Work::Scale(args) => {
            let run = unless_interrupted(scale::run(&args, &cli.options));
            let scale = runtime.block_on(run)?;
            (scale.json(), scale.table())
        }
    };
    Ok(if cli.options.json {
        format!("{json}\n")
    } else {
        table
    })
}

/// Runs until the end or Ctrl-C.
async fn unless_interrupted<T>(
    run: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => Err(BenchError::Own("it was interrupted".to_owned())),
    }
}

/// Variables of the process, without those that are not UTF-8.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Scenario {
    /// Runs until the end or Ctrl-C, then deletes what was posted.
    async fn run_and_tidy(&self, setup: &Setup) -> Result<Report, BenchError> {
        let report = unless_interrupted(self.run(setup)).await;
        if self.posts()
            && let Err(error) = setup.target.forget(setup.first_user).await
            && report.is_ok()
        {
            // Peers that are measured the same way need not have this route.
            print_status(&format!(
                "the last update of user {} stays stored: {error}",
                setup.first_user
            ));
        }
        report
    }

    /// Whether the scenario posts updates about the first user.
    fn posts(&self) -> bool {
        match self {
            Self::Fanout(_) | Self::Burst(_) | Self::Selective(_) => true,
            Self::Connect(_)
            | Self::Idle(_)
            | Self::Churn(_)
            | Self::Signin(_)
            | Self::Online(_) => false,
        }
    }

    async fn run(&self, setup: &Setup) -> Result<Report, BenchError> {
        match self {
            Self::Connect(args) => connect::run(setup, args).await,
            Self::Idle(args) => idle::run(setup, args).await,
            Self::Fanout(args) => fanout::run(setup, args).await,
            Self::Burst(args) => burst::run(setup, args).await,
            Self::Selective(args) => selective::run(setup, args).await,
            Self::Churn(args) => churn::run(setup, args).await,
            Self::Signin(args) => signin::run(setup, args).await,
            Self::Online(args) => online::run(setup, args).await,
        }
    }
}

fn setup(settings: Settings, options: &Options) -> Result<Setup, BenchError> {
    let target = Remote::find(&settings, &options.nodes, &options.internal)?;
    let pids = options.pids.len();
    let nodes = target.nodes.len();
    if pids != 0 && pids != nodes {
        return Err(BenchError::Pids { pids, nodes });
    }
    let processes = Processes {
        nodes: options.pids.clone(),
        redis: options.redis_pid,
    };
    processes.sample()?;
    Ok(Setup {
        target,
        processes,
        auth: settings.auth,
        threads: options.threads.into(),
        first_user: options.first_user,
    })
}

/// Prints to stdout. A reader that stops early (`| head -1`) is not an error.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(error),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: impl std::fmt::Display) -> ExitCode {
    print_status(&format!("error: {error}"));
    ExitCode::from(EXIT_FAILURE)
}

/// Prints a line of progress to stderr.
fn print_status(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
