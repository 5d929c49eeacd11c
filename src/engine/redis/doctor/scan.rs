//! Scans everything, or checks candidates again.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::contents::lenient;
use super::snapshot::{NodeStatus, Snapshot};
use super::validator::read_registration;
use super::{Doctor, FINDINGS_MAX, Finding, FindingKind};
use crate::engine::EngineError;
use crate::engine::redis::keys::ParsedKey;
use crate::engine::redis::page::{BEGINNING, ScanPage};
use crate::ids::{UserConnection, UserId};

/// Concurrent checks.
const CHECKS_MAX: usize = 128;

/// Keys whose contents are read concurrently: some hold hundreds of kilobytes.
const CONTENT_CHECKS_MAX: usize = 16;

/// Foreign keys named in the report.
const FOREIGN_KEYS_MAX: usize = 5;

/// The result of a scan.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) findings: HashSet<Finding>,
    pub(super) more: bool,
    pub(super) users: u64,
    /// Keys under the prefix that are not the hub's: their number, and the first of them.
    pub(super) foreign_keys: (u64, Vec<String>),
}

/// The subject of one check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Everything about a user.
    User(UserId),
    /// The same, unless the user has registered connections: those are checked anyway.
    UserWithoutConnections(UserId),
    /// An incarnation's set of registrations in a partition, and whether the partition lists the incarnation.
    Registrations(u32, String),
    /// One entry of that set.
    Entry(u32, String, UserConnection),
    /// The incarnation itself.
    Node(String),
    /// The content of a key.
    Contents(String),
}

impl Candidates {
    fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            if self.findings.len() >= FINDINGS_MAX {
                self.more = true;
                return;
            }
            self.findings.insert(finding);
        }
    }

    fn add_foreign_key(&mut self, key: &[u8]) {
        self.foreign_keys.0 += 1;
        if self.foreign_keys.1.len() < FOREIGN_KEYS_MAX {
            let shown = String::from_utf8_lossy(key).escape_debug().to_string();
            self.foreign_keys.1.push(shown);
        }
    }
}

impl Doctor {
    pub(super) async fn scan_all(&self, snapshot: &Snapshot) -> Result<Candidates, EngineError> {
        let mut candidates = Candidates::default();
        for server in self.redis.servers.masters() {
            let mut cursor = Some(BEGINNING.to_owned());
            while let Some(at) = cursor {
                let page = self.page_of_keys(&server, &at).await?;
                let mut keys = Vec::with_capacity(page.items.len());
                for key in &page.items {
                    match std::str::from_utf8(key) {
                        Ok(key) if self.known.of(key).is_some() => keys.push(key.to_owned()),
                        _ => candidates.add_foreign_key(key),
                    }
                }
                let parsed = keys.iter().filter_map(|key| self.redis.keys.parse(key));
                self.check_keys(parsed.collect(), snapshot, &mut candidates)
                    .await?;
                for keys in keys.chunks(CONTENT_CHECKS_MAX) {
                    let contents = keys.iter().cloned().map(Subject::Contents).collect();
                    self.check_each(contents, snapshot, &mut candidates).await?;
                }
                cursor = page.next;
            }
        }
        for partition in 0..self.redis.partitions() {
            self.check_partition(partition, snapshot, &mut candidates)
                .await?;
        }
        let held: Vec<_> = snapshot.users().collect();
        for users in held.chunks(CHECKS_MAX) {
            let users = users.iter().copied().map(Subject::UserWithoutConnections);
            self.check_each(users.collect(), snapshot, &mut candidates)
                .await?;
        }
        let nodes = snapshot
            .incarnations()
            .cloned()
            .map(Subject::Node)
            .collect();
        self.check_each(nodes, snapshot, &mut candidates).await?;
        Ok(candidates)
    }

    async fn check_keys(
        &self,
        keys: Vec<ParsedKey>,
        snapshot: &Snapshot,
        candidates: &mut Candidates,
    ) -> Result<(), EngineError> {
        for key in &keys {
            // For a dead incarnation the whole set is a finding.
            if let ParsedKey::Registrations(partition, incarnation) = key
                && snapshot.node_status(incarnation) != NodeStatus::Gone
            {
                self.check_entries(*partition, incarnation, snapshot, candidates)
                    .await?;
            }
        }
        let subject = |key| match key {
            ParsedKey::Connections(user) => Subject::User(user),
            ParsedKey::Registrations(partition, incarnation) => {
                Subject::Registrations(partition, incarnation)
            }
            ParsedKey::Node(incarnation) => Subject::Node(incarnation),
        };
        let subjects = keys.into_iter().map(subject).collect();
        self.check_each(subjects, snapshot, candidates).await
    }

    /// Checks the entries of a live incarnation's registrations.
    async fn check_entries(
        &self,
        partition: u32,
        incarnation: &str,
        snapshot: &Snapshot,
        candidates: &mut Candidates,
    ) -> Result<(), EngineError> {
        let key = self.redis.keys.registrations_of(partition, incarnation);
        let mut cursor = Some(BEGINNING.to_owned());
        while let Some(at) = cursor {
            let Some(page) = self.members("SSCAN", &key, &at).await? else {
                return Ok(());
            };
            let entries = page
                .items
                .iter()
                .filter_map(|entry| read_registration(entry));
            let of_partition =
                entries.filter(|(user, _)| self.redis.partition_of(*user) == partition);
            let subject = |held| Subject::Entry(partition, incarnation.to_owned(), held);
            self.check_each(of_partition.map(subject).collect(), snapshot, candidates)
                .await?;
            cursor = page.next;
        }
        Ok(())
    }

    /// Checks a partition's lists: online users, leaving users, nodes.
    async fn check_partition(
        &self,
        partition: u32,
        snapshot: &Snapshot,
        candidates: &mut Candidates,
    ) -> Result<(), EngineError> {
        let keys = &self.redis.keys;
        let lists = [
            ("SSCAN", keys.online(partition)),
            // Members and scores alternate.
            ("ZSCAN", keys.leaving(partition)),
            ("SSCAN", keys.registered_nodes(partition)),
        ];
        for (list, (command, key)) in lists.iter().enumerate() {
            let mut cursor = Some(BEGINNING.to_owned());
            while let Some(at) = cursor {
                let Some(page) = self.members(command, key, &at).await? else {
                    break;
                };
                let step = if *command == "ZSCAN" { 2 } else { 1 };
                let members = page.items.iter().step_by(step);
                let subjects: Vec<Subject> = match list {
                    2 => members
                        .map(|name| Subject::Registrations(partition, name.clone()))
                        .collect(),
                    _ => members
                        .filter_map(|member| member.parse().ok())
                        .filter(|user| self.redis.partition_of(*user) == partition)
                        .map(Subject::UserWithoutConnections)
                        .collect(),
                };
                if list == 0 {
                    candidates.users += subjects.len() as u64;
                }
                self.check_each(subjects, snapshot, candidates).await?;
                cursor = page.next;
            }
        }
        Ok(())
    }

    /// One step through the members of a key; one that is not UTF-8 reads as empty. `None` if the key has another type.
    pub(super) async fn members(
        &self,
        command: &'static str,
        key: &str,
        cursor: &str,
    ) -> Result<Option<ScanPage<String>>, EngineError> {
        let page = self.page::<Bytes>(command, key, cursor).await;
        let text = |item: Bytes| String::from_utf8(item.into()).unwrap_or_default();
        Ok(lenient(page.map(Some))?.map(|page| ScanPage {
            next: page.next,
            items: page.items.into_iter().map(text).collect(),
        }))
    }

    /// Checks the subjects of the findings again.
    pub(super) async fn scan(
        &self,
        findings: &HashSet<Finding>,
        snapshot: &Snapshot,
    ) -> Result<Candidates, EngineError> {
        let subjects: BTreeSet<Subject> = findings.iter().filter_map(subject_of).collect();
        let mut candidates = Candidates::default();
        let subjects: Vec<Subject> = subjects.into_iter().collect();
        for batch in subjects.chunks(CHECKS_MAX) {
            self.check_each(batch.to_vec(), snapshot, &mut candidates)
                .await?;
        }
        Ok(candidates)
    }

    async fn check_each(
        &self,
        subjects: Vec<Subject>,
        snapshot: &Snapshot,
        candidates: &mut Candidates,
    ) -> Result<(), EngineError> {
        let mut checks = stream::iter(subjects)
            .map(|subject| self.check_one(subject, snapshot))
            .buffer_unordered(CHECKS_MAX);
        while let Some(findings) = checks.try_next().await? {
            candidates.add(findings);
        }
        Ok(())
    }

    async fn check_one(
        &self,
        subject: Subject,
        snapshot: &Snapshot,
    ) -> Result<Vec<Finding>, EngineError> {
        match subject {
            Subject::User(user) => self.check_user(user, snapshot).await,
            Subject::UserWithoutConnections(user) => {
                let key = self.redis.keys.connections(user);
                if self.exists(key).await? {
                    Ok(Vec::new())
                } else {
                    self.check_user(user, snapshot).await
                }
            }
            Subject::Registrations(partition, incarnation) => {
                self.check_registrations(partition, &incarnation, snapshot)
                    .await
            }
            Subject::Entry(partition, incarnation, held) => {
                self.check_entry(partition, &incarnation, held).await
            }
            Subject::Node(incarnation) => self.check_node(&incarnation, snapshot).await,
            Subject::Contents(key) => match self.known.of(&key) {
                Some(known) => {
                    self.check_contents(&key, &known, snapshot.taken_at_ms)
                        .await
                }
                None => Ok(Vec::new()),
            },
        }
    }

    /// Checks a user for ghosts and contradictions.
    async fn check_user(
        &self,
        user: UserId,
        snapshot: &Snapshot,
    ) -> Result<Vec<Finding>, EngineError> {
        let partition = self.redis.partition_of(user);
        let registered = async { lenient(self.registered(user).await) };
        let (registered, state) = try_join(registered, self.state_of(user)).await?;
        let Some(state) = state else {
            return Ok(Vec::new());
        };
        let mut findings = Vec::new();
        for (incarnation, connection) in &registered {
            let held = (user, *connection);
            let problem = match snapshot.node_status(incarnation) {
                NodeStatus::Gone => Some(FindingKind::NodeGone),
                NodeStatus::Alive if !snapshot.holds(incarnation, held) => {
                    Some(FindingKind::NodeUnaware)
                }
                NodeStatus::Alive | NodeStatus::Silent => {
                    let owes = self
                        .is_in_registrations(partition, incarnation, held)
                        .await?;
                    (!owes).then_some(FindingKind::NotOwed)
                }
            };
            findings.extend(
                problem
                    .map(|problem| Finding::of_connection(problem, partition, held, incarnation)),
            );
        }
        if !snapshot.held_of(user).is_empty() && self.redis.listeners(user).await? == 0 {
            findings.push(Finding::of_user(FindingKind::NotHeard, partition, user));
        }
        let unregistered = snapshot.held_of(user).iter().filter(|(name, connection)| {
            let is_it =
                |(incarnation, id): &(String, _)| **incarnation == **name && id == connection;
            !registered.iter().any(is_it)
        });
        for (name, connection) in unregistered {
            let held = (user, *connection);
            let finding = Finding::of_connection(FindingKind::NotRegistered, partition, held, name);
            findings.push(finding);
        }
        let mut problems = state.problems(snapshot.taken_at_ms, self.rules.offline_grace);
        if !snapshot.held_of(user).is_empty() {
            // The user is rightly online: only the registration is missing.
            problems.retain(|problem| *problem != FindingKind::OnlineWithoutConnections);
        }
        let of_user = |problem| Finding::of_user(problem, partition, user);
        findings.extend(problems.into_iter().map(of_user));
        Ok(findings)
    }

    async fn check_registrations(
        &self,
        partition: u32,
        incarnation: &str,
        snapshot: &Snapshot,
    ) -> Result<Vec<Finding>, EngineError> {
        let owes = self.exists(self.redis.keys.registrations_of(partition, incarnation));
        let (owes, listed) = try_join(owes, self.is_listed(partition, incarnation)).await?;
        let gone = snapshot.node_status(incarnation) == NodeStatus::Gone;
        let problems = [
            (gone && owes, FindingKind::OwedByUnknown),
            (gone && listed, FindingKind::UnknownMember),
            (!gone && owes && !listed, FindingKind::NotListed),
        ];
        let wrong = problems.into_iter().filter(|(wrong, _)| *wrong);
        Ok(wrong
            .map(|(_, problem)| Finding::of_node(problem, Some(partition), incarnation))
            .collect())
    }

    async fn check_entry(
        &self,
        partition: u32,
        incarnation: &str,
        held: UserConnection,
    ) -> Result<Vec<Finding>, EngineError> {
        let (user, connection) = held;
        let field = format!("{incarnation}/{connection}");
        let key = self.redis.keys.connections(user);
        let registered = async {
            let registered = self.redis.servers.call::<bool>("HEXISTS", key, vec![field]);
            lenient(registered.await)
        };
        let owed = self.is_in_registrations(partition, incarnation, held);
        let (registered, owed) = try_join(registered, owed).await?;
        let problem = (owed && !registered).then_some(FindingKind::OwedUnregistered);
        Ok(problem
            .map(|problem| Finding::of_connection(problem, partition, held, incarnation))
            .into_iter()
            .collect())
    }

    async fn check_node(
        &self,
        incarnation: &str,
        snapshot: &Snapshot,
    ) -> Result<Vec<Finding>, EngineError> {
        let problem = match snapshot.node_status(incarnation) {
            NodeStatus::Alive => None,
            NodeStatus::Silent => Some(FindingKind::Silent),
            NodeStatus::Gone if snapshot.has_lease(incarnation) => Some(FindingKind::LeaseOver),
            NodeStatus::Gone => {
                let has_report = self.exists(self.redis.keys.node(incarnation)).await?;
                has_report.then_some(FindingKind::UnknownNode)
            }
        };
        Ok(problem
            .map(|problem| Finding::of_node(problem, None, incarnation))
            .into_iter()
            .collect())
    }

    pub(super) async fn exists(&self, key: String) -> Result<bool, EngineError> {
        self.redis.servers.call("EXISTS", key, Vec::new()).await
    }

    async fn is_listed(&self, partition: u32, incarnation: &str) -> Result<bool, EngineError> {
        let key = self.redis.keys.registered_nodes(partition);
        let incarnation = vec![incarnation.to_owned()];
        lenient(self.redis.servers.call("SISMEMBER", key, incarnation).await)
    }

    async fn is_in_registrations(
        &self,
        partition: u32,
        incarnation: &str,
        (user, connection): UserConnection,
    ) -> Result<bool, EngineError> {
        let key = self.redis.keys.registrations_of(partition, incarnation);
        let entry = format!("{user}/{connection}");
        lenient(self.redis.servers.call("SISMEMBER", key, vec![entry]).await)
    }
}

fn subject_of(finding: &Finding) -> Option<Subject> {
    let incarnation = || finding.incarnation.clone();
    match finding.kind {
        FindingKind::OwedByUnknown | FindingKind::UnknownMember | FindingKind::NotListed => {
            Some(Subject::Registrations(finding.partition?, incarnation()?))
        }
        FindingKind::OwedUnregistered => {
            let held = (finding.user?, finding.connection?);
            Some(Subject::Entry(finding.partition?, incarnation()?, held))
        }
        FindingKind::UnknownNode | FindingKind::LeaseOver | FindingKind::Silent => {
            Some(Subject::Node(incarnation()?))
        }
        FindingKind::UnreadableConnection
        | FindingKind::Unreadable
        | FindingKind::WrongType
        | FindingKind::Misplaced => Some(Subject::Contents(finding.key.clone()?)),
        FindingKind::NodeGone
        | FindingKind::NodeUnaware
        | FindingKind::OnlineWithoutConnections
        | FindingKind::ConnectedButOffline
        | FindingKind::LeavingWithConnections
        | FindingKind::LeavingButOffline
        | FindingKind::Overdue
        | FindingKind::LeavingTooLate
        | FindingKind::NotOwed
        | FindingKind::NotRegistered
        | FindingKind::NotHeard => Some(Subject::User(finding.user?)),
        // Not about data.
        FindingKind::Evicting => None,
    }
}
