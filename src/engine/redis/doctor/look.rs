//! Looks: at everything, or at what is suspected.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::census::{Census, Standing};
use super::contents::lenient;
use super::readable::read_held;
use super::{Doctor, FINDINGS_MAX, Finding, Problem};
use crate::engine::EngineError;
use crate::engine::redis::answer::Held;
use crate::engine::redis::keys::Key;
use crate::engine::redis::page::{BEGINNING, Page};
use crate::ids::UserId;

/// Questions to Redis that are under way together.
const TOGETHER: usize = 128;

/// Keys whose contents are read together: some hold hundreds of kilobytes.
const CONTENTS_TOGETHER: usize = 16;

/// Names of keys that are told although they are nobody's.
const STRANGERS_MAX: usize = 5;

/// What a look found, and how much it saw.
#[derive(Default)]
pub(super) struct Suspects {
    pub(super) findings: HashSet<Finding>,
    pub(super) more: bool,
    pub(super) users: u64,
    /// Keys under the prefix that are none of the hub's: how many, and the first of them.
    pub(super) strangers: (u64, Vec<String>),
}

/// Whom or what to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// All that is said about a user.
    User(UserId),
    /// The same, unless the user has registered connections: those are looked at anyway.
    UserWithoutConnections(UserId),
    /// A partition's set of what an incarnation owes, and whether the partition knows the incarnation.
    Owed(u32, String),
    /// One entry of that set.
    Entry(u32, String, Held),
    /// The incarnation itself.
    Node(String),
    /// What a key holds.
    Contents(String),
}

impl Suspects {
    fn take_in(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            if self.findings.len() >= FINDINGS_MAX {
                self.more = true;
                return;
            }
            self.findings.insert(finding);
        }
    }

    fn take_in_stranger(&mut self, key: &[u8]) {
        self.strangers.0 += 1;
        if self.strangers.1.len() < STRANGERS_MAX {
            let shown = String::from_utf8_lossy(key).escape_debug().to_string();
            self.strangers.1.push(shown);
        }
    }
}

impl Doctor {
    /// Reads everything, in steps.
    pub(super) async fn look_at_everything(
        &self,
        census: &Census,
    ) -> Result<Suspects, EngineError> {
        let mut suspects = Suspects::default();
        for server in self.redis.servers.masters() {
            let mut cursor = Some(BEGINNING.to_owned());
            while let Some(at) = cursor {
                let page = self.page_of_keys(&server, &at).await?;
                let mut keys = Vec::with_capacity(page.items.len());
                for key in &page.items {
                    match std::str::from_utf8(key) {
                        Ok(key) if self.known.of(key).is_some() => keys.push(key.to_owned()),
                        _ => suspects.take_in_stranger(key),
                    }
                }
                let parsed = keys.iter().filter_map(|key| self.redis.keys.parse(key));
                self.look_at_keys(parsed.collect(), census, &mut suspects)
                    .await?;
                for keys in keys.chunks(CONTENTS_TOGETHER) {
                    let contents = keys.iter().cloned().map(Subject::Contents).collect();
                    self.look_at_each(contents, census, &mut suspects).await?;
                }
                cursor = page.next;
            }
        }
        for partition in 0..self.redis.partitions() {
            self.look_at_partition(partition, census, &mut suspects)
                .await?;
        }
        let held: Vec<_> = census.users().collect();
        for users in held.chunks(TOGETHER) {
            let users = users.iter().copied().map(Subject::UserWithoutConnections);
            self.look_at_each(users.collect(), census, &mut suspects)
                .await?;
        }
        let nodes = census.incarnations().cloned().map(Subject::Node).collect();
        self.look_at_each(nodes, census, &mut suspects).await?;
        Ok(suspects)
    }

    async fn look_at_keys(
        &self,
        keys: Vec<Key>,
        census: &Census,
        suspects: &mut Suspects,
    ) -> Result<(), EngineError> {
        for key in &keys {
            // Of a dead incarnation the whole set is a finding.
            if let Key::Owed(partition, incarnation) = key
                && census.standing(incarnation) != Standing::Gone
            {
                self.look_at_entries(*partition, incarnation, census, suspects)
                    .await?;
            }
        }
        let subject = |key| match key {
            Key::Connections(user) => Subject::User(user),
            Key::Owed(partition, incarnation) => Subject::Owed(partition, incarnation),
            Key::Node(incarnation) => Subject::Node(incarnation),
        };
        let subjects = keys.into_iter().map(subject).collect();
        self.look_at_each(subjects, census, suspects).await
    }

    /// The entries of what a living incarnation owes.
    async fn look_at_entries(
        &self,
        partition: u32,
        incarnation: &str,
        census: &Census,
        suspects: &mut Suspects,
    ) -> Result<(), EngineError> {
        let key = self.redis.keys.owed(partition, incarnation);
        let mut cursor = Some(BEGINNING.to_owned());
        while let Some(at) = cursor {
            let Some(page) = self.members("SSCAN", &key, &at).await? else {
                return Ok(());
            };
            let entries = page.items.iter().filter_map(|entry| read_held(entry));
            let of_partition =
                entries.filter(|(user, _)| self.redis.partition_of(*user) == partition);
            let subject = |held| Subject::Entry(partition, incarnation.to_owned(), held);
            self.look_at_each(of_partition.map(subject).collect(), census, suspects)
                .await?;
            cursor = page.next;
        }
        Ok(())
    }

    /// The lists of a partition: who is online, who is leaving, which nodes it knows.
    async fn look_at_partition(
        &self,
        partition: u32,
        census: &Census,
        suspects: &mut Suspects,
    ) -> Result<(), EngineError> {
        let keys = &self.redis.keys;
        let lists = [
            ("SSCAN", keys.online(partition)),
            // Members and scores in turns.
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
                        .map(|name| Subject::Owed(partition, name.clone()))
                        .collect(),
                    _ => members
                        .filter_map(|member| member.parse().ok())
                        .filter(|user| self.redis.partition_of(*user) == partition)
                        .map(Subject::UserWithoutConnections)
                        .collect(),
                };
                if list == 0 {
                    suspects.users += subjects.len() as u64;
                }
                self.look_at_each(subjects, census, suspects).await?;
                cursor = page.next;
            }
        }
        Ok(())
    }

    /// One step through the members of a key; one that is no text reads as empty. `None` where it holds something else.
    pub(super) async fn members(
        &self,
        command: &'static str,
        key: &str,
        cursor: &str,
    ) -> Result<Option<Page<String>>, EngineError> {
        let page = self.page::<Bytes>(command, key, cursor).await;
        let text = |item: Bytes| String::from_utf8(item.into()).unwrap_or_default();
        Ok(lenient(page.map(Some))?.map(|page| Page {
            next: page.next,
            items: page.items.into_iter().map(text).collect(),
        }))
    }

    /// Looks once more at whatever the findings are about.
    pub(super) async fn look_at(
        &self,
        findings: &HashSet<Finding>,
        census: &Census,
    ) -> Result<Suspects, EngineError> {
        let subjects: BTreeSet<Subject> = findings.iter().filter_map(subject_of).collect();
        let mut suspects = Suspects::default();
        let subjects: Vec<Subject> = subjects.into_iter().collect();
        for batch in subjects.chunks(TOGETHER) {
            self.look_at_each(batch.to_vec(), census, &mut suspects)
                .await?;
        }
        Ok(suspects)
    }

    async fn look_at_each(
        &self,
        subjects: Vec<Subject>,
        census: &Census,
        suspects: &mut Suspects,
    ) -> Result<(), EngineError> {
        let mut looks = stream::iter(subjects)
            .map(|subject| self.look_at_one(subject, census))
            .buffer_unordered(TOGETHER);
        while let Some(findings) = looks.try_next().await? {
            suspects.take_in(findings);
        }
        Ok(())
    }

    async fn look_at_one(
        &self,
        subject: Subject,
        census: &Census,
    ) -> Result<Vec<Finding>, EngineError> {
        match subject {
            Subject::User(user) => self.look_at_user(user, census).await,
            Subject::UserWithoutConnections(user) => {
                let key = self.redis.keys.connections(user);
                match self.exists(key).await? {
                    true => Ok(Vec::new()),
                    false => self.look_at_user(user, census).await,
                }
            }
            Subject::Owed(partition, incarnation) => {
                self.look_at_owed(partition, &incarnation, census).await
            }
            Subject::Entry(partition, incarnation, held) => {
                self.look_at_entry(partition, &incarnation, held).await
            }
            Subject::Node(incarnation) => self.look_at_node(&incarnation, census).await,
            Subject::Contents(key) => match self.known.of(&key) {
                Some(known) => {
                    self.look_at_contents(&key, &known, census.taken_at_ms)
                        .await
                }
                None => Ok(Vec::new()),
            },
        }
    }

    /// Ghosts of a user, and whatever contradicts itself or the nodes.
    async fn look_at_user(
        &self,
        user: UserId,
        census: &Census,
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
            let problem = match census.standing(incarnation) {
                Standing::Gone => Some(Problem::NodeGone),
                Standing::Alive if !census.holds(incarnation, held) => Some(Problem::NodeUnaware),
                Standing::Alive | Standing::Silent => {
                    let owes = self.owes(partition, incarnation, held).await?;
                    (!owes).then_some(Problem::NotOwed)
                }
            };
            findings.extend(
                problem
                    .map(|problem| Finding::of_connection(problem, partition, held, incarnation)),
            );
        }
        if !census.held_of(user).is_empty() && self.redis.listeners(user).await? == 0 {
            findings.push(Finding::of_user(Problem::NotHeard, partition, user));
        }
        let unregistered = census.held_of(user).iter().filter(|(name, connection)| {
            let is_it =
                |(incarnation, id): &(String, _)| **incarnation == **name && id == connection;
            !registered.iter().any(is_it)
        });
        for (name, connection) in unregistered {
            let held = (user, *connection);
            let finding = Finding::of_connection(Problem::NotRegistered, partition, held, name);
            findings.push(finding);
        }
        let mut problems = state.problems(census.taken_at_ms, self.rules.offline_grace);
        if !census.held_of(user).is_empty() {
            // Where a connection is only not registered, its user is rightly online.
            problems.retain(|problem| *problem != Problem::OnlineWithoutConnections);
        }
        let of_user = |problem| Finding::of_user(problem, partition, user);
        findings.extend(problems.into_iter().map(of_user));
        Ok(findings)
    }

    async fn look_at_owed(
        &self,
        partition: u32,
        incarnation: &str,
        census: &Census,
    ) -> Result<Vec<Finding>, EngineError> {
        let owes = self.exists(self.redis.keys.owed(partition, incarnation));
        let (owes, listed) = try_join(owes, self.lists(partition, incarnation)).await?;
        let gone = census.standing(incarnation) == Standing::Gone;
        let problems = [
            (gone && owes, Problem::OwedByUnknown),
            (gone && listed, Problem::UnknownMember),
            (!gone && owes && !listed, Problem::NotListed),
        ];
        let wrong = problems.into_iter().filter(|(wrong, _)| *wrong);
        Ok(wrong
            .map(|(_, problem)| Finding::of_node(problem, Some(partition), incarnation))
            .collect())
    }

    async fn look_at_entry(
        &self,
        partition: u32,
        incarnation: &str,
        held: Held,
    ) -> Result<Vec<Finding>, EngineError> {
        let (user, connection) = held;
        let field = format!("{incarnation}/{connection}");
        let key = self.redis.keys.connections(user);
        let registered = async {
            let registered = self.redis.servers.call::<bool>("HEXISTS", key, vec![field]);
            lenient(registered.await)
        };
        let owed = self.owes(partition, incarnation, held);
        let (registered, owed) = try_join(registered, owed).await?;
        let problem = (owed && !registered).then_some(Problem::OwedUnregistered);
        Ok(problem
            .map(|problem| Finding::of_connection(problem, partition, held, incarnation))
            .into_iter()
            .collect())
    }

    async fn look_at_node(
        &self,
        incarnation: &str,
        census: &Census,
    ) -> Result<Vec<Finding>, EngineError> {
        let problem = match census.standing(incarnation) {
            Standing::Alive => None,
            Standing::Silent => Some(Problem::Silent),
            Standing::Gone if census.has_lease(incarnation) => Some(Problem::LeaseOver),
            Standing::Gone => {
                let told = self.exists(self.redis.keys.node(incarnation)).await?;
                told.then_some(Problem::UnknownNode)
            }
        };
        Ok(problem
            .map(|problem| Finding::of_node(problem, None, incarnation))
            .into_iter()
            .collect())
    }

    async fn exists(&self, key: String) -> Result<bool, EngineError> {
        self.redis.servers.call("EXISTS", key, Vec::new()).await
    }

    async fn lists(&self, partition: u32, incarnation: &str) -> Result<bool, EngineError> {
        let key = self.redis.keys.registered_nodes(partition);
        let incarnation = vec![incarnation.to_owned()];
        lenient(self.redis.servers.call("SISMEMBER", key, incarnation).await)
    }

    async fn owes(
        &self,
        partition: u32,
        incarnation: &str,
        (user, connection): Held,
    ) -> Result<bool, EngineError> {
        let key = self.redis.keys.owed(partition, incarnation);
        let entry = format!("{user}/{connection}");
        lenient(self.redis.servers.call("SISMEMBER", key, vec![entry]).await)
    }
}

/// Whom or what a finding is about.
fn subject_of(finding: &Finding) -> Option<Subject> {
    let incarnation = || finding.incarnation.clone();
    match finding.problem {
        Problem::OwedByUnknown | Problem::UnknownMember | Problem::NotListed => {
            Some(Subject::Owed(finding.partition?, incarnation()?))
        }
        Problem::OwedUnregistered => {
            let held = (finding.user?, finding.connection?);
            Some(Subject::Entry(finding.partition?, incarnation()?, held))
        }
        Problem::UnknownNode | Problem::LeaseOver | Problem::Silent => {
            Some(Subject::Node(incarnation()?))
        }
        Problem::UnreadableConnection
        | Problem::Unreadable
        | Problem::WrongType
        | Problem::Misplaced => Some(Subject::Contents(finding.key.clone()?)),
        Problem::NodeGone
        | Problem::NodeUnaware
        | Problem::OnlineWithoutConnections
        | Problem::ConnectedButOffline
        | Problem::LeavingWithConnections
        | Problem::LeavingButOffline
        | Problem::Overdue
        | Problem::LeavingTooLate
        | Problem::NotOwed
        | Problem::NotRegistered
        | Problem::NotHeard => Some(Subject::User(finding.user?)),
        // About no data.
        Problem::Evicting => None,
    }
}
