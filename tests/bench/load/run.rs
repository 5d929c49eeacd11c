//! One run: the nodes, the clients on them, the processes whose use is read; and the steps that scenarios are made of.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vigie::domain::token;
use vigie::ids::UserId;
use vigie::settings::AuthSettings;

use super::clients::{Count, Harvest, Load, Opening, Question, Tally, Users};
use super::error::BenchError;
use super::report::Report;
use super::usage::{Processes, Sample, Used};
use crate::remote::Remote;

/// How long nothing may happen before it is not waited for any longer. A user's grace is within it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an update may be on its way before it counts as lost.
pub(super) const ARRIVES_WITHIN: Duration = Duration::from_secs(3);

/// After so long without another event, none is under way any more.
const QUIET: Duration = Duration::from_millis(500);

/// How long tokens are valid: no run takes as long.
const TOKEN_TTL: Duration = Duration::from_hours(2);

/// What every scenario is given.
pub(super) struct Setup {
    /// The nodes.
    pub(super) target: Remote,
    /// The processes whose use is read.
    pub(super) processes: Processes,
    /// With what tokens are signed.
    pub(super) auth: AuthSettings,
    /// The least number of threads that hold clients.
    pub(super) threads: usize,
    /// Id of the first user of the run.
    pub(super) first_user: u64,
}

/// What a scenario needs room for.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    /// Clients, all in all.
    pub(super) clients: usize,
    /// Of which users.
    pub(super) users: usize,
    /// Updates.
    pub(super) updates: usize,
}

impl Size {
    /// So many clients.
    pub(super) fn of_clients(clients: usize) -> Self {
        Self {
            clients,
            ..Self::default()
        }
    }
}

/// As whom clients are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody.
    Guests,
    /// Users, each another one, from the first on.
    Users,
}

/// A run under way. Its clients are gone when it is.
pub(super) struct Run<'a> {
    /// The nodes.
    pub(super) target: &'a Remote,
    /// What has happened so far.
    pub(super) tally: Arc<Tally>,
    setup: &'a Setup,
    load: Load,
    users: Users,
}

impl<'a> Run<'a> {
    /// Prepares for so many clients and updates.
    ///
    /// # Errors
    /// When the process may not have what it takes.
    pub(super) fn prepare(setup: &'a Setup, size: Size) -> Result<Self, BenchError> {
        let nodes = setup.target.nodes.len();
        let users = Users {
            first: setup.first_user,
            count: size.users,
        };
        let tally = Arc::new(Tally::new(size.updates));
        let load = Load::start((size.clients, setup.threads, nodes), users, &tally)?;
        Ok(Self {
            target: &setup.target,
            tally,
            setup,
            load,
            users,
        })
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.target.nodes.len()
    }

    /// Opens clients, spread over the first `nodes` nodes, and waits until all are connected.
    ///
    /// # Errors
    /// When a node refuses one, or does not answer.
    pub(super) async fn open(
        &mut self,
        count: usize,
        who: Who,
        nodes: usize,
    ) -> Result<Range<usize>, BenchError> {
        let openings = (0..count)
            .map(|place| {
                let node = place % nodes;
                let token = match who {
                    Who::Guests => None,
                    Who::Users => Some(self.token(place)?),
                };
                Ok(Opening {
                    node,
                    address: self.target.nodes[node],
                    token,
                })
            })
            .collect::<Result<Vec<_>, BenchError>>()?;
        let already = self.tally.count(Count::Joined);
        let clients = self.load.open(openings.into_iter());
        self.wait(Count::Joined, already, count as u64, "opening")
            .await?;
        Ok(clients)
    }

    fn token(&self, place: usize) -> Result<String, BenchError> {
        let user = self.users.first + place as u64;
        let user = UserId::try_from(user).map_err(|error| BenchError::Own(error.to_string()))?;
        token::issue(&self.setup.auth, user, TOKEN_TTL)
            .map_err(|error| BenchError::Token(error.to_string()))
    }

    /// Has clients ask something, and waits for the answers.
    ///
    /// # Errors
    /// When a node does not answer, or refuses.
    pub(super) async fn ask(
        &self,
        clients: &Range<usize>,
        question: Question,
    ) -> Result<(), BenchError> {
        let already = self.tally.count(Count::Answers);
        self.load.ask(clients, question);
        self.wait(Count::Answers, already, clients.len() as u64, "asking")
            .await
    }

    /// Has clients leave, and waits until the nodes have closed their connections.
    ///
    /// # Errors
    /// When a node does not close them.
    pub(super) async fn leave(&self, clients: &Range<usize>) -> Result<(), BenchError> {
        let already = self.tally.count(Count::Closed);
        // Those that a node has closed are gone.
        let open =
            clients.len() as u64 - self.tally.count(Count::Dropped).min(clients.len() as u64);
        self.load.leave(clients);
        self.wait(Count::Closed, already, open, "leaving").await
    }

    /// Waits until there are `more` of something than there were.
    async fn wait(
        &self,
        what: Count,
        already: u64,
        more: u64,
        doing: &'static str,
    ) -> Result<(), BenchError> {
        let bar = bar(doing, more);
        let show = |count: u64| bar.set_position(count.saturating_sub(already));
        let reached = self.tally.reach(what, already + more, PATIENCE, show);
        let reached = reached.await? - already;
        bar.finish_and_clear();
        match reached >= more {
            true => Ok(()),
            false => Err(BenchError::Stuck {
                doing,
                reached,
                of: more,
            }),
        }
    }

    /// Waits until there are `wanted` of something all in all, as long as any come; returns how many there are.
    ///
    /// # Errors
    /// When a client is in trouble.
    pub(super) async fn wait_for(
        &self,
        what: Count,
        wanted: u64,
        doing: &'static str,
    ) -> Result<u64, BenchError> {
        let bar = bar(doing, wanted);
        let show = |count: u64| bar.set_position(count);
        let patience = match what {
            Count::Updates => ARRIVES_WITHIN,
            _ => PATIENCE,
        };
        let reached = self.tally.reach(what, wanted, patience, show).await?;
        bar.finish_and_clear();
        Ok(reached)
    }

    /// Waits until no more of something comes; returns how many there are.
    ///
    /// # Errors
    /// When a client is in trouble.
    pub(super) async fn wait_for_quiet(&self, what: Count) -> Result<u64, BenchError> {
        Ok(self.tally.reach(what, u64::MAX, QUIET, |_| ()).await?)
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When a client is in trouble.
    pub(super) async fn hold(&self, time: Duration, doing: &'static str) -> Result<(), BenchError> {
        let bar = bar(doing, time.as_secs());
        for passed in 0..time.as_secs() {
            bar.set_position(passed);
            let second = Duration::from_secs(1);
            // Nothing is waited for but the time.
            let rest = self.tally.reach(Count::Closed, u64::MAX, second, |_| ());
            rest.await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// What was found out since this was asked last, and all that these clients have received.
    pub(super) async fn harvest(&self, clients: &Range<usize>) -> Harvest {
        self.load.report(clients, self.nodes()).await
    }

    /// A report that begins with what every run has.
    pub(super) fn report(&self, scenario: &'static str, connections: usize) -> Report {
        let mut report = Report::new(scenario);
        report.count("nodes", "nodes", self.nodes() as u64);
        report.count("connections", "connections", connections as u64);
        report
    }

    /// What the processes have used so far.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(super) fn sample(&self) -> Result<Sample, BenchError> {
        Ok(self.setup.processes.sample()?)
    }

    /// What the processes have used since then.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(super) fn since(&self, before: &Sample) -> Result<Used, BenchError> {
        Ok(self.setup.processes.since(before)?)
    }
}

/// Shows how far things are, on a terminal only.
pub(super) fn bar(doing: &'static str, of: u64) -> ProgressBar {
    let bar = ProgressBar::new(of).with_message(doing);
    match ProgressStyle::with_template("{msg:>12} {wide_bar} {human_pos}/{human_len} {eta:>4}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
