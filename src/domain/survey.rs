//! How many connections watch a user on all nodes: a request goes to each node that listens to the user's topic, and
//! their replies are added up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::engine::{Engine, EngineError};
use crate::ids::UserId;

/// How long the nodes may take to reply, all together: an operator waits for the page.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Replies that wait to be added up. Clusters have fewer nodes.
const ANSWERS_MAX: usize = 1024;

/// How many connections watch a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherCount {
    /// Connections on the nodes that replied.
    pub watchers: u64,
    /// Nodes that listen to the user's topic.
    pub nodes: u64,
    /// Whether all of them replied in time.
    pub is_complete: bool,
}

/// Counts under way, by their numbers.
pub(crate) struct Surveys {
    engine: Engine,
    last: AtomicU64,
    open: Mutex<HashMap<u64, mpsc::Sender<u64>>>,
}

/// One count under way. Dropping it forgets late replies.
struct Survey<'a> {
    surveys: &'a Surveys,
    number: u64,
    answers: mpsc::Receiver<u64>,
}

impl Drop for Survey<'_> {
    fn drop(&mut self) {
        self.surveys.open.lock().remove(&self.number);
    }
}

impl Surveys {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            last: AtomicU64::default(),
            open: Mutex::default(),
        }
    }

    fn begin(&self) -> Survey<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        self.open.lock().insert(number, sender);
        Survey {
            surveys: self,
            number,
            answers,
        }
    }

    /// Takes the reply of a node.
    pub(crate) fn answered(&self, number: u64, watchers: u64) {
        if let Some(sender) = self.open.lock().get(&number) {
            // A reply beyond the capacity is not counted.
            let _ = sender.try_send(watchers);
        }
    }

    /// Counts the connections that watch `user`.
    pub(crate) async fn count_watchers(&self, user: UserId) -> Result<WatcherCount, EngineError> {
        let mut survey = self.begin();
        let nodes = self.engine.ask_watchers(user, survey.number).await?;
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
        // `is_complete` says that a node did not reply in time.
        let _ = tokio::time::timeout(ANSWERED_WITHIN, add_up).await;
        Ok(WatcherCount {
            watchers,
            nodes,
            is_complete: answered == nodes,
        })
    }
}
