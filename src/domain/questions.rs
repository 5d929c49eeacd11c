//! Answers what a node is asked from outside: by the doctor, which connections it holds; by other nodes, how many of its
//! connections watch a user.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Hub;
use crate::engine::Question;
use crate::telemetry::warn_seldom;

/// Questions that wait for their answer; whoever asks beyond that hears nothing and asks again.
const QUESTIONS_MAX: usize = 16;

/// Questions to be answered, in the order in which they came.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: Mutex<VecDeque<Question>>,
    asked: Notify,
}

impl Questions {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the question answered, without holding up the reader of messages.
    pub(crate) fn put(&self, question: Question) {
        let mut waiting = self.waiting();
        if waiting.len() < QUESTIONS_MAX {
            waiting.push_back(question);
            self.asked.notify_one();
        }
    }

    async fn next(&self) -> Question {
        loop {
            let next = self.waiting().pop_front();
            match next {
                Some(question) => return question,
                None => self.asked.notified().await,
            }
        }
    }
}

impl Hub {
    /// Answers questions, for ever.
    pub(crate) async fn keep_answering(&self) {
        loop {
            let outcome = match self.questions().next().await {
                Question::Connections { reply } => {
                    let held = self.topics().own_connections(None);
                    self.engine().answer(&reply, &held).await
                }
                Question::Watchers {
                    user,
                    asker,
                    survey,
                } => {
                    let watchers = self.topics().watchers_of(user);
                    let watchers = watchers.friends.len() + watchers.strangers.len();
                    let engine = self.engine();
                    engine.tell_watchers(&asker, survey, watchers as u64).await
                }
            };
            if let Err(error) = outcome {
                warn_seldom!(%error, "could not answer a question");
            }
        }
    }
}
