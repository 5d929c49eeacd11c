//! Reads in steps small enough that Redis stays responsive.

use std::time::Duration;

use bytes::Bytes;
use fred::types::{FromValue, Value};

use super::Doctor;
use super::contents::is_wrong_type;
use super::finding::FindingKind;
use super::validator::{FAR_MS, read_connection_field};
use crate::engine::EngineError;
use crate::engine::redis::page::SCAN_COUNT;
use crate::engine::redis::page::{BEGINNING, ScanPage};
use crate::engine::redis::scripts::{bad_answer, unavailable};
use crate::engine::redis::servers::Master;
use crate::ids::{ConnectionId, UserId};

/// How long past their due time leaving users are tolerated: nodes sweep every second.
const OVERDUE_AFTER_MS: u64 = 5_000;

/// A user's state in Redis.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserState {
    pub(super) connections: u64,
    pub(super) online: bool,
    pub(super) leaving_at_ms: Option<u64>,
}

impl UserState {
    /// The contradictions in the state.
    pub(super) fn problems(self, now_ms: u64, grace: Duration) -> Vec<FindingKind> {
        let connected = self.connections > 0;
        let leaving = self.leaving_at_ms.is_some();
        let at_ms = self.leaving_at_ms;
        let overdue = at_ms.is_some_and(|at_ms| at_ms.saturating_add(OVERDUE_AFTER_MS) < now_ms);
        let latest_ms = now_ms + grace.as_millis() as u64 + FAR_MS;
        let too_late = at_ms.is_some_and(|at_ms| at_ms > latest_ms);
        let problems = [
            (connected && !self.online, FindingKind::ConnectedButOffline),
            (connected && leaving, FindingKind::LeavingWithConnections),
            (
                !connected && self.online && !leaving,
                FindingKind::OnlineWithoutConnections,
            ),
            (
                !connected && !self.online && leaving,
                FindingKind::LeavingButOffline,
            ),
            (!connected && self.online && overdue, FindingKind::Overdue),
            (
                !connected && self.online && too_late,
                FindingKind::LeavingTooLate,
            ),
        ];
        let wrong = problems.into_iter().filter(|(wrong, _)| *wrong);
        wrong.map(|(_, problem)| problem).collect()
    }
}

impl Doctor {
    /// One step through a set, a sorted set or a hash; the latter two return members and values alternately.
    pub(super) async fn page<T>(
        &self,
        command: &'static str,
        key: &str,
        cursor: &str,
    ) -> Result<ScanPage<T>, EngineError>
    where
        Vec<T>: FromValue,
    {
        self.redis.page(command, key, cursor, SCAN_COUNT).await
    }

    /// One step through the keys of a server.
    pub(super) async fn page_of_keys(
        &self,
        server: &Master,
        cursor: &str,
    ) -> Result<ScanPage<Bytes>, EngineError> {
        let args = vec![
            cursor.to_owned(),
            "MATCH".to_owned(),
            self.redis.keys.pattern(),
            "COUNT".to_owned(),
            SCAN_COUNT.to_string(),
        ];
        let (next, items) = server.ask("SCAN", args).await.map_err(unavailable)?;
        Ok(ScanPage::new(next, items))
    }

    /// The registered connections of a user: incarnation and number. Invalid entries are skipped.
    pub(super) async fn registered(
        &self,
        user: UserId,
    ) -> Result<Vec<(String, ConnectionId)>, EngineError> {
        let key = self.redis.keys.connections(user);
        let (mut registered, mut cursor) = (Vec::new(), Some(BEGINNING.to_owned()));
        while let Some(at) = cursor {
            let page: ScanPage<Bytes> = self.page("HSCAN", &key, &at).await?;
            let fields = page.items.iter().step_by(2);
            registered.extend(
                fields
                    .filter_map(|field| std::str::from_utf8(field).ok())
                    .filter_map(read_connection_field),
            );
            cursor = page.next;
        }
        Ok(registered)
    }

    /// The state of a user at one moment: commands sent together run together. `None` if a key has another type.
    pub(super) async fn state_of(&self, user: UserId) -> Result<Option<UserState>, EngineError> {
        let keys = &self.redis.keys;
        let partition = self.redis.partition_of(user);
        let key = keys.connections(user);
        let id = || user.to_string();
        let commands = [
            ("HLEN", vec![key.clone()]),
            ("SISMEMBER", vec![keys.online(partition), id()]),
            ("ZSCORE", vec![keys.leaving(partition), id()]),
        ];
        let answers = match self.redis.servers.call_together(&key, &commands).await {
            Ok(answers) => answers,
            Err(error) if is_wrong_type(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (connections, online, leaving_at_ms): (u64, bool, Option<f64>) =
            Value::Array(answers).convert().map_err(bad_answer)?;
        Ok(Some(UserState {
            connections,
            online,
            leaving_at_ms: leaving_at_ms.map(|at_ms| at_ms as u64),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(connections: u64, online: bool, leaving_at_ms: Option<u64>) -> Vec<FindingKind> {
        let state = UserState {
            connections,
            online,
            leaving_at_ms,
        };
        state.problems(1_000_000, Duration::from_secs(2))
    }

    #[test]
    fn states_that_scripts_leave_are_no_problem() {
        assert!(problems(0, false, None).is_empty(), "offline");
        assert!(problems(2, true, None).is_empty(), "online");
        assert!(problems(0, true, Some(1_000_500)).is_empty(), "leaving");
        assert!(problems(0, true, Some(999_000)).is_empty(), "just due");
        let late = 1_002_000 + FAR_MS;
        assert!(problems(0, true, Some(late)).is_empty(), "a long grace");
    }

    #[test]
    fn contradictions_are_problems() {
        assert_eq!(
            problems(0, true, None),
            [FindingKind::OnlineWithoutConnections]
        );
        assert_eq!(problems(1, false, None), [FindingKind::ConnectedButOffline]);
        assert_eq!(
            problems(1, true, Some(9)),
            [FindingKind::LeavingWithConnections]
        );
        assert_eq!(
            problems(1, false, Some(9)),
            [
                FindingKind::ConnectedButOffline,
                FindingKind::LeavingWithConnections
            ]
        );
        assert_eq!(
            problems(0, false, Some(9)),
            [FindingKind::LeavingButOffline]
        );
        assert_eq!(problems(0, true, Some(9)), [FindingKind::Overdue]);
        for late in [1_002_001 + FAR_MS, u64::MAX] {
            assert_eq!(problems(0, true, Some(late)), [FindingKind::LeavingTooLate]);
        }
    }
}
