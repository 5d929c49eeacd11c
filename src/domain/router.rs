//! Hands each message of the engine to the service that it concerns.

use std::sync::Arc;

use super::health::Health;
use super::matchmaking::Matchmaking;
use super::presence::Presence;
use super::pulse::Pulses;
use super::questions::Questions;
use super::recovery::Recovery;
use super::survey::Surveys;
use super::topic::Topics;
use crate::engine::{Message, Messages, TopicMessage};

pub(crate) struct Router {
    pub(crate) topics: Arc<Topics>,
    pub(crate) matchmaking: Arc<Matchmaking>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) health: Arc<Health>,
    pub(crate) pulses: Arc<Pulses>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) surveys: Arc<Surveys>,
}

impl Router {
    /// Handles messages one after the other: their order is the order of events.
    pub(crate) async fn run(self, mut messages: Messages) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Presence {
                    partition,
                    transition,
                } => self.presence.receive(partition, transition).await,
                Message::Topic { user, message } => match message {
                    TopicMessage::MatchFound { .. }
                    | TopicMessage::MatchTimeout { .. }
                    | TopicMessage::MatchLeft => self.matchmaking.receive(user, message).await,
                    TopicMessage::Update(..)
                    | TopicMessage::Event { .. }
                    | TopicMessage::Disconnect { .. }
                    | TopicMessage::AccountDeleted => {
                        self.topics.receive(user, message).await;
                    }
                },
                Message::Canary { nonce } => self.health.canary_returned(nonce),
                Message::Asked(question) => self.questions.put(question),
                Message::Watchers { survey, watchers } => self.surveys.answered(survey, watchers),
                Message::Pulse { partition, pulse } => self.pulses.receive(partition, &pulse),
                Message::Interrupted(partitions) => self.recovery.interrupted(&partitions),
            }
        }
    }
}
