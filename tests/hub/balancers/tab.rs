//! One client behind a balancer, which watches a user, and what it must have lived through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::WAYS;
use crate::harness::{
    Balancer, Client, Cluster, Connecting, Record, eventually, eventually_eq, revision,
};

/// Users that have tabs; some have two.
pub const USERS: u64 = 190;

/// One client.
pub struct Tab {
    client: Client,
    /// `None` for a guest.
    pub user: Option<u64>,
    pub watches: u64,
    upgrades: bool,
}

impl fmt::Display for Tab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, user) = (self.client.number(), self.user);
        write!(f, "client {number} (user {user:?})")
    }
}

impl Tab {
    /// Opens the tab of this number: its transports, its user and whom it watches follow from that.
    pub fn open(cluster: &Cluster, balancer: &Balancer, number: u64) -> Self {
        // Every third of each way has no account.
        let way = WAYS[(number % 3) as usize];
        let (group, is_guest) = (number / 3, (number / 3) % 3 == 2);
        let signed_in = (group / 3) * 6 + (group % 3) * 3 + number % 3;
        let user = (!is_guest).then_some(signed_in % USERS + 1);
        let connecting = match user {
            Some(user) => Connecting::user(user),
            None => Connecting::guest(),
        };
        let connecting = connecting
            .transports(way)
            .from(&format!("127.0.{}.{}", number / 200 + 1, number % 200 + 1))
            .steady()
            .with_own_backoff();
        let client = cluster.open_to(balancer.address(), connecting);
        let watches = number % USERS + 1;
        client.follow(watches);
        Self {
            client,
            user,
            watches,
            upgrades: way.len() > 1,
        }
    }

    /// Waits until it is connected over its last transport, and was answered about whom it watches.
    pub async fn settle(&mut self) {
        assert_eq!(self.client.next_verdict().await, Ok(()));
        if self.upgrades {
            assert_eq!(self.client.next_upgrade().await, "websocket");
        }
        let what = format!("{self} watches {}", self.watches);
        eventually(&what, async || self.answered().then_some(())).await;
    }

    /// Waits until it is connected over its last transport.
    pub async fn wait_until_connected(&self) {
        let wanted = (true, self.upgrades);
        eventually_eq(
            &format!("{self} is connected, upgraded"),
            wanted,
            async || {
                let records = self.client.events_so_far();
                let is_end = |record: &Record| matches!(record, Record::Disconnect { .. });
                let begin = records.iter().rposition(is_end).unwrap_or(0);
                let since = &records[begin..];
                let connected = |record: &Record| matches!(record, Record::Connect { .. });
                let upgraded = |record: &Record| matches!(record, Record::Upgrade { .. });
                (since.iter().any(connected), since.iter().any(upgraded))
            },
        )
        .await;
    }

    /// Whether the hub has answered that it watches.
    fn answered(&self) -> bool {
        let records = self.client.events_so_far();
        let is_answer = |record: &Record| {
            matches!(record, Record::Ack { event, args, .. }
                if event == "watch-profile" && args[0]["ok"] == true)
        };
        records.iter().any(is_answer)
    }

    /// The last revision that it was sent about whom it watches, by an update or in answer to `watch-profile`.
    pub fn last_revision(&self) -> Option<u64> {
        let records = self.client.events_so_far();
        let revisions = records.iter().rev().filter_map(|record| match record {
            Record::Event { name, args } if name == "profile-update" => {
                (args[0]["user"]["userID"] == self.watches).then(|| revision(&args[0]))
            }
            Record::Ack { event, args, .. } if event == "watch-profile" => {
                args[0]["revisions"]["profile"].as_u64()
            }
            _ => None,
        });
        revisions.take(1).next()
    }

    /// On each connection revisions of a user go up.
    pub fn assert_each_revision_came_once(&self) {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for record in self.client.events_so_far() {
            match record {
                Record::Connect { .. } => last.clear(),
                Record::Event { name, args } if name == "profile-update" => {
                    let about = args[0]["user"]["userID"].as_u64().expect("an id");
                    let came = revision(&args[0]);
                    let before = last.insert(about, came);
                    assert!(
                        before < Some(came),
                        "{self}: {came} of {about} after {before:?}"
                    );
                }
                _ => {}
            }
        }
    }

    /// Each restart has closed it once at most, and the first attempt to reconnect has succeeded.
    pub fn assert_first_attempts_succeeded(&self, restarts: usize) {
        let records = self.client.events_so_far();
        let failures: BTreeSet<String> = records
            .iter()
            .filter_map(|record| match record {
                Record::ConnectError { message } => Some(message.clone()),
                _ => None,
            })
            .collect();
        assert!(failures.is_empty(), "{self}: {failures:?}");
        let connected = |record: &&Record| matches!(record, Record::Connect { .. });
        let connects = records.iter().filter(connected).count();
        assert!(connects <= 1 + restarts, "{self}: {connects} connections");
    }

    /// The users that were announced offline to it.
    pub fn announced_offline(&self) -> Vec<u64> {
        let said = self.client.payloads("user-status-change");
        let offline = said.iter().filter(|said| said["status"] == "offline");
        offline.filter_map(|said| said["userId"].as_u64()).collect()
    }
}
