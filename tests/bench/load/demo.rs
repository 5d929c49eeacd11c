//! `vigie-bench demo`: synthetic users that come, go, watch and change, so that pages and dashboards have something to show.

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
use vigie::Settings;

use self::client::DemoClientError;
use self::scenario::DemoContext;
use super::remote::{Remote, RemoteError};
use super::{Options, print_status};
use crate::clients::raise_limit;

const USERS_MAX: i64 = 2_000;
const RATE_MAX: i64 = 1_000;
/// One week.
const SECONDS_MAX: i64 = 7 * 24 * 3600;

/// Open files of the process besides the clients.
const OTHER_FILES: usize = 100;

/// Progress on a terminal, and elsewhere.
const LIVE_EVERY: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(5);

const LEAVING_WITHIN: Duration = Duration::from_secs(10);

/// How long users may stay online after that: the offline grace, and the time to announce them.
const OFFLINE_WITHIN: Duration = Duration::from_secs(30);

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

#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Client(#[from] DemoClientError),
    #[error(
        "this process may open {limit} files, and {users} users need {needed}; raise the limit (`ulimit -n`), or take \
         fewer --users"
    )]
    Files {
        users: usize,
        limit: usize,
        needed: usize,
    },
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
    #[error(
        "users from {first} on are still online {} s after their last connection was closed; does another demo run, or is \
         presence.offline_grace that long?",
        OFFLINE_WITHIN.as_secs()
    )]
    Left { first: u64 },
}

/// Returns a summary for people.
pub(super) async fn run(
    settings: Settings,
    options: &Options,
    args: &DemoArgs,
) -> Result<String, DemoError> {
    let users = usize::from(args.users);
    check_files(users)?;
    let remote = Remote::find(&settings, &options.nodes, &options.internal)?;
    let context = Arc::new(DemoContext::new(remote, settings.auth, users));
    // Wrong keys are reported before any user connects.
    context.remote.get(0, "/api/v1/nodes").await?;
    context.check_tokens().await?;
    print_status(&format!(
        "demo: users {} to {} come and go on {} node(s), and {} updates a second are posted to {}; {}",
        context.first_user(),
        context.first_user() + users as u64 - 1,
        context.remote.nodes.len(),
        args.rate,
        context.remote.base_url(),
        match args.seconds {
            Some(seconds) => format!("it ends after {seconds} s"),
            None => "Ctrl-C ends it".to_owned(),
        }
    ));

    let mut signals = Signals::catch()?;
    let mut visitors = JoinSet::new();
    for place in 0..users {
        visitors.spawn(synthetic_user::live(context.clone(), place));
    }
    tokio::select! {
        () = show(&context) => {}
        () = backend::post_updates(&context, args.rate) => {}
        () = after(args.seconds) => {}
        _ = signals.next() => {}
    }
    print_status("demo: everybody leaves");
    // A second signal exits at once.
    tokio::spawn(async move { std::process::exit(signals.next().await) });
    context.stop();
    // The rest are dropped, and the node notices.
    let _ = timeout(LEAVING_WITHIN, async {
        while visitors.join_next().await.is_some() {}
    })
    .await;
    visitors.shutdown().await;
    context.forget_updates().await?;
    wait_until_offline(&context).await?;
    Ok(format!(
        "{}\neverybody has left\n",
        context.counters.summary()
    ))
}

/// Checks that every user can have the maximum of connections.
fn check_files(users: usize) -> Result<(), DemoError> {
    let (limit, needed) = (
        raise_limit(),
        users * synthetic_user::TABS_MAX + OTHER_FILES,
    );
    if limit < needed {
        return Err(DemoError::Files {
            users,
            limit,
            needed,
        });
    }
    Ok(())
}

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

    /// Waits for a signal; returns its exit code.
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

/// Prints progress until dropped: one live line on a terminal, a line now and then elsewhere.
async fn show(context: &DemoContext) {
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
    // The first tick is immediate.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if bar.is_hidden() {
            print_status(&context.counters.line());
        } else {
            bar.set_message(context.counters.line());
            bar.tick();
        }
    }
}

/// Waits until the hub reports all users offline.
async fn wait_until_offline(context: &DemoContext) -> Result<(), DemoError> {
    let deadline = Instant::now() + OFFLINE_WITHIN;
    while context.is_anybody_online().await? {
        if Instant::now() > deadline {
            let first = context.first_user();
            return Err(DemoError::Left { first });
        }
        sleep(LIVE_EVERY).await;
    }
    Ok(())
}
