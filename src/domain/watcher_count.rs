//! Counts the connections that watch a user on all nodes: requests go to each node subscribed to the user's topic, and
//! their replies are added up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::engine::{Engine, EngineError};
use crate::ids::UserId;

/// How long to wait for all replies: an operator is waiting for the page.
const REPLIES_WITHIN: Duration = Duration::from_secs(1);

/// Capacity for replies; clusters have fewer nodes.
const REPLIES_MAX: usize = 1024;

/// The result of a count over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherCount {
    /// Connections on the nodes that replied.
    pub watchers: u64,
    /// Nodes subscribed to the user's topic.
    pub nodes: u64,
    /// Whether all of those nodes replied in time.
    pub is_complete: bool,
}

/// Counts in progress, by id.
pub(crate) struct PendingCounts {
    engine: Engine,
    last: AtomicU64,
    open: Mutex<HashMap<u64, mpsc::Sender<u64>>>,
}

/// One count in progress; late replies are dropped after it.
struct PendingCount<'a> {
    counts: &'a PendingCounts,
    number: u64,
    replies: mpsc::Receiver<u64>,
}

impl Drop for PendingCount<'_> {
    fn drop(&mut self) {
        self.counts.open.lock().remove(&self.number);
    }
}

impl PendingCounts {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            last: AtomicU64::default(),
            open: Mutex::default(),
        }
    }

    fn begin(&self) -> PendingCount<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::channel(REPLIES_MAX);
        self.open.lock().insert(number, sender);
        PendingCount {
            counts: self,
            number,
            replies,
        }
    }

    /// Adds the reply of a node.
    pub(crate) fn replied(&self, number: u64, watchers: u64) {
        if let Some(sender) = self.open.lock().get(&number) {
            // A reply beyond the capacity is dropped.
            let _ = sender.try_send(watchers);
        }
    }

    pub(crate) async fn count_watchers(&self, user: UserId) -> Result<WatcherCount, EngineError> {
        let mut count = self.begin();
        let nodes = self.engine.request_watchers(user, count.number).await?;
        let (mut watchers, mut replied) = (0, 0);
        let add_up = async {
            while replied < nodes {
                let Some(more) = count.replies.recv().await else {
                    return;
                };
                watchers = u64::saturating_add(watchers, more);
                replied += 1;
            }
        };
        // `is_complete` tells whether a node did not reply in time.
        let _ = tokio::time::timeout(REPLIES_WITHIN, add_up).await;
        Ok(WatcherCount {
            watchers,
            nodes,
            is_complete: replied == nodes,
        })
    }
}
