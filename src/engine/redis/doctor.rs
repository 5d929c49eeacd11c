//! Compares what Redis says with itself and with the nodes that hold the connections, and puts it right.
//!
//! Clients come and go meanwhile, so nothing that is read is all of one moment. Hence two looks: the first reads
//! everything in steps and collects suspects, the second reads those again a little later. Only what is wrong both
//! times is a finding. The doctor is no node: it has no lease, registers nothing, and writes only to repair.

mod census;
mod contents;
mod finding;
mod known;
mod look;
mod read;
mod readable;
mod removal;
mod repair;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use self::census::Census;
pub use self::finding::{Category, Finding, Problem};
use self::known::{Known, KnownKeys};
use self::look::Suspects;
use super::{Options, Redis};
use crate::engine::{EngineError, KEEPS_EVERYTHING, OpenError};

/// Longer than an admission, a farewell or a round of reaping takes: whatever is wrong before and after stays so.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// After Redis stood still everybody's lease is over, and everybody gets a lease's time to renew; but not more.
const RENEWED_WITHIN_MAX: Duration = Duration::from_secs(10);

/// Findings that are told at most. Whoever has more repairs these first.
const FINDINGS_MAX: usize = 100_000;

/// Looks at the data under one prefix.
pub struct Doctor {
    redis: Redis,
    rules: Rules,
    known: KnownKeys,
}

/// The settings of the nodes that the doctor needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a user without connections stays online.
    pub offline_grace: Duration,
    /// How long a node counts as alive after its last sign of life.
    pub lease: Duration,
    /// How long a node may stay silent when it is asked something.
    pub patience: Duration,
}

/// What an examination found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong, in order.
    pub findings: Vec<Finding>,
    /// There is more than could be told.
    pub more: bool,
    /// Nodes with a lease.
    pub nodes: usize,
    /// Users who are online.
    pub users: u64,
    /// What is worth knowing and may be right.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Doctor {
    /// Connects and checks the data's layout, without recording one.
    ///
    /// # Errors
    /// When the URL is none, Redis does not answer, or the data has another layout.
    pub async fn open(options: &Options, rules: Rules) -> Result<Self, OpenError> {
        let redis = Redis::visit(options).await?;
        Ok(Self {
            known: KnownKeys::new(&redis.keys),
            redis,
            rules,
        })
    }

    /// Looks twice, if the first look finds anything.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn examine(&self) -> Result<Report, EngineError> {
        if let Some(report) = self.examine_leases().await? {
            return Ok(report);
        }
        let census = self.take_census().await?;
        let first = self.look_at_everything(&census).await?;
        let mut report = Report {
            more: first.more,
            nodes: census.nodes(),
            users: first.users,
            notes: notes(&first.strangers),
            ..Report::default()
        };
        if !first.findings.is_empty() {
            tokio::time::sleep(self.pause(&census)).await;
            report.findings = self.look_again(first).await?;
        }
        report.findings.extend(self.look_at_settings().await?);
        Ok(report)
    }

    /// What is wrong with the settings of Redis.
    async fn look_at_settings(&self) -> Result<Option<Finding>, EngineError> {
        let policy = self.redis.eviction_policy().await?;
        let evicts = policy.is_some_and(|policy| policy != KEEPS_EVERYTHING);
        Ok(evicts.then(|| Finding::of_server(Problem::Evicting)))
    }

    /// Where the list of leases is none, nobody can say who is alive, and nothing else is looked at.
    async fn examine_leases(&self) -> Result<Option<Report>, EngineError> {
        let leases = self.redis.keys.leases();
        let now_ms = self.redis.now_ms().await?;
        let findings = self
            .look_at_contents(&leases, &Known::Leases, now_ms)
            .await?;
        let is_none = |finding: &Finding| finding.problem == Problem::WrongType;
        Ok(findings.iter().any(is_none).then(|| Report {
            findings,
            ..Report::default()
        }))
    }

    fn pause(&self, census: &Census) -> Duration {
        match census.may_have_to_renew() {
            true => self.rules.lease.min(RENEWED_WITHIN_MAX),
            false => Duration::ZERO,
        }
        .max(LOOK_AGAIN_AFTER)
    }

    /// What was wrong the first time and still is.
    async fn look_again(&self, first: Suspects) -> Result<Vec<Finding>, EngineError> {
        let census = self.take_census().await?;
        let second = self.look_at(&first.findings, &census).await?;
        let suspected: HashSet<Finding> =
            first.findings.into_iter().map(Finding::identity).collect();
        let mut findings: Vec<Finding> = second
            .findings
            .into_iter()
            .filter(|finding| suspected.contains(&finding.clone().identity()))
            .collect();
        findings.sort();
        Ok(findings)
    }
}

fn notes((count, first): &(u64, Vec<String>)) -> Vec<String> {
    let others = match *count > first.len() as u64 {
        true => " and others",
        false => "",
    };
    let note = format!(
        "{count} under the prefix are none of this hub's keys, and left alone: {}{others}",
        first.join(", ")
    );
    Vec::from_iter((*count > 0).then_some(note))
}

/// An incarnation, named many times.
type Name = Arc<str>;
