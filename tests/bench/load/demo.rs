//! `vigie demo`: synthetic users that come, go, watch and change, so that pages and dashboards have something to show.

mod backend;
mod client;
mod counters;
mod scenario;
mod synthetic_user;
mod users;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use vigie::settings::Settings;

use self::client::ClientError;
use self::scenario::Scene;
use super::remote::{Remote, RemoteError};
use super::{Options, say};
use crate::clients::raise_limit;

/// A crowd in which nobody is found any more.
const USERS_MAX: i64 = 2_000;
/// More updates in a second than anybody looks at.
const RATE_MAX: i64 = 1_000;
/// A week.
const SECONDS_MAX: i64 = 7 * 24 * 3600;

/// Files of the process that are not clients.
const OTHER_FILES: usize = 100;

/// How often a terminal is told what happens, and everything else.
const LIVE_EVERY: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How long clients may take to leave.
const LEAVING_WITHIN: Duration = Duration::from_secs(10);

/// How long the users may stay online after that: the grace, and the time until it is said.
const OFFLINE_WITHIN: Duration = Duration::from_secs(30);

/// How many, how much, how long, and where.
#[derive(Args)]
pub(super) struct DemoArgs {
    /// Users that come and go
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=USERS_MAX))]
    users: u16,
    /// Updates of profiles and statistics posted per second, at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=RATE_MAX))]
    rate: u16,
    /// For how long [default: until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: Option<u32>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The nodes cannot be spoken to.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A node does not take the users.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The process has too few files.
    #[error(
        "this process may open {limit} files, and {users} users need {needed}; raise the limit (`ulimit -n`), or take \
         fewer --users"
    )]
    Files {
        users: usize,
        limit: usize,
        needed: usize,
    },
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
    /// Somebody is still there.
    #[error(
        "users from {first} on are still online {} s after their last connection was closed; does another demo run, or is \
         presence.offline_grace that long?",
        OFFLINE_WITHIN.as_secs()
    )]
    Left { first: u64 },
}

/// Runs the demo to its end; returns a summary.
pub(super) async fn run(
    settings: Settings,
    options: &Options,
    args: &DemoArgs,
) -> Result<String, DemoError> {
    let users = usize::from(args.users);
    check_files(users)?;
    let remote = Remote::find(&settings, &options.nodes, &options.internal)?;
    let scene = Arc::new(Scene::new(remote, settings.auth, users));
    // Whoever may not post, or whose tokens are refused, finds out before anybody comes.
    scene.remote.get(0, "/api/v1/nodes").await?;
    scene.check_tokens().await?;
    say(&format!(
        "demo: users {} to {} come and go on {} node(s), and {} updates a second are posted to {}; {}",
        scene.first_user(),
        scene.first_user() + users as u64 - 1,
        scene.remote.nodes.len(),
        args.rate,
        scene.remote.told(),
        match args.seconds {
            Some(seconds) => format!("it ends after {seconds} s"),
            None => "Ctrl-C ends it".to_owned(),
        }
    ));

    let mut signals = Signals::catch()?;
    let mut visitors = JoinSet::new();
    for place in 0..users {
        visitors.spawn(synthetic_user::live(scene.clone(), place));
    }
    tokio::select! {
        () = show(&scene) => {}
        () = backend::post_updates(&scene, args.rate) => {}
        () = after(args.seconds) => {}
        _ = signals.next() => {}
    }
    say("demo: everybody leaves");
    // The next one ends it at once.
    tokio::spawn(async move { std::process::exit(signals.next().await) });
    scene.stop();
    // Whoever has not left by then is dropped, and the node notices.
    let _ = timeout(LEAVING_WITHIN, async {
        while visitors.join_next().await.is_some() {}
    })
    .await;
    visitors.shutdown().await;
    scene.forget_updates().await?;
    wait_until_offline(&scene).await?;
    Ok(format!("{}\neverybody has left\n", scene.tally.summary()))
}

/// Checks that every user can have as many connections as one may have.
fn check_files(users: usize) -> Result<(), DemoError> {
    let (limit, needed) = (
        raise_limit(),
        users * synthetic_user::TABS_MAX + OTHER_FILES,
    );
    match limit < needed {
        true => Err(DemoError::Files {
            users,
            limit,
            needed,
        }),
        false => Ok(()),
    }
}

/// The signals that end it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one, and returns the exit code that goes with it.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

async fn after(seconds: Option<u32>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds.into())).await,
        None => std::future::pending().await,
    }
}

/// Shows what happens until it is dropped: in one line on a terminal, with a line now and then elsewhere.
async fn show(scene: &Scene) {
    let bar = ProgressBar::new_spinner();
    let bar = match ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    let mut ticks = interval(if bar.is_hidden() {
        LINE_EVERY
    } else {
        LIVE_EVERY
    });
    // The first tick comes at once, before anybody.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match bar.is_hidden() {
            true => say(&scene.tally.line()),
            false => {
                bar.set_message(scene.tally.line());
                bar.tick();
            }
        }
    }
}

/// Waits until the hub itself says that none of the users is online any more.
async fn wait_until_offline(scene: &Scene) -> Result<(), DemoError> {
    let deadline = Instant::now() + OFFLINE_WITHIN;
    while scene.is_anybody_online().await? {
        if Instant::now() > deadline {
            let first = scene.first_user();
            return Err(DemoError::Left { first });
        }
        sleep(LIVE_EVERY).await;
    }
    Ok(())
}
