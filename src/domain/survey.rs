//! How many connections watch a user, on all nodes: those that listen to the user's topic are asked, and answer to the
//! node that asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Hub;
use crate::engine::EngineError;
use crate::ids::UserId;

/// How long the nodes may take to answer, all together: somebody waits in front of a page.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Answers that wait to be added up. There are hardly more nodes.
const ANSWERS_MAX: usize = 1024;

/// How many watch a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherCount {
    /// Connections that watch the user, on the nodes that answered.
    pub watchers: u64,
    /// Nodes that listen to the user's topic.
    pub nodes: u64,
    /// Whether all of them answered in time.
    pub is_complete: bool,
}

/// Surveys under way, by their numbers.
#[derive(Default)]
pub(crate) struct Surveys {
    last: AtomicU64,
    open: Mutex<HashMap<u64, mpsc::Sender<u64>>>,
}

/// A survey under way, forgotten when whoever asked has an answer, or leaves before.
struct Survey<'a> {
    surveys: &'a Surveys,
    number: u64,
    answers: mpsc::Receiver<u64>,
}

impl Drop for Survey<'_> {
    fn drop(&mut self) {
        self.surveys.open().remove(&self.number);
    }
}

impl Surveys {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<u64>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Survey<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        self.open().insert(number, sender);
        Survey {
            surveys: self,
            number,
            answers,
        }
    }

    /// A node answered.
    pub(crate) fn answered(&self, number: u64, watchers: u64) {
        if let Some(sender) = self.open().get(&number) {
            // Nobody waits for more than there is room for.
            let _ = sender.try_send(watchers);
        }
    }
}

impl Hub {
    /// How many connections watch `user`, on all nodes.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn count_watchers(&self, user: UserId) -> Result<WatcherCount, EngineError> {
        let mut survey = self.surveys().begin();
        let nodes = self.engine().ask_watchers(user, survey.number).await?;
        let (mut watchers, mut answered) = (0, 0);
        let add_up = async {
            while answered < nodes {
                let Some(more) = survey.answers.recv().await else {
                    return;
                };
                watchers = u64::saturating_add(watchers, more);
                answered += 1;
            }
        };
        // Who does not answer in time is not counted, which the answer says.
        let _ = tokio::time::timeout(ANSWERED_WITHIN, add_up).await;
        Ok(WatcherCount {
            watchers,
            nodes,
            is_complete: answered == nodes,
        })
    }
}
