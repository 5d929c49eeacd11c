//! Checks the data in Redis for contradictions, also with the connections that nodes hold, and repairs it.
//!
//! Clients come and go during a scan, so what is read is never one consistent moment. Hence two passes: the first reads
//! everything in steps and collects candidates; the second checks those again a little later. Only what is wrong both
//! times is a finding. The doctor is not a node: it has no lease, registers nothing, and writes only to repair.

mod contents;
mod finding;
mod key_kind;
mod read;
mod removal;
mod repair;
mod scan;
mod snapshot;
mod validator;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::finding::{Category, Finding, FindingKind};
use self::key_kind::{KeyCatalog, KeyKind};
use self::scan::Candidates;
use self::snapshot::Snapshot;
use super::{Redis, RedisOptions};
use crate::engine::{EngineError, NOEVICTION, OpenError};

/// Longer than admitting, closing or reaping a connection takes, so that a problem seen before and after is not
/// transient.
const RECHECK_AFTER: Duration = Duration::from_secs(3);

/// After Redis was suspended every lease is over, and nodes get the length of a lease to renew, but no more than this.
const RENEWED_WITHIN_MAX: Duration = Duration::from_secs(10);

/// Maximum number of findings reported; repair these to see more.
const FINDINGS_MAX: usize = 100_000;

/// Examines and repairs the data under one prefix.
pub(crate) struct Doctor {
    redis: Redis,
    rules: Rules,
    known: KeyCatalog,
}

/// The nodes' settings that the doctor needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long a user without connections stays online.
    pub offline_grace: Duration,
    /// How long a node counts as alive after its last renewal.
    pub lease: Duration,
    /// How long to wait for a node's next reply.
    pub reply_timeout: Duration,
}

/// The result of an examination.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoctorReport {
    /// The findings, sorted.
    pub findings: Vec<Finding>,
    /// There are more findings than reported.
    pub more: bool,
    /// Nodes with a lease.
    pub nodes: usize,
    /// Online users.
    pub users: u64,
    /// Remarks that need not be problems.
    pub notes: Vec<String>,
}

impl DoctorReport {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Doctor {
    /// Connects and checks the data's layout, without recording one.
    ///
    /// # Errors
    /// If the URL is invalid, Redis does not answer, or the data has another layout.
    pub(crate) async fn open(options: &RedisOptions, rules: Rules) -> Result<Self, OpenError> {
        let redis = Redis::connect_readonly(options).await?;
        Ok(Self {
            known: KeyCatalog::new(&redis.keys),
            redis,
            rules,
        })
    }

    /// Examines the data; checks candidates twice.
    pub(crate) async fn examine(&self) -> Result<DoctorReport, EngineError> {
        if let Some(report) = self.examine_leases().await? {
            return Ok(report);
        }
        let snapshot = self.take_snapshot().await?;
        let first = self.scan_all(&snapshot).await?;
        let mut report = DoctorReport {
            more: first.more,
            nodes: snapshot.nodes(),
            users: first.users,
            notes: notes(&first.foreign_keys),
            ..DoctorReport::default()
        };
        if !first.findings.is_empty() {
            tokio::time::sleep(self.pause(&snapshot)).await;
            report.findings = self.recheck(first).await?;
        }
        report.findings.extend(self.check_settings().await?);
        Ok(report)
    }

    async fn check_settings(&self) -> Result<Option<Finding>, EngineError> {
        let policy = self.redis.eviction_policy().await?;
        let evicts = policy.is_some_and(|policy| policy != NOEVICTION);
        Ok(evicts.then(|| Finding::of_server(FindingKind::Evicting)))
    }

    /// If the list of leases has the wrong type, no node's status is known, so nothing else is checked.
    async fn examine_leases(&self) -> Result<Option<DoctorReport>, EngineError> {
        let leases = self.redis.keys.leases();
        let now_ms = self.redis.now_ms().await?;
        let findings = self
            .check_contents(&leases, &KeyKind::Leases, now_ms)
            .await?;
        let has_wrong_type = |finding: &Finding| finding.kind == FindingKind::WrongType;
        Ok(findings.iter().any(has_wrong_type).then(|| DoctorReport {
            findings,
            ..DoctorReport::default()
        }))
    }

    fn pause(&self, snapshot: &Snapshot) -> Duration {
        let renewal = if snapshot.may_have_to_renew() {
            self.rules.lease.min(RENEWED_WITHIN_MAX)
        } else {
            Duration::ZERO
        };
        renewal.max(RECHECK_AFTER)
    }

    /// The candidates that are still wrong.
    async fn recheck(&self, first: Candidates) -> Result<Vec<Finding>, EngineError> {
        let snapshot = self.take_snapshot().await?;
        let second = self.scan(&first.findings, &snapshot).await?;
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
    let others = if *count > first.len() as u64 {
        " and others"
    } else {
        ""
    };
    let note = format!(
        "{count} under the prefix are not keys of this hub and are left alone: {}{others}",
        first.join(", ")
    );
    Vec::from_iter((*count > 0).then_some(note))
}

/// An incarnation, shared by many entries.
type IncarnationName = Arc<str>;
