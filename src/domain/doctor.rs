//! Answers what the doctor asks every node: which connections do you hold?

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Hub;

/// Questions that wait for their answer; whoever asks beyond that hears nothing and asks again.
const QUESTIONS_MAX: usize = 16;

/// Questions to be answered, in the order in which they came.
#[derive(Default)]
pub(crate) struct Questions {
    replies: Mutex<VecDeque<String>>,
    asked: Notify,
}

impl Questions {
    fn replies(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the question answered under `reply`, without holding up the reader of messages.
    pub(crate) fn put(&self, reply: String) {
        let mut replies = self.replies();
        if replies.len() < QUESTIONS_MAX {
            replies.push_back(reply);
            self.asked.notify_one();
        }
    }

    async fn next(&self) -> String {
        loop {
            let next = self.replies().pop_front();
            match next {
                Some(reply) => return reply,
                None => self.asked.notified().await,
            }
        }
    }
}

impl Hub {
    /// Answers questions, for ever.
    pub(crate) async fn keep_answering(&self) {
        loop {
            let reply = self.questions().next().await;
            let held = self.topics().own_connections();
            if let Err(error) = self.engine().answer(&reply, &held).await {
                tracing::debug!(%error, "could not answer which connections are held");
            }
        }
    }
}
