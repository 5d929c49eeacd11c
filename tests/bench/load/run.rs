//! One run: the nodes, the clients on them, the measured processes, and the steps that scenarios are made of.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vigie::UserId;
use vigie::internals::{issue_token, token_options};
use vigie::settings::AuthSettings;

use super::clients::{Count, Counters, Load, Opening, Query, Results, Users};
use super::error::BenchError;
use super::report::Report;
use super::usage::{Processes, Sample, Used};
use crate::remote::Remote;

/// A wait ends after this long without progress. Longer than `presence.offline_grace` by default.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// An update counts as lost after this long.
pub(super) const ARRIVES_WITHIN: Duration = Duration::from_secs(3);

/// No event is in flight after this long without one.
const QUIET: Duration = Duration::from_millis(500);

/// Longer than any run.
const TOKEN_TTL: Duration = Duration::from_hours(2);

pub(super) struct Setup {
    pub(super) target: Remote,
    pub(super) processes: Processes,
    pub(super) auth: AuthSettings,
    /// Minimum number of client threads.
    pub(super) threads: usize,
    pub(super) first_user: u64,
}

impl Setup {
    /// A token of the user at this place, counted from the first.
    pub(super) fn token(&self, place: usize) -> Result<String, BenchError> {
        let user = self.first_user + place as u64;
        let user = UserId::try_from(user).map_err(|error| BenchError::Own(error.to_string()))?;
        issue_token(&token_options(&self.auth), user, TOKEN_TTL)
            .map_err(|error| BenchError::Token(error.to_string()))
    }
}

/// The resources of a scenario.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) clients: usize,
    pub(super) users: usize,
    pub(super) updates: usize,
}

impl Size {
    pub(super) fn of_clients(clients: usize) -> Self {
        Self {
            clients,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Guest,
    /// A different user per client, from the first on.
    User,
}

/// A run in progress; its clients end with it.
pub(super) struct Run<'a> {
    pub(super) target: &'a Remote,
    pub(super) counters: Arc<Counters>,
    setup: &'a Setup,
    load: Load,
}

impl<'a> Run<'a> {
    pub(super) fn prepare(setup: &'a Setup, size: Size) -> Result<Self, BenchError> {
        let nodes = setup.target.nodes.len();
        let users = Users {
            first: setup.first_user,
            count: size.users,
        };
        let counters = Arc::new(Counters::new(size.updates));
        let load = Load::start((size.clients, setup.threads, nodes), users, &counters)?;
        Ok(Self {
            target: &setup.target,
            counters,
            setup,
            load,
        })
    }

    pub(super) fn nodes(&self) -> usize {
        self.target.nodes.len()
    }

    /// Opens clients, spread over the first `nodes` nodes, and waits until all are connected.
    pub(super) async fn open(
        &mut self,
        count: usize,
        role: Role,
        nodes: usize,
    ) -> Result<Range<usize>, BenchError> {
        let openings = (0..count)
            .map(|place| {
                let node = place % nodes;
                let token = match role {
                    Role::Guest => None,
                    Role::User => Some(self.setup.token(place)?),
                };
                Ok(Opening {
                    node,
                    address: self.target.nodes[node],
                    token,
                })
            })
            .collect::<Result<Vec<_>, BenchError>>()?;
        let already = self.counters.count(Count::Connected);
        let clients = self.load.open(openings.into_iter());
        self.wait(Count::Connected, already, count as u64, "opening")
            .await?;
        Ok(clients)
    }

    /// Sends a query from each client and waits for all acknowledgements.
    pub(super) async fn query(
        &self,
        clients: &Range<usize>,
        query: Query,
    ) -> Result<(), BenchError> {
        let already = self.counters.count(Count::Acks);
        self.load.query(clients, query);
        self.wait(Count::Acks, already, clients.len() as u64, "asking")
            .await
    }

    /// The same with another query from each client.
    pub(super) async fn query_each(
        &self,
        clients: &Range<usize>,
        query: impl Fn(usize) -> Query,
    ) -> Result<(), BenchError> {
        let already = self.counters.count(Count::Acks);
        for client in clients.clone() {
            self.load.query(&(client..client + 1), query(client));
        }
        self.wait(Count::Acks, already, clients.len() as u64, "asking")
            .await
    }

    /// Disconnects clients and waits until the nodes have closed their connections.
    pub(super) async fn disconnect(&self, clients: &Range<usize>) -> Result<(), BenchError> {
        let already = self.counters.count(Count::Closed);
        // Connections that a node dropped are closed already.
        let open = clients.len() as u64
            - self
                .counters
                .count(Count::Dropped)
                .min(clients.len() as u64);
        self.load.disconnect(clients);
        self.wait(Count::Closed, already, open, "leaving").await
    }

    /// Waits until `count` has grown by `more` from `already`.
    async fn wait(
        &self,
        what: Count,
        already: u64,
        more: u64,
        doing: &'static str,
    ) -> Result<(), BenchError> {
        let bar = bar(doing, more);
        let show = |count: u64| bar.set_position(count.saturating_sub(already));
        let reached = self
            .counters
            .reach(what, already + more, STALL_TIMEOUT, show);
        let reached = reached.await? - already;
        bar.finish_and_clear();
        if reached < more {
            return Err(BenchError::Stuck {
                doing,
                reached,
                of: more,
            });
        }
        Ok(())
    }

    /// Waits until a counter reaches `wanted`, or stops growing; returns its value.
    pub(super) async fn wait_for(
        &self,
        what: Count,
        wanted: u64,
        doing: &'static str,
    ) -> Result<u64, BenchError> {
        let bar = bar(doing, wanted);
        let show = |count: u64| bar.set_position(count);
        let stall_timeout = match what {
            Count::Updates => ARRIVES_WITHIN,
            _ => STALL_TIMEOUT,
        };
        let reached = self
            .counters
            .reach(what, wanted, stall_timeout, show)
            .await?;
        bar.finish_and_clear();
        Ok(reached)
    }

    /// Waits until a counter stops growing; returns its value.
    pub(super) async fn wait_for_quiet(&self, what: Count) -> Result<u64, BenchError> {
        Ok(self.counters.reach(what, u64::MAX, QUIET, |_| ()).await?)
    }

    /// Waits for `time`; fails early when a client does.
    pub(super) async fn hold(&self, time: Duration, doing: &'static str) -> Result<(), BenchError> {
        let bar = bar(doing, time.as_secs());
        for passed in 0..time.as_secs() {
            bar.set_position(passed);
            let second = Duration::from_secs(1);
            // Never reached, so this waits out the second.
            let rest = self.counters.reach(Count::Closed, u64::MAX, second, |_| ());
            rest.await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Takes what was measured since the last call, together with the totals of `clients`.
    pub(super) async fn results(&self, clients: &Range<usize>) -> Results {
        self.load.report(clients, self.nodes()).await
    }

    /// A report with the figures common to all runs.
    pub(super) fn report(&self, scenario: &'static str, connections: usize) -> Report {
        let mut report = Report::new(scenario);
        report.count("nodes", "nodes", self.nodes() as u64);
        report.count("connections", "connections", connections as u64);
        report
    }

    pub(super) fn sample(&self) -> Result<Sample, BenchError> {
        Ok(self.setup.processes.sample()?)
    }

    pub(super) fn since(&self, before: &Sample) -> Result<Used, BenchError> {
        Ok(self.setup.processes.since(before)?)
    }
}

/// A progress bar; visible on a terminal only.
pub(super) fn bar(doing: &'static str, of: u64) -> ProgressBar {
    let bar = ProgressBar::new(of).with_message(doing);
    match ProgressStyle::with_template("{msg:>12} {wide_bar} {human_pos}/{human_len} {eta:>4}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
