//! Answers requests of other processes: the doctor asks which connections the node holds, other nodes ask how many of
//! its connections watch a user.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::topic::Topics;
use crate::engine::{Engine, Question};
use crate::telemetry::warn_seldom;

/// Requests that wait. A request beyond that gets no answer, and its sender asks again.
const QUESTIONS_MAX: usize = 16;

/// Requests in the order of their arrival.
pub(crate) struct Questions {
    engine: Engine,
    topics: Arc<Topics>,
    waiting: Mutex<VecDeque<Question>>,
    asked: Notify,
}

impl Questions {
    pub(crate) fn new(engine: Engine, topics: Arc<Topics>) -> Self {
        Self {
            engine,
            topics,
            waiting: Mutex::default(),
            asked: Notify::new(),
        }
    }

    /// Queues a request, so that it does not hold up the reader of messages.
    pub(crate) fn put(&self, question: Question) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < QUESTIONS_MAX {
            waiting.push_back(question);
            self.asked.notify_one();
        }
    }

    async fn next(&self) -> Question {
        loop {
            let next = self.waiting.lock().pop_front();
            match next {
                Some(question) => return question,
                None => self.asked.notified().await,
            }
        }
    }

    /// Answers requests, one after the other.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let outcome = match self.next().await {
                Question::Connections { reply } => {
                    let held = self.topics.own_connections(None);
                    self.engine.answer(&reply, &held).await
                }
                Question::Watchers {
                    user,
                    asker,
                    survey,
                } => {
                    let watchers = self.topics.watchers_of(user);
                    let watchers = watchers.friends.len() + watchers.strangers.len();
                    self.engine
                        .tell_watchers(&asker, survey, watchers as u64)
                        .await
                }
            };
            if let Err(error) = outcome {
                warn_seldom!(%error, "could not answer a question");
            }
        }
    }
}
