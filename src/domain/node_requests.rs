//! Answers requests of other processes: the doctor asks which connections this node holds; other nodes ask how many of
//! its connections watch a user.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::topic::Topics;
use crate::engine::{Engine, NodeRequest};
use crate::telemetry::warn_seldom;

/// Queued requests. One beyond that gets no answer; its sender repeats it.
const REQUESTS_MAX: usize = 16;

/// Requests in order of arrival.
pub(crate) struct NodeRequests {
    engine: Engine,
    topics: Arc<Topics>,
    waiting: Mutex<VecDeque<NodeRequest>>,
    arrived: Notify,
}

impl NodeRequests {
    pub(crate) fn new(engine: Engine, topics: Arc<Topics>) -> Self {
        Self {
            engine,
            topics,
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Queues a request, so that the message reader does not wait for the answer.
    pub(crate) fn enqueue(&self, request: NodeRequest) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < REQUESTS_MAX {
            waiting.push_back(request);
            self.arrived.notify_one();
        }
    }

    async fn next(&self) -> NodeRequest {
        loop {
            let next = self.waiting.lock().pop_front();
            match next {
                Some(request) => return request,
                None => self.arrived.notified().await,
            }
        }
    }

    /// Answers requests one after the other.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let outcome = match self.next().await {
                NodeRequest::Connections { reply } => {
                    let held = self.topics.own_connections(None);
                    self.engine.reply_connections(&reply, &held).await
                }
                NodeRequest::Watchers {
                    user,
                    asker,
                    count_id,
                } => {
                    let watchers = self.topics.watchers_of(user);
                    let watchers = watchers.friends.len() + watchers.strangers.len();
                    self.engine
                        .reply_watchers(&asker, count_id, watchers as u64)
                        .await
                }
            };
            if let Err(error) = outcome {
                warn_seldom!(%error, "could not answer a request from another process");
            }
        }
    }
}
